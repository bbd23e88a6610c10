# Escapes in sessions with a terminal: each one, what is not one, state per
# session.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

terminals || { skip "escapes" "$NO_TERMINALS"; finish; }

TERM=xterm
export TERM

words() {
	case $CLIENT in
	sshmux) CL="$SSHMUX -F none -o Fallback=no -S $CTL" ;;
	*) CL="ssh -F none -o ProxyCommand=false -S $CTL" ;;
	esac
}

# What arrives at the remote side, until a "q"
TAKES='stty raw -echo; echo ready; exec >/dev/null; sed -u /q/q >'

# typed NAME KEYS WANT: those keys, after CR; what arrives there (od -c style)
typed() {
	rm -f "$T/typed"
	"$PTY" expect ready raw send '\n' send "$2" send 'q\n' -- $CL ${4:-} -t x "$TAKES$T/typed" >"$T/pty" 2>"$T/err"
	rc=$?
	is "$1" "$rc $(tail -n +2 "$T/typed" 2>/dev/null | tr -d '\n' | sed 's/q$//' | tr '\r' '|')" "0 $3"
	[ ! -s "$T/err" ] || note "$(cat "$T/err")"
}

# says NAME KEYS TEXT: the escape prints that, and nothing of it arrives
says() {
	rm -f "$T/typed"
	"$PTY" expect ready raw send '\n' send "$2" expect "$3" send 'q\n' -- $CL ${4:-} -t x "$TAKES$T/typed" \
		>"$T/pty" 2>"$T/err"
	rc=$?
	is "$1" "$rc $(tr -d '\nq' <"$T/typed")$(cat "$T/err")" "0 "
}

passed_on() {
	typed "ESC-tilde: ~~ is one ~" '~~' '~'
	typed "ESC-other: ~x are both characters" '~x' '~x'
	typed "ESC-line: only after CR or LF" 'a~?~~' 'a~?~~'
	typed "ESC-line: after CR" 'a\r~~' 'a|~'
	typed "ESC-line: after LF" 'a\n~~' 'a~'
	typed "ESC-paste: within a longer text" 'one\r~~two\r~xthree~~' 'one|~two|~xthree~~'
	typed "ESC-none: -e none" '~?~~' '~?~~' '-e none'
	typed "ESC-char: -e % makes it %" '%%\r~~' '%|~~' '-e %'
	typed "ESC-char: -e ^A makes it a control character" '~~' '~~' '-e ^A'
}

# The whole of what stands on the terminal after `ready`
screen() { tr -d '\r' <"$T/pty" | awk 'seen; /ready$/ { seen = 1 }'; }

informed() {
	says "ESC-help: the help" '~?' 'Supported escape sequences:'
	is "ESC-help: its first line" "$(screen | grep -c '^Supported escape sequences:$')" 1
	listed='. B R # ? ~'
	[ "$MASTER" = stock ] || listed='. B R I # ? ~'
	for c in $listed; do
		works "ESC-help: names ~$c" grep -q -F "~$c" "$T/pty"
	done
	works "ESC-help: echoes the keys" grep -q '~?' "$T/pty"
	says "ESC-again: after an escape the next one counts" '~?~?' "Supported escape sequences:"
	is "ESC-again: both are answered" "$(screen | grep -c '^Supported')" 2
	says "ESC-list: the list of channels" '~#' 'The following connections are open:'
	like "ESC-list: names this session" "$(screen)" '*~#*  #*session*'
	if [ "$MASTER" = stock ] && [ "$STOCK_SSH" = ssh ]; then
		differs "ESC-info: information about the connection" "before 10.3 ~I is passed on"
	else
		says "ESC-info: information about the connection" '~I' 'Connection information for'
		works "ESC-info: with the address" grep -q -e "-> 127.0.0.1:$PORT" "$T/pty"
	fi
	for c in C V v '&'; do
		says "ESC-refused: ~$c" "~$c" "~$c escape not available to multiplexed sessions"
	done
	[ $CLIENT = sshmux ] ||
		says "ESC-refused: ~^Z" '~\032' "~^Z escape not available to multiplexed sessions"
	"$PTY" expect ready raw send '\n~?' touch "$T/asked" send 'q\n' -- \
		sh -c "$CL -t x '$TAKES$T/typed' 2>$T/stderr" >"$T/pty" 2>&1
	works "ESC-stderr: what is said goes to the passed stderr" grep -q Supported "$T/stderr"
	is "ESC-stderr: and not to stdout" "$(grep -c Supported "$T/pty")" 0
}

acting() {
	"$PTY" expect ready raw send '\n~.' -- $CL -t x 'echo ready; exec cat' >"$T/pty" 2>&1
	is "ESC-dot: ~. ends the client with 255" $? 255
	alive "ESC-dot: the master lives"
	: >"$SERVER_LOG"
	says "ESC-break: ~B" '~B' '~B'
	if [ $SERVER = sshd ]; then
		works "ESC-break: the server gets a break" grep -q 'request break' "$SERVER_LOG"
		: >"$SERVER_LOG"
		typed "ESC-rekey: ~R arrives nowhere" '~R' ''
		wait_for 20 has "$SERVER_LOG" KEXINIT
		is "ESC-rekey: keys are exchanged" $? 0
	fi
	alive "ESC-rekey: and the connection goes on"
}

# Two sessions: a line that one ends is no new line of the other.
apart() {
	name="ESC-apart: the new line of one session is not another's"
	! differs "$name" "the state is shared by all sessions" || return
	rm -f "$T/typed" "$T/a1" "$T/b1"
	"$PTY" expect ready raw send '\nx' wait "$T/a1" send 'y' touch "$T/a2" wait "$T/b1" send '~.q\n' -- \
		$CL -t x "$TAKES$T/typed" >"$T/pty" 2>"$T/err" &
	pid=$!
	ends_later $pid
	"$PTY" expect ready raw touch "$T/a1" wait "$T/a2" send '\r' touch "$T/b1" send 'q\n' -- \
		$CL -t x "$TAKES$T/typed.b" >"$T/pty.b" 2>"$T/err.b"
	wait $pid
	is "$name" "$? $(tail -n 1 "$T/typed")" "0 xy~.q"
	rm -f "$T/a1" "$T/a2" "$T/b1"
}

# ~. while the server does not answer
dead_server() {
	"$PTY" expect ready raw touch "$T/up" wait "$T/frozen" send '\n~.' -- $CL -t x 'echo ready; exec cat' >"$T/pty" 2>&1 &
	pid=$!
	ends_later $pid
	wait_for 20 test -e "$T/up"
	frozen=$(grep -l "^PPid:[[:space:]]*$SERVER_PID\$" /proc/[0-9]*/status 2>/dev/null | cut -d/ -f3)
	kill -STOP $frozen
	touch "$T/frozen"
	wait_for 10 gone $pid
	is "ESC-dot: ~. does not wait for a server that is silent" $? 0
	kill -CONT $frozen
	wait $pid
	is "ESC-dot: 255 then too" $? 255
	alive "ESC-dot: and all goes on when the server is back"
	rm -f "$T/up" "$T/frozen"
}

# Without a terminal, and with an escape character out of range: no escapes.
none() {
	is "ESC-tty-only: none without a terminal" "$(printf '~?\n~.\n~~\n' | cx cat)" "~?
~.
~~"
	"$PTY" expect ready send '\n~?~~q\n' -- \
		"$MUXC" "$CTL" hello expect 1 ... send 0x10000002 1 : 1 0 0 0 0x10ffff :xterm ":$TAKES$T/typed" \
		fd 0 1 2 expect 0x80000006 1 @s expect 0x80000004 @s 0 eof >"$T/pty" 2>"$T/err"
	is "ESC-range: a value above 255 means none" "$? $(tail -n 1 "$T/typed")" "0 ~?~~q"
	"$PTY" expect ready send '\n~?\n' expect Supported send 'q\n' -- \
		"$MUXC" "$CTL" hello expect 1 ... send 0x10000002 1 : 1 0 0 0 126 :xterm ":$TAKES$T/typed" \
		fd 0 1 2 expect 0x80000006 1 @s expect 0x80000004 @s 0 eof >"$T/pty" 2>"$T/err"
	is "ESC-range: 126 means ~" "$?" 0
}

for server in sshd dropbear; do
	start_server $server
	need_master
	before=$(fds)
	for CLIENT in $CLIENTS; do
		LABEL="$server, $CLIENT: "
		words
		passed_on
		informed
		acting
		apart
		dead_server
		none
	done
	LABEL="$server: "
	# (OpenSSH's master keeps some sessions of a dropbear server.)
	[ $MASTER$server = stockdropbear ] || same_fds "no descriptor left" "$before"
	stop_master
	stop_server
done
finish
