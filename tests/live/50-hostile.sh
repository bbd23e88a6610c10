# Clients that die in every phase, malformed frames, descriptors passed wrongly,
# floods: each loses its own connection only.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

HELLO='hello expect 1 4 ...'
# dies NAME WORD...: a client plays the words, then kills itself
dies() {
	name=$1
	shift
	muxc "$@" die >/dev/null 2>"$T/err"
	is "killed $name" $? 137
}

killed() {
	dies "before HELLO"
	dies "after HELLO" $HELLO
	dies "within HELLO" raw =00000008 =0000
	dies "within a frame" $HELLO raw =00000100 =1000
	dies "after the frame" $HELLO $SESSION ':cat'
	dies "between descriptors" $HELLO $SESSION ':cat' fd 0 1
	dies "while opening" $HELLO $SESSION ':cat' fd 0 1 2
	dies "while running" $HELLO $SESSION ':cat' fd 0 1 2 expect 0x80000006 1 '*'
	dies "with a request behind it" $HELLO $SESSION ':cat' fd 0 1 2 \
		expect 0x80000006 1 '*' send 0x10000004 7
	same_fds "no descriptor is left of the killed" "$before"
	alive "the master is unharmed"
	# (OpenSSH's master keeps such a session of a dropbear server.)
	[ "$MASTER$SERVER" != stockdropbear ] || return
	for CLIENT in $CLIENTS; do
		(exec_client x "echo up; exec cat" <"$T/hold" >"$T/up" 2>/dev/null) &
		pid=$!
		wait_for 20 has "$T/up" up
		kill -9 $pid
		wait $pid 2>/dev/null
		same_fds "$CLIENT killed while running" "$before"
		rm "$T/up"
	done
}

# refused NAME WORD...: the master closes without a reply, others never notice
refused() {
	name=$1
	shift
	plays "dropped: $name" hello expect 1 4 ... "$@" eof
}

malformed() {
	refused "length 0" raw =00000000
	refused "length 3" raw =00000003 =100000
	refused "length 256 KiB + 1" raw =00040001 0x10000004
	refused "length 2^32 - 1" raw =ffffffff
	refused "length 2^31" raw =80000000 0x10000004
	refused "ALIVE_CHECK without id" send 0x10000004
	refused "a second HELLO" hello
	refused "NEW_SESSION without anything" send 0x10000002
	refused "NEW_SESSION with half an id" send 0x10000002 =0000
	refused "NEW_SESSION without TERM" send 0x10000002 1 : 0 0 0 0 126
	refused "a command longer than its frame" \
		send 0x10000002 1 : 0 0 0 0 126 :xterm 100 =6563686f
	refused "a string of 2^32 - 1 bytes" \
		send 0x10000002 1 : 0 0 0 0 126 :xterm 0xffffffff =6563
	refused "a NUL in the command" \
		send 0x10000002 1 : 0 0 0 0 126 :xterm 3 =610062 fd 0 1 2
	refused "TERMINATE without id" send 0x10000005
	refused "STOP_LISTENING without id" send 0x10000009
	plays "dropped: version 5" send 1 5 expect 1 ... eof
	plays "dropped: version 0" send 1 0 expect 1 ... eof
	plays "dropped: HELLO without version" send 1 expect 1 ... eof
	plays "dropped: a request before HELLO" send 0x10000004 1 expect 1 ... eof
	plays "dropped: an extension name without value" send 1 4 :name expect 1 ... eof
	plays "unknown extensions are ignored" send 1 4 :one :1 :two@example.org : \
		expect 1 4 ... send 0x10000004 5 expect 0x80000005 5 pid
	plays "bytes behind the last field are ignored" $HELLO \
		send 0x10000004 5 =00112233445566 expect 0x80000005 5 pid
	plays "one byte at a time" bytewise hello expect 1 ... send 0x10000004 9 \
		expect 0x80000005 9 pid $SESSION ':exit 5' fd 0 1 2 \
		expect 0x80000006 1 @s expect 0x80000004 @s 5 eof
	plays "all in one write" raw =00000008 1 4 =00000008 0x10000004 3 \
		=00000008 0x10000004 4 expect 1 ... expect 0x80000005 3 pid expect 0x80000005 4 pid
	plays "the largest frame, of an unknown type" $HELLO \
		send 0x1000ffff 9 +262132 expect 0x80000003 9 ':unsupported request' \
		send 0x10000004 5 expect 0x80000005 5 pid
	alive "the master lives after malformed frames"
	same_fds "and has no descriptor left of them" "$before"
}

unsupported() {
	for type in 2 0x10000000 0x10000001 0x10000003 0x1000000a 0x1000000e 0x10000010 \
		0x20000000 0x30000000 0x7fffffff 0x80000001 0x80000005 0xffffffff 0; do
		plays "type $type: unsupported request, connection stays" $HELLO \
			send $type 11 expect 0x80000003 11 ':unsupported request' \
			send 0x10000004 12 expect 0x80000005 12 pid
	done
}

descriptors() {
	if [ "$MASTER" = stock ]; then
		refused "ordinary bytes in place of descriptors" $SESSION ':exit 1' raw =000000
	else
		plays "ordinary bytes in place of descriptors" $HELLO $SESSION ':exit 1' \
			raw =000000 expect 0x80000003 1 ':did not receive file descriptors' eof
		emulated "" "three descriptors in one message" "$NO_CLOSING" ||
			plays "three descriptors in one message" $HELLO $SESSION ':exit 1' \
			fds 0 1 2 expect 0x80000003 1 ':did not receive file descriptors' eof
	fi
	plays "closing before the descriptors" $HELLO $SESSION ':exit 1' close
	plays "a second session on one connection" $HELLO $SESSION ':cat' fd 3 1 2 \
		expect 0x80000006 1 @s send 0x10000002 2 : 0 0 0 0 126 :x ':exit 1' fd 0 1 2 \
		expect 0x80000003 2 ':Multiple sessions not supported' \
		send 0x10000004 3 expect 0x80000005 3 pid 3<"$T/hold"
	plays "ALIVE_CHECK beside a running session" $HELLO $SESSION ':head -c 1 >/dev/null; exit 4' \
		fd 3 1 2 expect 0x80000006 1 @s send 0x10000004 3 expect 0x80000005 3 pid \
		touch "$T/give" expect 0x80000004 @s 4 eof 3<"$T/one"
	plays "escape character out of range, no terminal" $HELLO \
		send 0x10000002 1 : 0 0 0 0 0x10ffff :xterm ':exit 3' fd 0 1 2 \
		expect 0x80000006 1 @s expect 0x80000004 @s 3 eof
	plays "an empty TERM" $HELLO send 0x10000002 1 : 0 0 0 0 0xffffffff : ':exit 3' fd 0 1 2 \
		expect 0x80000006 1 @s expect 0x80000004 @s 3 eof
	same_fds "no descriptor is left of these" "$before"
}

# Ours alone: OpenSSH's master stands still for all of these.
stalling() {
	$MUXC "$CTL" $HELLO $SESSION ':exit 1' fd 0 touch "$T/stall1" timeout 40 frames >"$T/stalled" 2>&1 &
	ends_later $!
	$MUXC "$CTL" $HELLO raw =00000100 =1000 touch "$T/stall2" timeout 40 eof >/dev/null 2>&1 &
	stalled=$!
	ends_later $stalled
	$MUXC "$CTL" touch "$T/stall3" timeout 40 expect 1 ... eof >/dev/null 2>&1 &
	mute=$!
	ends_later $mute
	wait_for 20 test -e "$T/stall1" -a -e "$T/stall2" -a -e "$T/stall3"
	for CLIENT in $CLIENTS; do
		is "$CLIENT gets through while others stall in a frame" "$(cx 'echo fine' </dev/null)" fine
	done
	wait_for 30 gone $stalled
	wait $stalled
	is "a client that stalls within a frame is dropped" $? 0
	wait $mute
	is "a client that never says HELLO is dropped" $? 0
	same_fds "and its descriptors are closed" "$before"
	plays "20,000 requests whose answers nobody reads" $HELLO flood 2000 close
	alive "the master lives after a flood"
}

# Sockets held open without a word do not keep others out for long.
many_connections() {
	set --
	i=0
	# Fewer than a profile has places for clients
	case $("$SSHMUX" --version 2>/dev/null) in
	*router*) held=48 ;;
	*) held=100 ;;
	esac
	while [ $i -lt $held ]; do
		set -- "$@" connect hello
		i=$((i + 1))
	done
	plays "$held connections held at once, the last is served" "$@" \
		expect 1 ... send 0x10000004 5 expect 0x80000005 5 pid
	same_fds "all are closed afterwards" "$before"
}

other_user() {
	if [ "$(id -u)" = 0 ]; then
		chmod 711 "$T"
		chmod 666 "$CTL"
		cp "$MUXC" "$T/muxc"
		chmod 755 "$T/muxc"
		setpriv --reuid 65534 --regid 65534 --clear-groups \
			"$T/muxc" "$CTL" eof >"$T/out" 2>&1 </dev/null
		is "another user is turned away without HELLO" "$? $(cat "$T/out")" '0 '
		has "$T/master.log" 'uid'
		is "and the log says so" $? 0
		chmod 600 "$CTL"
	fi
}

mkfifo "$T/hold" "$T/one"
exec 9<>"$T/hold"
(while :; do
	wait_for 300 test -e "$T/give" || exit
	rm "$T/give"
	printf x >&8
done) 8<>"$T/one" 9<&- &
ends_later $!
for server in sshd dropbear; do
	LABEL="$server: "
	start_server $server
	need_master
	is "the control socket has mode 600" "$(stat -c %a "$CTL")" 600
	before=$(fds)
	killed
	malformed
	[ "$MASTER" = stock ] || unsupported
	descriptors
	many_connections
	[ "$MASTER$SERVER" != sshmuxsshd ] || stalling
	other_user
	stop_master
	is "the master ends cleanly after all that" "$MASTER_RC" 0
	stop_server
done
finish
