# Servers that log people in, or change keys, in ways of their own; and passwords
# that an askpass program knows.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2119,SC2120,SC2153
. "$TESTDIR/lib.sh"

home
[ -e "$T/host" ] || ssh-keygen -q -t ed25519 -N '' -f "$T/host"

# The server of odd.py, in this shell's place
exec_odd() {
	exec /usr/bin/python3 "$TESTDIR/odd.py" "$PORT" "$ODD" "$T/host" "$T/home/.ssh/authorized_keys" \
		"$PASSWORD" >"$SERVER_LOG" 2>&1
}

# odd KIND
odd() {
	[ -z "$SERVER_PID" ] || stop_server
	SERVER=odd
	ODD=$1
	start_on_port exec_odd
	known "$T/host.pub" >"$T/known_hosts"
}
SERVER_PID=

# comes_in NAME OUTPUT WORD...: what `hello` says through a connection of its own
comes_in() {
	in_name=$1 in_want=$2
	shift 2
	is "$in_name" "$("$SSHMUX" -F none -S none -o StrictHostKeyChecking=yes \
		-o UserKnownHostsFile="$T/known_hosts" -p "$PORT" -l "$ME" "$@" 127.0.0.1 hello 2>&1 </dev/null)" "$in_want"
}

exchanging() { mx -O conninfo 2>&1 | grep -q "exchanging keys"; }

odd_servers() {
	odd late
	need_master
	is "data between the server's KEXINIT and NEWKEYS" "$(sx pour </dev/null 2>&1 | sum)" \
		"$(yes 0123456789abcdef | tr -d '\n' | head -c $((400 * 16384)) | sum)"
	works "the exchanges took place" test "$(mx -O conninfo 2>&1 | sed -n 's/.*rekey count \([0-9]*\).*/\1/p')" -gt 3
	stop_master
	need_master
	sx stick >"$T/out" 2>&1 </dev/null &
	ends_later $!
	wait_for 20 exchanging
	like "a server that does not end a change of keys: why nobody is served" \
		"$(timeout 30 "$SSHMUX" -F none -o Fallback=no --wait=1 -S "$CTL" x true 2>&1)" '*exchanging keys*'
	stop_master
	odd unnamed
	comes_in "a server that names no methods takes a key" in -i "$KEY" -o BatchMode=yes
	odd rounds
	export DROPBEAR_PASSWORD="$PASSWORD"
	comes_in "DROPBEAR_PASSWORD answers in each round" in -o BatchMode=yes
	unset DROPBEAR_PASSWORD
	odd slow
	comes_in "a server that drops what comes before it accepts" in -i "$KEY" -o BatchMode=yes -o ConnectTimeout=20
}

# A server and an agent with a script; and a user at a terminal, who looks away for a
# while when all passwords are typed.
scripted() {
	logins=${MUXC%/*}/logins
	if [ ! -x "$logins" ]; then
		skip "scripted logins" "not built here"
		return
	fi
	each "script" "$logins"
	printf '%s\n' '#!/bin/sh' "'$logins' ask '$T/seen' >'$T/asked'" 'exit $?' >"$T/ask"
	chmod 755 "$T/ask"
	works "a user at a terminal" "$PTY" expect 'password: ' send 'wrong\r' expect 'password: ' send '\r' \
		expect 'password: ' send "$(printf %0600d 0 | tr 0 x)\\r" expect 'password: ' send '\032x\r' \
		expect 'password: ' send '\004' expect 'password: ' send 'ab\004\004' \
		expect 'Shown: ' send 'here\r' expect 'Hidden: ' send 'there\r' \
		expect 'Shown: ' send 'here\r' expect 'Hidden: ' send '\004' expect 'password: ' send 'pass\r' \
		sendonly 'at last\r' wait "$T/seen" end -- "$T/ask"
	each "terminal" cat "$T/asked"
}

# An askpass program: what it is asked goes to a file, what it says comes from one
askpass() {
	printf '%s\n' '#!/bin/sh' "echo \"\$1\" >>'$T/asked'" "[ ! -e '$T/refuse' ] || exit 1" \
		"cat '$T/said'" >"$T/askpass"
	chmod 755 "$T/askpass"
	printf %s "$PASSWORD" >"$T/said"
	: >"$T/home/.ssh/authorized_keys"
	stop_server
	start_sshd 'PasswordAuthentication yes' 'KbdInteractiveAuthentication no'
	export SSH_ASKPASS="$T/askpass" DISPLAY=:no
	: >"$T/asked"
	setsid "$SSHMUX" -F none -S none -o UserKnownHostsFile="$T/known_hosts" -p "$PORT" -l "$ME" \
		127.0.0.1 'echo in' >"$T/got" 2>&1 </dev/null
	is "without a terminal SSH_ASKPASS is asked" "$(cat "$T/got")" in
	is "and is told for what" "$(cat "$T/asked")" "$ME@127.0.0.1's password: "
	echo wrong >"$T/said"
	for n in 1 2; do
		: >"$T/asked"
		setsid "$SSHMUX" -F none -S none -o NumberOfPasswordPrompts=$n -o UserKnownHostsFile="$T/known_hosts" \
			-p "$PORT" -l "$ME" 127.0.0.1 true >"$T/got" 2>&1 </dev/null
		is "NumberOfPasswordPrompts=$n" "$? $(grep -c password "$T/asked")" "255 $n"
	done
	: >"$T/refuse"
	: >"$T/asked"
	setsid "$SSHMUX" -F none -S none -o UserKnownHostsFile="$T/known_hosts" -p "$PORT" -l "$ME" \
		127.0.0.1 true >"$T/got" 2>&1 </dev/null
	is "one that gives no answer" "$? $(lines "$T/asked")" "255 1"
	rm "$T/refuse"
	printf '%s\n' "$PASSWORD" >"$T/said"
	for how in 'never :no 255 0' 'force  0 1' 'prefer :no 0 1' 'prefer  255 0'; do
		IFS=' '
		set -- ${how%% *} "${how#* }"
		display=${2%% *}
		set -- "$1" ${2#* }
		unset IFS
		: >"$T/asked"
		DISPLAY=$display SSH_ASKPASS_REQUIRE=$1 setsid "$SSHMUX" -F none -S none \
			-o UserKnownHostsFile="$T/known_hosts" -p "$PORT" -l "$ME" 127.0.0.1 true >"$T/got" 2>&1 </dev/null
		is "SSH_ASKPASS_REQUIRE=$1, DISPLAY=$display" "$? $(lines "$T/asked")" "$2 $3"
	done
	printf 'yes\n' >"$T/said"
	cp "$KEY.pub" "$T/home/.ssh/authorized_keys"
	: >"$T/asked"
	setsid "$SSHMUX" -F none -S none -i "$KEY" -o UserKnownHostsFile="$T/new_hosts" -p "$PORT" -l "$ME" \
		127.0.0.1 'echo in' >"$T/got" 2>&1 </dev/null
	like "a host that is not known" "$(cat "$T/asked")" "The authenticity of host '[[]127.0.0.1]:$PORT ([[]127.0.0.1]:$PORT)' can't be established.*Are you sure*"
	like "the answer is yes" "$(cat "$T/got")" "*in"
	is "the key is remembered" "$(lines "$T/new_hosts")" 1
	setsid "$SSHMUX" -F none -M -S "$CTL" -f -N -i "$KEY" -o UserKnownHostsFile="$T/other_hosts" -p "$PORT" -l "$ME" \
		127.0.0.1 >"$T/got" 2>&1 </dev/null
	is "-f -M -N from a desktop" "$?" 0
	mx -O exit >"$T/got" 2>&1
	unset SSH_ASKPASS DISPLAY
}

if [ "$MASTER" = stock ]; then
	skip "logins" "of sshmux alone"
	finish
fi
scripted
odd_servers
askpass
finish
