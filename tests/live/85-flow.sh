# The server's limit of sessions, readers of every kind that stop, and the shares of
# those who send at once.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153,SC2154
. "$TESTDIR/lib.sh"
. "$TESTDIR/link.sh"
if [ "$MASTER" = stock ]; then
	skip "flow" "what is tested is what OpenSSH's master does not promise"
	finish
fi

# hold N: so many sessions stay open until fd 9 is closed
hold() {
	rm -f "$T/hold" "$T"/held.*
	mkfifo "$T/hold"
	exec 9<>"$T/hold"
	n=0
	holders=
	while [ $n -lt $1 ]; do
		n=$((n + 1))
		(exec 9<&-; CLIENT=ssh; exec_client x 'echo up; cat' <"$T/hold" >"$T/held.$n" 2>&1) &
		holders="$holders $!"
		ends_later $!
	done
	wait_for 60 all_held $1
}
all_held() { [ "$(cat "$T"/held.* 2>/dev/null | grep -c up)" = "$1" ]; }
release() {
	exec 9>&-
	for p in $holders; do wait $p; done
}
limit_is() { says "sessions $1 of $2 (the server's limit)"; }

# An sshd as it comes takes ten sessions on one connection.
ten() {
	start_sshd 'MaxSessions 10'
	need_master -o SessionWait=200
	for CLIENT in $CLIENTS; do
		n=0
		pids=
		while [ $n -lt 40 ]; do
			n=$((n + 1))
			(exec_client x "sleep 0.1; exit $n" </dev/null >"$T/out.$n" 2>&1) &
			pids="$pids $!"
		done
		n=0
		bad=0
		for p in $pids; do
			n=$((n + 1))
			wait $p
			[ $? = $n ] || bad=$((bad + 1))
		done
		is "$CLIENT: 40 at once on a server that takes 10: each gets its status" $bad 0
		is "$CLIENT: and no words" "$(cat "$T"/out.*)" ''
	done
	hold 10
	(exec 9<&-; sx 'echo eleventh' </dev/null >"$T/eleventh" 2>&1) &
	eleventh=$!
	(exec 9<&-; exec "$SSHMUX" -v -S "$CTL" x 'echo twelfth' </dev/null >"$T/twelfth" 2>"$T/place") &
	twelfth=$!
	works "our client is told its place" wait_for 30 has "$T/place" "place [12]"
	# What is no session does not stand in that queue.
	"$NET" serve 127.0.0.1:0 "$T/echo.port" cat &
	echo_pid=$!
	ends_later $echo_pid
	wait_for 10 nonempty "$T/echo.port"
	is "-W passes those who wait for a session" "$(echo through | (exec 9<&-; CLIENT=ssh
		exec_client -W "127.0.0.1:$(cat "$T/echo.port")" x) 2>&1)" through
	end $echo_pid
	works "-O conninfo: the learned limit" wait_for 30 limit_is 10 10
	exit_of "$SSHMUX" --wait=1 -S "$CTL" x true
	is "--wait=1 while all are taken" $RC 75
	release
	wait $eleventh
	is "the eleventh follows" "$?, $(cat "$T/eleventh")" "0, eleventh"
	wait $twelfth
	is "and the twelfth" "$?, $(cat "$T/twelfth")" "0, twelfth"
	stop_master

	need_master -o SessionWait=0
	hold 10
	exit_of sx true
	like "SessionWait=0: refused at once" "$RC, $SAID" "255, mux_client_request_session: session request failed: *"
	release
	stop_master
	stop_server

	start_sshd 'MaxSessions 1'
	need_master -o SessionWait=200
	hold 1
	pids=
	for n in 1 2 3 4 5 6; do
		(exec 9<&-; sx "exit $n" </dev/null >"$T/one.$n" 2>&1) &
		pids="$pids $!"
	done
	wait_for 30 limit_is 1 1
	release
	n=0
	bad=0
	for p in $pids; do
		n=$((n + 1))
		wait $p
		[ $? = $n ] || bad=$((bad + 1))
	done
	is "a server that takes one session at a time" $bad 0
	note "$(cat "$T"/one.*)"
	stop_master
	stop_server
}

# windows: of all channels, in their order
windows() { "$SSHMUX" -S "$CTL" -O channels x | sed -n 's,.* i[0-9]*/\([0-9]*\) .*,\1,p'; }

# The first sessions begin with large windows, those of the others are small; one
# that is not used for a while is not filled up again.
begins() {
	[ "$MASTER" != stock ] || return 0
	start_sshd
	need_master
	hold 3
	large=$("$SSHMUX" -V | grep -q 'default profile' && echo 256000 || echo 6000)
	works "the first of three sessions begin with large windows ($(windows | tr '\n' ' '))" \
		test "$(windows | head -n 2 | sort -n | head -n 1)" -ge $large
	release
	mkfifo "$T/word"
	(exec 9<&-; CLIENT=ssh; exec_client x "read a; head -c 3000 /dev/zero; read b" <"$T/word" >"$T/said" 2>&1) &
	ends_later $!
	exec 8>"$T/word"
	wait_for 30 opened
	first=$(windows)
	sleep 7		# a silence is what is asked for
	echo a >&8
	wait_for 30 bigger "$T/said" 3000
	works "after a silence a window is used, not filled up ($first, then $(windows))" test "$(windows)" -le $((first - 3000))
	exec 8>&-
	rm -f "$T/word"
	stop_master
	stop_server
}
opened() { [ -n "$(windows)" ]; }

# The windows of sessions that say nothing leave a newcomer enough to work with.
idle() {
	start_sshd
	need_master
	hold 30
	(exec 9<&-; CLIENT=ssh; exec_client x "head -c 4000000 /dev/zero; cat" <"$T/hold" >"$T/much" 2>&1) &
	holders="$holders $!"
	ends_later $!
	works "beside 30 idle sessions: 4 MB come" wait_for 60 bigger "$T/much" 4000000
	widest=$(windows | tail -n 1)
	works "beside 30 idle sessions: the window grows (${widest:-0})" test "${widest:-0}" -ge 4096
	release
	stop_master
	stop_server
}

# stalled FILE: reads nothing until it may
stalled() {
	until [ -e "$T/go" ]; do sleep 0.1; done
	exec cat >"$1"
}

# Readers of every kind stop; everybody else goes on; then they get all of it.
readers() {
	head -c 16000000 /dev/urandom >"$T/data"
	start_server $server
	rm -f "$T/go" "$T"/*.port
	"$NET" serve 127.0.0.1:0 "$T/source.port" cat "$T/data" &
	ends_later $!
	source_pid=$!
	cat >"$T/sink" <<END
until [ -e "$T/go" ]; do sleep 0.1; done
exec cat >"$T/got.remote"
END
	"$NET" serve 127.0.0.1:0 "$T/sink.port" sh "$T/sink" &
	ends_later $!
	sink_pid=$!
	wait_for 10 nonempty "$T/source.port"
	wait_for 10 nonempty "$T/sink.port"
	source=$(cat "$T/source.port")
	near=$(random_port) far=$(random_port) socks=$(random_port)
	need_master -L "$near:127.0.0.1:$source" -D "$socks" -R "$far:127.0.0.1:$(cat "$T/sink.port")"
	wait_for 30 listening "$far"
	(sx "cat $T/data" </dev/null | stalled "$T/got.session") &
	pids=$!
	(mx "cat $T/data >&2" </dev/null 2>&1 >/dev/null | stalled "$T/got.stderr") &
	pids="$pids $!"
	(CLIENT=ssh; exec_client -W "127.0.0.1:$source" x </dev/null | stalled "$T/got.stdio") &
	pids="$pids $!"
	("$NET" call "127.0.0.1:$near" </dev/null | stalled "$T/got.local") &
	pids="$pids $!"
	("$NET" -s5 "127.0.0.1:$source" call "127.0.0.1:$socks" </dev/null | stalled "$T/got.dynamic") &
	pids="$pids $!"
	("$NET" call "127.0.0.1:$far" <"$T/data" >/dev/null) &
	pids="$pids $!"
	works "six readers have stopped, and what they were sent waits" wait_for 60 buffering 6
	channels >"$T/stopped"
	good=0
	for n in 1 2; do
		for CLIENT in $CLIENTS; do
			[ "$(timeout 100 "$SSHMUX" -S "$CTL" x "cat $T/data" </dev/null | sum)" = "$(sum <"$T/data")" ] &&
				good=$((good + 1))
			[ "$(cx "sha256sum | cut -d' ' -f1" <"$T/data")" = "$(sum <"$T/data")" ] && good=$((good + 1))
		done
	done
	is "others get and send 16 MB meanwhile" $good $(($(echo $CLIENTS | wc -w) * 4))
	works "the six still wait" buffering 6
	: >"$T/go"
	for p in $pids; do wait $p; done
	wait_for 30 no_channels
	for kind in session stderr stdio local dynamic remote; do
		is "$kind: all came, in order" "$(size "$T/got.$kind") $(sum <"$T/got.$kind")" \
			"$(size "$T/data") $(sum <"$T/data")"
	done
	stop_master
	end $source_pid
	end $sink_pid
	stop_server
	rm -f "$T"/got.*
}
buffering() { [ "$(channels | grep -c ' i[1-9][0-9]*/')" -ge "$1" ]; }
no_channels() { case $(channels) in *'#'*) return 1 ;; esac; }

# Two uploads on a link that is full: as many bytes of each.
shares() {
	start_sshd
	start_link -narrow -rate 20000000
	need_master
	for kinds in "session session" "session forward"; do
		rm -f "$T/first" "$T/second" "$T/sink.port"
		set -- $kinds
		(sx "exec cat >$T/first" </dev/zero >/dev/null 2>&1) &
		one=$!
		if [ $2 = session ]; then
			(mx "exec cat >$T/second" </dev/zero >/dev/null 2>&1) &
		else
			"$NET" serve 127.0.0.1:0 "$T/sink.port" sh -c "exec cat >$T/second" &
			ends_later $!
			wait_for 10 nonempty "$T/sink.port"
			(exec ssh -F none -S "$CTL" -W "127.0.0.1:$(cat "$T/sink.port")" x </dev/zero >/dev/null 2>&1) &
		fi
		two=$!
		ends_later $one
		ends_later $two
		wait_for 60 bigger "$T/first" 500000
		wait_for 60 bigger "$T/second" 500000
		first=$(size "$T/first")
		second=$(size "$T/second")
		wait_for 120 bigger "$T/first" $((first + 8000000))
		link freeze >"$T/said"
		settled=
		wait_for 30 rests
		first=$(($(size "$T/first") - first))
		second=$(($(size "$T/second") - second))
		note "$kinds: $first and $second bytes"
		works "$kinds: equal shares of the link" test $((first * 10)) -le $((second * 11)) \
			-a $((second * 10)) -le $((first * 11))
		link thaw >"$T/said"
		kill $one $two 2>/dev/null
		wait $one $two 2>/dev/null
	done
	stop_master
	end $LINK_PID
	stop_server
}
bigger() { [ "$(size "$1" 2>/dev/null || echo 0)" -ge "$2" ]; }
# rests: what had passed the link has arrived
rests() {
	was=$settled
	settled="$(size "$T/first") $(size "$T/second")"
	sleep 0.2
	[ "$was" = "$settled" ]
}

for part in ${PARTS:-ten begins idle readers shares}; do
	if [ $part = readers ]; then
		for server in sshd dropbear; do
			LABEL="$server: "
			readers
		done
		LABEL=
	else
		$part
	fi
done
finish
