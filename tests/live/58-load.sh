# Forwards under load: 100 MB through each kind at once, 200 connections at
# once, names that do not resolve beside a session that must go on.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153,SC2216
. "$TESTDIR/lib.sh"

serve() {
	serve_name=$1
	shift
	"$NET" serve "$1" "$T/$serve_name.port" sh -c "$2" 2>/dev/null &
	ends_later $!
	wait_for 10 test -s "$T/$serve_name.port" || give_up "the $serve_name server starts"
	SERVED=$(cat "$T/$serve_name.port")
}

free_port() {
	FREE=$(random_port)
	while listening "$FREE"; do FREE=$(random_port); done
}

ask() { ssh -F none -S "$CTL" -O "$@" x </dev/null; }

# transfer KIND WORDS: a download in the background
transfer() {
	"$NET" $2 </dev/null >"$T/down.$1" &
	echo $! >"$T/pid.$1"
}

# Downloads through L, R, D and a unix socket, an upload and sessions that
# echo, all at once.
all_kinds() {
	free_port; l=$FREE; ask forward -L $l:127.0.0.1:$SOURCE
	free_port; d=$FREE; ask forward -D $d
	ask forward -L "$T/u.s:127.0.0.1:$SOURCE"
	r=$(ask forward -R 0:127.0.0.1:$SOURCE)
	sink=$(ask forward -R 0:127.0.0.1:$SINK)
	transfer L "call 127.0.0.1:$l"
	transfer R "call 127.0.0.1:$r"
	transfer D "-s5name localhost:$SOURCE call 127.0.0.1:$d"
	transfer unix "call $T/u.s"
	"$NET" call 127.0.0.1:"$sink" <"$T/data" >"$T/up.sum" &
	up=$!
	worst=0
	rounds=0
	while ! all_ended; do
		began=$(date +%s%N)
		[ "$(cx 'echo still here' </dev/null)" = "still here" ] || break
		took=$((($(date +%s%N) - began) / 1000000))
		[ $took -le $worst ] || worst=$took
		rounds=$((rounds + 1))
	done
	for kind in L R D unix; do
		wait "$(cat "$T/pid.$kind")"
		is "LOAD-bulk: $kind, $((BYTES / 1000000)) MB arrive whole" "$(sum "$T/down.$kind")" "$want"
		rm "$T/down.$kind"
	done
	wait $up
	is "LOAD-bulk: and an upload beside them" "$(cut -c1-64 "$T/up.sum")" "$want"
	works "LOAD-bulk: $rounds sessions meanwhile, the slowest $worst ms" test $rounds -gt 0
	ask cancel -L "$T/u.s:127.0.0.1:$SOURCE"
	rm -f "$T/u.s"
}

all_ended() {
	for kind in L R D unix; do gone "$(cat "$T/pid.$kind")" || return 1; done
}

# The small profile has 96 channels in all.
MANY=200
case $("$SSHMUX" --version 2>/dev/null) in
*router*) MANY=60 ;;
esac

connections() {
	free_port; p=$FREE
	ask forward -L $p:127.0.0.1:$ECHO
	is "LOAD-many: $MANY connections at once through L" "$("$NET" many $MANY 127.0.0.1:$p)" $MANY
	ask cancel -L $p:127.0.0.1:$ECHO
	ask forward -D $p
	is "LOAD-many: $MANY through D" "$("$NET" -s4 127.0.0.1:$ECHO many $MANY 127.0.0.1:$p)" $MANY
	ask cancel -D $p
	p=$(ask forward -R 0:127.0.0.1:$ECHO)
	is "LOAD-many: $MANY through R" "$("$NET" many $MANY 127.0.0.1:"$p")" $MANY
	ask cancel -R 0:127.0.0.1:$ECHO
	alive "LOAD-many: the master goes on"
}

# A name server that never answers: who asks it waits for many seconds.
slow_names() {
	name="FWD-names: a slow name does not delay others"
	! differs "$name" "it resolves names while all wait" || return
	mute=127.0.0.153
	"$NET" sink $mute:53 "$T/sink" 2>"$T/err" &
	ends_later $!
	echo "nameserver $mute" >"$T/resolv.conf"
	chmod 644 "$T/resolv.conf"
	if ! wait_for 5 test -e "$T/sink" || ! unshare -m true 2>/dev/null; then
		skip "$name" "needs root and a mount namespace"
		return
	fi
	SSHMUX_REAL=$SSHMUX
	cat >"$T/in-namespace" <<-END
		#!/bin/sh
		exec unshare -m sh -c 'mount --bind "$T/resolv.conf" /etc/resolv.conf && exec "\$@"' x "$SSHMUX" "\$@"
	END
	chmod 755 "$T/in-namespace"
	SSHMUX=$T/in-namespace
	need_master
	SSHMUX=$SSHMUX_REAL
	p=$(ask forward -R 0:slow.example:80)
	free_port; q=$FREE
	"$NET" hold 127.0.0.1:"$p" "$T/held" &
	holder=$!
	ends_later $holder
	ask forward -L slow.example:$q:127.0.0.1:$ECHO 2>/dev/null &
	asker=$!
	ends_later $asker
	wait_for 20 asked_twice
	is "FWD-names: the name server is asked, and mute" $? 0
	rounds=0 worst=0
	while [ $rounds -lt 10 ]; do
		began=$(date +%s%N)
		[ "$(cx 'echo still here' </dev/null)" = "still here" ] || break
		took=$((($(date +%s%N) - began) / 1000000))
		[ $took -le $worst ] || worst=$took
		rounds=$((rounds + 1))
	done
	is "FWD-names: both still wait" "$(gone $holder; echo $?) $(gone $asker; echo $?)" "1 1"
	works "$name (10 sessions, the slowest $worst ms)" test $rounds = 10
	wait_for 60 gone $holder
	is "FWD-names: in the end the connection is closed" $? 0
	wait_for 60 gone $asker
	wait $asker
	is "FWD-names: and the listener refused" $? 255
	stop_master
}
# Few descriptors: connections whose readers sleep take what there are, the rest
# waits; the master can be asked, used and ended all the while.
few_descriptors() {
	name="LOAD-few: 48 descriptors"
	! differs "$name" "it does not wait for descriptors" || return
	printf '%s\n' '#!/bin/sh' 'ulimit -n 48' "exec '$SSHMUX' \"\$@\"" >"$T/few"
	chmod 755 "$T/few"
	SSHMUX_REAL=$SSHMUX
	SSHMUX=$T/few
	need_master
	SSHMUX=$SSHMUX_REAL
	is "$name: said once" "$(grep -c 'no more than 48 descriptors' "$T/master.log")" 1
	free_port; l=$FREE; ask forward -L $l:127.0.0.1:$SOURCE
	for i in $(seq 38); do
		"$NET" call 127.0.0.1:$l </dev/null 2>/dev/null | exec sleep 100 &
		ends_later $!
	done
	wait_for 20 many_stalled
	wait_for 2 deaf
	rounds=0
	while [ $rounds -lt 5 ] &&
		[ "$(timeout 20 "$SSHMUX" -F none -S "$CTL" --wait=15 x 'echo still here' </dev/null)" = "still here" ]; do
		rounds=$((rounds + 1))
	done
	is "$name: sessions go on" "$rounds" 5
	for i in 1 2 3 4 5 6 7 8; do
		timeout 60 "$SSHMUX" -F none -S "$CTL" --wait=50 x 'sleep 0.5; echo done' </dev/null >"$T/few.out.$i" 2>&1 &
		eval "few_$i=$!"
	done
	for i in 1 2 3 4 5 6 7 8; do eval "wait \$few_$i"; done
	is "$name: eight at once take turns" "$(cat "$T"/few.out.* | sort | uniq -c | tr -s ' ')" " 8 done"
	is "$name: -O check is answered" "$(timeout 20 "$SSHMUX" -S "$CTL" -O check x 2>&1 </dev/null | tr -d '\r')" \
		"Master running (pid=$MASTER_PID)"
	stop_master
	is "$name: ended by TERM" "$MASTER_RC" 0
}
# (Deaf is what a master was whose poll() failed.)
deaf() { ! timeout 1 "$SSHMUX" -S "$CTL" -O check x >"$T/said" 2>&1 </dev/null; }
many_stalled() { [ "$(fds)" -gt 26 ]; }
asked_twice() { [ "$(size "$T/sink")" -gt 1 ]; }

BYTES=100000000
head -c $BYTES /dev/urandom >"$T/data"
want=$(sum "$T/data")
serve source 127.0.0.1:0 "exec cat '$T/data'"
SOURCE=$SERVED
serve sink 127.0.0.1:0 'exec sha256sum'
SINK=$SERVED
serve echo 127.0.0.1:0 'exec cat'
ECHO=$SERVED
for server in sshd dropbear; do
	LABEL="$server: "
	start_server $server
	need_master
	all_kinds
	connections
	stop_master
	if [ $server = sshd ]; then slow_names; few_descriptors; fi
	stop_server
	BYTES=20000000
	head -c $BYTES "$T/data" >"$T/less"
	mv "$T/less" "$T/data"
	want=$(sum "$T/data")
done
finish
