# Proxy mode: `ssh -O proxy` runs its whole life over the control socket.
# Sessions, forwards, bulk with re-keys, clients that stop, die or misbehave.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

if [ "$MASTER" = stock ]; then
	skip "proxy mode" "OpenSSH differs: its masters before 9.9 may end when a proxy client leaves"
	finish
fi

# A proxy client in place of this shell
exec_proxy() { exec timeout 120 ssh -F none -O proxy -S "$CTL" "$@"; }
px() (exec_proxy x "$@")

HELLO='hello expect 1 4 ...'
PROXY="$HELLO send 0x1000000f 7 expect 0x8000000f 7"

sessions() {
	for code in 0 3 255; do
		px "exit $code" </dev/null >"$T/out" 2>"$T/err"
		is "exit $code" "$?" $code
		is "exit $code says nothing" "$(cat "$T/out" "$T/err")" ''
	done
	px 'kill -9 $$' </dev/null >/dev/null 2>&1
	is "a command killed by a signal" $? 255
	is "stdin, stdout and their end" "$(echo over | px cat)" over
	is "stderr" "$(px 'echo wrong >&2' 2>&1 >/dev/null </dev/null)" wrong
	is "a shell" "$(echo 'echo $((6*7)); exit 3' | px 2>/dev/null; echo $?)" "42
3"
	[ $SERVER != sshd ] ||
		is "a subsystem" "$(echo in | (exec_proxy -s x where))" "subsystem
in"
	terminals || { skip "a terminal" "$NO_TERMINALS"; return; }
	like "a terminal" "$( (exec_proxy -tt x 'tty; stty -echo; exit 5') 2>/dev/null </dev/null; echo $?)" '/dev/pts/*5'
}

# None ends while another starts: they wait for one another.  A dropbear server of
# 2022 aborts ("sent_close") when a command comes for a session that it has just
# closed, whoever the master is.
many() {
	exec 9<>"$T/hold"
	n=0
	rm -f "$T/all"
	while [ $n -lt 20 ]; do
		n=$((n + 1))
		px "echo $n; until [ -e $T/all ]; do sleep 0.1; done; exit $n" <"$T/hold" >"$T/many.$n" 2>&1 9>&- &
		echo $! >"$T/many.pid.$n"
		cx "echo $n; until [ -e $T/all ]; do sleep 0.1; done; exit $n" <"$T/hold" >"$T/cmany.$n" 9>&- &
		echo $! >"$T/many.cpid.$n"
	done
	wait_for 60 all_started
	: >"$T/all"
	bad=0
	n=0
	while [ $n -lt 20 ]; do
		n=$((n + 1))
		wait "$(cat "$T/many.pid.$n")"
		[ $? = $n ] && [ "$(cat "$T/many.$n")" = $n ] || bad=$((bad + 1))
		wait "$(cat "$T/many.cpid.$n")"
		[ $? = $n ] || bad=$((bad + 1))
	done
	exec 9>&-
	is "20 proxy clients beside 20 passengers" $bad 0
}
all_started() { [ "$(cat "$T"/many.[0-9]* "$T"/cmany.[0-9]* | grep -c '^[0-9]')" -ge 40 ]; }

bulk() {
	for n in 1 2; do
		px "cat >$T/up.$n" <"$T/data" &
		echo $! >"$T/pid.up.$n"
		px "cat $T/data" </dev/null >"$T/down.$n" &
		echo $! >"$T/pid.down.$n"
	done
	px "cat $T/data | tee /dev/stderr" </dev/null >"$T/down.3" 2>"$T/down.4"
	bad=$?
	for n in up.1 up.2 down.1 down.2; do
		wait "$(cat "$T/pid.$n")" || bad=$((bad + 1))
	done
	is "uploads and downloads end with status 0" $bad 0
	want=$(sum <"$T/data")
	for f in up.1 up.2 down.1 down.2 down.3 down.4; do
		is "$f: the checksum agrees" "$(sum <"$T/$f")" "$want"
		rm "$T/$f"
	done
}

# banner PORT, unheard PORT
banner() { timeout 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$1 && head -c 4 <&3" 2>/dev/null; }
unheard() { ! listening "$1"; }

# The same through SOCKS 4.  The server is told nothing: a reset in answer to
# nonsense could overtake its banner.
socks_banner() {
	request=$(printf '\\004\\001\\%03o\\%03o\\177\\0\\0\\001\\0' $((PORT / 256)) $((PORT % 256)))
	timeout 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$1; printf '$request' >&3; head -c 12 <&3 | tail -c 4" 2>/dev/null
}

forwards() {
	l=$(random_port)
	d=$((l + 1))
	r=$((l + 2))
	rm -f "$T/r.sock" "$T/fwd.err"
	[ $SERVER != sshd ] || path="-R $T/r.sock:127.0.0.1:$PORT"
	(exec_proxy -v -N -L "$l:127.0.0.1:$PORT" -D "$d" -R "$r:127.0.0.1:$PORT" \
		-R "0:127.0.0.1:$PORT" ${path-} x) </dev/null >/dev/null 2>"$T/fwd.err" &
	pid=$!
	wait_for 20 has "$T/fwd.err" 'Allocated port'
	wait_for 20 listening $r
	wait_for 20 listening $l
	a=$(sed -n 's/^Allocated port \([0-9]*\) .*/\1/p' "$T/fwd.err")
	is "-L" "$(banner $l)" SSH-
	is "-R" "$(banner $r)" SSH-
	is "-R 0 ($a)" "$(banner "${a:-1}")" SSH-
	is "-D" "$(socks_banner $d)" SSH-
	if [ $SERVER = sshd ]; then
		is "-R path" "$(curl -s --http0.9 -m 10 --unix-socket "$T/r.sock" http://x | head -c 4)" SSH-
	fi
	px "cat $T/data" </dev/null | sum >"$T/sum1" &
	other=$!
	wait $other
	is "a download beside them" "$(cat "$T/sum1")" "$(sum <"$T/data")"
	kill -9 "$(pgrep -P $pid ssh || echo $pid)"
	wait $pid 2>/dev/null
	# (A dropbear server of 2022 cancels nothing, for passengers neither.)
	[ $SERVER = dropbear ] || wait_for 10 unheard $r
	[ $SERVER = dropbear ] || is "killed: its listeners at the server are cancelled" "$(listening $r && echo still)$(listening "${a:-1}" && echo still)" ''
	same_fds "and nothing is left" "$before"
}

# A client that is stopped within a download
stopped() {
	(exec_proxy x "cat $T/data $T/data") </dev/null >"$T/slow" 2>"$T/slow.err" &
	pid=$!
	wait_for 20 test -s "$T/slow"
	ssh_pid=$(pgrep -P $pid ssh || echo $pid)
	kill -STOP "$ssh_pid"
	is "one is stopped: passengers go on" "$(cx "cat $T/data" </dev/null | sum)" "$(sum <"$T/data")"
	is "one is stopped: proxy clients go on" "$(px "cat $T/data" </dev/null | sum)" "$(sum <"$T/data")"
	is "one is stopped: uploads go on" "$(px "sha256sum" <"$T/data" | cut -d' ' -f1)" "$(sum <"$T/data")"
	kill -CONT "$ssh_pid"
	wait $pid
	is "it goes on: status" $? 0
	is "it goes on: nothing is missing" "$(sum <"$T/slow")" "$(cat "$T/data" "$T/data" | sum)"
	rm "$T/slow"
}

killed() {
	for way in "cat $T/data" 'cat >/dev/null' "exec sleep 3"; do
		(exec_proxy x "echo up; $way") </dev/zero >"$T/up" 2>/dev/null &
		pid=$!
		wait_for 20 has "$T/up" up
		kill -9 "$(pgrep -P $pid ssh || echo $pid)"
		wait $pid 2>/dev/null
		same_fds "killed within '${way%% *}'" "$before"
	done
	n=0
	while [ $n -lt 30 ]; do		# between a request and its answer
		n=$((n + 1))
		(exec_proxy x "cat $T/data") </dev/null >/dev/null 2>&1 &
		pid=$!
		sleep 0.0$n
		kill -9 "$(pgrep -P $pid ssh || echo $pid)" 2>/dev/null
		wait $pid 2>/dev/null
	done
	same_fds "killed 30 times while it begins" "$before"
	is "the master is unharmed, on the same connection" \
		"$("$SSHMUX" -S "$CTL" -O conninfo x | tr -d '\r' | sed -n 's/^  logins //p')" 1
	alive "and takes sessions"
}

# Frames by hand: length, 0, type, payload
SHELL_OPEN='raw =00000019005a =00000007 =73657373696f6e =00000005 =00010000 =00008000'
hostile() {
	plays "DISCONNECT is not for it to send" $PROXY raw =000000120001 =0000000b =00000000 =00000000 =00000000 eof
	plays "nor is a key exchange" $PROXY raw =000000080014 =000000000000 eof
	plays "padding" $PROXY raw =000000080150 =000000000000 eof
	plays "a frame of length 0" $PROXY raw =000000000050 eof
	plays "a frame of a gigabyte" $PROXY raw =400000000050 eof
	plays "an over-long message" $PROXY raw =000300000050 eof
	plays "data for no channel" $PROXY raw =0000000b005e =00000000 =00000001 =41 eof
	plays "close of no channel" $PROXY raw =000000060061 =00000000 eof
	plays "data of another length than its frame" $PROXY raw =0000000b005e =00000000 =00000009 =41 eof
	plays "an answer that nobody awaits" $PROXY raw =000000060051 =00000000 eof
	plays "a channel open cut short" $PROXY raw =0000000d005a :session eof
	# sshd's session has no window before its command runs
	[ $SERVER != sshd ] || plays "data beyond the window" $PROXY $SHELL_OPEN \
		expect 0x005b0000 ... raw =0000000b005e =00000000 =00000001 =41 eof
	same_fds "they leave nothing behind" "$before"
	alive "the master lives"
}

# Thousands of messages that are nearly right, by clients that come again; a
# passenger's session sees nothing of it, the connection stays the same one.
fuzzed() {
	exec 9<>"$T/hold"
	cx 'sed -u 2q' <"$T/hold" >"$T/bystander" 9>&- &
	pid=$!
	echo before >&9
	wait_for 20 has "$T/bystander" before
	count=${PROXY_FUZZ:-4000}
	seed=${PROXY_SEED:-$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')}
	timeout 900 "${MUXC%/*}/pxfuzz" "$CTL" "$count" "$seed" "$PORT" >"$T/fuzzed" 2>&1
	is "fuzzed: all $count messages are sent (seed $seed)" "$? $(cut -d' ' -f1 "$T/fuzzed")" "0 $count"
	echo after >&9
	wait_for 20 has "$T/bystander" after
	is "fuzzed: a session beside it goes on" "$(cat "$T/bystander")" "before
after"
	exec 9>&-
	wait $pid
	is "fuzzed: and ends with its status" $? 0
	same_fds "fuzzed: nothing is left" "$before"
	is "fuzzed: it was one connection to the server" \
		"$("$SSHMUX" -S "$CTL" -O conninfo x | tr -d '\r' | sed -n 's/^  logins //p')" 1
}

# says NAME FORMAT WANT: a global request for the copying client; the answer in hex
says() {
	: >"$T/answer"
	{
		# shellcheck disable=SC2059	# escapes on purpose
		printf "$2"
		wait_for 20 answered ${#3}
	} | "$SSHMUX" -S "$CTL" -O proxy x >"$T/answer"
	is "$1" "$(od -An -tx1 "$T/answer" | tr -d ' \n')" "$3"
}
answered() { [ $(($(size "$T/answer") * 2)) -ge "$1" ]; }

globals() {
	says "keepalive is answered, not shorter than five" \
		'\0\0\0\034\0\120\0\0\0\025keepalive@openssh.com\1' 00000006005200000000
	says "a cancel of what it has not asked for is refused" \
		'\0\0\0\052\0\120\0\0\0\024cancel-tcpip-forward\1\0\0\0\07localho\0\0\0\1' 00000006005200000000
	says "no-more-sessions is kept here, what follows is answered" \
		"\\0\\0\\0\\043\\0\\120\\0\\0\\0\\034no-more-sessions@openssh.com\\0$(
		)\\0\\0\\0\\034\\0\\120\\0\\0\\0\\025keepalive@openssh.com\\1" 00000006005200000000
	alive "and sessions still open"
	before_port=$(random_port)
	hex=$(printf '\\%03o\\%03o' $((before_port / 256)) $((before_port % 256)))
	says "tcpip-forward is granted, then refused: answers in order" \
		"\\0\\0\\0\\045\\0\\120\\0\\0\\0\\015tcpip-forward\\1\\0\\0\\0\\011127.0.0.1\\0\\0$hex$(
		)\\0\\0\\0\\034\\0\\120\\0\\0\\0\\025keepalive@openssh.com\\1" 0000000600510000000000000006005200000000
}

# A proxy client that has an exit status, while output may still come: ssh alone returns 7.
half_done() {
	rm -f "$T/left"
	(exec 9>&-; exec_proxy x 'while kill -0 $PPID; do sleep 1; done 2>/dev/null & echo up; exit 7') \
		</dev/null >"$T/left" 2>"$T/err" &
	left=$!
	wait_for 20 has "$T/left" up
	sx true
}
half_told() {
	wait $left
	is "$1" $? 255
	is "$1: the output is there" "$(cat "$T/left")" up
}

head -c 16777216 /dev/urandom >"$T/data"
mkfifo "$T/hold"
for server in sshd dropbear; do
	LABEL="$server: "
	start_server $server
	need_master -v -o RekeyLimit=8M
	before=$(fds)
	sessions
	many
	forwards
	bulk
	stopped
	killed
	hostile
	globals
	[ $SERVER != sshd ] || fuzzed	# (a dropbear of 2022 ends by itself: "sent_close")
	same_fds "nothing is left of all that" "$before"
	exec 9<>"$T/hold"
	rm -f "$T/up"			# the last server's
	(exec 9>&-; exec_proxy x "echo up; exec cat") <"$T/hold" >"$T/up" 2>/dev/null &
	pid=$!
	wait_for 20 has "$T/up" up
	[ $SERVER != sshd ] || half_done
	for p in $(connection_processes); do kill -9 "$p"; done
	wait $pid
	is "the connection is cut: status" $? 255
	[ $SERVER != sshd ] || half_told "the connection is cut after an exit status"
	exec 9>&-
	stop_master
	if [ $SERVER = sshd ]; then
		need_master
		half_done
		kill $MASTER_PID
		half_told "the master is ended after an exit status"
		stop_master
	fi
	stop_server
done
# What was running there has ended, too: each takes three seconds.
sleepers() { grep -lz "^HOME=$T/" /proc/[0-9]*/environ 2>/dev/null | sed 's/environ/comm/' | xargs cat 2>/dev/null | grep -cx sleep; }
nothing_sleeps() { [ "$(sleepers)" = 0 ]; }
wait_for 20 nothing_sleeps
finish
