# Reports and what goes with them: -O status, metrics, log, watch; drain, hold,
# resume, reconnect, loglevel, signal, kill; signals through our client.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

[ "$MASTER" = sshmux ] || { skip "reports" "OpenSSH differs: it has none"; finish; }
mkfifo "$T/hold"
FREE=$(random_port)
while listening "$FREE"; do FREE=$(random_port); done

ours() { "$SSHMUX" -S "$CTL" "$@"; }
status() { ours -O status --json; }
# field EXPRESSION: of the status, as Python sees it in `s`
field() { status | python3 -c 'import json,sys; s=json.load(sys.stdin); print(eval(sys.argv[1]))' "$1" 2>&1; }
field_is() { [ "$(field "$1")" = "$2" ]; }
events() { ours -O log --json | python3 -c 'import json,sys
for line in sys.stdin: print(json.loads(line)["event"])'; }
has_event() { events | grep -q "^$1\$"; }

# board COMMAND: a session whose stdin is open as long as our fd 9
board() {
	exec 9<>"$T/hold"
	(
		exec 9<&-
		exec "$SSHMUX" -S "$CTL" x "$1" <"$T/hold" >"$T/up" 2>"$T/err"
	) &
	passenger=$!
	ends_later $passenger
	wait_for 20 has "$T/up" up
}

# ended: waits for the passenger, its status in RC
ended() {
	exec 9>&-
	wait $passenger
	RC=$?
	rm -f "$T/up"
}

the_status() {
	board 'echo up; exec cat'
	is "JSON: version" "$(field 's["version"]')" 1
	is "JSON: the master's pid" "$(field 's["pid"]')" "$MASTER_PID"
	is "JSON: the uplink is up" "$(field 's["uplink"]["state"]')" up
	is "JSON: its port" "$(field 's["uplink"]["port"]')" "$PORT"
	is "JSON: the host key's fingerprint" "$(field 's["uplink"]["host_key_fingerprint"][:7]')" SHA256:
	is "JSON: one session" "$(field 'len(s["sessions"])')" 1
	is "JSON: its command" "$(field 's["sessions"][0]["command"]')" 'echo up; exec cat'
	is "JSON: its client" "$(field 's["sessions"][0]["pid"]')" "$passenger"
	is "JSON: its client's program" "$(field 's["sessions"][0]["program"]')" "$(cat "/proc/$passenger/comm")"
	is "JSON: what it has said" "$(field 's["sessions"][0]["stdout_bytes"]')" 3
	printf 12345 >&9
	works "JSON: what it was told" wait_for 20 field_is 's["sessions"][0]["stdin_bytes"]' 5
	is "JSON: tables" "$(field '[t["in_use"] for t in s["tables"] if t["name"]=="SESSIONS"]')" "[1]"
	ours -O status >"$T/people"
	works "for people: at most 24 lines" [ "$(lines "$T/people")" -le 24 ]
	works "for people: the uplink" grep -q '^uplink  *up for ' "$T/people"
	works "for people: the session" grep -q " open  *$passenger .*echo up; exec cat\$" "$T/people"
	id=$(field 's["sessions"][0]["id"]')
	ours -O signal "$id" NOSUCH 2>"$T/err"
	is "-O signal: one that there is not" "$? $(grep -c 'there is no such signal' "$T/err")" "255 1"
	ours -O kill 4711 2>"$T/err"
	is "-O kill: a session that there is not" "$? $(grep -c 'there is no such session' "$T/err")" "255 1"
	ours -O kill "$id"
	is "-O kill: done" $? 0
	ended
	is "-O kill: its client" "$RC" 255
}

# ended_by WORD STATUS NAME
ended_by() {
	wait $passenger
	rc=$?
	is "$3" "$rc $(grep -c "$1" "$T/up")" "$2 1"
	exec 9>&-
	rm -f "$T/up"
}

# A server that passes signals on: dropbear does, OpenSSH not where root logs in.
the_signals() {
	board 'trap "echo got; exit 7" TERM; echo up; n=0; while [ $n -lt 200 ]; do sleep 0.1; n=$((n+1)); done'
	works "-O signal with a host" ours -O signal x "$(field 's["sessions"][0]["id"]')" TERM
	ended_by got 7 "-O signal"
	board 'trap "echo got; exit 8" USR1; echo up; n=0; while [ $n -lt 200 ]; do sleep 0.1; n=$((n+1)); done'
	kill -USR1 $passenger
	ended_by got 8 "USR1 to the client is the command's"
	board 'trap "" TERM; echo up; exec cat'
	kill -TERM $passenger
	wait_for 20 sh -c 'kill -TERM "$1" || :; case $(cat "/proc/$1/stat" 2>/dev/null) in "" | *") Z "*) ;; *) false ;; esac' sh $passenger
	ended
	is "a second TERM ends the client" $RC 255
	board 'trap "" TERM; echo up; exec cat'
	kill -TERM $passenger
	wait $passenger
	is "without a second one it goes by itself" $? 255
	ended
}

# The manual's schema is what the program prints: no field more, none less.
the_schema() {
	manual=$TESTDIR/../sshmux.1
	[ -e "$manual" ] || { skip "JSON: the manual's fields" "sshmux.1 is not beside the tests"; return; }
	ours -O forward -L 127.0.0.1:$FREE:127.0.0.1:9 x
	ours -O forward -R "$T/remote:$T/local" x
	board 'echo up; exec cat'
	muxc hello expect 1 4 ... send 0x1000000f 1 expect 0x8000000f 1 wait "$T/enough" >"$T/proxy" 2>&1 &
	proxy=$!
	ends_later $proxy
	wait_for 20 field_is 'len(s["proxies"])' 1
	status | python3 -c 'import json,sys
def walk(v, at):
	if isinstance(v, dict):
		for k in v: walk(v[k], at + ("." if at else "") + k)
	elif isinstance(v, list):
		for e in v: walk(e, at + "[]")
	else: print(at)
walk(json.load(sys.stdin), "")' | sort -u >"$T/printed"
	sed -n '/^\.Sh REPORTS/,/^\.Fl O Cm watch/p' "$manual" | sed -n 's/^\.It Li //p' | sed 's/ , /\n/g' | sort -u >"$T/documented"
	is "JSON: the manual's fields are those that are printed" "$(diff "$T/documented" "$T/printed")" ""
	touch "$T/enough"
	wait $proxy 2>/dev/null
	ours -O cancel -R "$T/remote:$T/local" x
	kill $passenger
	ended
}

the_events() {
	works "log: the login" has_event uplink-up
	works "log: a session" has_event session-closed
	works "log: for people" sh -c '"$1" -S "$2" -O log | grep -q "ago  session-closed .* command "' sh "$SSHMUX" "$CTL"
	"$SSHMUX" -S "$CTL" -O watch >"$T/watch" &
	watcher=$!
	ends_later $watcher
	"$SSHMUX" -S "$CTL" -O watch >"$T/stopped" &
	stopped=$!
	ends_later $stopped
	wait_for 20 field_is 'len([1 for t in s["tables"] if t["name"]=="CLIENTS" and t["in_use"]>=3])' 1
	kill -STOP $stopped
	i=0
	while [ $i -lt 8 ]; do
		ours x "echo $i" >/dev/null
		i=$((i + 1))
	done
	works "watch: each session's end" wait_for 20 has "$T/watch" session-closed 8
	is "watch: JSON lines" "$(python3 -c 'import json,sys
print(len([json.loads(l) for l in open(sys.argv[1])]) >= 16)' "$T/watch")" True
	ours -O loglevel DEBUG
	is "-O loglevel" $? 0
	ours -O loglevel LOUD 2>"$T/err"
	is "-O loglevel: one that there is not" "$? $(grep -c 'no such level' "$T/err")" "255 1"
	kill $watcher
	kill -KILL $stopped
	wait $watcher $stopped 2>/dev/null
}

# The counters, through a parser of OpenMetrics.
the_counters() {
	ours -O metrics >"$T/metrics"
	is "metrics: ends as it should" "$(tail -n 1 "$T/metrics")" "# EOF"
	works "metrics: up" grep -q '^sshmux_up{host="[^"]*"} 1$' "$T/metrics"
	if /usr/bin/python3 -c 'import prometheus_client.openmetrics' 2>/dev/null; then
		works "metrics: a parser of OpenMetrics takes them" /usr/bin/python3 -c 'import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
assert len(list(parse(open(sys.argv[1]).read()))) > 10' "$T/metrics"
	else
		skip "metrics: a parser of OpenMetrics takes them" "python3-prometheus-client is not installed"
	fi
}

hold_and_drain() {
	ours -O hold
	is "-O hold" $? 0
	is "JSON: held" "$(field 's["mode"]')" held
	"$SSHMUX" -S "$CTL" --wait=100 x "echo through" >"$T/through" &
	waits=$!
	ends_later $waits
	works "held: a session waits" wait_for 20 field_is 's["sessions"][0]["state"]' waiting
	is "held: what it would run" "$(field 's["sessions"][0]["command"]')" 'echo through'
	ours -O resume
	wait $waits
	is "-O resume: it runs" "$? $(cat "$T/through")" "0 through"
	board 'echo up; cat; exit 5'
	ours -O hold
	ours -o Fallback=no x 'echo not this' >"$T/waited" 2>&1 &
	waits=$!
	ends_later $waits
	"$SSHMUX" -S "$CTL" --wait=100 x 'echo the next' >"$T/patient" 2>"$T/patient.err" 9<&- &
	patient=$!
	ends_later $patient
	wait_for 20 field_is 'len([1 for r in s["sessions"] if r["state"] == "waiting"])' 2
	ours -O drain
	is "-O drain" $? 0
	wait $waits
	is "drain: who waits is told" "$? $(tr -d '\r' <"$T/waited")" "255 sshmux: session request failed: the master is draining"
	works "drain: the path is free" [ ! -e "$CTL" ]
	works "drain: the master lives while a session does" [ -d "/proc/$MASTER_PID" ]
	ended
	is "drain: the session finishes" $RC 5
	reap_master
	works "drain: then the master ends" gone $MASTER_PID
}

# -O list: what there is of each name, a line each.
the_list() {
	printf 'Host up also\n ControlPath %s\nHost gone\n ControlPath %s\n' "$CTL" "$T/nobody" >"$T/config"
	"$SSHMUX" -F "$T/config" -O list --json >"$T/list" 2>/dev/null
	is "-O list --json: an object a line" "$(python3 -c 'import json,sys
for line in open(sys.argv[1]):
	s = json.loads(line)
	print(s["name"], s["control_path"] == sys.argv[2], s["status"] and s["status"]["pid"])' "$T/list" "$CTL" 2>&1)" \
		"up True $MASTER_PID
also True $MASTER_PID
gone False None"
	board 'echo up; exec cat'
	like "-O list: state, since when, sessions" "$("$SSHMUX" -F "$T/config" -O list | head -n 1)" \
		"up	$CTL	Master running (pid=$MASTER_PID), up for *s, sessions 1 of [1-9]*"
	ended
}

comes_back() {
	# what the server itself listens on cannot be forwarded
	start_master -o ReconnectMin=1 -o RekeyLimit=1M -R $PORT:127.0.0.1:9 || give_up "a master that comes back"
	wait $patient
	is "drain: with --wait the next master serves it" "$? $(cat "$T/patient")" "0 the next"
	works "an event: a forward that fails" wait_for 20 has_event forward-failed
	"$SSHMUX" -S "$CTL" -O watch --since=64 >"$T/watched" &
	watcher=$!
	ends_later $watcher
	works "--since: the last events come first" wait_for 20 has "$T/watched" '"event":"uplink-up"'
	ours x 'head -c 3000000 /dev/zero' >/dev/null
	ours -O forward -L 127.0.0.1:$FREE:127.0.0.1:9 x
	ours -O cancel -L 127.0.0.1:$FREE:127.0.0.1:9 x
	the_list
	ours -O reconnect
	is "-O reconnect" $? 0
	works "reconnect: logged in again" wait_for 30 field_is 's["uplink"]["logins"]' 2
	works "reconnect: it says after how many tries" has "$T/master.log" 'connected to .* again, after 1 try$'
	is "reconnect: the same master" "$(field 's["pid"]')" "$MASTER_PID"
	is "reconnect: the reason is told" "$(field 's["uplink"]["last_error"]' | grep -c 'as asked')" 1
	processes=$(children_of $SERVER_PID)
	stop_server
	for p in $processes; do end "$p"; done
	works "an outage: the status tells it" wait_for 30 field_is 's["uplink"]["state"] in ("waiting","connecting")' True
	works "an outage: with the reason" sh -c '"$1" -S "$2" -O status | grep -q "^last error"' sh "$SSHMUX" "$CTL"
	works "an outage: an event" has_event uplink-down
	works "an outage: each try is one, too" wait_for 30 has_event uplink-trying
	stop_master
	wait $watcher
	for kind in session-opened session-closed forward-failed forward-up forward-down keys-exchanged \
		uplink-down uplink-trying master-ending; do
		works "watch: $kind" has "$T/watched" "\"event\":\"$kind\""
	done
}

# As many sessions as there may be, in one status; a reader that takes its time.
the_crowd() {
	start_sshd 'MaxSessions 300' 'LogLevel ERROR'
	need_master
	many=$(field 'min(250, s["session_limit"] - 2)')
	mkfifo "$T/slow"
	exec 9<>"$T/slow"
	(exec 9<&- python3 "$TESTDIR/crowd.py" "$CTL" "$many" "$T/crowd" <"$T/slow" >"$T/slow.json") &
	crowd=$!
	ends_later $crowd
	works "$many sessions" wait_for 60 test -e "$T/crowd"
	is "$many sessions: each is in the status, once" \
		"$(field 'len({r["command"] for r in s["sessions"] if r["state"] == "open"})')" "$many"
	is "$many sessions: and in the one for people" "$(ours -O status | grep -c ' : [0-9]*; exec cat$')" "$many"
	works "metrics: their number" sh -c '"$1" -S "$2" -O metrics | grep -q "^sshmux_sessions{.*} $3\$"' sh "$SSHMUX" "$CTL" "$many"
	is "beside a reader that stalls sessions open" "$(ours x 'echo opened')" opened
	exec 9>&-
	wait $crowd
	is "a status that is read late is whole" "$? $(python3 -c 'import json,sys
print(len(json.load(open(sys.argv[1]))["sessions"]))' "$T/slow.json")" "0 $many"
	stop_master
	stop_server
}

# What the channels of a proxy client move is counted with it.
the_proxied() {
	exec 9<>"$T/hold"
	(exec 9<&- ssh -F none -o ProxyCommand=false -S "$CTL" -O proxy x 'head -c 7000 /dev/zero; exec cat' <"$T/hold" >"$T/proxied") &
	proxied=$!
	ends_later $proxied
	works "proxied: what has come" wait_for 20 field_is '[p["received_bytes"] for p in s["proxies"]]' '[7000]'
	printf 123456 >&9
	works "proxied: what was sent" wait_for 20 field_is '[p["sent_bytes"] for p in s["proxies"]]' '[6]'
	exec 9>&-
	wait $proxied
}

# EventCommand, and supervisors who want to know when the path is served.
the_hooks() {
	cat >"$T/hook" <<'HOOK'
#!/bin/sh
echo "$SSHMUX_EVENT $SSHMUX_HOST $SSHMUX_CONTROL_PATH $SSHMUX_PID $SSHMUX_REASON" >>"${0%/*}/hooked"
echo "said by the hook"
[ ! -e "${0%/*}/hang" ] || exec sleep 300
HOOK
	chmod 755 "$T/hook"
	python3 -c 'import socket,sys,os
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
out = open(sys.argv[2], "w", 1)
while True:
	line = s.recv(1000).decode()
	print(line, file=out)
	if line == "STOPPING=1": break' "$T/notify" "$T/notified" &
	listener=$!
	ends_later $listener
	wait_for 20 [ -S "$T/notify" ]
	NOTIFY_SOCKET=$T/notify
	export NOTIFY_SOCKET
	rm -f "$T/ready"
	start_master -v -o ReconnectMin=1 -o EventCommand="$T/hook" -o EventDelay=60 --notify-fd=8 8>"$T/ready" ||
		give_up "a master with hooks"
	unset NOTIFY_SOCKET
	works "EventCommand: up" wait_for 20 has "$T/hooked" "^up 127.0.0.1 $CTL $MASTER_PID"
	works "EventCommand: what it says goes to the log" wait_for 20 has "$T/master.log" "hook: said by the hook"
	works "NOTIFY_SOCKET: ready" wait_for 20 has "$T/notified" '^READY=1$'
	works "NOTIFY_SOCKET: the state" wait_for 20 has "$T/notified" '^STATUS=up$'
	is "--notify-fd: a newline" "$(od -An -tx1 "$T/ready" | tr -d ' ')" 0a
	began=$(python3 -c 'import time; print(int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1000000))')
	kill -USR1 $MASTER_PID		# the unit's ExecReload
	works "NOTIFY_SOCKET: reloading" wait_for 20 has "$T/notified" '^RELOADING=1$'
	works "NOTIFY_SOCKET: ready again" wait_for 20 has "$T/notified" '^READY=1$' 2
	works "NOTIFY_SOCKET: since when" [ "$(sed -n 's/^MONOTONIC_USEC=//p' "$T/notified")" -ge "$began" ]
	ours -O reconnect
	wait_for 20 field_is 's["uplink"]["logins"]' 2
	is "EventCommand: a flap is silent" "$(grep -c . "$T/hooked")" 1
	stop_master
	works "NOTIFY_SOCKET: stopping" wait_for 20 has "$T/notified" '^STOPPING=1$'
	start_master -o ReconnectMin=1 -o EventCommand="$T/hook" -o EventDelay=1 || give_up "another master with hooks"
	works "EventCommand: up, of the next master" wait_for 20 has "$T/hooked" "^up 127.0.0.1 $CTL $MASTER_PID"
	touch "$T/hang"
	processes=$(children_of $SERVER_PID)
	stop_server
	for p in $processes; do end "$p"; done
	works "EventCommand: down, with the reason" wait_for 30 has "$T/hooked" "^down 127.0.0.1 $CTL $MASTER_PID ."
	works "EventCommand: one that hangs delays nobody" timeout 10 "$SSHMUX" -S "$CTL" -O status
	stop_master
	rm -f "$T/hang"
	"$SSHMUX" -o EventCommand=hook -G x 2>"$T/err" >/dev/null
	is "EventCommand: a relative path" "$? $(grep -c 'absolute path' "$T/err")" "255 1"
}

# The unit for systemd, as systemd itself reads it.
the_unit() {
	unit=$TESTDIR/../port/systemd/sshmux@.service
	if ! command -v systemd-analyze >/dev/null; then
		skip "systemd: the unit" "systemd-analyze is not installed"
		return
	fi
	[ -e "$unit" ] || { skip "systemd: the unit" "port/systemd is not beside the tests"; return; }
	mkdir "$T/units"
	sed "s|/usr/bin/sshmux|$SSHMUX|" "$unit" >"$T/units/sshmux@.service"
	is "systemd: the unit" "$(systemd-analyze verify --man=no "$T/units/sshmux@.service" 2>&1; echo $?)" 0
}

the_unit
start_sshd
need_master
the_status
the_schema
the_events
the_counters
the_proxied
hold_and_drain
comes_back
start_sshd
the_hooks
start_dropbear
need_master
the_signals
stop_master
stop_server
the_crowd
finish
