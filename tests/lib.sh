# tests/lib.sh - sourced by the live tests; tests/run starts them.
#
# Private servers on loopback, masters, clients and TAP.  From the runner:
#   T       the test's own directory, short, removed afterwards; HOME is $T/home
#   SSHMUX  the binary under test        MUXC  the scripted peer, tests/muxc.c
#   MASTER  sshmux, or stock: OpenSSH's own master in place of ours
# shellcheck shell=sh
# shellcheck disable=SC2016,SC2034,SC2119,SC2120	# variables, arguments: by the tests

PATH=$PATH:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
umask 077
unset SSH_AUTH_SOCK SSH_ASKPASS DISPLAY DROPBEAR_PASSWORD
ME=$(id -un)
CTL=$T/c
MASTER=${MASTER:-sshmux}
STOCK_SSH=${STOCK_SSH:-ssh}	# the master that MASTER=stock means
NET=${MUXC%/*}/net
PTY=${MUXC%/*}/pty
HOMELIB=${MUXC%/*}/home.so
CLIENTS="ssh sshmux"
[ -x "$SSHMUX" ] || CLIENTS=ssh
CLIENT=ssh
POINTS=0
LABEL=
PIDS=
HOST=
SSHD_KEYS=
DROPBEAR_KEYS=

# --- TAP -------------------------------------------------------------------
# LABEL goes before the name of every point: which server, which client.

ok() { POINTS=$((POINTS + 1)); echo "ok $POINTS - $LABEL$*"; }
not_ok() { POINTS=$((POINTS + 1)); echo "not ok $POINTS - $LABEL$*"; }
note() { printf '%s\n' "$*" | sed 's/^/#  /'; }
skip() { POINTS=$((POINTS + 1)); echo "ok $POINTS - $LABEL$1 # SKIP $2"; }
finish() { echo "1..$POINTS"; exit 0; }
give_up() { not_ok "$*"; finish; }

# terminals: whether a server of ours can hand them out.  It gives them to the
# group tty, which an ordinary user may do only as its member, or need not do
# where devpts has done it.
terminals() {
	[ "$(id -u)" = 0 ] || id -Gn | grep -qw tty || grep -q '^devpts .*gid=' /proc/mounts
}
NO_TERMINALS="an ordinary user's server cannot hand out terminals here: not in the group tty"

# is NAME GOT WANT
is() {
	if [ "$2" = "$3" ]; then ok "$1"; else
		not_ok "$1"
		note "got:  $(printf %s "$2" | head -c 600)"
		note "want: $(printf %s "$3" | head -c 600)"
	fi
}

# like NAME GOT PATTERN: a pattern of the shell
like() {
	# shellcheck disable=SC2254
	case $2 in
	$3) ok "$1" ;;
	*)
		not_ok "$1"
		note "got:  $(printf %s "$2" | head -c 600)"
		note "like: $3"
		;;
	esac
}

# works NAME COMMAND...: ok if it exits with 0
works() {
	works_name=$1
	shift
	if "$@" >"$T/works" 2>&1 </dev/null; then ok "$works_name"; else
		works_rc=$?
		not_ok "$works_name"
		note "exit $works_rc: $*"
		note "$(tail -n 12 "$T/works")"
	fi
}

# differs NAME REASON: true with the master of OpenSSH, which does not do what
# the point NAME asks for; the difference is listed among the skipped points
differs() {
	[ "$MASTER" = stock ] || return 1
	skip "$1" "OpenSSH differs: $2"
}

# emulated CPU NAME REASON: true under qemu-user (EMULATED=mips-24kc) as a CPU whose
# name begins so, if it cannot do what the point NAME asks for; such points are
# listed among the skipped ones
emulated() {
	case ${EMULATED:-none} in
	none) return 1 ;;
	"$1"*) skip "$2" "qemu-user: $3" ;;
	*) return 1 ;;
	esac
}
NO_SO_ERROR="SO_ERROR has the host's number, which on MIPS means something else"
NO_SELF="-J starts the program once more, which this kernel cannot"
NO_CLOSING="descriptors beyond the room for them stay open; Linux closes them"

# each NAME PROGRAM WORD...: its points become ours
each() {
	LABEL="$1: "
	shift
	"$@" >"$T/points" 2>&1 </dev/null
	each_rc=$?
	while read -r line; do
		case $line in
		'ok '*) ok "${line#*- }" ;;
		'not ok '*) not_ok "${line#*- }" ;;
		esac
	done <"$T/points"
	[ $each_rc = 0 ] || note "$(tail -n 3 "$T/points")"
	works "all points were reached" grep -q '^1\.\.' "$T/points"
	LABEL=
}

# --- waiting, processes ------------------------------------------------------

# wait_for SECONDS COMMAND...: polls until the command succeeds
wait_for() {
	wait_end=$(($(date +%s) + $1))
	shift
	until "$@"; do
		[ "$(date +%s)" -lt "$wait_end" ] || return 1
		sleep 0.05
	done
}

gone() {
	case $(cat "/proc/$1/stat" 2>/dev/null) in
	'' | *') Z '*) return 0 ;;
	esac
	return 1
}

# end PID: TERM, and KILL if that does not help
end() {
	kill "$1" 2>/dev/null
	wait_for 10 gone "$1" || kill -9 "$1" 2>/dev/null
	wait "$1" 2>/dev/null
}

# begin_of PID: when it began; nothing if it is gone
begin_of() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# A program that outlives its client or its test is ended with it.  Its number may be
# another program's by then, so its begin is kept with it.
ends_later() { PIDS="$PIDS $1:$(begin_of "$1")"; }

# still_there: which of them are still there
still_there() {
	for p in $PIDS; do
		[ -z "${p#*:}" ] || [ "$(begin_of "${p%:*}")" != "${p#*:}" ] || echo "${p%:*}"
	done
}

clean_up() {
	for p in $(still_there); do kill -CONT "$p" 2>/dev/null; kill "$p" 2>/dev/null; done
}
trap clean_up EXIT
trap 'exit 143' TERM INT HUP

# lines FILE, size FILE, has FILE TEXT [COUNT]
lines() { grep -c '' "$1" || :; }
size() { stat -c %s "$1"; }
has() { [ -e "$1" ] && [ "$(grep -c -e "$2" "$1")" -ge "${3:-1}" ]; }
sum() { sha256sum "$@" | cut -d' ' -f1; }

# --- servers -----------------------------------------------------------------
# home.so gives the user a home directory, a shell and a password of the test's
# own, as far as the servers see.

PASSWORD=throw-away-3c1

home() {
	[ ! -e "$T/home/.ssh" ] || return 0
	mkdir -p "$T/home/.ssh"
	ssh-keygen -q -t ed25519 -N '' -C user -f "$T/key"
	cp "$T/key.pub" "$T/home/.ssh/authorized_keys"
	KEY=$T/key
	SHADOW=$(openssl passwd -6 "$PASSWORD")
}

# Below the range that the kernel takes for outgoing connections
random_port() { echo $((10000 + $(od -An -N2 -tu2 /dev/urandom) % 20000)); }

# listening PORT: something does, on IPv4 loopback or anywhere
listening() {
	grep -qi ": [0-9A-F]*:$(printf %04X "$1") 0*:0000 0A" /proc/net/tcp
}

have_ipv6() { grep -q ' lo$' /proc/net/if_inet6 2>/dev/null; }

# Starts COMMAND... with the words PORT replaced, on a port that is free.
start_on_port() {
	for try in 1 2 3 4 5 6 7 8; do
		PORT=$(random_port)
		listening "$PORT" && continue
		SERVER_LOG=$T/$SERVER.$PORT.log
		"$1" &
		SERVER_PID=$!
		wait_for 10 server_settled && listening "$PORT" &&
			! gone "$SERVER_PID" && { ends_later "$SERVER_PID"; return; }
		end "$SERVER_PID"
	done
	cat "$SERVER_LOG"
	give_up "no server could be started ($try attempts)"
}

server_settled() { gone "$SERVER_PID" || listening "$PORT"; }

# known FILE...: a line of known_hosts for each public key
known() {
	for f in "$@"; do
		read -r type blob _ <"$f"
		printf '[127.0.0.1]:%s,[::1]:%s %s %s\n' "$PORT" "$PORT" "$type" "$blob"
	done
}

exec_sshd() {
	{
		printf '%s\n' "Port $PORT" "ListenAddress 127.0.0.1"
		! have_ipv6 || echo 'ListenAddress ::1'
		for k in $SSHD_KEYS; do echo "HostKey $k"; done
		cat "$T/sshd.options"
	} >"$T/sshd.$PORT"
	exec env LD_PRELOAD="$HOMELIB" TEST_ME="$ME" TEST_HOME="$T/home" TEST_SHELL=/bin/sh TEST_SHADOW="$SHADOW" \
		/usr/sbin/sshd -D -f "$T/sshd.$PORT" -E "$SERVER_LOG"
}

# start_sshd [LINE...]: lines of sshd_config; the first mention of a word wins
start_sshd() {
	home
	SERVER=sshd
	[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
	if [ -z "$SSHD_KEYS" ]; then
		SSHD_KEYS=$T/sshd_ed25519
		ssh-keygen -q -t ed25519 -N '' -C host -f "$SSHD_KEYS"
	fi
	printf '%s\n' "$@" 'PidFile none' 'UsePAM no' 'StrictModes no' 'UseDNS no' \
		'LogLevel DEBUG1' 'PermitRootLogin yes' 'PasswordAuthentication no' \
		'MaxSessions 100' 'MaxStartups 100' 'AcceptEnv LANG LC_* TEST_*' \
		'Subsystem sftp internal-sftp' 'Subsystem where echo subsystem; cat' \
		"AuthorizedKeysFile $T/home/.ssh/authorized_keys" >"$T/sshd.options"
	start_on_port exec_sshd
	# shellcheck disable=SC2046,SC2086
	known $(printf '%s.pub ' $SSHD_KEYS) >"$T/known_hosts"
}

exec_dropbear() {
	set -- -p "127.0.0.1:$PORT"
	! have_ipv6 || set -- "$@" -p "[::1]:$PORT"
	for k in $DROPBEAR_KEYS; do set -- "$@" -r "$k"; done
	# shellcheck disable=SC2086
	exec env LD_PRELOAD="$HOMELIB" TEST_ME="$ME" TEST_HOME="$T/home" TEST_SHELL="$T/sh" TEST_SHADOW="$SHADOW" \
		dropbear -F -E -m "$@" -P "$T/dropbear.pid" $DROPBEAR_OPTIONS 2>"$SERVER_LOG"
}

# start_dropbear [OPTION...]
#
# The server of Debian 12 (2022.83) loses output and status of commands that are
# over at once while others start, whoever is the client.  So they take longer.
start_dropbear() {
	home
	SERVER=dropbear
	printf '%s\n' '#!/bin/sh' '[ "$1" != -c ] || sleep 0.1' 'exec /bin/sh "$@"' >"$T/sh"
	chmod 755 "$T/sh"
	DROPBEAR_OPTIONS=$*
	if [ -z "$DROPBEAR_KEYS" ]; then
		DROPBEAR_KEYS=$T/dropbear_ed25519
		dropbearkey -t ed25519 -f "$DROPBEAR_KEYS" >/dev/null 2>&1
	fi
	for k in $DROPBEAR_KEYS; do
		dropbearkey -y -f "$k" 2>/dev/null | grep '^[se][a-z0-9-]* ' >"$k.pub"
	done
	start_on_port exec_dropbear
	# shellcheck disable=SC2046,SC2086
	known $(printf '%s.pub ' $DROPBEAR_KEYS) >"$T/known_hosts"
}

start_server() {
	case $1 in
	sshd) start_sshd ;;
	dropbear) start_dropbear ;;
	esac
}

stop_server() { end "$SERVER_PID"; }

# The server's processes for its connections: its children, each before its own.
# For an ordinary user sshd has two, and the second one holds the socket.
connection_processes() {
	for pid in $(children_of "$SERVER_PID"); do
		echo "$pid"
		children_of "$pid"
	done
}
# Not from the kernel's own list of children: that leaves out some while others end.
children_of() {
	cat /proc/[0-9]*/stat 2>/dev/null | sed -n "s/^\([0-9]*\) (.*) [A-Z] $1 .*/\1/p"
}

# --- masters -----------------------------------------------------------------

# run_master WORD...: becomes a master in the foreground; what it says goes to
# stderr.  KEY, PORT and known_hosts are the last server's.  The option that
# comes first wins, so a test's own go before.
run_master() {
	case $MASTER in
	stock)
		exec "$STOCK_SSH" -F none -M -S "$CTL" -N -p "$PORT" -l "$ME" "$@" -v \
			-o IdentityAgent=none -o GlobalKnownHostsFile=none \
			-o LogLevel=DEBUG1 ;;
	*)
		exec "$SSHMUX" -F none -M -S "$CTL" -N -p "$PORT" -l "$ME" "$@" ;;
	esac
}

usual() {
	USUAL="-o BatchMode=yes -o StrictHostKeyChecking=yes
		-o UserKnownHostsFile=$T/known_hosts -i $KEY"
}

master_settled() { gone "$MASTER_PID" || [ -S "$CTL" ]; }

# start_master [WORD...]: returns when it serves, or is gone (then 1)
start_master() {
	usual
	# OpenSSH's master leaves its socket when it is ended in its first moments.
	[ "$MASTER" != stock ] || rm -f "$CTL"
	# shellcheck disable=SC2086
	run_master "$@" $USUAL "${HOST:-127.0.0.1}" >"$T/master.out" 2>"$T/master.log" </dev/null &
	MASTER_PID=$!
	ends_later "$MASTER_PID"
	wait_for 60 master_settled && ! gone "$MASTER_PID" && return
	note "no master: $(tail -n 5 "$T/master.log")"
	return 1
}

need_master() { start_master "$@" || give_up "a master logs in"; }

# stop_master: by TERM; its exit status in MASTER_RC
stop_master() {
	kill "$MASTER_PID" 2>/dev/null
	reap_master
}

# reap_master: waits for its end, status in MASTER_RC
reap_master() {
	if wait_for 20 gone "$MASTER_PID"; then
		wait "$MASTER_PID"
		MASTER_RC=$?
	else
		kill -9 "$MASTER_PID"
		wait "$MASTER_PID" 2>/dev/null
		MASTER_RC="still running after 20 s"
	fi
}

fds() { find "/proc/$MASTER_PID/fd" -mindepth 1 2>/dev/null | grep -c ''; }
fds_are() { [ "$(fds)" = "$1" ]; }

# same_fds NAME COUNT: the master's descriptors come back to COUNT.  Those of a master
# that is not dumpable are for root to see.
same_fds() {
	if [ ! -r "/proc/$MASTER_PID/fd" ]; then
		skip "$1" "this user cannot see the master's descriptors"
		return
	fi
	wait_for 15 fds_are "$2"
	is "$1" "$(fds)" "$2"
}

# alive NAME: the master still takes a session
alive() { is "$1" "$(timeout 30 ssh -F none -o ProxyCommand=false -S "$CTL" x 'echo alive' 2>&1)" alive; }

# --- clients -----------------------------------------------------------------

# A client in place of this shell: CLIENT is ssh (which must not fall back to a
# connection of its own) or sshmux.  Options of both may come first.
exec_client() {
	case $CLIENT in
	sshmux) exec "$SSHMUX" -F none -o Fallback=no -S "$CTL" "$@" ;;
	*) exec ssh -F none -o ProxyCommand=false -S "$CTL" "$@" ;;
	esac
}

cx() (exec_client x "$@")
sx() (CLIENT=ssh; exec_client x "$@")
mx() (CLIENT=sshmux; exec_client x "$@")

# control COMMAND: `-O COMMAND` by CLIENT; text in CONTROL_TEXT, status in CONTROL_RC
control() {
	CONTROL_TEXT=$( (exec_client -O "$1" x) 2>&1 </dev/null | tr -d '\r'; )
	CONTROL_RC=$( (exec_client -O "$1" x) >/dev/null 2>&1 </dev/null; echo $?)
}

# muxc WORD...: the scripted client on the master's socket
muxc() { "$MUXC" "$CTL" "$@"; }

# plays NAME WORD...: ok if that script runs to its end
plays() {
	plays_name=$1
	shift
	if muxc "$@" >"$T/plays" 2>&1 </dev/null; then ok "$plays_name"; else
		not_ok "$plays_name"
		note "$(tail -n 6 "$T/plays")"
	fi
}

# Words of a NEW_SESSION up to the command, request id 1: no terminal
SESSION='send 0x10000002 1 : 0 0 0 0 126 :xterm'
