# EXT_INFO: what a master tells about its connection and channels.
# shellcheck shell=sh disable=SC2016,SC2034,SC2059,SC2086,SC2153
. "$TESTDIR/lib.sh"

HELLO='hello expect 1 4 ...'
INFO=0x20000001 ANSWER=0x90000001
mkfifo "$T/hold"
exec 9<>"$T/hold"

# A master of OpenSSH before 10.3 does not know the message.
old_master() {
	[ "$MASTER" = stock ] || return 1
	"$STOCK_SSH" -V 2>&1 | grep -q 'OpenSSH_\([0-9]\.\|10\.[0-2]\)'
}

# asked NAME WHAT STATUS: the text of the answer in TEXT
asked() {
	plays "$1" $HELLO send $INFO 77 ":$2" expect $ANSWER 77 $3 ':*' \
		send 0x10000004 78 expect 0x80000005 78 pid
	# The frame as muxc prints it, from its text on: back to characters
	TEXT=$(awk '$1 == "90000001" { for (i = 5; i <= NF; i++) printf "%s", $i }' "$T/plays" |
		sed 's/../\\x&/g')
	TEXT=$(env printf "$TEXT")
}

# line NAME PATTERN: a line of TEXT matches the (basic) regular expression
line() {
	if printf '%s\n' "$TEXT" | tr -d '\r' | grep -q -e "$2"; then ok "$1"; else
		not_ok "$1"
		note "$TEXT"
	fi
}

connection() {
	asked "INFO-connection: is answered, the connection stays" connection 1
	is "INFO-text: each line ends in CR LF" "$(printf '%s\n' "$TEXT" | sed '$d' | grep -vc "$(printf '\r')\$")" 0
	line "INFO-connection: begins with host and pid" "^Connection information for [^ ]* pid $MASTER_PID\$"
	line "INFO-connection: the server's address after an arrow" "^  tcp 127.0.0.1:[0-9]* -> 127.0.0.1:$PORT\$"
	line "INFO-connection: how long" '^  duration 00:00:[0-9][0-9]$'
	for word in kexalgorithm hostkeyalgorithm cipher mac compression; do
		line "INFO-connection: $word" "^  $word [a-z<]"
	done
	line "INFO-connection: traffic" '^  traffic .* in, .* out$'
}

channels() {
	asked "INFO-channels: is answered" channels 1
	line "INFO-channels: begins so" '^The following connections are open:$'
	rm -f "$T/up"
	(exec 9>&-; exec_client x 'echo up; cat' <"$T/hold" >"$T/up") &
	passenger=$!
	ends_later $passenger
	wait_for 20 has "$T/up" up
	asked "INFO-channels: is answered beside a session" channels 1
	line "INFO-channels: a line for the session" '^  #[0-9]* .*session'
	if ! differs "INFO-channels: forwards and their listeners" "it lists no listeners"; then
		port=$(ssh -F none -S "$CTL" -O forward -R 0:127.0.0.1:9 x)
		ssh -F none -S "$CTL" -O forward -D 127.0.0.1:$FREE x
		asked "INFO-channels: is answered with forwards" channels 1
		line "INFO-channels: forwards and their listeners" "$FREE"
		line "INFO-channels: the allocated port" "$port"
		ssh -F none -S "$CTL" -O cancel -R 0:127.0.0.1:9 -D 127.0.0.1:$FREE x
	fi
	kill $passenger
	wait $passenger 2>/dev/null
}

others() {
	plays "INFO-other: status 0 and the reason" $HELLO send $INFO 5 :weather \
		expect $ANSWER 5 0 ':info request type not supported'
	if ! differs "INFO-short: a request without its string is a failure" "it dies of it"; then
		plays "INFO-short: a request without its string is a failure" $HELLO \
			send $INFO 5 expect 0x80000003 5 ':*' send 0x10000004 6 expect 0x80000005 6 pid
		plays "INFO-short: a string longer than its frame likewise" $HELLO \
			send $INFO 5 100 =6364 expect 0x80000003 5 ':*'
	fi
	alive "INFO-short: the master lives"
}

# What a client prints, and that it is the whole text
client() {
	name=$1
	shift
	"$@" -S "$CTL" -O conninfo x >"$T/out" 2>"$T/err" </dev/null
	is "INFO-client: $name -O conninfo: status, stderr" "$? $(cat "$T/err")" "0 "
	works "INFO-client: $name -O conninfo: on stdout" grep -q -e "-> 127.0.0.1:$PORT" "$T/out"
	"$@" -S "$CTL" -O channels x >"$T/out" 2>"$T/err" </dev/null
	is "INFO-client: $name -O channels: status, stderr" "$? $(cat "$T/err")" "0 "
	works "INFO-client: $name -O channels: on stdout" grep -q '^The following connections are open:' "$T/out"
}

# Our client and a master that says nothing of it
unsupported() {
	for what in conninfo channels; do
		"$SSHMUX" -S "$CTL" -O $what x >"$T/out" 2>"$T/err" </dev/null
		is "INFO-hello: sshmux -O $what with a master without it" "$? $(cat "$T/out")" "255 "
		like "INFO-hello: sshmux -O $what says so" "$(cat "$T/err")" "*mux server does not support info request*"
	done
}

FREE=$(random_port)
while listening "$FREE"; do FREE=$(random_port); done
for server in sshd dropbear; do
	LABEL="$server: "
	start_server $server
	need_master
	if old_master; then
		plays "HELLO-version: 4, and no extension" hello expect 1 4 send 0x10000004 5 expect 0x80000005 5 pid
		differs "INFO-connection: is answered" "unknown before 10.3"
		differs "HELLO-info: announced" "unknown before 10.3"
		[ ! -x "$SSHMUX" ] || unsupported
	else
		plays "HELLO-info: announced" hello expect 1 4 :info :0 ... send 0x10000004 5 expect 0x80000005 5 pid
		connection
		channels
		others
		[ ! -x "$SSHMUX" ] || client sshmux "$SSHMUX"
		if [ -n "${NEWER_SSH:-}" ]; then
			client "newer ssh" "$NEWER_SSH" -F none
		fi
	fi
	stop_master
	stop_server
done
if [ "$MASTER" != stock ]; then
	LABEL="OpenSSH's master: "
	MASTER=stock
	start_sshd
	need_master
	if old_master; then unsupported; else client sshmux "$SSHMUX"; fi
	stop_master
	if [ -n "${NEWER_SSH:-}" ]; then
		LABEL="newer OpenSSH master: "
		STOCK_SSH=$NEWER_SSH
		need_master
		client sshmux "$SSHMUX"
		stop_master
	fi
	stop_server
fi
finish
