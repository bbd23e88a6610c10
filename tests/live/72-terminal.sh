# Sessions with a terminal, through a real one: modes, sizes, Ctrl-C, -t -tt -T,
# refused terminals, a terminal that nobody reads, the modes put back.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

terminals || { skip "terminals" "$NO_TERMINALS"; finish; }

TERM=xterm-test
export TERM

# The client as words, for programs that start it
words() {
	case $CLIENT in
	sshmux) CL="$SSHMUX -F none -o Fallback=no -S $CTL" ;;
	*) CL="ssh -F none -o ProxyCommand=false -S $CTL" ;;
	esac
}

# shown FILE: what a terminal showed, for comparing
shown() { tr -d '\r' <"$1"; }

# modes NAME STTY-WORDS: the remote modes are those that plain ssh asks for
modes() {
	usual
	plain="ssh -F none -S none -p $PORT -l $ME $(printf '%s ' $USUAL) 127.0.0.1"
	"$PTY" -- sh -c "stty sane; stty rows 31 cols 97 $2; $plain -t 'stty -a; stty -g' >$T/plain 2>$T/plain.err
		$CL -t x 'stty -a; stty -g' >$T/shared 2>$T/shared.err" >"$T/pty" 2>&1
	works "TTY-modes: $1 (plain ssh answers)" grep -qi "rows 31; columns 97" "$T/plain"
	is "TTY-modes: $1" "$(shown "$T/shared")" "$(shown "$T/plain")"
}

all_modes() {
	modes "usual" ""
	modes "control characters" "intr ^g quit undef erase ^h kill undef susp ^y eof ^a start ^b"
	modes "input flags" "-ixon ixany ixoff -icrnl inlcr igncr istrip ignpar parmrk inpck iutf8 imaxbel iuclc"
	modes "output flags" "-onlcr ocrnl onocr onlret olcuc"
	modes "local flags" "-echoe -echok echonl noflsh tostop -iexten -echoctl -echoke xcase"
	modes "speed" "9600"
	modes "speed, high" "115200"
	modes "character size and parity" "cs7 parenb parodd"
	is "TTY-term: TERM travels" "$("$PTY" -- $CL -t x 'echo $TERM' 2>&1 | tr -d '\r' | head -n 1)" xterm-test
}

no_local_terminal() {
	name="TTY-modes-empty: no terminal here: the server's own modes"
	if ! differs "$name" "it sends all modes as zero"; then
		like "$name" "$(cx -tt 'stty -a' </dev/null 2>"$T/err" | tr -d '\r' | tr '\n' ' ')" \
			"* icanon *"
		like "TTY-size-none: and the size is 0" "$(cx -tt 'stty size' </dev/null 2>"$T/err" | tr -d '\r')" "0 0"
	fi
	is "TTY-options: -tt without a terminal gets one" "$(cx -tt 'tty >/dev/null && echo terminal' </dev/null 2>"$T/err" | tr -d '\r')" terminal
	is "TTY-options: -t without a terminal gets none" "$(cx -t tty </dev/null 2>"$T/err")" "not a tty"
	like "TTY-options: and says so" "$(tr -d '\r' <"$T/err")" \
		"*Pseudo-terminal will not be allocated because stdin is not a terminal.*"
	is "TTY-options: a command gets none" "$("$PTY" -- $CL x tty 2>&1 | tr -d '\r')" "not a tty"
	is "TTY-options: -T gets none for a shell" \
		"$("$PTY" send 'tty\rexit 3\r' -- $CL -T x 2>&1 | tr -d '\r' | grep -c 'not a tty')" 1
	"$PTY" send 'tty; exit 4\r' -- $CL x >"$T/pty" 2>&1
	is "TTY-options: a shell gets one" "$? $(shown "$T/pty" | grep -c '/dev/')" "4 1"
}

keys() {
	"$PTY" expect ready raw send '\003' -- $CL -t x \
		'trap "echo interrupted; exit 7" INT; echo ready; while :; do sleep 0.1; done' >"$T/pty" 2>&1
	is "TTY-keys: Ctrl-C is the remote side's" "$? $(shown "$T/pty" | grep -c interrupted)" "7 1"
	"$PTY" expect ready raw send 'word\r\004' -- $CL -t x 'echo ready; cat; exit 5' >"$T/pty" 2>&1
	is "TTY-keys: Ctrl-D ends the input, echo and answer are shown" \
		"$? $(shown "$T/pty" | grep -c '^word$')" "5 2"
	head -c 3000 /dev/zero | tr '\0' p >"$T/paste"
	"$PTY" expect ready raw send "$(cat "$T/paste")" expect 3000 -- $CL -t x \
		'stty raw -echo; echo ready; head -c 3000 | wc -c' >"$T/pty" 2>"$T/err"
	is "TTY-keys: a paste of 3000 characters arrives" "$? $(cat "$T/err")" "0 "
	is "TTY-streams: output of both kinds reaches the terminal" \
		"$("$PTY" -- $CL -t x 'echo out; echo err >&2' 2>&1 | tr -d '\r' | head -n 2)" "out
err"
}

# it looks by itself: a shell may lose a signal that comes while its trap runs
WATCH='trap "exit 9" INT; stty size; echo ready; while :; do stty size; sleep 0.1; done'

sizes() {
	"$PTY" size 33 99 expect '33 99' expect ready raw size 44 111 expect '44 111' \
		size 20 60 expect '20 60' send '\003' -- $CL -t x "$WATCH" >"$T/pty" 2>"$T/err"
	is "TTY-winch: each new size is passed on" "$? $(cat "$T/err")" "9 "
}

# A client that does not signal (another user's, in another pid namespace)
polled_size() {
	name="TTY-size-poll: a size changes without SIGWINCH"
	! differs "$name" "it looks at sizes when SIGWINCH comes" || return
	"$PTY" size 33 99 expect '33 99' expect ready size 44 111 timeout 5 expect '44 111' send '\003' -- \
		"$MUXC" "$CTL" hello expect 1 ... send 0x10000002 1 : 1 0 0 0 126 :xterm ":$WATCH" fd 0 1 2 \
		expect 0x80000006 1 '*' eof >"$T/pty" 2>"$T/err"
	is "$name" "$(grep pty: "$T/err")" ""
}

# SIGWINCH to the master: all terminals are looked at
signalled_size() {
	"$PTY" size 33 99 expect ready touch "$T/w1" expect '44 111' send '\003' -- \
		"$MUXC" "$CTL" hello expect 1 ... send 0x10000002 1 : 1 0 0 0 126 :xterm ":$WATCH" fd 0 1 2 \
		expect 0x80000006 1 '*' timeout 60 eof >"$T/pty" 2>"$T/err" &
	pid=$!
	ends_later $pid
	wait_for 20 test -e "$T/w1"
	wait_for 20 muxc_terminal
	stty rows 44 cols 111 <"$muxc_tty"
	kill -WINCH $MASTER_PID
	wait $pid
	is "TTY-winch-all: SIGWINCH makes the master look at every terminal" "$(grep pty: "$T/err")" ""
	rm -f "$T/w1"
	kill -WINCH $MASTER_PID
	alive "TTY-winch-all: and changes nothing else"
}

muxc_terminal() {
	for p in /proc/[0-9]*; do
		case $(tr '\0' ' ' <"$p/cmdline") in
		"$MUXC $CTL "*)
			muxc_tty=$(readlink "$p/fd/0")
			[ -c "$muxc_tty" ] && return ;;
		esac
	done 2>/dev/null
	return 1
}

# The modes of the local terminal after each way to end
restored() {
	for way in end "exit 3" "~." "kill of the client" "remote kill"; do
		case $way in
		end) set -- -- ; cmd='echo ready' ;;
		"exit 3") set -- -- ; cmd='echo ready; exit 3' ;;
		"~.") set -- expect ready raw send '\r~.' -- ; cmd='echo ready; exec cat' ;;
		"kill of the client") set -- expect ready -- ; cmd='echo ready; exec cat' ;;
		"remote kill") set -- -- ; cmd='echo ready; kill -9 $$' ;;
		esac
		if [ "$way" = "kill of the client" ]; then
			"$PTY" expect ready raw touch "$T/up" wait "$T/killed" -- sh -c "stty intr ^g; stty -a >$T/before
				sh -c 'echo \$\$ >$T/client; exec $CL -t x \"$cmd\"'; echo \$? >$T/rc; stty -a >$T/after" >"$T/pty" 2>&1 &
			pid=$!
			ends_later $pid
			wait_for 20 test -e "$T/up"
			kill "$(cat "$T/client")"
			touch "$T/killed"
			wait $pid
			is "CLIENT-signal: TERM ends it with 255" "$(cat "$T/rc")" 255
			rm -f "$T/killed" "$T/up"
		else
			"$PTY" "$@" sh -c "stty intr ^g; stty -a >$T/before; $CL -t x '$cmd'; stty -a >$T/after" >"$T/pty" 2>&1
		fi
		works "TTY-restore: $way: the session had its terminal" has "$T/pty" ready
		is "TTY-restore: $way: the terminal's modes are as before" "$(cat "$T/after")" "$(cat "$T/before")"
		rm -f "$T/after"
	done
}

# While a session runs the terminal is raw, and only then.
raw_mode() {
	"$PTY" tty "$T/name" expect ready raw touch "$T/up" wait "$T/seen" send 'x' -- \
		$CL -t x 'stty raw -echo; echo ready; head -c 1 >/dev/null' >"$T/pty" 2>&1 &
	pid=$!
	ends_later $pid
	wait_for 20 test -e "$T/up"
	like "TTY-raw: the client makes the terminal raw" "$(stty -a <"$(cat "$T/name")" | tr '\n' ' ')" "*-icanon*-echo *"
	touch "$T/seen"
	wait $pid
	rm -f "$T/up" "$T/seen"
}

# The master dies under a session with a terminal.
master_killed() {
	"$PTY" expect ready raw touch "$T/up" -- sh -c "stty -a >$T/before
		$CL -t x 'echo ready; exec cat'; echo \$? >$T/rc; stty -a >$T/after" >"$T/pty" 2>&1 &
	pid=$!
	ends_later $pid
	wait_for 20 test -e "$T/up"
	kill -9 $MASTER_PID
	wait $pid
	is "TTY-restore: kill of the master: status" "$(cat "$T/rc")" 255
	is "TTY-restore: kill of the master: the terminal's modes are as before" "$(cat "$T/after")" "$(cat "$T/before")"
	rm -f "$T/up" "$CTL"
	wait $MASTER_PID 2>/dev/null
}

# A terminal that nobody reads
stalled() {
	name="TTY-stalled: others go on"
	! differs "$name" "it blocks in write to a terminal" || return
	"$PTY" timeout 60 wait "$T/go" expect the-end -- $CL -t x \
		'stty raw; head -c 3000000 /dev/zero | tr "\0" z; echo the-end' >"$T/pty" 2>"$T/err" &
	pid=$!
	ends_later $pid
	n=0 good=0 began=$(date +%s)
	while [ $(($(date +%s) - began)) -lt 3 ]; do
		n=$((n + 1))
		[ "$(sx 'head -c 200000 /dev/zero | wc -c' </dev/null)" = 200000 ] && good=$((good + 1))
	done
	is "$name ($n sessions)" $good $n
	touch "$T/go"
	wait $pid
	is "TTY-stalled: and its own output comes whole" "$? $(tr -dc z <"$T/pty" | wc -c)" "0 3000000"
	rm -f "$T/go"
}

refused() {
	start_sshd 'PermitTTY no'
	need_master
	plays "TTY-refused: TTY_ALLOC_FAIL, and the session goes on" hello expect 1 ... \
		send 0x10000002 1 : 1 0 0 0 126 :xterm ':exit 6' fd 0 1 2 expect 0x80000006 1 @s \
		expect 0x80000008 @s expect 0x80000004 @s 6 eof
	for CLIENT in $CLIENTS; do
		words
		"$PTY" -- sh -c "stty -a >$T/before; $CL -t x 'tty; exit 6'; rc=\$?; stty -a >$T/after; exit \$rc" >"$T/pty" 2>&1
		is "TTY-refused: $CLIENT: the session goes on without one" "$? $(shown "$T/pty" | grep -c 'not a tty')" "6 1"
		like "TTY-refused: $CLIENT: is told so" "$(shown "$T/pty")" "*PTY allocation request failed*"
		is "TTY-refused: $CLIENT: the terminal's modes are as before" "$(cat "$T/after")" "$(cat "$T/before")"
	done
	stop_master
	stop_server
}

for server in sshd dropbear; do
	start_server $server
	for CLIENT in $CLIENTS; do
		LABEL="$server, $CLIENT: "
		words
		need_master
		before=$(fds)
		all_modes
		no_local_terminal
		keys
		sizes
		restored
		raw_mode
		stalled
		# (OpenSSH's master keeps some sessions of a dropbear server.)
		[ $MASTER$server = stockdropbear ] || same_fds "no descriptor left" "$before"
		master_killed
	done
	LABEL="$server: "
	need_master
	polled_size
	signalled_size
	stop_master
	stop_server
done
LABEL=
refused
finish
