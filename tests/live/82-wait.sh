# Requests that wait: while the link is down, for a master, for an answer; who
# leaves the queue, and what our client makes of it.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153,SC2154
. "$TESTDIR/lib.sh"
. "$TESTDIR/link.sh"
if [ "$MASTER" = stock ]; then
	skip "waiting for the link" "OpenSSH's master ends with its connection"
	finish
fi

FAR='-o ReconnectMin=1000 -o ReconnectMax=3000'	# only kicks bring it back

goes_down() {
	link refuse >"$T/said"
	link cut >"$T/said"
	wait_for 30 says reconnecting || not_ok "the link goes down"
}
comes_up() {
	link accept >"$T/said"
	wait_for 60 kick_up "$1" || not_ok "the link comes up"
}

# Every client is known to the master before the next one comes.  The server's
# log tells in which order the sessions were started.
queue() {
	need_master $FAR -o SessionWait=300 -o 'SendEnv=TEST_*'
	goes_down
	most=200
	grep -q 'router' "$T/version" && most=50
	idle=$(fds)
	n=0
	pids=
	while [ $n -lt $most ]; do
		n=$((n + 1))
		muxc timeout 200 hello expect 1 ... $SESSION ":true" ":TEST_N=$n" fd 0 1 2 \
			touch "$T/sent.$n" expect 0x80000006 1 @s expect 0x80000004 @s 0 eof \
			</dev/null >"$T/played.$n" 2>&1 &
		pids="$pids $!"
		ends_later $!
		wait_for 30 test -e "$T/sent.$n" || break
	done
	wait_for 30 fds_at_least $((idle + most)) || note "the master has $(fds) descriptors"
	# Stock clients and ours stand behind them.
	for CLIENT in $CLIENTS; do
		(exec_client x 'echo served' </dev/null >"$T/served.$CLIENT" 2>&1) &
		pids="$pids $!"
		ends_later $!
	done
	exit_of "$SSHMUX" -S "$CTL" -O check x
	is "the control socket answers beside $most waiting clients" $RC 75
	comes_up 2
	bad=0
	for p in $pids; do wait $p || bad=$((bad + 1)); done
	is "$most clients and $CLIENTS are served after an outage" $bad 0
	is "stock clients too" "$(cat "$T"/served.*)" "$(for c in $CLIENTS; do echo served; done)"
	sed -n 's/.*Setting env [0-9]*: TEST_N=//p' "$SERVER_LOG" | tr -d '\r' >"$T/order"
	seq 1 $most >"$T/want"
	works "in the order in which they came" cmp "$T/order" "$T/want"
	same_fds "none leaves anything behind" $((idle + 1))	# the connection
	stop_master
}
fds_at_least() { [ "$(fds)" -ge "$1" ]; }

refused() {
	need_master $FAR -o SessionWait=0
	goes_down
	for CLIENT in $CLIENTS; do
		exit_of cx true
		like "$CLIENT, SessionWait=0: refused, and the state is named" "$SAID" "*reconnecting, try *"
	done
	exit_of sx true
	is "ssh's status then" $RC 255
	exit_of mx true
	is "ours" $RC 75
	comes_up 2
	exit_of mx 'echo served'
	is "served as soon as it is up" "$RC, $SAID" "0, served"
	stop_master

	need_master $FAR -o SessionWait=1
	goes_down
	exit_of sx true
	like "SessionWait=1: refused in time" "$SAID" "*no session in time: reconnecting, *"
	exit_of mx true
	is "SessionWait=1: our client's status" $RC 75
	exit_of "$SSHMUX" --wait=1 -S "$CTL" x true
	is "--wait=1 while the link is down" $RC 75
	# More patience than the master's own
	"$SSHMUX" --wait=200 -S "$CTL" x 'echo served' </dev/null >"$T/out" 2>&1 &
	patient=$!
	ends_later $patient
	# whose SessionWait passes meanwhile
	exit_of sx true
	comes_up 2
	wait $patient
	is "--wait=200 outlives SessionWait=1" "$?, $(cat "$T/out")" "0, served"
	stop_master
}

# Who leaves, leaves the queue: nothing of his is run.
leavers() {
	need_master $FAR -o SessionWait=300
	idle=$(fds)
	down=$((idle - 1))	# without the connection
	goes_down
	wait_for 30 fds_are $down
	for CLIENT in $CLIENTS; do
		(exec_client x "touch $T/ran.$CLIENT" </dev/null >"$T/out" 2>&1) &
		leaver=$!
		ends_later $leaver
		wait_for 30 fds_at_least $((down + 4))
		kill -9 $leaver
		wait $leaver 2>/dev/null
		wait_for 30 fds_are $down
		is "$CLIENT: one that was killed leaves the queue" "$(fds)" $down
	done
	muxc timeout 60 hello expect 1 ... $SESSION ":touch $T/ran.half" fd 0 touch "$T/half" die &
	wait_for 30 test -e "$T/half"
	same_fds "one that dies with half of its request too" $down
	comes_up 2
	alive "others are served"
	is "nothing of theirs was run" "$(find "$T" -name 'ran.*' | wc -l)" 0
	same_fds "nothing is left of them" "$idle"
	stop_master
}

# Our client before there is a master, and with a command that takes too long.
patience() {
	exit_of "$SSHMUX" -S "$CTL" x true
	is "no master: 255" $RC 255
	exit_of "$SSHMUX" --wait=1 -S "$CTL" x true
	is "--wait=1 without a master: 75" $RC 75
	"$SSHMUX" --wait=100 -S "$CTL" x 'echo served' </dev/null >"$T/out" 2>&1 &
	patient=$!
	ends_later $patient
	need_master $FAR
	wait $patient
	is "--wait=100 before the master: served" "$?, $(cat "$T/out")" "0, served"

	# sshd sends no signal to what root runs.
	exit_of "$SSHMUX" --timeout=2 -S "$CTL" x \
		"echo \$\$ >$T/remote; while echo x; do sleep 0.2; done"
	is "--timeout=2 ends a command" $RC 124
	works "at the server too, when it writes" wait_for 30 gone "$(cat "$T/remote")"
	exit_of "$SSHMUX" --timeout=100 -S "$CTL" x 'exit 7'
	is "--timeout=100 leaves the status of one that ends" $RC 7
	exit_of "$SSHMUX" --probe -S "$CTL" -O check x
	is "-O check --probe" "$RC, $SAID" "0, Master running (pid=$MASTER_PID)"
	link freeze >"$T/said"
	exit_of "$SSHMUX" -S "$CTL" -O check x
	is "-O check believes in a frozen link" $RC 0
	exit_of "$SSHMUX" --probe -S "$CTL" -O check x
	is "--probe does not" $RC 75
	link thaw >"$T/said"
	goes_down
	exit_of "$SSHMUX" --timeout=1 -S "$CTL" x true
	is "--timeout before there is a session: 75" $RC 75
	comes_up 1
	stop_master
}

# -O list goes on beside a master that does not answer.
stopped_master() {
	printf '%s\n' 'Host one two' "ControlPath $CTL" 'Host three' "ControlPath $T/none" >"$T/list.conf"
	kill -STOP "$MASTER_PID"
	exit_of "$SSHMUX" -F "$T/list.conf" -O list
	is "-O list: a stopped master holds up nobody" "$RC, $(echo "$SAID" | grep -c "^[a-z]*	$T")" "0, 3"
	kill -CONT "$MASTER_PID"
	exit_of "$SSHMUX" -F "$T/list.conf" -O list
	is "-O list: states" "$RC, $(echo "$SAID" | grep -c "^[a-z]*	$CTL	Master running")" "0, 2"
}

# dropbear sends the signal.
time_limit() {
	start_dropbear
	need_master
	exit_of "$SSHMUX" --timeout=2 -S "$CTL" x "echo \$\$ >$T/remote; exec sleep 1000"
	is "dropbear: --timeout=2 ends a command" $RC 124
	works "dropbear: at the server too" wait_for 30 gone "$(cat "$T/remote")"
	exit_of "$SSHMUX" -f --timeout=2 -S "$CTL" x "echo \$\$ >$T/background; exec sleep 1000"
	is "dropbear: -f --timeout=2 returns at once" $RC 0
	works "dropbear: the command began" wait_for 30 test -s "$T/background"
	works "dropbear: it ends in the background" wait_for 30 gone "$(cat "$T/background")"
	stopped_master
	stop_master
	stop_server
}

# A scripted master, so that we see what is asked of it.
played() {
	rm -f "$T/odd" "$T/played"
	"$MUXC" -l "$T/odd" timeout 60 accept hello expect 1 4 ... "$@" >"$T/played" 2>&1 &
	played=$!
	ends_later $played
	wait_for 10 test -S "$T/odd"
}
ASKED='take 3 expect 0x10000002 @r ...'
ANSWER='send 0x80000006 @r 7 send 0x80000004 7 0 close'
retries() {
	played expect 0x10000002 @r ... take 3 send 0x80000003 @r :no close \
		accept hello expect 1 4 ... expect 0x10000002 @r ... take 3 $ANSWER
	exit_of "$SSHMUX" --retry=3 -S "$T/odd" x true
	is "--retry: after an explicit refusal" $RC 0
	works "it asked twice" wait $played
	played expect 0x10000002 @r ... take 3 send 0x80000003 @r :no close
	exit_of "$SSHMUX" -S "$T/odd" x true
	is "without it: 255" $RC 255
	works "it asked once" wait $played
	played expect 0x10000002 @r ... take 3 drop close accept quiet 3000
	exit_of "$SSHMUX" --retry=3 -S "$T/odd" x true
	is "--retry: a command that may have run is not run again" $RC 255
	end $played
	played expect 0x10000002 @r ... take 3 close \
		accept hello expect 1 4 ... expect 0x10000002 @r ... take 3 $ANSWER
	exit_of "$SSHMUX" --retry=3 --idempotent -S "$T/odd" x true
	is "--retry --idempotent: it is" $RC 0
	works "asked twice" wait $played
	rm -f "$T/odd"
}

# Several first calls at once: one master, and all others its passengers.
first_calls() {
	for persist in no 20; do
		for round in 1 2 3; do
			before=$(grep -c 'Accepted publickey' "$SERVER_LOG")
			rm -f "$T"/first.*
			usual
			for i in 1 2 3 4 5 6 7 8; do
				timeout 60 "$SSHMUX" -F none -p "$PORT" -l "$ME" -S "$T/auto" -o ControlMaster=auto \
					-o ControlPersist=$persist $USUAL 127.0.0.1 "echo $i" >"$T/first.$i" 2>&1 </dev/null &
				eval "first_$i=$!"
			done
			all=0
			for i in 1 2 3 4 5 6 7 8; do
				eval "wait \$first_$i" && all=$((all + 1))
			done
			is "ControlPersist=$persist, $round: eight first calls: all served, one login" \
				"$all: $(cat "$T"/first.? | tr '\n' ' '), $(($(grep -c 'Accepted publickey' "$SERVER_LOG") - before))" \
				"8: 1 2 3 4 5 6 7 8 , 1"
			"$SSHMUX" -S "$T/auto" -O exit x >"$T/said" 2>&1 </dev/null
			wait_for 20 test ! -S "$T/auto"
		done
	done
	# The first one's login fails: the others go on alone.
	for i in 1 2 3; do
		timeout 60 "$SSHMUX" -F none -p "$PORT" -l "$ME" -S "$T/auto" -o ControlMaster=auto $USUAL \
			-o IdentityFile="$T/none" -o IdentitiesOnly=yes -o HostKeyAlias=unknown 127.0.0.1 true >"$T/first.$i" 2>&1 </dev/null &
		eval "first_$i=$!"
	done
	for i in 1 2 3; do
		eval "wait \$first_$i"
		is "a login that fails: call $i ends with 255" $? 255
		works "and knows why" has "$T/first.$i" 'ost key'
	done
}

"$SSHMUX" -V >"$T/version" 2>&1
start_sshd 'LogLevel DEBUG2' 'MaxSessions 300'
start_link
for part in ${PARTS:-first_calls queue refused leavers patience retries time_limit}; do $part; done
finish
