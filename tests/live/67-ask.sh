# ControlMaster=ask: an askpass program is asked before each request.
# shellcheck shell=sh disable=SC1091,SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

# script NAME LINE...: an askpass program; each notes its question
script() {
	script_name=$T/ask.$1
	shift
	{
		printf '%s\n' '#!/bin/sh' "printf '%s|%s\n' \"\$1\" \"\$SSH_ASKPASS_PROMPT\" >>$T/asked"
		printf '%s\n' "$@"
	} >"$script_name"
	chmod 755 "$script_name"
}

# ask_master SCRIPT WORD...: as "current", which a test can point elsewhere
# The programs that a master runs are those beside its helper (-o Confine).
all_children() { wc -w <"/proc/$MASTER_PID/task/$MASTER_PID/children"; }
ask_master() {
	ln -sf "ask.$1" "$T/ask"
	shift
	: >"$T/asked"
	DISPLAY=:99 SSH_ASKPASS=$T/ask need_master "$@"
	HELPERS=$(all_children)
}
use() { ln -sf "ask.$1" "$T/ask"; : >"$T/asked"; }
asked() { head -n 1 "$T/asked"; }

script empty exit 0
script yes 'echo yes'
script Yes 'printf "YES\r\n"'
script no 'echo no'
script fails 'echo yes; exit 1'
script killed 'echo yes; kill -9 $$'
script slow 'sleep 3; echo yes'
script long 'head -c 300000 /dev/zero'
script never 'sleep 300'
script stopped 'kill -STOP $$; echo yes'
script helper '(sleep 4) & echo yes'
script looks 'ls /proc/self/fd | tr "\n" " " >'"$T/looks"'; grep -E "^Sig(Ign|Blk)" /proc/self/status >>'"$T/looks"

# one CLIENT after the other, with what it is told
answers() {
	for CLIENT in $CLIENTS; do
		LABEL="$CLIENT: "
		for answer in empty yes Yes; do
			use $answer
			is "$answer: goes on" "$(cx 'echo in' </dev/null 2>&1)" in
		done
		for answer in no fails killed; do
			use $answer
			is "$answer: refused" "$(cx 'echo in' </dev/null 2>"$T/err"; echo $?)" 255
			like "$answer: says so" "$(cat "$T/err")" "*Master refused session request: Permission denied*"
		done
	done
	LABEL=
	if [ "$MASTER" != stock ]; then		# it loses its socket to the failing child
		rm "$T/ask"
		is "no program: refused" "$(sx 'echo in' </dev/null 2>/dev/null; echo $?)" 255
	fi
	use looks
	is "the program that looks around says yes" "$(sx 'echo in' </dev/null)" in
	if [ "$MASTER" != stock ]; then
		like "it has three descriptors (and its own)" "$(cat "$T/looks")" "0 1 2 3 Sig*"
		like "no signal is ignored or blocked" "$(tr -d "\t\n" <"$T/looks")" \
			"*SigBlk:0000000000000000SigIgn:0000000[01][08]000000[0-7]"
	fi
	is "the question" "$(asked)" "Allow shared connection to 127.0.0.1? |confirm"
}

questions() {
	LABEL="questions: "
	use yes
	port=$(random_port)
	works "a forward" sx_o forward -L "$port:localhost:$PORT"
	is "a local forward's" "$(asked)" \
		"Open local forward LOCALHOST:$port -> localhost:$PORT on 127.0.0.1?|confirm"
	works "the same again" sx_o forward -L "$port:localhost:$PORT"
	is "is not asked about" "$(lines "$T/asked")" 1
	works "the end of a forward" sx_o cancel -L "$port:localhost:$PORT"
	is "neither" "$(lines "$T/asked")" 1
	use yes
	works "a dynamic forward" sx_o forward -D "$port"
	is "a dynamic forward's" "$(asked)" "Open dynamic forward LOCALHOST:$port -> * on 127.0.0.1?|confirm"
	use yes
	works "a remote forward" sx_o forward -R "127.0.0.1:$((port + 1)):localhost:$PORT"
	is "a remote forward's" "$(asked)" \
		"Open remote forward 127.0.0.1:$((port + 1)) -> localhost:$PORT on 127.0.0.1?|confirm"
	use yes
	like "a stdio forward" "$(sleep 2 | sx_w "localhost:$PORT" | head -c 3)" SSH
	is "a stdio forward's" "$(asked)" "Allow forward to localhost:$PORT? |confirm"
	use no
	like "a forward that is refused" "$(sx_o forward -L "$((port + 2)):localhost:$PORT" 2>&1)" \
		"*Master refused forwarding request: Permission denied*"
	use no
	like "stdio that is refused" "$(sx_w "localhost:$PORT" 2>&1 </dev/null)" \
		"*Master refused stdio forwarding request: Permission denied*"
	CLIENT=ssh control check
	is "a check is not asked about" "$CONTROL_RC $(lines "$T/asked")" "0 1"
}
sx_o() (command=$1; shift; exec ssh -F none -S "$CTL" -O "$command" "$@" x)
sx_w() (exec ssh -F none -o ProxyCommand=false -S "$CTL" -W "$1" x)

# The request of a client that leaves ends the program; none waits for others
leaving() {
	LABEL="leaving: "
	for kind in never stopped; do
		use $kind
		before=$(fds)
		(exec_client x 'echo in' </dev/null >/dev/null 2>&1) &
		waiting=$!
		ends_later $waiting
		wait_for 10 [ -s "$T/asked" ] || not_ok "the program runs"
		is "$kind: one program runs" "$(children)" 1
		use yes
		is "$kind: others are served meanwhile" "$(sx 'echo in' </dev/null 2>&1)" in
		end $waiting
		wait_for 10 no_children
		is "$kind: it ends with its client" "$(children)" 0
		same_fds "$kind: no descriptor is left" "$before"
	done
	use slow
	began=$(date +%s)
	n=0
	while [ $n -lt 6 ]; do
		n=$((n + 1))
		(cx "echo $n" </dev/null >"$T/slow.$n" 2>&1) &
	done
	wait_for 60 all_slow
	is "six at once, by turns" "$(cat "$T"/slow.[1-6] | sort | tr -d '\n')" 123456
	is "not one by one" "$([ $(($(date +%s) - began)) -lt 17 ] && echo yes)" yes
	use helper
	is "a program that leaves a helper behind has answered" "$(timeout 20 ssh -F none -o ProxyCommand=false \
		-S "$CTL" x 'echo in' </dev/null 2>&1)" in
}
all_slow() { [ "$(cat "$T"/slow.[1-6] 2>/dev/null | grep -c '[1-6]')" = 6 ]; }
children() { echo $(($(all_children) - HELPERS)); }
no_children() { [ "$(children)" = 0 ]; }

# A refused client may ask again on the same connection; a second request is
# not read before the first is answered
again() {
	LABEL="again: "
	use no
	plays "two refusals on one connection" hello expect 1 ... \
		$SESSION ':echo in' fd 0 1 2 expect 0x80000002 1 ':Permission denied' \
		$SESSION ':echo in' fd 0 1 2 expect 0x80000002 1 ':Permission denied' \
		send 0x10000004 7 expect 0x80000005 7 pid
	use no
	plays "proxy mode is refused" hello expect 1 ... send 0x1000000f 3 expect 0x80000002 3 ':Permission denied' \
		send 0x10000004 7 expect 0x80000005 7 pid
	is "it is asked about" "$(asked)" "Allow multiplex proxy connection to 127.0.0.1? |confirm"
	use yes
	plays "proxy mode is allowed" hello expect 1 ... send 0x1000000f 3 expect 0x8000000f 3
	use slow
	plays "answers keep their order" hello expect 1 ... \
		send 0x10000009 5 send 0x10000004 7 quiet 1000 expect 0x80000001 5 expect 0x80000005 7 pid
}

# What changes something is asked about, a report is not
commands() {
	LABEL="commands: "
	for command in hold resume reconnect 'loglevel DEBUG' 'signal 0 TERM' 'kill 0' drain; do
		use no
		timeout 20 "$SSHMUX" -F none -S "$CTL" -O $command >"$T/out" 2>&1
		is "$command: refused" "$? $(asked)" "255 Allow ${command%% *} on shared connection to 127.0.0.1? |confirm"
	done
	works "a report" "$SSHMUX" -F none -S "$CTL" -O status
	is "is not asked about" "$(lines "$T/asked")" 1
	use yes
	alive "the master lives"
}

ending() {
	LABEL="ending: "
	use no
	CLIENT=ssh control stop
	is "a refused stop" "$CONTROL_RC" 255
	is "asks" "$(asked)" "Disable further multiplexing on shared connection to 127.0.0.1? |confirm"
	use no
	CLIENT=ssh control exit
	is "a refused exit" "$CONTROL_RC" 255
	is "asks" "$(asked)" "Terminate shared connection to 127.0.0.1? |confirm"
	use yes
	alive "the master lives"
	works "an allowed exit" sx_o exit
	reap_master
	[ "$MASTER" = stock ] || is "ends the master" "$MASTER_RC" 0
}

start_sshd
ask_master yes -M
LABEL=
answers
questions
[ "$MASTER" = stock ] || { leaving; commands; }
ending
[ "$MASTER" = stock ] || for value in ask autoask; do
	use no
	# -M would come first, and the first value wins
	SSH_ASKPASS=$T/ask "$SSHMUX" -S "$CTL" -N -p "$PORT" -l "$ME" -o ControlMaster=$value $USUAL 127.0.0.1 \
		>"$T/master.log" 2>&1 </dev/null &
	MASTER_PID=$!
	ends_later $MASTER_PID
	wait_for 20 master_settled
	is "ControlMaster=$value" "$(sx 'echo in' </dev/null 2>/dev/null; echo $?) $(asked)" \
		"255 Allow shared connection to 127.0.0.1? |confirm"
	stop_master
done
ask_master yes
is "-M does not ask" "$(sx 'echo in' </dev/null)$(lines "$T/asked")" in0
stop_master
if [ "$MASTER" != stock ]; then
	SSH_ASKPASS_REQUIRE=never ask_master yes -M
	is "SSH_ASKPASS_REQUIRE=never" "$(sx 'echo in' </dev/null 2>/dev/null; echo $?) $(asked)" "255 "
	stop_master
	ask_master long -M
	(sx 'echo in' </dev/null >/dev/null 2>&1) &
	babbled=$!
	ends_later $babbled
	sleep 1
	is "a program that babbles has not answered" "$(children)" 1
	stop_master
	is "the end of the master ends it" "$MASTER_RC" 0
	ask_master yes -M
	again
	wait_for 10 gone "$MASTER_PID"
	ends_later "$MASTER_PID"
fi
stop_server
finish
