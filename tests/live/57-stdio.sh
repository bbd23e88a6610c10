# ssh -W: one connection instead of a session.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

HELLO='hello expect 1 4 ...'

serve() {
	serve_name=$1
	shift
	"$NET" serve "$1" "$T/$serve_name.port" sh -c "$2" 2>/dev/null &
	ends_later $!
	wait_for 10 test -s "$T/$serve_name.port" || give_up "the $serve_name server starts"
	SERVED=$(cat "$T/$serve_name.port")
}

# w TARGET: `ssh -W TARGET` through the master
w() (exec ssh -F none -o ProxyCommand=false -S "$CTL" -W "$1" x)

streams() {
	is "STDIO-tcp: what goes in comes back" "$(w 127.0.0.1:$ECHO <"$T/data" 2>"$T/err" | sum)" "$(sum "$T/data")"
	is "STDIO-tcp: a name is resolved by the server" "$(echo word | w localhost:$ECHO)" word
	! have_ipv6 || is "STDIO-tcp: IPv6 in brackets" "$(echo word | w "[::1]:$ECHO6")" word
	is "STDIO-half-close: the end of input is sent, answers still come" \
		"$(w 127.0.0.1:$SUMS <"$T/data" | cut -c1-64)" "$(sum "$T/data")"
	is "STDIO-eof: the server's end ends it while input is open" \
		"$(timeout 20 ssh -F none -o ProxyCommand=false -S "$CTL" -W 127.0.0.1:$FIRST x <"$T/hold" 9>&-; echo $?)" "bye
0"
	plays "STDIO-no-exit: nothing after SESSION_OPENED but the end" $HELLO \
		send 0x10000008 1 : :127.0.0.1 $FIRST fd 3 1 expect 0x80000006 1 '*' eof 3<"$T/hold"
	plays "STDIO-one: a second request on the connection" $HELLO \
		send 0x10000008 1 : :127.0.0.1 $ECHO fd 3 1 expect 0x80000006 1 '*' \
		send 0x10000008 2 : :127.0.0.1 $ECHO fd 3 1 \
		expect 0x80000003 2 ':Multiple sessions not supported' \
		send 0x10000004 3 expect 0x80000005 3 pid 3<"$T/hold"
	has "$SERVER_LOG" 'originator 127.0.0.1 port 65535' || [ $SERVER = dropbear ]
	is "STDIO-originator: 127.0.0.1 port 65535" $? 0
}

refused() {
	w 127.0.0.1:$CLOSED </dev/null >"$T/out" 2>"$T/err"
	is "STDIO-refused: 255, no output" "$? $(cat "$T/out")" "255 "
	like "STDIO-refused: the text" "$(cat "$T/err")" \
		"*Stdio forwarding request failed: Session open refused by peer*"
	plays "STDIO-refused: FAILURE, then the connection closes" $HELLO \
		send 0x10000008 1 : :127.0.0.1 $CLOSED fd 0 1 \
		expect 0x80000003 1 ':Session open refused by peer' eof
	if [ "$MASTER" = stock ]; then
		differs "STDIO-fds: ordinary bytes in place of descriptors" "it closes without an answer"
		differs "STDIO-invalid: a port out of range" "it asks the server"
	else
		plays "STDIO-fds: ordinary bytes in place of descriptors" $HELLO \
			send 0x10000008 1 : :127.0.0.1 $ECHO raw =0000 \
			expect 0x80000003 1 ':did not receive file descriptors' eof
		plays "STDIO-invalid: a port out of range" $HELLO \
			send 0x10000008 1 : :127.0.0.1 65536 fd 0 1 \
			expect 0x80000003 1 ':Invalid forwarding request' eof
	fi
	plays "STDIO-short: dropped without a word" $HELLO send 0x10000008 1 : :127.0.0.1 fd 0 1 eof
	for phase in '' "$PHASE_FDS" "$PHASE_OPEN"; do
		muxc $HELLO send 0x10000008 1 : :127.0.0.1 $ECHO $phase die 2>/dev/null >&2 3<"$T/hold"
	done
	alive "the master lives after clients that die"
}
PHASE_FDS='fd 3 1' PHASE_OPEN='fd 3 1 expect 0x80000006 1 *'

signalled() {
	(exec ssh -F none -o ProxyCommand=false -S "$CTL" -W 127.0.0.1:$ECHO x <"$T/hold" >"$T/out" 9>&-) &
	pid=$!
	printf 'one\n' >&9
	wait_for 20 has "$T/out" one
	kill $pid
	wait $pid
	is "STDIO-signal: TERM ends the client with 0" $? 0
}

# A path as the target: clients since 9.4
paths() {
	if [ $SERVER != sshd ]; then
		plays "STDIO-path: a server without it refuses" $HELLO \
			send 0x10000008 1 : ":$T/echo.s" 0xfffffffe fd 0 1 \
			expect 0x80000003 1 ':Session open refused by peer' eof
		return
	fi
	if [ "$MASTER" = stock ] && [ "$STOCK_SSH" = ssh ]; then
		differs "STDIO-path: a path is connected to" "before 9.4 it takes -2 for a port"
		return
	fi
	plays "STDIO-path: a path is connected to" $HELLO \
		send 0x10000008 1 : ":$T/echo.s" 0xfffffffe fd 3 4 \
		expect 0x80000006 1 '*' eof 3<"$T/data" 4>"$T/out"
	is "STDIO-path: what goes in comes back" "$(sum "$T/out")" "$(sum "$T/data")"
	if [ -n "${NEWER_SSH:-}" ]; then
		is "STDIO-path: a newer ssh -W PATH" \
			"$("$NEWER_SSH" -F none -o ProxyCommand=false -S "$CTL" -W "$T/echo.s" x <"$T/data" | sum)" \
			"$(sum "$T/data")"
	fi
}

head -c 3000000 /dev/urandom >"$T/data"
mkfifo "$T/hold"
exec 9<>"$T/hold"
serve echo 127.0.0.1:0 'exec cat'
ECHO=$SERVED
! have_ipv6 || serve echo6 '[::1]:0' 'exec cat'
ECHO6=$SERVED
serve unix "$T/echo.s" 'exec cat'
serve sums 127.0.0.1:0 'exec sha256sum'
SUMS=$SERVED
serve first 127.0.0.1:0 "echo bye; exec '$NET' shut"
FIRST=$SERVED
CLOSED=$(random_port)
while listening "$CLOSED"; do CLOSED=$(random_port); done
for server in sshd dropbear; do
	LABEL="$server: "
	start_server $server
	need_master
	before=$(fds)
	streams
	refused
	signalled
	paths
	same_fds "no descriptor left" "$before"
	stop_master
	stop_server
done
finish
