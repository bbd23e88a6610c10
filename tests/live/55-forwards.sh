# Forwards: local, remote, unix sockets; listen hosts, duplicates, cancelling,
# refusals, half closes, what keeps a master that stops.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2094,SC2153
. "$TESTDIR/lib.sh"

HELLO='hello expect 1 4 ...'
OK=0x80000001 FAILURE=0x80000003 UNIX=0xfffffffe

# serve NAME ADDRESS COMMAND...: answers connections; its port in SERVED
serve() {
	serve_name=$1
	shift
	serve_address=$1
	shift
	"$NET" serve "$serve_address" "$T/$serve_name.port" "$@" 2>/dev/null &
	SERVER_OF=$!
	ends_later $SERVER_OF
	wait_for 10 test -s "$T/$serve_name.port" || give_up "the $serve_name server starts"
	SERVED=$(cat "$T/$serve_name.port")
}

free_port() {
	FREE=$(random_port)
	while listening "$FREE" || [ "$FREE" = "$TAKEN" ]; do FREE=$(random_port); done
}

# forward WORD..., cancel WORD...: by the stock client
forward() { tell forward "$@"; }
cancel() { tell cancel "$@"; }
tell() {
	tell_what=$1
	shift
	ssh -F none -S "$CTL" -O $tell_what "$@" x >"$T/f.out" 2>"$T/f.err" </dev/null
	F_RC=$?
	F_OUT=$(cat "$T/f.out")
	F_ERR=$(tr -d '\r' <"$T/f.err")
}

# passes NAME ADDRESS: what goes in comes back whole
passes() { is "$1" "$("$NET" call "$2" <"$T/data" | sum)" "$(sum "$T/data")"; }

# closes NAME ADDRESS: the connection is taken, and closed without a byte
closes() { is "$1" "$(timeout 20 "$NET" call "$2" </dev/null 2>/dev/null | wc -c)" 0; }

not_listening() { ! listening "$1"; }

# server_closes PORT: waits for it; Debian 12's dropbear server never does
server_closes() { [ $SERVER != sshd ] || wait_for 20 not_listening "$1"; }

# bound PORT: the addresses it listens on, as the kernel writes them
bound() {
	cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
		sed -n "s/^ *[0-9]*: \([0-9A-F]*\):$(printf %04X "$1") 0*:0000 0A.*/\1/p" |
		sort | tr '\n' ' ' | sed 's/ $//'
}
V4_LOOP=0100007F V6_LOOP=00000000000000000000000001000000
V4_ANY=00000000 V6_ANY=00000000000000000000000000000000
if have_ipv6; then
	LOOPBACK="$V6_LOOP $V4_LOOP" ANYWHERE="$V4_ANY $V6_ANY"
else
	LOOPBACK=$V4_LOOP ANYWHERE=$V4_ANY
fi

local_kinds() {
	free_port; p=$FREE; TAKEN=$p
	forward -L $p:127.0.0.1:$ECHO
	is "FWD-open-ok: a local forward, nothing is said" "$F_RC $F_OUT$F_ERR" "0 "
	is "FWD-reply-listening: it listens when OK comes" "$(listening $p; echo $?)" 0
	passes "FWD-local: TCP to TCP" 127.0.0.1:$p
	have_ipv6 && passes "FWD-local: by IPv6 loopback" "[::1]:$p"
	"$NET" call 127.0.0.1:$p <"$T/hold" >"$T/held" 9>&- &
	held=$!
	ends_later $held
	printf 'one\n' >&9
	wait_for 20 has "$T/held" one
	cancel -L $p:127.0.0.1:$ECHO
	is "FWD-cancel-local: OK, nothing is said" "$F_RC $F_OUT$F_ERR" "0 "
	is "FWD-cancel-local: the listener is gone at once" "$(listening $p; echo $?)" 1
	printf 'two\n' >&9
	wait_for 20 has "$T/held" two
	is "FWD-cancel-local: an existing connection stays" "$(cat "$T/held")" "one
two"
	kill $held
	wait $held 2>/dev/null

	forward -L "$T/l.s:127.0.0.1:$ECHO"
	is "FWD-local: unix to TCP is set up" "$F_RC $F_ERR" "0 "
	passes "FWD-local: unix to TCP" "$T/l.s"
	is "FWD-path-mode: a socket that is created has mode 600" "$(stat -c %a "$T/l.s")" 600
	forward -L "$T/l.s:127.0.0.1:1"
	like "FWD-path-taken: an existing path is a failure" "$F_RC $F_ERR" "255 *Port forwarding failed*"
	differs "FWD-path-taken: it says what helps" "it has no such text" ||
		like "FWD-path-taken: it says what helps" "$F_ERR" "*Address *in use (StreamLocalBindUnlink=yes *"
	long=$T/$(printf %0100d 0)
	differs "FWD-path-long: limit and length" "its client says something else" ||
		like "FWD-path-long: limit and length" "$("$SSHMUX" -S "$CTL" -O forward -L "$long:127.0.0.1:1" 2>&1)" \
			"*path is too long (${#long} bytes, at most 107)*"
	passes "FWD-path-taken: the first forward goes on" "$T/l.s"
	cancel -L "$T/l.s:127.0.0.1:$ECHO"
	is "FWD-path-unlink: cancelled" "$F_RC $F_ERR" "0 "
	differs "FWD-path-unlink: its file is removed" "it leaves the file on disk" ||
		is "FWD-path-unlink: its file is removed" "$(ls "$T/l.s" 2>/dev/null)" ''
	rm -f "$T/l.s"
	if ! differs "FWD-path-unlink: a file that is not ours stays" "it never removes one"; then
		forward -L "$T/l.s:127.0.0.1:$ECHO"
		rm "$T/l.s"
		echo mine >"$T/l.s"
		cancel -L "$T/l.s:127.0.0.1:$ECHO"
		is "FWD-path-unlink: a file that is not ours stays" "$(cat "$T/l.s")" mine
		rm -f "$T/l.s"
	fi

	# Debian 12's dropbear server does not know the channel type.
	if [ $SERVER = sshd ]; then
		forward -L $p:"$T/echo.s"
		passes "FWD-local: TCP to unix" 127.0.0.1:$p
		cancel -L $p:"$T/echo.s"
		forward -L "$T/l.s:$T/echo.s"
		passes "FWD-local: unix to unix" "$T/l.s"
		cancel -L "$T/l.s:$T/echo.s"
		rm -f "$T/l.s"
	else
		forward -L $p:"$T/echo.s"
		closes "FWD-refused-target: a server without the channel type" 127.0.0.1:$p
		cancel -L $p:"$T/echo.s"
	fi
}

remote_kinds() {
	free_port; p=$FREE; TAKEN=$p
	forward -R $p:127.0.0.1:$ECHO
	is "FWD-open-ok: a remote forward, nothing is said" "$F_RC $F_OUT$F_ERR" "0 "
	is "FWD-reply-listening: the server listens when OK comes" "$(listening $p; echo $?)" 0
	passes "FWD-remote: TCP to TCP" 127.0.0.1:$p
	cancel -R $p:127.0.0.1:1
	like "FWD-match: another target is another forward" "$F_RC $F_ERR" \
		"0 *port not forwarded*"
	cancel -R $p:127.0.0.1:$ECHO
	is "FWD-cancel-remote: OK, nothing is said" "$F_RC $F_ERR" "0 "
	if [ $SERVER = sshd ]; then
		wait_for 20 not_listening $p
		is "FWD-cancel-remote: the server stops listening" $? 0
	else
		closes "FWD-unknown-open: what is cancelled opens nothing" 127.0.0.1:$p
	fi

	free_port; p=$FREE
	forward -R $p:"$T/echo.s"
	passes "FWD-remote: TCP to unix" 127.0.0.1:$p
	cancel -R $p:"$T/echo.s"
	server_closes $p
	free_port; p=$FREE
	if [ $SERVER = sshd ]; then
		forward -R "$T/r.s:127.0.0.1:$ECHO"
		is "FWD-remote: unix to TCP is set up" "$F_RC $F_ERR" "0 "
		passes "FWD-remote: unix to TCP" "$T/r.s"
		forward -R "$T/r.s:127.0.0.1:1"
		like "FWD-remote-path: a failure names the path" "$F_RC $F_ERR" \
			"255 *remote port forwarding failed for listen path $T/r.s*"
		cancel -R "$T/r.s:127.0.0.1:$ECHO"
		wait_for 20 has "$SERVER_LOG" "cancel-streamlocal-forward"
		is "FWD-cancel-remote: the server is told about the path" $? 0
		rm -f "$T/r.s"
		forward -R "$T/u.s:$T/echo.s"
		passes "FWD-remote: unix to unix" "$T/u.s"
		cancel -R "$T/u.s:$T/echo.s"
		rm -f "$T/u.s"
	else
		forward -R "$T/r.s:127.0.0.1:$ECHO"
		like "FWD-remote-path: a server without it refuses" "$F_RC $F_ERR" \
			"255 *remote port forwarding failed for listen path $T/r.s*"
	fi
	alive "the master lives after remote forwards"
}

remote_port_0() {
	forward -R 0:127.0.0.1:$ECHO
	is "FWD-port0: the port on stdout, nothing else" "$F_RC $F_ERR" "0 "
	p=$F_OUT
	passes "FWD-port0: the allocated port" 127.0.0.1:"$p"
	forward -R 0:127.0.0.1:$ECHO
	is "FWD-duplicate: port 0 again is the same port" "$F_RC $F_OUT" "0 $p"
	plays "FWD-port0: REMOTE_PORT carries it" $HELLO \
		send 0x10000006 7 2 : 0 :127.0.0.1 $ECHO expect 0x80000007 7 "$p"
	forward -v -R 0:127.0.0.1:$ECHO
	is "FWD-port0: with -v also in words" "$(echo "$F_ERR" | grep Allocated)" \
		"Allocated port $p for remote forward to 127.0.0.1:$ECHO"
	cancel -R "$p":127.0.0.1:$ECHO
	like "FWD-match: cancelling by the allocated number finds nothing" "$F_RC $F_ERR" \
		"0 *port not forwarded*"
	cancel -R 0:127.0.0.1:$ECHO
	is "FWD-match: cancelling with port 0 does" "$F_RC $F_ERR" "0 "
	[ $SERVER != sshd ] || wait_for 20 not_listening "$p"
	is "FWD-cancel-remote: the allocated port is closed" \
		"$("$NET" call 127.0.0.1:"$p" </dev/null 2>/dev/null | wc -c)" 0
}

# hosts POINT OPTION LISTEN WANT [LOG]: sets a forward up, compares its addresses
hosts() {
	free_port; p=$FREE
	forward $2 "$(echo "$3" | sed "s/PORT/$p/"):127.0.0.1:$ECHO"
	[ "$F_RC" = 0 ] || note "$F_ERR"
	is "$1" "$(bound $p)" "$4"
	cancel $2 "$(echo "$3" | sed "s/PORT/$p/"):127.0.0.1:$ECHO"
	server_closes $p
}

listen_hosts() {
	hosts 'FWD-host-rules: local, none: loopback' -L PORT "$LOOPBACK"
	hosts 'FWD-host-rules: local, "*": everywhere' -L '*:PORT' "$ANYWHERE"
	hosts 'FWD-host-rules: local, empty: everywhere' -L ':PORT' "$ANYWHERE"
	hosts 'FWD-host-rules: local, localhost: loopback' -L localhost:PORT "$LOOPBACK"
	hosts 'FWD-host-rules: local, an address: that one' -L 127.0.0.2:PORT 0200007F
	! have_ipv6 || hosts 'FWD-host-rules: local, an IPv6 address' -L '[::1]:PORT' $V6_LOOP
	# One family is taken: the other is enough.
	if have_ipv6; then
		serve taken 127.0.0.1:0 cat
		forward -L $SERVED:127.0.0.1:$ECHO
		is "FWD-bind-any: one address that listens is enough" "$F_RC $F_ERR" "0 "
		passes "FWD-bind-any: and it works" "[::1]:$SERVED"
		cancel -L $SERVED:127.0.0.1:$ECHO
		end $SERVER_OF
	fi
	[ $SERVER = sshd ] || {
		hosts 'FWD-host-rules: remote, none: loopback' -R PORT "$LOOPBACK"
		return
	}
	: >"$SERVER_LOG"
	hosts 'FWD-host-rules: remote, none: loopback' -R PORT "$LOOPBACK"
	works 'FWD-host-rules: remote, none is sent as localhost' \
		grep -q "tcpip-forward listen localhost port $p" "$SERVER_LOG"
	hosts 'FWD-host-rules: remote, "*": everywhere' -R '*:PORT' "$ANYWHERE"
	works 'FWD-host-rules: remote, "*" is sent as nothing' \
		grep -q "tcpip-forward listen  port $p" "$SERVER_LOG"
	hosts 'FWD-host-rules: remote, an address: as given' -R 127.0.0.2:PORT 0200007F
	works 'FWD-host-rules: remote, an address is sent as it is' \
		grep -q "tcpip-forward listen 127.0.0.2 port $p" "$SERVER_LOG"
}

duplicates() {
	free_port; p=$FREE; TAKEN=$p
	forward -L $p:127.0.0.1:$ECHO
	forward -L $p:127.0.0.1:$ECHO
	is "FWD-duplicate: the same local forward again is OK" "$F_RC $F_ERR" "0 "
	forward -L $p:127.0.0.1:1
	like "FWD-duplicate: another target at the same port fails" "$F_RC $F_ERR" \
		"255 *Port forwarding failed*master forward request failed*"
	for other in "-L localhost:$p:127.0.0.1:$ECHO" "-L *:$p:127.0.0.1:$ECHO" \
		"-L $p:localhost:$ECHO" "-L $p:127.0.0.1:1" "-R $p:127.0.0.1:$ECHO" "-D $p"; do
		cancel $other
		like "FWD-match: cancel $(echo "$other" | sed "s/$p/P/; s/$ECHO/E/") finds nothing" "$F_RC $F_ERR" \
			"0 *port not forwarded*master cancel forward request failed*"
	done
	passes "FWD-match: the forward is untouched" 127.0.0.1:$p
	cancel -L $p:127.0.0.1:$ECHO
	cancel -L $p:127.0.0.1:$ECHO
	like "FWD-match: a second cancel finds nothing" "$F_ERR" "*port not forwarded*"
	forward -R $p:127.0.0.1:$ECHO
	forward -R $p:127.0.0.1:$ECHO
	is "FWD-duplicate: the same remote forward again is OK" "$F_RC $F_ERR" "0 "
	cancel -R $p:127.0.0.1:$ECHO
	server_closes $p
}

# invalid NAME FIELD...: OPEN_FWD with those fields is a FAILURE, the
# connection and the master live
invalid() {
	invalid_name=$1
	shift
	plays "FWD-invalid: $invalid_name" $HELLO send 0x10000006 3 "$@" \
		expect $FAILURE 3 ':Invalid forwarding request' \
		send 0x10000004 5 expect 0x80000005 5 pid
}

refusals() {
	plays "FWD-short: dropped without a word" $HELLO send 0x10000006 3 1 : 8080 eof
	plays "FWD-short: CLOSE_FWD too" $HELLO send 0x10000007 3 1 : 8080 eof
	invalid "local to port 0" 1 : 20022 :127.0.0.1 0
	invalid "local without a connect host" 1 : 20022 : 22
	invalid "remote without a connect host" 2 : 20022 : 22
	for type in 0 4 0xffffffff; do
		differs "FWD-type: type $type is a failure" "it dies of it" ||
			invalid "FWD-type: type $type is a failure" $type : 20022 :127.0.0.1 22
	done
	invalid "FWD-dynamic-path: a dynamic forward cannot listen on a path" 3 ":$T/d.s" $UNIX :socks 0
	for port in 65536 0xfffffffd; do
		differs "FWD-port-range: listen port $port is a failure" "it drops the client" ||
			invalid "FWD-port-range: listen port $port is a failure" 1 : $port :127.0.0.1 22
		differs "FWD-port-range: connect port $port is a failure" "it drops the client" ||
			invalid "FWD-port-range: connect port $port is a failure" 1 : 20022 :127.0.0.1 $port
	done
	differs "FWD-local-port0: local with listen port 0" "it listens on a port nobody learns" ||
		invalid "FWD-local-port0: local with listen port 0" 1 : 0 :127.0.0.1 22
	alive "FWD-invalid: the master lives"
	plays "FWD-listen-fails: says what failed" $HELLO \
		send 0x10000006 3 1 :192.0.2.1 20022 :127.0.0.1 22 expect $FAILURE 3 ':*'
	forward -L 192.0.2.1:20022:127.0.0.1:22
	like "FWD-listen-fails: ssh shows the reason" "$F_RC $F_ERR" \
		"255 *forwarding request failed: Port forwarding failed*"
	forward -R $PORT:127.0.0.1:22
	like "FWD-remote-fails: the reason names the port" "$F_RC $F_ERR" \
		"255 *remote port forwarding failed for listen port $PORT*"
	plays "FWD-close-unknown: CLOSE_FWD of nothing" $HELLO \
		send 0x10000007 4 1 : 20022 :127.0.0.1 22 expect $FAILURE 4 ':port not forwarded'
}

closed_port() { free_port; CLOSED=$FREE; }

# Requests that follow each other without waiting are answered in their order.
pipelined() {
	free_port; p=$FREE
	plays "FWD-pipelined: answers come in the order of the requests" $HELLO \
		send 0x10000006 11 2 : $p :127.0.0.1 $ECHO send 0x10000004 12 \
		send 0x10000007 13 2 : $p :127.0.0.1 $ECHO send 0x10000004 14 \
		expect $OK 11 expect 0x80000005 12 pid expect $OK 13 expect 0x80000005 14 pid
	server_closes $p
}

# told COUNT NAME: so many lines more of the master say that a connection failed
told() {
	[ "$MASTER" != stock ] || return 0
	now=$(grep -c 'channel [0-9]*: open failed: connect failed' "$T/master.log")
	is "FWD-tell: $2" $((now - said)) "$1"
	said=$now
}

# tally NAME TEXT: what -O channels says of the forward
tally() {
	[ "$MASTER" = stock ] || emulated mips "FWD-tell: $1: -O channels" "$NO_SO_ERROR" ||
		like "FWD-tell: $1: -O channels" "$("$SSHMUX" -S "$CTL" -O channels)" "*$2*"
}

# A target that refuses closes that connection only.
refused_targets() {
	closed_port
	free_port; p=$FREE; TAKEN=$p
	forward -L $p:127.0.0.1:$CLOSED
	said=$(grep -c 'open failed: connect failed' "$T/master.log")
	closes "FWD-refused-target: local" 127.0.0.1:$p
	told 1 "-L, once"
	"$NET" call 127.0.0.1:$q <"$T/hold" >"$T/held" 9>&- &
	held=$!
	ends_later $held
	printf 'one\n' >&9
	wait_for 20 has "$T/held" one
	closes "FWD-refused-target: local, again" 127.0.0.1:$p
	told 0 "-L, not again"
	tally -L "active, 2 of 2 connections failed, last: connect failed"
	cancel -L $p:127.0.0.1:$CLOSED
	forward -R $p:127.0.0.1:$CLOSED
	closes "FWD-refused-target: remote" 127.0.0.1:$p
	told 1 -R
	tally -R "active, 1 of 1 connection failed, last: connect failed: Connection refused"
	cancel -R $p:127.0.0.1:$CLOSED
	server_closes $p
	free_port; p=$FREE
	forward -R $p:"$T/nobody.s"
	closes "FWD-refused-target: remote to a path" 127.0.0.1:$p
	told 1 "-R to a path"
	tally "-R to a path" "last: connect failed: No such file or directory"
	cancel -R $p:"$T/nobody.s"
	free_port; p=$FREE
	forward -D $p
	"$NET" -s4 127.0.0.1:$CLOSED call 127.0.0.1:$p </dev/null >/dev/null 2>&1
	told 1 -D
	tally -D "active, 1 of 1 connection failed, last: connect failed"
	cancel -D $p
	(exec_client -W 127.0.0.1:$CLOSED x) >/dev/null 2>&1 </dev/null
	told 1 -W
	printf 'two\n' >&9
	wait_for 20 has "$T/held" two
	is "FWD-refused-target: the other connection goes on" "$(cat "$T/held")" "one
two"
	kill $held
	wait $held 2>/dev/null
}

# One server answers after the end of what it hears, the other ends first.
half_closes() {
	for way in L R; do
		free_port; p=$FREE; TAKEN=$p
		forward -$way $p:127.0.0.1:$SUMS
		is "FWD-half-close: -$way, the caller ends first" \
			"$("$NET" call 127.0.0.1:$p <"$T/data" | cut -c1-64)" "$(sum "$T/data")"
		cancel -$way $p:127.0.0.1:$SUMS
		server_closes $p
		free_port; p=$FREE
		forward -$way $p:127.0.0.1:$FIRST
		rm -f "$T/rest"
		: >"$T/heard"
		is "FWD-half-close: -$way, the other side ends first" "$(
			{
				wait_for 20 has "$T/heard" bye
				cat "$T/data"
			} | "$NET" -on call 127.0.0.1:$p >"$T/heard"
			cat "$T/heard"
		)" bye
		wait_for 20 test -s "$T/rest"
		is "FWD-half-close: -$way, and still hears the rest" "$(cut -c1-64 "$T/rest")" "$(sum "$T/data")"
		rm -f "$T/heard"
		cancel -$way $p:127.0.0.1:$FIRST
		server_closes $p
	done
}

# Forwards of the command line; the bind address rule of GatewayPorts.
from_options() {
	free_port; p=$FREE; TAKEN=$p
	free_port; r=$FREE
	need_master -L $p:127.0.0.1:$ECHO -R $r:127.0.0.1:$ECHO -L "$T/o%p.s:127.0.0.1:$ECHO"
	passes "FWD-options: -L of the master" 127.0.0.1:$p
	passes "FWD-options: -L of a path with a token" "$T/o$PORT.s"
	wait_for 20 listening $r
	passes "FWD-options: -R of the master" 127.0.0.1:$r
	forward -L $p:127.0.0.1:$ECHO
	is "FWD-duplicate: one of the master's own is OK" "$F_RC $F_ERR" "0 "
	(exec_client -O exit x) 2>/dev/null
	reap_master
	differs "FWD-path-unlink: removed at the end of the master" "it leaves the file on disk" ||
		is "FWD-path-unlink: removed at the end of the master" "$(ls "$T/o$PORT.s" 2>/dev/null)" ''
	rm -f "$T/o$PORT.s"
	need_master -g
	hosts 'FWD-host-rules: local, none, GatewayPorts: everywhere' -L PORT "$ANYWHERE"
	hosts 'FWD-host-rules: local, localhost, GatewayPorts: loopback' -L localhost:PORT "$LOOPBACK"
	stop_master
}

# left PATH: a socket whose process is gone
left() { python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$1"; }

# What sshd leaves at a path of -R is removed when asked for, files that are none are not.
left_behind() {
	[ $SERVER$MASTER = sshdsshmux ] || return 0
	need_master
	left "$T/left.s"
	forward -R "$T/left.s:127.0.0.1:$ECHO"
	is "FWD-unlink: no, -R a path that was left" $F_RC 255
	works "FWD-unlink: no, the master says what helps" grep -q 'refuses to listen there (StreamLocalBindUnlink=yes ' "$T/master.log"
	stop_master
	left "$T/it's.s"
	left "$T/l.s"
	echo mine >"$T/file"
	need_master -o StreamLocalBindUnlink=yes -o StreamLocalBindMask=0117 -o Reconnect=yes \
		-R "$T/left.s:127.0.0.1:$ECHO" -L "$T/l.s:127.0.0.1:$ECHO"
	passes "FWD-unlink: -L a path" "$T/l.s"
	is "FWD-mask: -L a path" "$(stat -c %a "$T/l.s")" 660
	wait_for 30 left_stands
	passes "FWD-unlink: -R a path that was left" "$T/left.s"
	forward -R "$T/it's.s:127.0.0.1:$ECHO"
	passes "FWD-unlink: -R a path with a quote" "$T/it's.s"
	forward -R "$T/file:127.0.0.1:$ECHO"
	is "FWD-unlink: -R a file that is no socket" "$F_RC $(cat "$T/file")" "255 mine"
	stop_master
	rm -f "$T/left.s" "$T/it's.s" "$T/file"
}
left_stands() { "$SSHMUX" -S "$CTL" -O channels | grep -q 'left.s -> .*: active'; }

# STOP: a connection that is forwarded keeps the master, a listener does not.
stopping() {
	need_master
	free_port; p=$FREE
	forward -L $p:127.0.0.1:$ECHO
	"$NET" call 127.0.0.1:$p <"$T/hold" >"$T/held" 9>&- &
	held=$!
	ends_later $held
	printf 'one\n' >&9
	wait_for 20 has "$T/held" one
	(exec_client -O stop x) 2>"$T/err"
	is "STOP-path: the socket is gone before the answer" "$(ls "$CTL" 2>/dev/null)" ''
	printf 'two\n' >&9
	wait_for 20 has "$T/held" two
	is "STOP-living: a forwarded connection goes on" "$(cat "$T/held")" "one
two"
	is "STOP-living: the master lives for it" "$(gone $MASTER_PID; echo $?)" 1
	kill $held
	wait $held 2>/dev/null
	reap_master
	works "STOP-end: then it ends, the listener does not keep it" gone $MASTER_PID
	is "STOP-end: the listener is gone" "$(listening $p; echo $?)" 1
	[ "$MASTER" = stock ] || is "STOP-end: status" "$MASTER_RC" 0
}

TAKEN=
head -c 700000 /dev/urandom >"$T/data"
mkfifo "$T/hold"
exec 9<>"$T/hold"
serve echo 127.0.0.1:0 cat
ECHO=$SERVED
serve unix "$T/echo.s" cat
serve sums 127.0.0.1:0 sha256sum
SUMS=$SERVED
serve first 127.0.0.1:0 sh -c "echo bye; '$NET' shut; sha256sum >'$T/rest.new'; mv '$T/rest.new' '$T/rest'"
FIRST=$SERVED
for server in sshd dropbear; do
	LABEL="$server: "
	case $server in
	sshd) start_sshd 'GatewayPorts clientspecified' ;;
	*) start_server $server ;;
	esac
	need_master
	before=$(fds)
	free_port; q=$FREE
	local_kinds
	remote_kinds
	remote_port_0
	listen_hosts
	duplicates
	refusals
	pipelined
	forward -L $q:127.0.0.1:$ECHO
	refused_targets
	cancel -L $q:127.0.0.1:$ECHO
	half_closes
	same_fds "no descriptor left" "$before"
	stop_master
	from_options
	left_behind
	stopping
	stop_server
done
finish
