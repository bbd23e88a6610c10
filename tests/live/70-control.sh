# -O check, stop, exit by both clients on the master; how a master ends; odd
# masters and OpenSSH's own under our client.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

# once COMMAND: `-O COMMAND` by CLIENT; the text, then the status, in ONCE
once() {
	ONCE=$( (exec_client -O "$1" x) 2>&1 </dev/null; echo "status $?")
	ONCE=$(printf '%s' "$ONCE" | tr '\r\n' '| ')
}

no_socket() { [ ! -e "$CTL" ]; }
nothing_left() { [ -z "$(find "$T" -maxdepth 1 -name 'c*' 2>/dev/null)" ]; }

# board COMMAND: a passenger whose input stays open as long as our fd 9
board() {
	exec 9<>"$T/hold"
	(
		exec 9<&-
		exec_client x "$1" <"$T/hold" >"$T/up" 2>"$T/err"
	) &
	passenger=$!
	ends_later $passenger
	wait_for 20 has "$T/up" up
}

control_commands() {
	need_master
	once check
	is "-O check" "$ONCE" "Master running (pid=$MASTER_PID)| status 0"
	once unknown
	is "-O with an unknown word" "$ONCE" "Invalid multiplex command.| status 255"
	board 'echo up; cat; exit 9'
	once stop
	is "-O stop" "$ONCE" "Stop listening request sent.| status 0"
	works "-O stop: the socket is gone" no_socket
	is "-O stop: the master lives while a session does" "$(gone $MASTER_PID; echo $?)" 1
	echo end >&9
	exec 9>&-
	wait $passenger
	is "-O stop: the session ends as usual" $? 9
	is "-O stop: with all its data" "$(cat "$T/up")" "up
end"
	reap_master
	works "-O stop: then the master ends" gone $MASTER_PID
	rm -f "$T/up"

	need_master
	board 'echo up; cat'
	once exit
	is "-O exit" "$ONCE" "Exit request sent.| status 0"
	reap_master
	works "-O exit: the master is gone" gone $MASTER_PID
	if [ "$MASTER" != stock ]; then
		is "-O exit: its status" "$MASTER_RC" 0
		works "-O exit: a new master can follow at once" follow
	fi
	exec 9>&-
	wait $passenger
	is "-O exit: a passenger gets 255" $? 255
	works "-O exit: nothing is left" nothing_left
	once check
	is "-O check without a master" "$ONCE" \
		"Control socket connect($CTL): No such file or directory| status 255"
	rm -f "$T/up"
}

follow() {
	start_master || return 1
	(exec_client -O exit x) 2>"$T/err" || return 1
	start_master || return 1
	stop_master
	[ "$MASTER_RC" = 0 ]
}

signals() {
	for signal in TERM INT HUP QUIT; do
		# A shell's background job ignores INT and QUIT: exec_default resets them.
		need_master
		case $signal in
		INT | QUIT)
			stop_master
			start_default_signals || give_up "a master logs in"
			;;
		esac
		kill -$signal $MASTER_PID
		reap_master
		works "$signal: the master is gone" gone $MASTER_PID
		works "$signal: the socket too" nothing_left
		case $signal-$MASTER in
		*-stock) ;;
		TERM-*) is "$signal: status" "$MASTER_RC" 0 ;;
		*) is "$signal: status" "$MASTER_RC" 255 ;;
		esac
	done
	trap '' HUP
	need_master
	trap 'exit 143' HUP
	kill -HUP $MASTER_PID
	kill -INT $MASTER_PID
	alive "ignored at start stays ignored (HUP, INT)"
	stop_master
}

# A shell ignores INT and QUIT in what it starts with `&`; env gives them back.
start_default_signals() {
	usual
	case $MASTER in
	stock) set -- ssh -F none -o IdentityAgent=none ;;
	*) set -- "$SSHMUX" ;;
	esac
	env --default-signal=INT,QUIT "$@" -M -S "$CTL" -N -p "$PORT" -l "$ME" $USUAL \
		127.0.0.1 >"$T/master.out" 2>"$T/master.log" </dev/null &
	MASTER_PID=$!
	ends_later "$MASTER_PID"
	wait_for 60 master_settled && ! gone "$MASTER_PID"
}

# The server goes away: passengers 255, one line, no socket.
server_lost() {
	case $MASTER in
	stock) need_master ;;
	*) need_master -o Reconnect=no ;;
	esac
	board 'echo up; cat'
	pid=$(connection_processes)
	works "the server's processes of this connection are found" test -n "$pid"
	kill -9 $pid
	reap_master
	works "server lost: the master ends" gone $MASTER_PID
	is "server lost: its status" "$MASTER_RC" 255
	exec 9>&-
	wait $passenger
	is "server lost: a passenger gets 255" $? 255
	works "server lost: nothing is left" nothing_left
	if [ "$MASTER" != stock ]; then
		like "server lost: the log names the host" "$(cat "$T/master.log")" "*127.0.0.1*"
	fi
	rm -f "$T/up"
}

# Our client against a scripted master: odd NAME STATUS PATTERN WORD...
odd() {
	odd_name=$1 odd_status=$2 odd_text=$3
	shift 3
	rm -f "$T/odd"
	"$MUXC" -l "$T/odd" accept "$@" >"$T/played" 2>&1 &
	odd_pid=$!
	ends_later $odd_pid
	wait_for 10 test -S "$T/odd"
	# shellcheck disable=SC2046
	timeout 30 "$SSHMUX" -S "$T/odd" $ODD x $([ -n "$ODD" ] || echo command) </dev/null >"$T/out" 2>"$T/err"
	is "odd master, $odd_name: status" $? "$odd_status"
	like "odd master, $odd_name: text" "$(tr -d '\r' <"$T/err")" "$odd_text"
	wait $odd_pid
	is "odd master, $odd_name: the script ran through" "$? $(grep muxc: "$T/played")" '0 '
}

odd_masters() {
	greet='hello expect 1 4 ...'
	open="$greet expect 0x10000002 @q ... take 3"
	odd "status 0" 0 '' $open send 0x80000006 @q 5 send 0x80000004 5 0 close
	odd "status 300 is 44" 44 '' $open send 0x80000006 @q 5 send 0x80000004 5 300 close
	odd "status 2^32 - 1 is 255" 255 '' $open send 0x80000006 @q 5 \
		send 0x80000004 5 0xffffffff close
	odd "output written by the master" 7 '' $open send 0x80000006 @q 5 write 1 out \
		send 0x80000004 5 7 drop close
	is "odd master: that output" "$(cat "$T/out")" out
	odd "one byte at a time" 7 '' bytewise $open send 0x80000006 @q 5 \
		send 0x80000004 5 7 close
	odd "unknown HELLO extensions" 7 '' send 1 4 :info :0 :x@y : expect 1 4 ... \
		expect 0x10000002 @q ... take 3 send 0x80000006 @q 5 send 0x80000004 5 7 close
	odd "end without a status" 255 '' $open send 0x80000006 @q 5 close
	odd "wrong version" 255 '*version 5*' send 1 5 drain
	odd "no HELLO" 255 '?*' close
	odd "another frame in place of HELLO" 255 '?*' send 0x80000001 0 drain
	odd "wrong request id" 255 '?*' $open send 0x80000006 77 5 eof
	odd "session refused" 255 '*no reason at all*' $open \
		send 0x80000003 @q ':no reason at all' eof
	odd "permission denied" 255 '*not today*' $open send 0x80000002 @q ':not today' eof
	odd "wrong session id" 255 '?*' $open send 0x80000006 @q 5 send 0x80000004 6 0 eof
	odd "second EXIT_MESSAGE" 255 '?*' $open send 0x80000006 @q 5 \
		send 0x80000004 5 0 send 0x80000004 5 0 eof
	odd "S_OK after SESSION_OPENED" 255 '?*' $open send 0x80000006 @q 5 \
		send 0x80000001 @q eof
	odd "an end within a frame" 255 '*' $open send 0x80000006 @q 5 raw =0000000c =8000 close
	odd "a frame of 2^31 bytes" 255 '?*' $open raw =80000000 0x80000005 eof
	ODD="-O check"
	odd "-O check, pid 0" 255 '?*' $greet expect 0x10000004 @r send 0x80000005 @r 0 eof
	odd "-O check, wrong id" 255 '?*' $greet expect 0x10000004 @r send 0x80000005 77 4242 eof
	odd "-O check, end" 255 '?*' $greet expect 0x10000004 @r close
	ODD="-O stop"
	odd "-O stop, end" 255 '?*' $greet expect 0x10000009 @r close
	odd "-O stop, refused" 255 '*never*' $greet expect 0x10000009 @r send 0x80000003 @r :never eof
	ODD="-O exit"
	odd "-O exit, end counts as done" 0 'Exit request sent.' $greet expect 0x10000005 @r close
	odd "-O exit, refused" 255 '*never*' $greet expect 0x10000005 @r send 0x80000003 @r :never eof
	odd "-O exit, denied" 255 '*never*' $greet expect 0x10000005 @r send 0x80000002 @r :never eof
	ODD=
}

# Our client and OpenSSH's own master
with_stock_master() {
	kept=$MASTER
	MASTER=stock
	CLIENT=sshmux
	need_master
	for code in 0 3 255; do
		cx "exit $code" </dev/null 2>"$T/err"
		is "stock master, our client: exit $code" $? $code
	done
	is "stock master, our client: streams" \
		"$(echo word | cx 'cat; echo err >&2' 2>"$T/err"; cat "$T/err")" "word
err"
	once check
	is "stock master, our client: -O check" "$ONCE" "Master running (pid=$MASTER_PID)| status 0"
	once exit
	is "stock master, our client: -O exit" "$ONCE" "Exit request sent.| status 0"
	reap_master
	need_master
	once stop
	is "stock master, our client: -O stop" "$ONCE" "Stop listening request sent.| status 0"
	reap_master
	MASTER=$kept
}

# The socket, then its directory, is removed under a running master.
removed_path() {
	mkdir "$T/run"
	CTL=$T/run/c
	need_master
	rm "$CTL"
	kill -USR1 "$MASTER_PID"
	works "the socket was removed: there again" wait_for 10 test -S "$CTL"
	alive "and the master is reached"
	before=$(fds)
	rm -r "$T/run"
	kill -USR1 "$MASTER_PID"
	wait_for 10 has "$T/master.log" 'was removed: No such file'
	mkdir "$T/run"
	kill -USR1 "$MASTER_PID"
	works "its directory was removed: there again" wait_for 10 test -S "$CTL"
	alive "and reached"
	same_fds "no descriptor more" "$before"
	stop_master
	works "at the end it is gone" test ! -e "$CTL"
	CTL=$T/c
}

# What listens at the path is somebody else's: nothing is handed over.
foreign_master() {
	if [ "$(id -u)" != 0 ]; then
		skip "another user's master" "needs root"
		return
	fi
	mkdir -m 755 "$T/other"
	chown 65534 "$T/other"
	chmod 711 "$T"
	cp "$MUXC" "$T/other/muxc"
	chmod 755 "$T/other/muxc"
	for allow in no yes; do
		rm -f "$T/other/c"
		[ $allow = yes ] && play="expect 1 ... close" || play=eof
		setpriv --reuid 65534 --regid 65534 --clear-groups "$T/other/muxc" -l "$T/other/c" \
			accept $play >"$T/other.out" 2>&1 </dev/null &
		other=$!
		ends_later $other
		wait_for 10 test -S "$T/other/c"
		got=$(timeout 20 "$SSHMUX" -F none -S "$T/other/c" -o AllowForeignMaster=$allow x true 2>&1 </dev/null; echo $?)
		wait_for 10 gone $other
		wait $other
		is "another user's master, allowed: $allow: what it got" $? 0
		[ $allow = yes ] || like "it is refused: 255" "$got" "Control socket * belongs to another user (uid 65534): not used*255"
	done
}

# Its log has reached ulimit -f.
full_log() {
	usual
	(ulimit -f 1; run_master -vv -E "$T/full.log" $USUAL 127.0.0.1 >"$T/master.out" 2>&1 </dev/null) &
	MASTER_PID=$!
	ends_later $MASTER_PID
	head -c 400 /dev/zero | tr '\\0' x >"$T/full.log"
	wait_for 60 master_settled
	for n in 1 2 3 4 5 6 7 8; do sx true </dev/null 2>"$T/err"; done
	alive "the log is full ($(size "$T/full.log") bytes): the master lives"
	MASTER_PID=$(ssh -F none -S "$CTL" -O check x 2>&1 | tr -dc 0-9)
	kill "$MASTER_PID"
	wait_for 20 gone "$MASTER_PID"
}

ODD=
mkfifo "$T/hold"
for server in sshd dropbear; do
	start_server $server
	for CLIENT in $CLIENTS; do
		LABEL="$server, $CLIENT: "
		control_commands
		server_lost
	done
	LABEL="$server: "
	CLIENT=ssh
	signals
	if [ $server = sshd ] && [ -x "$SSHMUX" ]; then
		LABEL=
		odd_masters
		with_stock_master
		if [ "$MASTER" != stock ]; then
			removed_path
			foreign_master
			full_log
		fi
	fi
	stop_server
done
LABEL=
if [ "$MASTER" != stock ]; then
	like "--version" "$("$SSHMUX" --version)" "sshmux 0.2.0*dropbear 202*"
fi
finish
