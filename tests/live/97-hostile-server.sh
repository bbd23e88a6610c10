# A server that attacks, before the login and after it: tests/hostile.py has the table
# of attacks and what must happen.  The master lives, serves the next session, and
# keeps its descriptors and memory; nothing of the server's reaches a terminal raw.
# Only with FAULTS=1 (make check-more), which needs paramiko of Debian's python3.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

if [ "$MASTER" = stock ] || [ -z "${FAULTS:-}" ] || ! /usr/bin/python3 -c 'import paramiko' 2>/dev/null; then
	skip "a hostile server" "OpenSSH differs: for ours, with FAULTS=1 and python3-paramiko"
	finish
fi
hostile() { /usr/bin/python3 "$TESTDIR/hostile.py" "$@" 2>>"$T/python"; }
raw_text() { LC_ALL=C grep -q "$(printf '[\033\007]')" "$@"; }

# master_for PORT WORD...: it asks for no proof of who the server is
master_for() {
	PORT=$1
	shift
	home
	run_master "$@" -i "$KEY" -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=none \
		127.0.0.1 >"$T/master.out" 2>"$T/master.log" </dev/null &
	MASTER_PID=$!
	ends_later "$MASTER_PID"
	wait_for 30 master_settled
}

# --- after the login ---------------------------------------------------------------

memory() { awk '/^RssAnon/ { print $2 }' "/proc/$MASTER_PID/status"; }
served() { [ "$(timeout 20 ssh -F none -o ProxyCommand=false -S "$CTL" x nothing 2>/dev/null </dev/null)" = "done" ]; }

after() {
	hostile after "$T/port" &
	server=$!
	ends_later $server
	wait_for 30 test -s "$T/port"
	master_for "$(cat "$T/port")" -v -o Reconnect=yes -o ReconnectMin=1 -o ReconnectMax=1 -o SessionWait=20
	works "a master of a hostile server" served
	before=$(fds) was=$(memory)
	hostile list after >"$T/attacks"
	while read -r name want <&3; do
		timeout 30 ssh -F none -o ProxyCommand=false -S "$CTL" x "$name" >"$T/out" 2>"$T/err" </dev/null
		rc=$?
		case $want:$rc:$(tail -n 1 "$T/out") in
		lives:0:done | either:0:done | lost:255:* | either:255:* | either:0: | served:0:* | served:255:*) got=ok ;;
		*) got="status $rc, $(head -c 60 "$T/out" | tr -d '\0')" ;;
		esac
		is "$name: $want" "$got" ok
		works "$name: the next session is served" wait_for 20 served
	done 3<"$T/attacks"
	works "nothing raw in its log" not raw_text "$T/master.log"
	works "and none to a client" not raw_text "$T/err" "$T/out"
	works "and no line is forged" not grep -q '^sshmux: forged' "$T/master.log"
	works "nor did it flood the log ($(lines "$T/master.log") lines, $(lines "$T/attacks") attacks)" \
		test "$(lines "$T/master.log")" -le $((20 * $(lines "$T/attacks")))
	# Sessions of an attack may linger a moment.
	same_fds "its descriptors are what they were" "$before"
	grown=$(($(memory) - was))
	grep -q __asan_init "$SSHMUX" || works "its memory grew by $grown KB" test "$grown" -le 256
	stop_master
	is "it ends well" "$MASTER_RC" 0
	end $server
}
not() { ! "$@"; }

# --- before it ------------------------------------------------------------------------

before() {
	hostile list before >"$T/attacks"
	while read -r name <&3; do
		rm -f "$T/port" "$CTL"
		hostile before "$name" "$T/port" &
		server=$!
		wait_for 20 test -s "$T/port"
		master_for "$(cat "$T/port")" -v -o ConnectTimeout=3
		works "before the login: $name: it ends" wait_for 20 gone "$MASTER_PID"
		wait "$MASTER_PID"
		is "$name: with 255 and a word" "$? $(grep -c '^sshmux: ' "$T/master.log" | sed 's/[1-9][0-9]*/some/')" "255 some"
		works "$name: clean" not raw_text "$T/master.log"
		kill $server 2>/dev/null
		wait $server 2>/dev/null
	done 3<"$T/attacks"
}

after
before
finish
