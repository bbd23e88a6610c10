# Configuration files and the command line: `-G` of ssh and of sshmux say the same
# for every case of tests/configs/cases.tsv, and both refuse those of errors.tsv.
# shellcheck shell=sh disable=SC2016,SC2088,SC2119,SC2120,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"
. "$TESTDIR/peers.sh"

TAB=$(printf '\t')
TEST_DIR=$T/from-the-environment
TEST_AGENT=$T/agent
export TEST_DIR TEST_AGENT
home
: >"$TEST_AGENT"

# The corpus, with this directory's name in it
cp -R "$TESTDIR/configs" "$T/configs"
mv "$T/configs/inc" "$T/inc"
for f in "$T"/configs/*.conf; do sed -i "s|@T@|$T|g" "$f"; done
cp -R "$T/inc/home.conf" "$T/inc/relative.conf" "$T/inc/deeper.conf" "$T/inc/sub" "$T/home/.ssh/"
echo "Include $T/loop" >"$T/loop"

cases() {
	while IFS=$TAB read -r conf words; do
		case $conf in
		'' | '#'*) continue ;;
		esac
		file=$T/configs/$conf.conf
		[ $conf != none ] || file=none
		eval "set -- $words"
		same_config "$conf: $words" -F "$file" "$@"
	done <"$T/configs/cases.tsv"
}

# More files than the texts of options have room for
many_files() {
	mkdir "$T/many"
	i=0
	while [ $i -lt 120 ]; do
		echo "Host host-$i" >"$T/many/$i.conf"
		echo " Port $((3000 + i))" >>"$T/many/$i.conf"
		i=$((i + 1))
	done
	echo "Include $T/many/*.conf" >"$T/many.conf"
	same_config "Include of 120 files" -F "$T/many.conf" host-77
}

# SIGUSR1 while the options are read: who supervises does not know how far we are.
kicked_early() {
	[ "$MASTER" != stock ] || return 0
	mkfifo "$T/slow.conf"
	(exec "$PROGRAM" -F "$T/slow.conf" -G x) >"$T/out" 2>&1 </dev/null &
	pid=$!
	ends_later $pid
	exec 8>"$T/slow.conf"	# now it is being read
	kill -USR1 $pid
	echo 'Port 77' >&8
	exec 8>&-
	wait $pid
	is "a kick that comes early" "$?, $(sed -n 's/^port //p' "$T/out")" "0, 77"
}

# Nobody else's name is taken for an account that has none.
nameless() {
	if [ "$(id -u)" != 0 ] || [ -z "$(command -v setpriv)" ]; then
		skip "a user without an entry" "an ordinary user cannot become another"
		return
	fi
	cp "$PROGRAM" "$T/program" 2>/dev/null
	chmod 755 "$T/program" "$T"
	(cd / && setpriv --reuid 54321 --regid 54321 --clear-groups "$T/program" -G -F none x) >"$T/out" 2>"$T/err" </dev/null
	is "a user without an entry in passwd" "$?, $(grep -c 'No user exists for uid 54321' "$T/err")" "255, 1"
}

# Every file again with line ends of the other kind
carriage_returns() {
	for f in hosts first quoting match values times tokens include; do
		sed 's/$/\r/' "$T/configs/$f.conf" >"$T/configs/cr.conf"
		for host in $(awk -v f=$f '$1 == f && NF == 2 { print $2 }' "$T/configs/cases.tsv" | head -n 4); do
			same_config "$f with CRLF: $host" -F "$T/configs/cr.conf" "$host"
		done
	done
}

# ~/.ssh/config is read without -F, and not for a user whose home it is not.
default_file() {
	if ! home_is_ours; then
		skip "~/.ssh/config" "the home directory cannot be the test's"
		return
	fi
	printf '%s\n' 'Host x' ' Port 2801' ' User from-home' ' Include relative.conf' >"$T/home/.ssh/config"
	is "~/.ssh/config is read" "$(at_home "$PROGRAM" -G x 2>&1 </dev/null | sed -n 's/^port //p;s/^user //p' | sort | tr '\n' ' ')" "2801 from-home "
	is "-F none reads nothing" "$(at_home "$PROGRAM" -F none -G x 2>&1 </dev/null | sed -n 's/^port //p')" 22
	is "-F FILE reads only that" "$(at_home "$PROGRAM" -F "$T/configs/noeol.conf" -G x 2>&1 </dev/null | sed -n 's/^port //p')" 2701
	chmod 666 "$T/home/.ssh/config"
	at_home "$PROGRAM" -G x >"$T/out" 2>"$T/err" </dev/null
	is "~/.ssh/config that others can write: status" $? 255
	like "~/.ssh/config that others can write" "$(tr -d '\r' <"$T/err")" "*Bad owner or permissions on $T/home/.ssh/config"
	chmod 600 "$T/home/.ssh/config"
	chmod 622 "$T/home/.ssh/relative.conf"
	at_home "$PROGRAM" -G x >"$T/out" 2>"$T/err" </dev/null
	is "an included file that others can write: status" $? 255
	like "an included file that others can write" "$(tr -d '\r' <"$T/err")" "*Bad owner or permissions on $T/home/.ssh/relative.conf"
	chmod 600 "$T/home/.ssh/relative.conf"
	rm "$T/home/.ssh/config"
	at_home "$PROGRAM" -G x >"$T/out" 2>"$T/err" </dev/null
	is "no ~/.ssh/config: status" $? 0
	is "no ~/.ssh/config: port" "$(sed -n 's/^port //p' "$T/out")" 22
}

errors() {
	while IFS=$TAB read -r pattern conf words; do
		case $pattern in
		'' | '#'*) continue ;;
		esac
		eval "pattern=\"$pattern\""
		name="error: $([ "$conf" = - ] || printf %s "'$conf', " | sed 's/\\n/;/g')$words"
		file=none
		if [ "$conf" != - ]; then
			file=$T/configs/bad.conf
			printf '%s\n' "$conf" | sed "s|@T@|$T|g; s/\\\\n/\\n/g" >"$file"
		fi
		eval "set -- $words"
		at_home ssh -G -F $file "$@" >"$T/out" 2>"$T/want" </dev/null
		want="status $?, $(lines "$T/out") lines of output"
		at_home timeout 30 "$PROGRAM" -G -F $file "$@" >"$T/out" 2>"$T/err" </dev/null
		got="status $?, $(lines "$T/out") lines of output"
		is "$name" "$got; ssh: $want" "$REFUSED; ssh: $REFUSED"
		like "$name: text" "$(tr -d '\r' <"$T/err")" "$pattern"
		case $MASTER$pattern in
		stock* | *sage*) ;;
		*) is "$name: one line" "$(lines "$T/err")" 1 ;;
		esac
	done <"$T/configs/errors.tsv"
	# Ansible asks so whether there is ControlPersist.
	at_home timeout 30 "$PROGRAM" -o ControlPersist >"$T/out" 2>"$T/err" </dev/null
	is "-o ControlPersist alone: status" $? 255
	is "-o ControlPersist alone: the keyword is known" "$(grep -ciE 'bad configuration option|usage:' "$T/err")" 0
}
REFUSED="status 255, 0 lines of output"

# A name with a newline in it becomes a command in the hands of some shells.
hostile_names() {
	differs "hostile names" "older ones take them" && return
	for user in "$(printf '$[+]\ntouch %s/pwned\n' "$T")" "a;touch $T/pwned" "$(printf 'a\033[2Jb')"; do
		env SHELL="$(command -v bash || echo /bin/sh)" timeout 30 "$PROGRAM" -F none -l "$user" \
			-o ProxyCommand='echo %r@%h:%p' h true >"$T/out" 2>"$T/err" </dev/null
		is "a hostile -l: status" "$?" 255
		like "a hostile -l: said in one line" "$(cat "$T/err")" "sshmux: User \"*\" contains invalid characters"
		is "a hostile -l: nothing has run" "$(ls "$T/pwned" 2>/dev/null)" ""
	done
}

# port NAME WANT CONFIGURATION WORD...: which port results
port() {
	port_name=$1 port_want=$2
	# shellcheck disable=SC2059	# a format of its own
	printf "$3" >"$T/configs/one.conf"
	shift 3
	is "$port_name" "$(at_home timeout 30 "$PROGRAM" -F "$T/configs/one.conf" -G "$@" 2>"$T/err" </dev/null | sed -n 's/^port //p')" "$port_want"
}

# Match localnetwork, by the addresses of this machine
local_networks() {
	port "localnetwork" 7 'Match localnetwork 203.0.113.0/24,127.0.0.0/8\nPort 7' x
	port "localnetwork, odd bits" 7 'Match localnetwork 126.0.0.0/7\nPort 7' x
	port "localnetwork, another" 22 'Match localnetwork 203.0.113.0/24,2001:db8:ffff::/48\nPort 7' x
	port "!localnetwork" 7 'Match !localnetwork 203.0.113.0/24\nPort 7' x
	have_ipv6 && port "localnetwork, IPv6" 7 'Match localnetwork ::1\nPort 7' x
	for bad in 127.0.0.1/8 127.0.0.0/33 127.0.0/8 x ::/129; do
		port "localnetwork $bad" '' "Match localnetwork $bad\\nPort 7" x
		like "localnetwork $bad: text" "$(cat "$T/err")" "*line 1: bad network*$bad*"
	done
}

# Match's newer words, which not every ssh has
newer_criteria() {
	differs "Match's newer words" "older ones lack them" && return
	LABEL="Match "
	port "tagged" 7 'Match tagged b*\nPort 7' -P blue x
	port "tagged, case" 22 'Match tagged B*\nPort 7' -P blue x
	port "!tagged" 22 'Match !tagged blue\nPort 7' -P blue x
	port "tagged, by a Tag in the file" 7 'Host x\nTag blue\nMatch tagged blue\nPort 7' x
	port 'tagged ""' 7 'Match tagged ""\nPort 7' x
	port 'tagged "", with one' 22 'Match tagged ""\nPort 7' -P blue x
	port "command" 7 'Match command "rsync*,git *"\nPort 7' x git status
	port "command, another" 22 'Match command rsync*\nPort 7' x git status
	port "command, a subsystem" 7 'Match command sftp\nPort 7' -s x sftp
	port 'command ""' 7 'Match command ""\nPort 7' x
	port "sessiontype shell" 7 'Match sessiontype shell\nPort 7' x
	port "sessiontype exec" 7 'Match sessiontype exec,none\nPort 7' x true
	port "sessiontype none" 7 'Match sessiontype exec,none\nPort 7' -N x
	port "sessiontype subsystem" 7 'Match sessiontype=subsystem\nPort 7' -s x sftp
	port "!sessiontype" 22 'Match !sessiontype exec\nPort 7' x true
	port "version" 7 'Match version OpenSSH_1?.*\nPort 7' x
	port "version, an old one" 22 'Match version OpenSSH_9.*\nPort 7' x
	emulated "" "localnetwork" "this machine's addresses are not told" || local_networks
	LABEL=
	is "Match: a command after what has failed is not run" "$(ls "$T/ran" 2>/dev/null)" ""
}

# The scope of an address is no token; a key that is not there is passed over; what
# another file includes is looked at like the file itself.
smaller_ones() {
	if [ "$MASTER" != stock ]; then
		timeout 30 "$PROGRAM" -F none -o BatchMode=yes -J '[fe80::1%nowhere],[fe80::2%nowhere]:7' x true >"$T/out" 2>&1 </dev/null
		is "-J to a scoped address is no token" "$(grep -c 'unknown key' "$T/out")" 0
	fi
	timeout 30 "$PROGRAM" -F none -i "$T/nowhere" -G x >"$T/out" 2>"$T/err" </dev/null
	is "-i with a file that is not there: status" $? 0
	like "-i with a file that is not there: a warning" "$(cat "$T/err")" "*Warning: Identity file $T/nowhere not accessible: No such file or directory."
	is "-i with a file that is not there: not taken" "$(grep -c nowhere "$T/out")" 0
	if ! differs "RefuseConnection" "older ones lack it"; then
		"$PROGRAM" -F none -o 'RefuseConnection="use the jump host"' 127.0.0.1 true >"$T/out" 2>"$T/err" </dev/null
		is "RefuseConnection" "$? $(cat "$T/err")" "255 sshmux: connection refused by the configuration: use the jump host"
	fi
	echo "Include $T/open.conf" >"$T/configs/one.conf"
	echo "Port 7" >"$T/open.conf"
	chmod 666 "$T/open.conf"
	timeout 30 "$PROGRAM" -F "$T/configs/one.conf" -G x >"$T/out" 2>"$T/err" </dev/null
	is "an Include below -F that others can write: status" $? 255
	like "an Include below -F that others can write" "$(tr -d '\r' <"$T/err")" "*Bad owner or permissions on $T/open.conf"
	echo "Include $T/ope[nm].conf" >"$T/configs/one.conf"
	ln -sf open.conf "$T/open.conf"
	timeout 30 "$PROGRAM" -F "$T/configs/one.conf" -G x >"$T/out" 2>"$T/err" </dev/null
	is "an Include of what cannot be read: status" $? 255
	like "an Include of what cannot be read" "$(tr -d '\r' <"$T/err")" "*Can't open user config file $T/open.conf: *"
}

cases
newer_criteria
smaller_ones
hostile_names
carriage_returns
default_file
many_files
kicked_early
nameless
errors
finish
