# tests/link.sh - sourced after lib.sh: a bad network between master and server
# (tests/link.c), and what can be asked of a master that lives on it.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2119,SC2120,SC2153,SC2154

nonempty() { [ -s "$1" ]; }

# link COMMAND...
link() { "${MUXC%/*}/link" "$T/link" "$@"; }

# start_link [OPTION...]: between us and the last server; PORT is the link's
# from here on; LINK_ADDRESS and LINK_ON: where it listens
start_link() {
	rm -f "$T/link" "$T/link.port"
	"${MUXC%/*}/link" "$@" serve "${LINK_ADDRESS:-127.0.0.1}:${LINK_ON:-0}" "$T/link.port" "$T/link" "$PORT" &
	LINK_PID=$!
	ends_later "$LINK_PID"
	wait_for 20 nonempty "$T/link.port" || give_up "the link starts"
	LINK_PORT=$(cat "$T/link.port")
	behind_link
}

# behind_link: the last server that was started is the one behind the link
behind_link() {
	link target "$PORT" >"$T/link.said"
	sed "s/^[^ ]* /[127.0.0.1]:$LINK_PORT /" "$T/known_hosts" >"$T/known_hosts.link"
	mv "$T/known_hosts.link" "$T/known_hosts"
	SERVER_PORT=$PORT
	PORT=$LINK_PORT
}

# children PID: processes below it, itself last
children() {
	for stat in /proc/[0-9]*/stat; do
		p=$(sed -n "s/^\([0-9]*\) (.*) [A-Z] $1 .*/\1/p" "$stat" 2>/dev/null)
		[ -z "$p" ] || children "$p"
	done
	echo "$1"
}

# kill_server: it and all of its connections die at once
kill_server() {
	doomed=$(children "$SERVER_PID")
	kill -9 "$SERVER_PID" 2>/dev/null
	link cut >"$T/link.said"		# first: nobody is to hear how the commands died
	# shellcheck disable=SC2086
	kill -9 $doomed 2>/dev/null
	wait_for 10 gone "$SERVER_PID"
	wait "$SERVER_PID" 2>/dev/null
}

# info: what the master says about its connection
info() { "$SSHMUX" -S "$CTL" -O conninfo x 2>/dev/null </dev/null | tr -d '\r'; }
channels() { "$SSHMUX" -S "$CTL" -O channels x 2>/dev/null </dev/null | tr -d '\r'; }
logins() { info | sed -n 's/^  logins //p'; }
is_up() { [ "$(logins)" -ge "${1:-1}" ] 2>/dev/null; }
# says TEXT...: the state that it tells has all of these
says() {
	said=$(info)
	for text; do
		case $said in
		*"$text"*) ;;
		*) return 1 ;;
		esac
	done
}
# channels_say PATTERN: within the list of channels
# shellcheck disable=SC2254
channels_say() { case $(channels) in *$1*) ;; *) return 1 ;; esac; }

kick() { kill -USR1 "$MASTER_PID"; }
kick_up() { is_up "$1" || { kick; is_up "$1"; }; }

# comes_back NAME LOGINS: connected again; waits are cut short by kicks
comes_back() {
	if wait_for 90 kick_up "$2"; then ok "$1"; else
		not_ok "$1"
		note "$(info)"
		note "$(tail -n 4 "$T/master.log")"
	fi
}

# exit_of COMMAND...: its status in RC, its words in SAID
exit_of() {
	SAID=$("$@" 2>&1 </dev/null)
	RC=$?
	SAID=$(printf %s "$SAID" | tr -d '\r')
}

# memory: bytes of its own that the master uses, KB
memory() { awk '/^Anonymous/ { print $2 }' "/proc/$MASTER_PID/smaps_rollup"; }
