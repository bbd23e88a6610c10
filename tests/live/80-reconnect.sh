# A link that goes and comes back: servers killed, silence, refusals, ports that
# are still held, passwords and host keys that change, 50 logins in one process.
# With sshd; 83-reconnect-dropbear is the same with dropbear.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153,SC2154
. "$TESTDIR/lib.sh"
. "$TESTDIR/link.sh"
if [ "$MASTER" = stock ]; then
	skip "reconnecting" "OpenSSH's master ends with its connection"
	finish
fi

QUICK="-o ReconnectMin=1 -o ReconnectMax=2 -o SessionWait=60"

# The server dies with its connections; a new one takes its place.
restarts() {
	"$NET" serve 127.0.0.1:0 "$T/echo.port" cat &
	echo_pid=$!
	ends_later $echo_pid
	wait_for 10 nonempty "$T/echo.port"
	far=$(random_port) near=$(random_port)
	need_master -v $QUICK -L "$near:127.0.0.1:$(cat "$T/echo.port")" \
		-R "$far:127.0.0.1:$(cat "$T/echo.port")"
	works "the remote forward is there" wait_for 20 listening "$far"
	mkfifo "$T/hold"
	exec 9<>"$T/hold"
	for CLIENT in $CLIENTS; do
		(exec 9<&-; exec_client x 'head -c 200000 /dev/zero; echo up; cat' <"$T/hold" \
			>"$T/up.$CLIENT" 2>"$T/err.$CLIENT") &
		echo $! >"$T/pid.$CLIENT"
		ends_later $!
		wait_for 30 has_tail "$T/up.$CLIENT"
	done
	kill_server
	wait_for 30 says reconnecting
	says "reconnecting, try " "next in"
	works "-O conninfo tells the state" says "reconnecting, try "
	for CLIENT in $CLIENTS; do
		wait "$(cat "$T/pid.$CLIENT")"
		is "$CLIENT: a running session ends with 255" $? 255
		is "$CLIENT: after all that was received" "$(tail -c 3 "$T/up.$CLIENT")" up
	done
	exec 9>&-
	rm "$T/hold"
	exit_of ssh -F none -S "$CTL" -O check x
	is "ssh -O check while it is down" "$SAID, $RC" "Master running (pid=$MASTER_PID), 0"
	exit_of "$SSHMUX" -S "$CTL" -O check x
	like "our -O check tells the state" "$SAID" "Master running (pid=$MASTER_PID), reconnecting, try *"
	is "and exits with 75" $RC 75
	works "our forward still listens" listening "$near"
	works "-O channels: the remote forward waits" channels_say "waiting, *last: connection to the server lost"
	start_server $server
	behind_link
	# A request that comes now waits.
	(exec_client x 'echo waited' </dev/null >"$T/waited" 2>&1) &
	waiting=$!
	comes_back "a server that was restarted" 2
	wait $waiting
	is "a session that came meanwhile" "$?, $(cat "$T/waited")" "0, waited"
	is "same process" "$(exit_of ssh -F none -S "$CTL" -O check x; echo "$SAID")" \
		"Master running (pid=$MASTER_PID)"
	is "the local forward works again" \
		"$(echo through | timeout 30 "$NET" call "127.0.0.1:$near")" through
	works "the remote forward is asked for again" wait_for 30 channels_say "-> 127.0.0.1:$(cat "$T/echo.port"): active"
	is "and works" "$(echo back | timeout 30 "$NET" call "127.0.0.1:$far")" back
	is "one line about the loss" "$(grep -c 'Connection to .* lost: .*trying again' "$T/master.log")" 1
	is "one line about the return" "$(grep -c 'connected to .* again' "$T/master.log")" 1
	alive "and others are served"
	stop_master
	is "its end by TERM" "$MASTER_RC" 0
	end $echo_pid
}
has_tail() { [ "$(tail -c 3 "$1" 2>/dev/null)" = up ]; }

# Nothing comes any more, and nobody says so.
silence() {
	need_master $QUICK -o ServerAliveInterval=1 -o ServerAliveCountMax=2
	link freeze >"$T/said"
	works "silence is noticed" wait_for 60 says "not responding"
	exit_of "$SSHMUX" -S "$CTL" -O check x
	is "the control socket answers meanwhile" $RC 75
	link thaw >"$T/said"
	comes_back "the link thaws" 2
	alive "sessions work again"
	# Life of any kind counts: a server that only talks is no dead one.
	exit_of "$SSHMUX" -S "$CTL" x 'for i in 1 2 3 4 5 6; do sleep 1; echo $i; done'
	is "traffic is life" "$RC, $(echo "$SAID" | tr "\n" " ")" "0, 1 2 3 4 5 6 "
	is "no loss by that" "$(logins)" 2
	stop_master

	# Without keepalives a kick asks.
	need_master $QUICK -o ServerAliveInterval=0
	kick
	works "a kick on a good link changes nothing" still_up
	link freeze >"$T/said"
	kick
	works "a kick finds a dead link" wait_for 60 says "not responding"
	link thaw >"$T/said"
	comes_back "and it comes back" 2
	stop_master
}
still_up() { alive x >"$T/said" && [ "$(logins)" = 1 ]; }

# A connection that is refused; a login that hangs; a wait of hours that a kick ends.
refusals() {
	need_master -v -o ReconnectMin=1000 -o ReconnectMax=3000
	link refuse >"$T/said"
	link cut >"$T/said"
	works "the next try is hours away" wait_for 30 says "reconnecting, try " "next in"
	kick
	emulated mips "a kick tries at once" "$NO_SO_ERROR" ||
		works "a kick tries at once" wait_for 30 says "Connection refused"
	tries=$(info | sed -n 's/.*try \([0-9]*\),.*/\1/p')
	kick
	works "and again" wait_for 30 tried_more "$tries"
	exit_of "$SSHMUX" -S "$CTL" -O check x
	emulated mips "the reason is told" "$NO_SO_ERROR" ||
		like "the reason is told" "$SAID" "*Connection refused"
	link accept >"$T/said"
	comes_back "the port is open again" 2
	is "one line for each state, not for each try" "$(grep -c 'trying again' "$T/master.log")" 2
	stop_master

	need_master $QUICK -o ConnectTimeout=2
	link freeze >"$T/said"
	link cut >"$T/said"
	works "a login that hangs is given up" wait_for 60 says "timed out"
	link thaw >"$T/said"
	comes_back "and tried anew" 2
	stop_master
}
kicked_often() { kick; tried_more 14; }
tried_more() { [ "$(info | sed -n 's/.*try \([0-9]*\),.*/\1/p')" -gt "$1" ] 2>/dev/null; }

# A connection that never holds for long, though every login succeeds; then a wait of
# half an hour that somebody's need cuts short.
flapping() {
	near=$(random_port)
	"$NET" serve 127.0.0.1:0 "$T/echo.port" cat &
	echo_pid=$!
	ends_later $echo_pid
	wait_for 10 nonempty "$T/echo.port"
	need_master -v -o ReconnectMin=1 -o ReconnectMax=3000 -o SessionWait=100 -L "$near:127.0.0.1:$(cat "$T/echo.port")"
	n=1
	while [ $n -lt 9 ]; do
		link cut >"$T/said"
		n=$((n + 1))
		wait_for 20 is_up $n || break
	done
	is "eight short connections, one soon after the other" "$n, $(logins)" "9, 9"
	for need in session connection; do
		link refuse >"$T/said"
		link cut >"$T/said"
		wait_for 30 says "reconnecting, try "
		wait_for 60 kicked_often
		link accept >"$T/said"
		case $need in
		session) got=$(timeout 100 "$SSHMUX" -F none -S "$CTL" -o Fallback=no x 'echo through' 2>&1 </dev/null) ;;
		*) got=$(echo through | timeout 100 "$NET" call "127.0.0.1:$near" 2>&1 || echo "status $?") ;;
		esac
		is "a $need cuts a long wait short" "$got" through
		[ "$got" = through ] || note "$(info; channels; tail -n 8 "$T/master.log")"
	done
	stop_master
	end $echo_pid
}

# The machine gets another address; the old one's connection says nothing any more.
readdress() {
	ns=smx$$
	if [ $server != sshd ] || ! ip netns add $ns 2>"$T/err"; then
		[ $server != sshd ] || skip "another address" "needs root and network namespaces"
		return
	fi
	net=10.213.$(($$ % 250 + 1))
	ip link add $ns type veth peer name far netns $ns
	ip addr add $net.1/24 dev $ns
	ip link set $ns up
	ip -n $ns link set far up
	ip -n $ns addr add $net.2/24 dev far
	"$NET" serve $net.1:0 "$T/far.port" "$NET" call "127.0.0.1:$PORT" &
	far_pid=$!
	ends_later $far_pid
	wait_for 10 nonempty "$T/far.port"
	printf '%s\n' '#!/bin/sh' "exec ip netns exec $ns '$SSHMUX' -p $(cat "$T/far.port") \"\$@\"" >"$T/there"
	chmod 755 "$T/there"
	kept=$SSHMUX
	for watch in yes no; do
		ip -n $ns addr flush dev far
		ip -n $ns addr add $net.2/24 dev far
		SSHMUX=$T/there HOST=$net.1
		need_master $QUICK -o WatchNetwork=$watch -o UserKnownHostsFile="$T/known.far" -o StrictHostKeyChecking=no
		SSHMUX=$kept HOST=''
		ip -n $ns addr del $net.2/24 dev far
		ip -n $ns addr add $net.3/24 dev far
		if [ $watch = yes ]; then
			works "another address is noticed by itself" wait_for 30 is_up 2
		else
			kick
			works "WatchNetwork=no: after a kick at once" wait_for 30 is_up 2
		fi
		works "and told" has "$T/master.log" "$net.2:.* no address of this machine"
		alive "sessions go on"
		ip -n $ns link set far down
		[ $watch = yes ] || kick
		works "an interface that goes down, too" wait_for 30 says reconnecting
		ip -n $ns link set far up
		works "and is back" wait_for 20 kick_up 3
		stop_master
	done
	end $far_pid
	ip netns del $ns
	ip link del $ns 2>/dev/null
}

# The old connection's server process still has the port.
held_port() {
	"$NET" serve 127.0.0.1:0 "$T/echo.port" cat &
	echo_pid=$!
	ends_later $echo_pid
	wait_for 10 nonempty "$T/echo.port"
	far=$(random_port)
	need_master $QUICK -R "$far:127.0.0.1:$(cat "$T/echo.port")"
	wait_for 30 channels_say ": active"
	link orphan >"$T/said"
	comes_back "the server has not noticed" 2
	works "the port is refused, and that is told" wait_for 30 channels_say "waiting, *last: the server refuses"
	alive "sessions work meanwhile"
	link bury >"$T/said"
	works "the forward comes when the port is free" wait_for 90 channels_say ": active"
	is "and works" "$(echo back | timeout 30 "$NET" call "127.0.0.1:$far")" back
	is "on the same connection" "$(logins)" 2
	stop_master
	end $echo_pid
}

# The server's password changes, and changes back.
password() {
	mv "$T/home/.ssh/authorized_keys" "$T/keys.away"
	: >"$T/home/.ssh/authorized_keys"
	old=$SHADOW
	DROPBEAR_PASSWORD=$PASSWORD
	export DROPBEAR_PASSWORD
	[ $server = dropbear ] || password_server
	if start_master $QUICK; then
		unset DROPBEAR_PASSWORD
		kill_server
		SHADOW=$(openssl passwd -6 another)
		password_server
		works "a password that changed is refused, and that is told" kick_until "ermission denied"
		works "it stays" test -S "$CTL"
		kill_server
		SHADOW=$old
		password_server
		comes_back "with the old password, kept from the first login" 2
	else
		not_ok "a login by password"
	fi
	unset DROPBEAR_PASSWORD
	stop_master
	kill_server
	mv "$T/keys.away" "$T/home/.ssh/authorized_keys"
	start_server $server
	behind_link
}
password_server() {
	case $server in
	sshd) start_sshd 'PasswordAuthentication yes' ;;
	dropbear) start_dropbear ;;
	esac
	behind_link
}
kick_until() { wait_for 60 kick_says "$1"; }
kick_says() { kick; says "$1"; }

# Another host key is never taken for the server's, whatever the options say.
host_key() {
	for strict in yes accept-new no; do
		need_master -o StrictHostKeyChecking=$strict $QUICK
		kill_server
		sshd_keys=$SSHD_KEYS dropbear_keys=$DROPBEAR_KEYS
		SSHD_KEYS='' DROPBEAR_KEYS=''
		for f in $sshd_keys $dropbear_keys; do mv "$f" "$f.old"; mv "$f.pub" "$f.pub.old"; done
		cp "$T/known_hosts" "$T/known_hosts.old"
		start_server $server
		cp "$T/known_hosts.old" "$T/known_hosts"
		SERVER_PORT=$PORT
		link target $PORT >"$T/said"
		PORT=$LINK_PORT
		works "strict=$strict: a changed host key is refused, and that is told" kick_until "ost key"
		is "strict=$strict: no login" "$(grep -c 'connected to .* again' "$T/master.log")" 0
		is "strict=$strict: known_hosts is as it was" "$(sum "$T/known_hosts")" "$(sum "$T/known_hosts.old")"
		kill_server
		for f in $sshd_keys $dropbear_keys; do mv "$f.old" "$f"; mv "$f.pub.old" "$f.pub"; done
		SSHD_KEYS=$sshd_keys DROPBEAR_KEYS=$dropbear_keys
		start_server $server
		behind_link
		comes_back "strict=$strict: the right one is taken" 2
		stop_master
	done
}

# Killed while it waits: its socket stays behind and is replaced.
killed() {
	need_master $QUICK
	link refuse >"$T/said"
	link cut >"$T/said"
	wait_for 30 says reconnecting
	kill -9 "$MASTER_PID"
	wait "$MASTER_PID" 2>/dev/null
	works "the socket of a killed master stays behind" test -S "$CTL"
	link accept >"$T/said"
	rm -f "$T/began"
	usual
	run_master -o ExitOnForwardFailure=yes $QUICK $USUAL 127.0.0.1 >"$T/master.out" 2>"$T/master.log" </dev/null &
	MASTER_PID=$!
	ends_later $MASTER_PID
	works "the next master replaces it" wait_for 60 is_up 1
	alive "and serves"
	stop_master
}

# Fifty logins in one process.
cycles() {
	need_master $QUICK
	n=1
	failed=0
	while [ $n -lt 50 ]; do
		link cut >"$T/said"
		n=$((n + 1))
		wait_for 60 kick_up $n || { failed=1; break; }
		[ $((n % 10)) != 0 ] || sx true </dev/null 2>"$T/err" || failed=$((failed + 1))
		if [ $n = 10 ]; then
			wait_for 10 no_channels
			was=$(memory) had=$(fds)
		fi
	done
	is "50 logins" "$n, $failed failed" "50, 0 failed"
	wait_for 10 no_channels
	grown=$(($(memory) - was))
	# (The address sanitizer keeps for a while what was freed.)
	! grep -q __asan_init "$SSHMUX" || grown=$((grown > 8192 ? grown : 0))
	works "its memory is what it was after 10 ($was KB, then $grown more)" test $grown -le 8
	same_fds "so are its descriptors" "$had"
	alive "it serves"
	stop_master
}
no_channels() { case $(info) in *"sessions 0 of"*) ;; *) return 1 ;; esac; }

for server in ${SERVERS:-sshd}; do
	LABEL="$server: "
	start_server $server
	start_link
	for part in ${PARTS:-restarts silence refusals flapping readdress held_port password host_key killed cycles}; do
		$part
	done
	kill_server
	end "$LINK_PID"
done
finish
