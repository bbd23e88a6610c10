# Ways to log in: keys, agents, passwords, host keys, addresses, options.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

# enters NAME WORD...: a master with these options logs in and works
enters() {
	enters_name=$1
	shift
	if start_master "$@"; then alive "$enters_name"; else not_ok "$enters_name"; fi
	stop_master
}

# stays_out NAME WORD...: it ends by itself with 255
stays_out() {
	stays_name=$1
	shift
	if start_master "$@" 2>/dev/null >/dev/null; then
		not_ok "$stays_name"
		stop_master
	else
		reap_master
		is "$stays_name" "$MASTER_RC" 255
	fi
}

# at_terminal QUESTION ANSWER WORD...: what a command says that is preceded by a
# question; the terminal changes its size before the answer
at_terminal() {
	at_question=$1 at_answer=$2
	shift 2
	"${MUXC%/*}/pty" size 24 80 expect "$at_question" size 30 90 send "$at_answer\\r" end -- \
		"$SSHMUX" -F none -p "$PORT" -l "$ME" "$@" 127.0.0.1 'echo in' 2>&1 </dev/null | tr -d '\r' | grep '^in$'
}

# What the router profile has no room for is named, and the login goes on without
small="ecdsa-384 ecdsa-521 rsa-4096"
case $MASTER-$("$SSHMUX" --version 2>/dev/null) in
sshmux-*router*) left_out=$small small= ;;
*) left_out= ;;
esac

left_out_keys() {
	for type in $left_out; do
		[ -e "$T/small-$type" ] ||
			ssh-keygen -q -t ${type%-*} -b ${type#*-} -N '' -f "$T/small-$type"
		enters "key: $type is left out, another one serves" -i "$T/small-$type"
		like "key: $type: it is named" "$(cat "$T/master.log")" "*small-$type ignored*"
	done
}

user_keys() {
	kept=$KEY
	for type in ed25519 ecdsa-256 rsa-2048 $small; do
		KEY=$T/user-$type
		if [ ! -e "$KEY" ]; then
			case $type in
			ed25519) ssh-keygen -q -t ed25519 -N '' -f "$KEY" ;;
			*) ssh-keygen -q -t ${type%-*} -b ${type#*-} -N '' -f "$KEY" ;;
			esac
			dropbearconvert openssh dropbear "$KEY" "$KEY.db" 2>"$T/err"
			cat "$KEY.pub" >>"$T/home/.ssh/authorized_keys"
		fi
		enters "key: $type, OpenSSH format"
		if [ "$MASTER" != stock ]; then
			KEY=$KEY.db
			enters "key: $type, dropbear format"
		fi
	done
	KEY=$T/user-pem
	[ -e "$KEY" ] || ssh-keygen -q -t rsa -b 2048 -m PEM -N '' -f "$KEY"
	cat "$KEY.pub" >>"$T/home/.ssh/authorized_keys"
	enters "key: rsa-2048, PEM format"
	[ -e "$T/user-p8" ] || ssh-keygen -q -t ecdsa -m PKCS8 -N '' -f "$T/user-p8"
	enters "key: one in PKCS#8, and another" -i "$T/user-p8" -i "$KEY"
	[ "$MASTER" = stock ] || works "key: what makes one in PKCS#8 usable is said" grep -q "$T/user-p8 ignored: PKCS#8.*ssh-keygen -p -f" "$T/master.log"
	cat "$T/user-p8.pub" >>"$T/home/.ssh/authorized_keys"
	cp "$T/user-p8" "$T/user-p8-made"
	ssh-keygen -q -p -P '' -N '' -f "$T/user-p8-made"
	KEY=$T/user-p8-made
	enters "key: which it does"
	KEY=$T/user-rsa-2048
	enters "RequiredRSASize: a key that is long enough" -o RequiredRSASize=2048
	stays_out "RequiredRSASize: a key that is too short" -o RequiredRSASize=2049
	[ "$MASTER" = stock ] || like "RequiredRSASize: it is named" "$(cat "$T/master.log")" \
		"*user-rsa-2048 ignored: 2048 bits, less than RequiredRSASize*"
	KEY=$T/user-pem
	[ -e "$T/stranger" ] || ssh-keygen -q -t ed25519 -N '' -f "$T/stranger"
	KEY=$T/stranger
	enters "several keys, the second is the right one" -i "$KEY" -i "$kept"
	KEY=$kept
	if home_can_be_ours; then
		cp "$kept" "$T/home/.ssh/id_ed25519"
		ALSO=passwd
		enters_plain "the default key file" -o BatchMode=yes \
			-o UserKnownHostsFile="$T/known_hosts"
		cp "$T/known_hosts" "$T/home/.ssh/known_hosts"
		enters_plain "the default known_hosts too" -o BatchMode=yes
		ALSO=
		rm "$T/home/.ssh/known_hosts" "$T/home/.ssh/id_ed25519"
	fi
}

# The home directory of the passwd file is what counts; a test can only change
# it for a program that loads libraries.
home_can_be_ours() {
	[ "$MASTER" != stock ] && grep -q 'ld-linux' "$SSHMUX" && ! grep -q __asan_init "$SSHMUX"
}

# enters_plain NAME WORD...: without the usual options
enters_plain() {
	plain_name=$1
	shift
	if [ -n "$ALSO" ]; then
		env LD_PRELOAD="$HOMELIB" TEST_ME="$ME" TEST_HOME="$T/home" TEST_SHELL=/bin/sh \
			"$SSHMUX" -M -S "$CTL" -N -p "$PORT" \
			"$@" 127.0.0.1 >"$T/master.out" 2>"$T/master.log" </dev/null &
	else
		run_master "$@" "${HOST:-127.0.0.1}" >"$T/master.out" 2>"$T/master.log" </dev/null &
	fi
	MASTER_PID=$!
	ends_later $MASTER_PID
	if wait_for 60 master_settled && ! gone $MASTER_PID; then alive "$plain_name"; else
		not_ok "$plain_name"
		note "$(cat "$T/master.log")"
	fi
	stop_master
}

agents() {
	[ "$MASTER" != stock ] || return 0
	rm -f "$T/agent"
	ssh-agent -D -a "$T/agent" >"$T/out" 2>&1 &
	agent=$!
	ends_later $agent
	wait_for 10 test -S "$T/agent"
	SSH_AUTH_SOCK=$T/agent ssh-add -q "$T/key" 2>"$T/err"
	SSH_AUTH_SOCK=$T/agent ssh-add -q "$T/user-rsa-2048" 2>"$T/err"
	SSH_AUTH_SOCK=$T/agent
	export SSH_AUTH_SOCK
	set -- -o BatchMode=yes -o UserKnownHostsFile="$T/known_hosts"
	enters_plain "agent" "$@"
	enters_plain "agent, an RSA key named by its file, IdentitiesOnly" "$@" \
		-o IdentitiesOnly=yes -i "$T/user-rsa-2048"
	mv "$T/user-rsa-2048" "$T/away"
	enters_plain "agent, a key named by its public file" "$@" \
		-o IdentitiesOnly=yes -i "$T/user-rsa-2048.pub"
	mv "$T/away" "$T/user-rsa-2048"
	kill -STOP $agent
	began=$(date +%s)
	run_master "$@" -i "$T/stranger" 127.0.0.1 >"$T/out" 2>"$T/err" </dev/null &
	MASTER_PID=$!
	reap_in_time "a stopped agent does not hang the login"
	like "a stopped agent is named" "$(cat "$T/err")" '*agent*'
	run_master "$@" -i "$T/key" 127.0.0.1 >"$T/out" 2>"$T/err" </dev/null &
	MASTER_PID=$!
	wait_for 60 master_settled
	works "a stopped agent does not keep a key file from working" test -S "$CTL"
	stop_master
	kill -CONT $agent
	end $agent
	unset SSH_AUTH_SOCK
}

reap_in_time() {
	wait_for 60 gone $MASTER_PID
	reap_master
	is "$1" "$MASTER_RC" 255
}

passwords() {
	[ "$MASTER" != stock ] || return 0
	mv "$T/home/.ssh/authorized_keys" "$T/away"
	: >"$T/home/.ssh/authorized_keys"
	set -- -o UserKnownHostsFile="$T/known_hosts" -o StrictHostKeyChecking=yes
	DROPBEAR_PASSWORD=$PASSWORD
	export DROPBEAR_PASSWORD
	enters_plain "DROPBEAR_PASSWORD" "$@"
	enters_plain "DROPBEAR_PASSWORD with BatchMode" -o BatchMode=yes "$@"
	DROPBEAR_PASSWORD=wrong
	run_master "$@" 127.0.0.1 >"$T/out" 2>"$T/err" </dev/null &
	MASTER_PID=$!
	reap_in_time "a wrong password is refused"
	unset DROPBEAR_PASSWORD
	run_master "$@" 127.0.0.1 >"$T/out" 2>"$T/err" </dev/null &
	MASTER_PID=$!
	reap_in_time "no password and no terminal: nothing waits"
	# With a terminal: script(1) gives one, the password is typed at it.
	if command -v script >/dev/null; then
		mkfifo "$T/keys"
		exec 8<>"$T/keys"
		(exec 8<&-; exec script -qec "exec $SSHMUX -M -S $CTL -N -p $PORT -l $ME $* 127.0.0.1" \
			"$T/typescript") <"$T/keys" >"$T/out" 2>&1 &
		typing=$!
		ends_later $typing
		wait_for 30 grep -qi password "$T/out"
		works "a terminal is asked for the password" grep -qi password "$T/out"
		printf '%s\n' "$PASSWORD" >&8
		wait_for 30 test -S "$CTL"
		alive "a typed password logs in"
		is "and is not echoed" "$(grep -c "$PASSWORD" "$T/out")" 0
		ssh -F none -S "$CTL" -O exit x 2>"$T/err"
		wait_for 20 gone $typing
		exec 8<&-
		rm "$T/keys"
	fi
	is "a terminal that changes its size while a password is typed" "$(at_terminal 'assword: ' "$PASSWORD" "$@")" in
	mv "$T/away" "$T/home/.ssh/authorized_keys"
}

# Lists of keys that no host may show, whatever known_hosts says
revoked_keys() {
	cp "$right" "$T/known_hosts"
	cut -d' ' -f2- "$right" >"$T/revoked"
	stays_out "RevokedHostKeys: the host's" -o "RevokedHostKeys=$T/revoked"
	[ "$MASTER" = stock ] || like "RevokedHostKeys: it is said" "$(cat "$T/master.log")" "*is revoked by $T/revoked:1*"
	sed "s/\$/ $(head -c 20000 /dev/zero | tr '\0' x)/" "$T/revoked" >"$T/long"
	stays_out "RevokedHostKeys: a long comment" -o "RevokedHostKeys=$T/long"
	stays_out "RevokedHostKeys: a list that is not there" -o "RevokedHostKeys=$T/no-list"
	{ sed 's/^/# /' "$T/revoked"; cat "$T/stranger.pub"; } >"$T/revoked.%p"
	enters "RevokedHostKeys: another host's, and a token" -o "RevokedHostKeys=$T/revoked.%%p"
	enters "RevokedHostKeys: none" -o RevokedHostKeys=none
	[ "$MASTER" != stock ] || return 0
	ssh-keygen -q -k -f "$T/krl" "$T/stranger.pub"
	stays_out "RevokedHostKeys: a KRL" -o "RevokedHostKeys=$T/krl"
	like "RevokedHostKeys: which is named" "$(cat "$T/master.log")" "*$T/krl is a KRL*"
}

# Variants of known_hosts for the same key
host_keys() {
	right=$T/right
	cp "$T/known_hosts" "$right"
	enters "known_hosts: [host]:port"
	printf '%s,%s %s\n' somewhere.example '[127.0.0.1]:'$PORT "$(cut -d' ' -f2- "$right")" >"$T/known_hosts"
	enters "known_hosts: several names"
	cp "$right" "$T/known_hosts"
	ssh-keygen -q -H -f "$T/known_hosts" >"$T/out" 2>&1
	rm -f "$T/known_hosts.old"
	is "known_hosts: the test's line is hashed" "$(grep -c '^|1|' "$T/known_hosts")" \
		"$(lines "$T/known_hosts")"
	enters "known_hosts: hashed"
	{
		echo '# a comment'
		echo
		echo 'garbage'
		echo "other.example $(cut -d' ' -f2- "$T/stranger.pub")"
		cat "$right"
	} >"$T/known_hosts"
	enters "known_hosts: comments and other lines"
	printf '* %s\n' "$(cut -d' ' -f2- "$right")" >"$T/known_hosts"
	enters "known_hosts: a pattern"
	printf '!%s,!127.0.0.1,* %s\n' "[127.0.0.1]:$PORT" "$(cut -d' ' -f2- "$right")" >"$T/known_hosts"
	stays_out "known_hosts: a negated pattern"
	{
		known "$T/stranger.pub" | sed 's/^/@cert-authority /'
		known "$T/stranger.pub" | sed 's/^/@revoked /'
		cat "$right"
	} >"$T/known_hosts"
	enters "known_hosts: other keys revoked, a certificate authority"
	revoked_keys
	cp "$right" "$T/known_hosts"
	printf 'alias.example %s\n' "$(cut -d' ' -f2- "$right")" >"$T/known_hosts"
	enters "HostKeyAlias" -o HostKeyAlias=alias.example
	cp "$right" "$T/second"
	: >"$T/known_hosts"
	enters "UserKnownHostsFile: two files" -o "UserKnownHostsFile=$T/known_hosts $T/second"

	: >"$T/known_hosts"
	stays_out "StrictHostKeyChecking=yes, unknown"
	stays_out "StrictHostKeyChecking=ask without a terminal" -o StrictHostKeyChecking=ask
	enters "StrictHostKeyChecking=accept-new, unknown" -o StrictHostKeyChecking=accept-new
	works "accept-new has stored the key" grep -q "$(cut -d' ' -f3 "$right" | head -n 1)" "$T/known_hosts"
	enters "and it holds the next time"
	known "$T/stranger.pub" >"$T/known_hosts"
	stays_out "StrictHostKeyChecking=accept-new, changed" -o StrictHostKeyChecking=accept-new
	: >"$T/known_hosts"
	enters "StrictHostKeyChecking=no, unknown" -o StrictHostKeyChecking=no
	cp "$right" "$T/known_hosts"

	if [ "$MASTER" != stock ]; then
		: >"$T/known_hosts"
		set -- -i "$KEY" -o UserKnownHostsFile="$T/known_hosts"
		is "a terminal is asked whether the host is the right one: no" "$(at_terminal 'fingerprint])? ' no "$@")" ''
		is "no is not stored" "$(lines "$T/known_hosts")" 0
		is "a terminal is asked whether the host is the right one: yes" "$(at_terminal 'fingerprint])? ' yes "$@")" in
		works "yes is stored" grep -q "$(cut -d' ' -f3 "$right" | head -n 1)" "$T/known_hosts"
		pin=$(ssh-keygen -lf "${SERVER_KEYS%% *}.pub" | cut -d' ' -f2)
		: >"$T/known_hosts"
		enters "HostKeyFingerprint in place of known_hosts" -o HostKeyFingerprint="$pin"
		cp "$right" "$T/known_hosts"
		stays_out "HostKeyFingerprint of another key" -o HostKeyFingerprint=SHA256:abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq
	fi
}

# A server with several host keys of which one is known: that one is asked for.
several_types() {
	SSHD_KEYS=
	for type in ed25519 ecdsa rsa; do
		ssh-keygen -q -t $type -N '' -f "$T/host-$type"
		SSHD_KEYS="$SSHD_KEYS $T/host-$type"
	done
	start_sshd
	for type in ed25519 ecdsa rsa; do
		known "$T/host-$type.pub" >"$T/known_hosts"
		enters "only the $type key of the server is known"
	done
	enters "RequiredRSASize: a host key that is long enough" -o RequiredRSASize=3072
	stays_out "RequiredRSASize: a host key that is too short" -o RequiredRSASize=3073
	known "$T/host-ed25519.pub" "$T/host-ecdsa.pub" "$T/host-rsa.pub" >"$T/known_hosts"
	enters "all keys of the server are known"
	stop_server
}

addresses() {
	if have_ipv6; then
		HOST=::1
		enters "IPv6"
		printf 'both %s\n' "$(cut -d' ' -f2- "$T/known_hosts")" >"$T/known_both"
		HOST=
	fi
	HOST="$ME@127.0.0.1"
	enters "user@host"
	HOST=localhost
	enters "a name with several addresses" -o HostKeyAlias=alias.example \
		-o UserKnownHostsFile="$T/aliased"
	HOST=
}

options() {
	enters "chosen cipher aes128-ctr" -c aes128-ctr
	enters "chosen cipher chacha20-poly1305" -c chacha20-poly1305@openssh.com
	enters "ServerAliveInterval" -o ServerAliveInterval=1 -o ServerAliveCountMax=2
	need_master -o 'SendEnv=TEST_*' -o SetEnv=TEST_SET=by-master
	if [ "$SERVER" = sshd ]; then
		is "SetEnv of the master" "$(sx 'echo $TEST_SET' </dev/null)" by-master
		is "SendEnv: what the master lets through" "$(TEST_A=1 LANG=x ssh -F none \
			-o ProxyCommand=false -o SendEnv='TEST_* LANG' -S "$CTL" x \
			'echo $TEST_A-$LANG')" 1-
	fi
	stop_master
	if [ "$MASTER" != stock ]; then
		need_master -q
		stop_master
		is "-q: nothing is said" "$(cat "$T/master.log")" ''
		need_master -v
		stop_master
		works "-v: something is" test -s "$T/master.log"
	fi
}

ALSO=
for server in sshd dropbear; do
	LABEL="$server: "
	case $server in
	sshd) start_sshd 'PasswordAuthentication yes' 'PermitRootLogin yes' ;;
	dropbear) start_dropbear ;;
	esac
	SERVER_KEYS="$SSHD_KEYS"
	[ $server = sshd ] || SERVER_KEYS=$DROPBEAR_KEYS
	cp "$T/known_hosts" "$T/aliased"
	sed -i 's/^[^ ]*/alias.example/' "$T/aliased"
	user_keys
	left_out_keys
	agents
	passwords
	host_keys
	addresses
	options
	stop_server
done
LABEL=
several_types
finish
