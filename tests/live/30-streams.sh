# stdin, stdout, stderr: intact, apart, half closed; descriptor flags; a reader
# that stops; scp and sftp.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

streams() {
	head -c 3000000 /dev/urandom >"$T/data"
	cx "tee /dev/stderr" <"$T/data" >"$T/out" 2>"$T/err"
	is "exit status of a filter" $? 0
	is "stdin arrives whole, stdout comes back whole" "$(sum <"$T/out")" "$(sum <"$T/data")"
	is "stderr is apart and whole" "$(sum <"$T/err")" "$(sum <"$T/data")"
	is "words on both streams do not mix" \
		"$(cx 'echo to-out; echo to-err >&2' </dev/null 2>"$T/err"; cat "$T/err")" \
		"to-out
to-err"
	is "all byte values pass" "$(cx 'tr "\000-\377" "\001-\377\000" | sha256sum' <"$T/data")" \
		"$(tr '\000-\377' '\001-\377\000' <"$T/data" | sha256sum)"
	is "output after the end of input" "$(printf abc | cx 'cat; echo; echo done')" "abc
done"
	is "no input at all" "$(cx 'wc -c' </dev/null)" 0
	is "closed stdin" "$(cx 'echo fine' <&-)" fine
	cx 'echo gone; echo to-err >&2; exit 6' </dev/null 2>"$T/err" >&- 
	is "closed stdout: the status still comes" "$? $(cat "$T/err")" "6 to-err"
}

# The server says EOF while input stays open: whoever reads our output sees the
# end at once, and the other direction goes on.  (sshd cannot: its commands have
# one socket for both directions.)
half_close() {
	mkfifo "$T/in" "$T/wait"
	exec 8<>"$T/in"
	(exec "$MUXC" "$CTL" hello expect 1 ... $SESSION ':exec >&- 2>&-; head -c 4 >/dev/null; exit 7' \
		fd 4 3 2 forget 3 expect 0x80000006 1 @s wait "$T/seen" \
		expect 0x80000004 @s 7 eof) >"$T/plays" 3>"$T/wait" 4<"$T/in" 8<&- &
	pid=$!
	timeout 20 cat "$T/wait" >"$T/out" 8<&-
	is "the end of stdout arrives while input is open" $? 0
	touch "$T/seen"
	printf 'word' >&8
	wait $pid
	is "and the session goes on" $? 0
	exec 8<&-
	rm "$T/in" "$T/wait"
}

# `yes | head`: the remote end learns that nobody reads.  (A dropbear server
# cannot be told.)
broken_pipe() {
	cx "yes $T" </dev/null 2>/dev/null | head -n 2 >"$T/out"
	is "a reader that leaves" "$(cat "$T/out")" "$T
$T"
	wait_for 20 no_yes
	is "the remote writer ends with it" $? 0
}
no_yes() { ! cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -q "yes $T"; }

# flags FD: its file status flags in octal, as the kernel sees them
flags() { sed -n 's/^flags:[[:space:]]*//p' "/proc/self/fdinfo/$1"; }
nonblocking() { [ $((0$(sed -n 's/^flags:[[:space:]]*//p' "/proc/$$/fdinfo/$1") & 04000)) != 0 ]; }
blocking() { ! nonblocking "$1"; }

flags_restored() {
	mkfifo "$T/p"
	exec 7<>"$T/p"
	is "the descriptor was blocking" "$(blocking 7; echo $?)" 0
	rm -f "$T"/began.*
	(exec_client x "touch $T/began.1; exec cat >/dev/null" <&7 >&7 2>&7 7<&-) &
	pid=$!
	ends_later $pid
	wait_for 20 test -e "$T/began.1"
	kill $pid
	wait $pid 2>/dev/null
	wait_for 10 blocking 7
	is "O_NONBLOCK is restored when a client is killed" $? 0
	cx 'cat >/dev/null & exit 3' <&7 >&7 2>&7
	is "three names of one description: status" $? 3
	wait_for 10 blocking 7
	is "three names of one description: restored" $? 0
	exec 7<&-
	rm "$T/p"
}

# Two sessions hold the same description; flags come back after the last.
flags_shared() {
	mkfifo "$T/p" "$T/a" "$T/b"
	exec 7<>"$T/p" 6<>"$T/a" 5<>"$T/b"
	rm -f "$T"/began.*
	(exec 5<&-; exec_client x "touch $T/began.1; cat; echo one" <&6 >&7 2>/dev/null 6<&- 7<&-) &
	one=$!
	(exec 6<&-; exec_client x "touch $T/began.2; cat; echo two" <&5 >&7 2>/dev/null 5<&- 7<&-) &
	two=$!
	ends_later "$one $two"
	wait_for 20 test -e "$T/began.1" && wait_for 20 test -e "$T/began.2"
	kill $one
	wait $one 2>/dev/null
	echo word >&5
	is "the other session still writes" "$(timeout 20 head -n 1 "$T/p")" word
	kill $two
	wait $two 2>/dev/null
	wait_for 10 blocking 7
	is "a shared description is restored after the last session" $? 0
	exec 5<&- 6<&- 7<&-
	rm "$T/p" "$T/a" "$T/b"
}

# One reader stops for three seconds; others get everything meanwhile.
stopped_reader() {
	mkfifo "$T/slow"
	cx 'head -c 20000000 /dev/zero' </dev/null >"$T/slow" 2>"$T/slow.err" &
	pid=$!
	ends_later $pid
	(
		read -r go <"$T/go"
		wait_for 30 test -e "$T/$go"
		sha256sum
	) <"$T/slow" >"$T/slow.sum" &
	reader=$!
	ends_later $reader
	began=$(date +%s)
	n=0 good=0
	while lasts=$(($(date +%s) - began)) && [ $lasts -le 3 ] || { [ $n -lt 4 ] && [ $lasts -lt 60 ]; }; do
		n=$((n + 1))
		! gone "$MASTER_PID" || break
		[ "$(cx 'head -c 300000 /dev/zero | wc -c' </dev/null)" = 300000 ] &&
			[ "$(cx 'head -c 300000 /dev/zero' </dev/null | wc -c)" = 300000 ] &&
			good=$((good + 1))
	done
	is "others go on while a reader stands still ($n rounds)" $good $n
	works "they are not slowed down to nothing" test $n -gt 3
	touch "$T/resume"
	echo resume >"$T/go"
	wait $reader
	is "the slow reader gets all of it" "$(cat "$T/slow.sum")" \
		"$(head -c 20000000 /dev/zero | sha256sum)"
	wait $pid
	is "and its status" "$? $(cat "$T/slow.err")" '0 '
	rm "$T/slow" "$T/resume"
}

# A writer that stops: the remote reader does not take its input
stopped_writer() {
	mkfifo "$T/hold"
	exec 9<>"$T/hold"
	(exec 9<&-; exec_client x "read x <$T/hold; sha256sum") <"$T/data" >"$T/up.sum" &
	pid=$!
	ends_later $pid
	is "others go on while a remote reader stands still" \
		"$(cx 'wc -c' <"$T/data")" "$(size "$T/data")"
	echo go >&9
	wait $pid
	is "the stalled upload arrives whole" "$(cut -c1-64 "$T/up.sum")" "$(sum <"$T/data")"
	exec 9<&-
	rm "$T/hold"
}

copies() {
	head -c 5000000 /dev/urandom >"$T/file"
	works "scp to the server" scp -q -O -F none -o ProxyCommand=false \
		-o ControlPath="$CTL" "$T/file" "x:$T/there"
	is "scp: same bytes" "$(sum "$T/there")" "$(sum "$T/file")"
	works "scp from the server" scp -q -O -F none -o ProxyCommand=false \
		-o ControlPath="$CTL" "x:$T/there" "$T/back"
	is "scp: same bytes back" "$(sum "$T/back")" "$(sum "$T/file")"
	rm -f "$T/there" "$T/back"
	echo "put $T/file $T/there
get $T/there $T/back" >"$T/batch"
	if [ "$SERVER" = dropbear ]; then
		# Its sftp subsystem lives at a fixed place that Debian does not use.
		set -- -s /usr/lib/openssh/sftp-server
	else
		set --
	fi
	works "sftp" sftp -q -F none -o ProxyCommand=false -o ControlPath="$CTL" \
		"$@" -b "$T/batch" x
	is "sftp: same bytes there and back" "$(sum "$T/back")" "$(sum "$T/file")"
	rm -f "$T/there" "$T/back"
}

mkfifo "$T/go"
for server in sshd dropbear; do
	LABEL="$server: "
	if [ "$MASTER.$server" = stock.dropbear ]; then
		skip "dropbear: streams" "it may close a session that has no command yet; only ours asks again"
		continue
	fi
	start_server $server
	need_master
	before=$(fds)
	for CLIENT in $CLIENTS; do
		LABEL="$server, $CLIENT: "
		streams
		[ $server = dropbear ] || broken_pipe
		flags_restored
		flags_shared
		stopped_reader
		stopped_writer
	done
	LABEL="$server: "
	[ $server = sshd ] || half_close
	copies
	if [ $server = sshd ]; then
		is "a subsystem" "$(echo word | ssh -F none -o ProxyCommand=false \
			-S "$CTL" -s x where)" "subsystem
word"
	fi
	same_fds "no descriptor left" "$before"
	stop_master
	stop_server
done
finish
