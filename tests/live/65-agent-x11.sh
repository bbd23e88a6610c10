# Forwarding of the master's agent and of its X display: who gets it, who does not.
# shellcheck shell=sh disable=SC1091,SC2059,SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

# fx WORD...: the client with options of its own before the host
fx() (exec_client "$@" </dev/null 2>"$T/fx.err")

start_agent() {
	ssh-agent -D -a "$T/agent" >/dev/null &
	AGENT_PID=$!
	ends_later "$AGENT_PID"
	wait_for 10 [ -S "$T/agent" ] || give_up "an agent starts"
	ssh-keygen -q -t ed25519 -N '' -C forwarded-key -f "$T/forwarded"
	SSH_AUTH_SOCK=$T/agent ssh-add -q "$T/forwarded" || give_up "the agent takes a key"
}

agent_master() { SSH_AUTH_SOCK=$T/agent need_master "$@"; }

agent() {
	agent_master -A
	before=$(fds)
	# An OpenSSH server gives it to every session once one has asked.
	LABEL="$server: agent: "
	is "a session that does not ask has none" "$(fx x 'echo ${SSH_AUTH_SOCK:-none}')" none
	for CLIENT in $CLIENTS; do
		LABEL="$server, $CLIENT: agent: "
		like "lists the master's keys" "$(fx -A x 'ssh-add -l')" "*forwarded-key*"
		is "signs" "$(fx -A x "ssh-add -T $T/forwarded.pub && echo good")" good
		is "many at once" "$(fx -A x 'for i in 1 2 3 4 5 6 7 8; do ssh-add -l & done; wait' |
			grep -c forwarded-key)" 8
	done
	LABEL="$server: agent: "
	same_fds "no descriptor is left" "$before"
	# An OpenSSH server keeps its socket for the connection's life.
	if [ $server = sshd ]; then
		socket=$(fx -A x 'echo $SSH_AUTH_SOCK')
		is "the session that asked has ended: nobody has it" \
			"$(fx x "test -S $socket && echo socket; SSH_AUTH_SOCK=$socket ssh-add -l || echo none")" "socket
none"
	fi
	kill -STOP "$AGENT_PID"
	rm -f "$T/asks"
	(fx -A x "touch '$T/asks'; ssh-add -l" >/dev/null) &
	stalled=$!
	ends_later $stalled
	wait_for 20 test -e "$T/asks"
	alive "a stopped agent stops nobody else"
	kill -CONT "$AGENT_PID"
	wait $stalled
	is "it goes on when the agent does" "$?" 0
	stop_master
}

no_agent() {
	LABEL="$server: agent: "
	for option in "" -a "-o ForwardAgent=no"; do
		agent_master $option
		is "not by default, not with -a (${option:-default})" "$(fx -A x 'echo ${SSH_AUTH_SOCK:-none}')" none
		stop_master
	done
	need_master -o "ForwardAgent=$T/agent"
	like "by path" "$(fx -A x 'ssh-add -l')" "*forwarded-key*"
	stop_master
	MY_AGENT=$T/agent need_master -o 'ForwardAgent=$MY_AGENT'
	like "by a variable's name" "$(fx -A x 'ssh-add -l')" "*forwarded-key*"
	stop_master
	need_master -A
	is "no agent at the master: none for the session" "$(fx -A x 'echo ${SSH_AUTH_SOCK:-none}')" none
	stop_master
	need_master -o "ForwardAgent=$T/nothing"
	is "an agent that is gone is an error at the server" "$(fx -A x 'ssh-add -l >&2 || echo error')" error
	alive "and nowhere else"
	stop_master
}

# --- X11 ---------------------------------------------------------------------

start_display() {
	COOKIE=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	xauth -q -f "$T/xauth.server" add :0 . "$COOKIE" 2>/dev/null
	Xvfb -displayfd 3 -auth "$T/xauth.server" -nolisten tcp -screen 0 64x48x24 \
		3>"$T/display" >"$T/xvfb.log" 2>&1 &
	ends_later $!
	wait_for 30 [ -s "$T/display" ] || give_up "a display starts"
	DPY=:$(cat "$T/display")
	xauth -q -f "$T/xauth.master" add "$DPY" . "$COOKIE" 2>/dev/null
}

# x_master DISPLAY COOKIES WORD...
x_master() {
	x_display=$1
	x_cookies=$2
	shift 2
	DISPLAY=$x_display XAUTHORITY=$x_cookies need_master "$@"
}

x_works() { fx -X x 'xdpyinfo | grep -c "dimensions: *64x48"'; }

# Keeps a session open that has asked for X11; its display's TCP port in X_PORT,
# its name in X_NAME, its cookie in X_COOKIE.
hold_x() {
	rm -f "$T/hold.x" "$T/hold.out"
	mkfifo "$T/hold.x"
	exec 9<>"$T/hold.x"
	(exec 9>&-; exec_client -X x 'echo $DISPLAY; xauth list $DISPLAY; cat') \
		<"$T/hold.x" >"$T/hold.out" 2>/dev/null &
	HOLD=$!
	wait_for 20 has "$T/hold.out" MIT-MAGIC
	X_NAME=$(sed -n 1p "$T/hold.out")
	X_PORT=${X_NAME#*:}
	X_PORT=$((6000 + ${X_PORT%.*}))
	X_COOKIE=$(sed -n '2s/.* //p' "$T/hold.out")
}
let_go() {
	exec 9>&-
	kill $HOLD 2>/dev/null
	wait $HOLD 2>/dev/null
}

# greeting B|l DIGITS [NAME]: what an X11 program says first
greeting() {
	name=${3:-MIT-MAGIC-COOKIE-1}
	n=$(printf '\\%03o' ${#name})
	c=$(printf '\\%03o' $((${#2} / 2)))
	case $1 in
	B) printf "B\\000\\000\\013\\000\\000\\000$n\\000$c\\000\\000" ;;
	*) printf "l\\000\\013\\000\\000\\000$n\\000$c\\000\\000\\000" ;;
	esac
	printf %s "$name"
	head -c $(((4 - ${#name} % 4) % 4)) /dev/zero
	digits=$2
	while [ -n "$digits" ]; do
		rest=${digits#??}
		printf "\\$(printf %03o "0x${digits%"$rest"}")"
		digits=$rest
	done
}

# first_byte COMMAND...: the first byte that the display answers to what the command
# prints, in hex; nothing if it ends the connection instead
first_byte() {
	rm -f "$T/answered"
	{
		"$@"
		wait_for 20 test -e "$T/answered"
	} | timeout 20 ssh -F none -o ProxyCommand=false -S "$CTL" -W "127.0.0.1:$X_PORT" x 2>/dev/null | {
		od -An -N1 -tx1 | tr -d ' '
		touch "$T/answered"
	}
}

x11() {
	LABEL="$server: X11: "
	x_master "$DPY" "$T/xauth.master" -X
	before=$(fds)
	for CLIENT in $CLIENTS; do
		LABEL="$server, $CLIENT: X11: "
		is "a program shows on the master's display" "$(x_works)" 1
		is "a session that does not ask has none" "$(fx x 'echo ${DISPLAY:-none}')" none
	done
	CLIENT=ssh
	LABEL="$server: X11: "
	is "20 programs at once" "$(fx -X x \
		'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
			xdpyinfo | grep dimensions: & done; wait' |
		grep -c 'dimensions: *64x48')" 20
	hold_x
	is "the server sees another cookie than the display's" \
		"$([ ${#X_COOKIE} = 32 ] && [ "$X_COOKIE" != "$COOKIE" ] && echo other)" other
	greeting l "$X_COOKIE" >"$T/right.l"
	greeting B "$X_COOKIE" >"$T/right.B"
	greeting l "$COOKIE" >"$T/real"
	greeting l 00000000000000000000000000000000 >"$T/zero"
	case $X_COOKIE in
	*0) greeting B "${X_COOKIE%?}1" ;;
	*) greeting B "${X_COOKIE%?}0" ;;
	esac >"$T/nearly"
	greeting l "$X_COOKIE" MIT-MAGIC-COOKIE-2 >"$T/protocol"
	greeting l "" >"$T/none"
	printf 'GET / HTTP/1.0\r\n\r\n' >"$T/http"
	is "the right cookie, little endian" "$(first_byte cat "$T/right.l")" 01
	is "the right cookie, big endian" "$(first_byte cat "$T/right.B")" 01
	for wrong in real zero nearly protocol none http; do
		is "rejected: $wrong" "$(first_byte cat "$T/$wrong")" ""
	done
	[ "$MASTER" = stock ] ||
		is "the first rejection is logged" "$(grep -c 'rejected because of wrong authentication' "$T/master.log")" 1
	is "bytewise" "$(first_byte bytewise)" 01
	alive "the master lives"
	let_go
	same_fds "no descriptor is left" "$before"
	stop_master
}

bytewise() {
	i=0
	while [ $i -lt 48 ]; do
		dd if="$T/right.l" bs=1 skip=$i count=1 2>/dev/null
		i=$((i + 1))
		sleep 0.01
	done
}

no_x11() {
	LABEL="$server: X11: "
	for option in "" -x; do
		x_master "$DPY" "$T/xauth.master" $option
		is "not by default, not with -x (${option:-default})" "$(fx -X x 'echo ${DISPLAY:-none}')" none
		stop_master
	done
	if [ "$MASTER" != stock ]; then		# an empty DISPLAY is one there
		x_master "" "$T/xauth.master" -X
		is "no display at the master: none for the session" "$(fx -X x 'echo ${DISPLAY:-none}')" none
		stop_master
	fi
	x_master "$DPY" "$T/xauth.none" -Y
	is "without a cookie of its own the display refuses" "$(x_works)" 0
	alive "the master lives"
	stop_master
	x_master :4321 "$T/xauth.master" -X
	is "a display that is not there" "$(x_works)" 0
	alive "the master lives"
	stop_master
	[ "$MASTER" = stock ] || slow_xauth
	[ "$MASTER" = stock ] || its_own
}

# Our client tells its display, which need not be the master's.
its_own() {
	[ -x "$SSHMUX" ] || return
	x_master :4321 "$T/xauth.master" -X
	CLIENT=sshmux
	is "a client's own display" "$(DISPLAY=$DPY x_works)" 1
	is "a display's name that is none" "$(DISPLAY='-x y' fx -X x 'echo ${DISPLAY:-none}')" none
	is "and without one the master's" "$(x_works)" 0
	CLIENT=ssh
	is "a stock client tells none" "$(DISPLAY=$DPY x_works)" 0
	stop_master
}

# An xauth that is slow delays the programs that wait for it, nobody else
slow_xauth() {
	cat >"$T/slow" <<-END
		#!/bin/sh
		touch "$T/slow.asked"
		until [ -e "$T/slow.go" ]; do sleep 0.1; done
		exec xauth "\$@"
	END
	chmod 755 "$T/slow"
	x_master "$DPY" "$T/xauth.master" -X -o "XAuthLocation=$T/slow"
	x_works >"$T/slow.out" &
	slow=$!
	wait_for 20 test -e "$T/slow.asked"
	alive "a slow xauth delays no session"
	is "(it is still asked)" "$(gone $slow; echo $?)" 1
	touch "$T/slow.go"
	wait $slow
	is "the program that waits for it then shows" "$(cat "$T/slow.out")" 1
	stop_master
}

# The display that a first master forwards is the second one's: TCP, and xauth
# knows it as unix:N
nested() {
	LABEL="$server: X11: "
	x_master "$DPY" "$T/xauth.master" -X
	first=$MASTER_PID
	hold_x
	CTL=$T/c2
	x_master "$X_NAME" "$T/home/.Xauthority" -X
	is "a display on TCP" "$(x_works)" 1
	stop_master
	CTL=$T/c
	MASTER_PID=$first
	let_go
	stop_master
}

start_agent
for server in sshd dropbear; do
	case $server in
	sshd) start_sshd 'X11Forwarding yes' 'AllowAgentForwarding yes' 'AllowTcpForwarding yes' ;;
	*) start_dropbear ;;
	esac
	[ "$MASTER" = stock ] || agent
	[ "$MASTER" = stock ] || [ $server = dropbear ] || no_agent
	CLIENT=ssh
	LABEL="$server: X11: "
	if ! command -v Xvfb >/dev/null || ! command -v xauth >/dev/null || ! command -v xdpyinfo >/dev/null; then
		skip "forwarding to a display" "needs xvfb, xauth and x11-utils"
	elif [ $server = sshd ]; then
		start_display
		x11
		no_x11
		[ "$MASTER" = stock ] || nested
	fi
	stop_server
done
start_sshd 'X11Forwarding no' 'AllowAgentForwarding no'
LABEL="sshd that forwards nothing: "
DISPLAY=:0 SSH_AUTH_SOCK=$T/agent need_master -A -X
is "the session goes on" "$(fx -A -X x 'echo ${DISPLAY:-none} ${SSH_AUTH_SOCK:-none}; exit 3'; echo $?)" "none none
3"
is "with one line" "$(tr -d '\r' <"$T/fx.err")" "X11 forwarding request failed"
stop_master
stop_server
finish
