# Eight uploads and eight downloads of 32 MiB at once, with re-keys in the
# middle, compared by checksum.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

BYTES=33554432

# All at once; clients of both kinds take part.
transfers() {
	n=0
	for CLIENT in $CLIENTS $CLIENTS $CLIENTS $CLIENTS $CLIENTS $CLIENTS $CLIENTS $CLIENTS; do
		n=$((n + 1))
		[ $n -le 8 ] || break
		cx "cat >$T/up.$n" <"$T/data" &
		echo $! >"$T/pid.up.$n"
		cx "cat $T/data" </dev/null >"$T/down.$n" &
		echo $! >"$T/pid.down.$n"
	done
	bad=0
	for n in 1 2 3 4 5 6 7 8; do
		wait "$(cat "$T/pid.up.$n")" || bad=$((bad + 1))
		wait "$(cat "$T/pid.down.$n")" || bad=$((bad + 1))
	done
	is "8 uploads and 8 downloads end with status 0" $bad 0
	want=$(sum <"$T/data")
	for way in up down; do
		good=0
		for n in 1 2 3 4 5 6 7 8; do
			[ "$(sum <"$T/$way.$n")" = "$want" ] && good=$((good + 1))
		done
		is "$way: checksums agree" $good 8
		rm -f "$T/$way".*
	done
}

# How many key exchanges after the first: as sshd counts them; dropbear does not
# say, there it is the master's own count.
rekeys() {
	case $SERVER-$MASTER in
	sshd-*) grep -c 'rekeying out' "$SERVER_LOG" ;;
	*-stock) grep -c 'rekeying out' "$T/master.log" ;;
	*)
		"$SSHMUX" -S "$CTL" -O conninfo x |
			sed -n 's/.*rekey count \([0-9]*\).*/\1/p'
		;;
	esac
}

# What a program that does not read has in flight: the file's position tells it, which the
# master shares.  Later there is more: a server may only be slow.
in_flight() {
	if [ "$MASTER" = stock ]; then
		skip "a program that does not read: in flight" "OpenSSH fills the server's window"
		return
	fi
	exec 8<"$T/data"
	(sx "read -r line <$T/go; exec cksum") <&8 >"$T/sum" &
	pid=$!
	wait_for 20 has_sent 262144
	most=$(position)
	works "a program that does not read: not much in flight, no window of 2 MB ($most)" \
		test "$most" -lt 2000000
	exec 8<&-
	echo go >"$T/go"
	wait $pid
	is "then it reads all" "$(cat "$T/sum")" "$(cksum <"$T/data")"
}
position() { sed -n 's/^pos:[^0-9]*//p' "/proc/$$/fdinfo/8"; }
has_sent() { test "$(position)" -ge "$1"; }

head -c $BYTES /dev/urandom >"$T/data"
mkfifo "$T/go"
for server in sshd dropbear; do
	LABEL="$server: "
	start_server $server
	need_master -v -o RekeyLimit=40M
	before=$(fds)
	transfers
	n=$(rekeys)
	n=${n:-0}
	works "at least three re-keys in the middle ($n)" test "$n" -ge 3
	[ $SERVER != sshd ] || in_flight
	alive "the master goes on"
	same_fds "no descriptor left" "$before"
	stop_master
	stop_server
done
finish
