# System calls of the master for 32 MiB each way: the bytes go in large pieces, and
# what comes is read as far as it goes.  The kernel counts read(), readv(), writev();
# how many there are depends on how the server is scheduled: the best of some tries.
# On a link of 100 Mbit/s: how often it is woken.
# shellcheck shell=sh disable=SC2034,SC2119,SC2120
. "$TESTDIR/lib.sh"
. "$TESTDIR/link.sh"
if [ "$MASTER" = stock ] || [ "${PROFILE:-default}" != default ] || [ -n "${EMULATED:-}" ]; then
	skip "system calls" "of the default profile"
	finish
fi
TRIES=4
MEGABYTES=32
start_sshd
need_master
wakes() { sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' "/proc/$MASTER_PID/status"; }
calls() { awk '/^sysc[rw]/ { n += $2 } END { print n + 0 }' "/proc/$MASTER_PID/io" 2>/dev/null; }
if [ "$(calls)" -le 0 ]; then
	skip "system calls" "not counted here"
	finish
fi
head -c "${MEGABYTES}M" /dev/zero >"$T/data"

# fewest COUNT MOST COMMAND...: whether one run of it takes no more of these than that
fewest() {
	counts=$1
	most=$2
	shift 2
	for try in $(seq $TRIES); do
		before=$($counts)
		"$@" || return 1
		n=$(($($counts) - before))
		echo "$n $counts"
		[ $n -gt 0 ] || return 1
		[ $n -gt "$most" ] || return 0
	done
	return 1
}
upload() { mx 'cat >/dev/null' <"$T/data"; }
download() { mx "cat $T/data" </dev/null >"$T/copy"; }
works "up: no more than 48 reads a MiB" fewest calls $((48 * MEGABYTES)) upload
works "down: no more than 100 reads and writes a MiB" fewest calls $((100 * MEGABYTES)) download
works "down: the bytes are the same" cmp "$T/data" "$T/copy"
stop_master
start_link -rate 100000000
need_master
few() { mx "head -c 8M $T/data" </dev/null >"$T/copy" && [ "$(size "$T/copy")" = 8388608 ]; }
works "down, 100 Mbit/s: no more than 100 wakes a MiB" fewest wakes $((100 * 8)) few
finish
