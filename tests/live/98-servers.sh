# Servers of other makers (SERVERS="asyncssh go ..."; tests/servers installs them): what
# works through stock ssh's master must work through ours.
# shellcheck shell=sh disable=SC2016,SC2034,SC2046,SC2086,SC2153,SC2154
. "$TESTDIR/lib.sh"
if [ -z "${SERVERS:-}" ]; then
	skip "servers of other makers" "only with tests/servers, as in make check-more"
	finish
fi
if [ "$MASTER" = stock ]; then
	skip "servers of other makers" "stock ssh is the control there"
	finish
fi
OTHER=$TESTDIR/other
SIZE=20000000
PYTHON=/usr/bin/python3
NPM=${NPM:-$T}
free_port() {
	FREE=$(random_port)
	while listening "$FREE"; do FREE=$(random_port); done
}

# --- servers: what is missing in WHY, else exec ---------------------------------------

# needs COMMAND-OR-FILE...
needs() {
	for needed in "$@"; do
		case $needed in
		/*) [ -e "$needed" ] || WHY="$needed is not installed" ;;
		*) command -v "$needed" >/dev/null || WHY="$needed is not installed" ;;
		esac
	done
	[ -z "$WHY" ]
}
python_has() { $PYTHON -W ignore -c "import $1" >/dev/null 2>&1 || WHY="Debian's python has no $1"; [ -z "$WHY" ]; }
ours_home() { exec env LD_PRELOAD="$HOMELIB" TEST_ME="$ME" TEST_HOME="${THERE:-$T/home}" TEST_SHELL=/bin/sh "$@" >"$SERVER_LOG" 2>&1; }

# It trusts no home directory below one that others may write, as /tmp.
check_tinysshd() {
	needs tinysshd tinysshd-makekey $PYTHON || return
	TINY=$NPM/home.$$
	rm -rf "$TINY"
	mkdir -p "$TINY" && cp -R "$T/home/.ssh" "$TINY"
	trap 'rm -rf "$TINY"; clean_up' EXIT
}
exec_tinysshd() {
	THERE=$TINY
	[ -d "$T/tiny" ] || tinysshd-makekey -q "$T/tiny"
	ours_home $PYTHON "$OTHER/inetd.py" $PORT tinysshd -x sftp=/usr/lib/openssh/sftp-server "$T/tiny"
}
check_asyncssh() { python_has asyncssh; }
exec_asyncssh() { exec $PYTHON "$OTHER/asyncssh.py" $PORT "$T/host" "$T/key.pub" >"$SERVER_LOG" 2>&1; }
check_paramiko() { python_has paramiko; }
exec_paramiko() { exec $PYTHON "$OTHER/paramiko.py" $PORT "$T/host" "$T/key.pub" >"$SERVER_LOG" 2>&1; }
check_conch() {
	[ "$(id -u)" = 0 ] || WHY="it wants root"
	[ -z "$WHY" ] && python_has twisted.conch.unix
}
exec_conch() { ours_home $PYTHON "$OTHER/conch.py" $PORT "$T/host" "$T/key.pub"; }
check_go() {
	needs go /usr/share/gocode/src/golang.org/x/crypto/ssh || return
	GOPATH=/usr/share/gocode GO111MODULE=off GOCACHE=$NPM/cache go build -o "$T/gossh" "$OTHER/gossh.go" >"$T/go.log" 2>&1 ||
		{ WHY="it does not compile: $(head -n 1 "$T/go.log")"; false; }
}
exec_go() { exec "$T/gossh" $PORT "$T/host" "$T/key.pub" >"$SERVER_LOG" 2>&1; }
check_ssh2() { needs node && { [ -d "$NPM/node_modules/ssh2" ] || { WHY="npm's ssh2 is not installed"; false; }; }; }
exec_ssh2() { exec env NODE_PATH="$NPM/node_modules" node "$OTHER/ssh2.js" $PORT "$T/host" "$T/key.pub" >"$SERVER_LOG" 2>&1; }
check_erlang() { needs escript; }
exec_erlang() {
	mkdir -p "$T/erl"
	cp "$T/host" "$T/erl/ssh_host_ed25519_key"
	cp "$T/key.pub" "$T/erl/authorized_keys"
	exec env HOME="$T/home" escript "$OTHER/erlang.escript" $PORT "$T/erl" >"$SERVER_LOG" 2>&1
}

start_other() {
	WHY=
	home
	case $1 in
	sshd) start_sshd ;;
	dropbear) start_dropbear ;;
	*)
		check_$1 || return 1
		SERVER=$1
		[ -e "$T/host" ] || ssh-keygen -q -t ed25519 -N '' -C host -f "$T/host"
		start_on_port exec_$1
		ssh-keyscan -t ed25519 -p $PORT 127.0.0.1 2>/dev/null >"$T/known_hosts"
		[ -s "$T/known_hosts" ] || known "$T/host.pub" >"$T/known_hosts" ;;
	esac
}

# --- what is asked of each; 0 if it does it ------------------------------------------

c() { timeout $PATIENCE ssh -F none -o ProxyCommand=false -S "$CTL" x "$@"; }
o() { timeout 30 ssh -F none -S "$CTL" -O "$@" x </dev/null >/dev/null 2>&1; }

do_exec() { [ "$(c 'echo said; exit 7' </dev/null; echo $?)" = "said
7" ]; }
do_up() { PATIENCE=40; [ "$(c sha256sum <"$T/data" | cut -d' ' -f1)" = "$SUM" ]; }
do_down() { PATIENCE=40; [ "$(c "cat $T/data" </dev/null | sum)" = "$SUM" ]; }
do_stderr() { c 'echo out; echo err >&2' </dev/null >"$T/o" 2>"$T/e" && [ "$(cat "$T/o") $(cat "$T/e")" = "out err" ]; }
do_pty() { c -tt 'test -t 0 && echo tty' </dev/null 2>/dev/null | grep -q '^tty'; }
do_eight() {
	eight=
	for n in 1 2 3 4 5 6 7 8; do
		c "sleep 0.2; exit $n" </dev/null &
		eight="$eight $!"
	done
	n=0 bad=0
	for p in $eight; do
		n=$((n + 1))
		wait $p
		[ $? = $n ] || bad=1
	done
	[ $bad = 0 ]
}
do_sftp() {
	rm -f "$T/got"
	echo "get $T/some $T/got" | timeout 30 sftp -F none -o ProxyCommand=false -o ControlPath="$CTL" -b - x >/dev/null 2>&1
	cmp -s "$T/some" "$T/got" 2>/dev/null
}
echoes() { [ "$(timeout 20 "$NET" "$@" <"$T/some" 2>/dev/null | sum)" = "$(sum "$T/some")" ]; }
do_L() { free_port; o forward -L 127.0.0.1:$FREE:127.0.0.1:$ECHO && echoes call 127.0.0.1:$FREE; }
do_R() { free_port; o forward -R 127.0.0.1:$FREE:127.0.0.1:$ECHO && echoes call 127.0.0.1:$FREE; }
do_D() { free_port; o forward -D 127.0.0.1:$FREE && echoes -s5 127.0.0.1:$ECHO call 127.0.0.1:$FREE; }
do_W() { [ "$(timeout 20 ssh -F none -o ProxyCommand=false -S "$CTL" -W 127.0.0.1:$ECHO x <"$T/some" 2>/dev/null | sum)" = "$(sum "$T/some")" ]; }
do_rekey() {	# a master of its own: keys every 4 MB
	stop_master
	start_master -o RekeyLimit=4M -o ServerAliveInterval=1 $RECONNECT >/dev/null && do_up && do_down
}
do_alive() {	# quiet for longer than the interval, and still there
	sleep 2.5
	! gone $MASTER_PID && [ "$(c 'echo there' </dev/null)" = there ]
}
# The server, and so each connection, is gone and comes back at the same port.
restart() {
	processes=$(connection_processes)
	end $SERVER_PID
	for p in $processes; do end $p; done
	exec_$SERVER &
	SERVER_PID=$!
	ends_later $SERVER_PID
	wait_for 20 listening $PORT
}
# The server asks for new keys every 4 MB; the others have no such setting, or, as Erlang's,
# no command that moves bytes.
do_theirs() {
	case $SERVER in sshd | asyncssh | paramiko | go | ssh2) ;; *) return 9 ;; esac
	stop_master
	REKEY_BYTES=4000000
	export REKEY_BYTES
	[ $SERVER != sshd ] || echo "RekeyLimit $REKEY_BYTES" >>"$T/sshd.options"
	restart
	start_master $RECONNECT >/dev/null && do_up && do_down && { [ $MASTER = stock ] || [ "$(exchanges)" -gt 3 ]; }
	theirs=$?
	unset REKEY_BYTES
	sed -i '/^RekeyLimit/d' "$T/sshd.options" 2>/dev/null
	stop_master
	restart
	return $theirs
}
exchanges() { "$SSHMUX" -S "$CTL" -O status --json | sed -n 's/.*"key_exchanges":\([0-9]*\).*/\1/p'; }
do_return() {
	[ "$MASTER" = sshmux ] || return 9
	restart
	[ "$(timeout 40 "$SSHMUX" --wait=30 -S "$CTL" x 'echo back' </dev/null)" = back ]
}
WHAT=${WHAT:-"exec up down stderr pty eight sftp L R D W theirs rekey alive return"}

# asks MASTER: one word for each of WHAT: yes, no, - (not asked)
asks() {
	MASTER=$1
	RECONNECT=
	[ $MASTER = stock ] || RECONNECT='-o Reconnect=yes -o ReconnectMin=1'
	if ! start_master -o ServerAliveInterval=1 $RECONNECT >"$T/no.master"; then
		for what in $WHAT; do printf 'no '; done
		return
	fi
	for what in $WHAT; do
		PATIENCE=15
		do_$what >"$T/said" 2>&1 </dev/null
		case $? in
		0) printf 'yes ' ;;
		9) printf -- '- ' ;;
		*) printf 'no ' ;;
		esac
	done
	LOGINS=$("$SSHMUX" -S "$CTL" -O status --json 2>/dev/null | sed -n 's/.*"logins":\([0-9]*\).*/\1/p')
	[ $MASTER = stock ] || tail -n 3 "$T/master.log" >"$T/$SERVER.said"
	stop_master >/dev/null 2>&1
}

head -c $SIZE /dev/urandom >"$T/data"
SUM=$(sum "$T/data")
head -c 100000 "$T/data" >"$T/some"
"$NET" serve 127.0.0.1:0 "$T/echo.port" cat &
ends_later $!
wait_for 10 test -s "$T/echo.port"
ECHO=$(cat "$T/echo.port")
printf '# %-10s' server >"$T/table"
printf ' %6s' $WHAT >>"$T/table"
echo '  logins' >>"$T/table"
for server in $SERVERS; do
	if ! start_other $server; then
		skip "$server" "$WHY"
		printf '# %-10s %s\n' $server "skipped: $WHY" >>"$T/table"
		continue
	fi
	asks stock >"$T/stock"
	asks sshmux >"$T/ours"
	printf '# %-10s' $server >>"$T/table"
	set -- $(cat "$T/ours")
	for what in $WHAT; do
		stock=$(cut -d' ' -f1 "$T/stock")
		sed -i 's/^[^ ]* //' "$T/stock"
		case $1,$stock in
		no,no) printf ' %6s' none >>"$T/table" ;;	# nor with stock ssh
		yes,no) printf ' %6s' yes+ >>"$T/table" ;;	# not with stock ssh
		*) printf ' %6s' $1 >>"$T/table" ;;
		esac
		works "$server: $what (with stock ssh: $stock)" [ "$1" != no -o "$stock" = no ]
		shift
	done
	echo "  $LOGINS" >>"$T/table"
	MASTER=sshmux
	stop_server
done
cat "$T/table"
note "logins: of the last master, which is told to come back; a server that closes with each session needs many"
note "none: neither with stock ssh nor with sshmux; yes+: with sshmux alone; -: not asked"
finish
