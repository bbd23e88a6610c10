# tests/peers.sh - sourced after lib.sh by the tests that put sshmux where a script
# says ssh.
#
#   PROGRAM  the binary under test; with MASTER=stock OpenSSH's own ssh, which shows
#            that the test asks for what ssh does
# shellcheck shell=sh disable=SC2016,SC2034,SC2086

case $MASTER in
stock) PROGRAM=$(command -v "$STOCK_SSH") ;;
*) PROGRAM=$SSHMUX ;;
esac

# The home directory is the one of the user database: home.so makes it ours where
# a program loads libraries (see 10-login).
home_is_ours() { grep -q 'ld-linux' "$PROGRAM" && ! grep -q __asan_init "$PROGRAM"; }

# at_home COMMAND...
if home_is_ours; then
	at_home() {
		env LD_PRELOAD="$HOMELIB" TEST_ME="$ME" TEST_HOME="$T/home" TEST_SHELL=/bin/sh "$@"
	}
else
	# Include takes $HOME for ~, other names do not.
	at_home() { env HOME="$THERE" "$@"; }
fi

# --- what a configuration comes to -------------------------------------------------

# Keywords that both must print with the same values in the same order.
SAME='hostname user port identitiesonly userknownhostsfile globalknownhostsfile
	hostkeyalias stricthostkeychecking controlpath controlmaster controlpersist
	serveraliveinterval serveralivecountmax tcpkeepalive connecttimeout
	connectionattempts proxycommand proxyjump localforward remoteforward
	dynamicforward exitonforwardfailure gatewayports sendenv setenv requesttty
	remotecommand sessiontype loglevel batchmode rekeylimit addressfamily
	bindaddress bindinterface forwardagent forwardx11 escapechar
	permitremoteopen streamlocalbindmask streamlocalbindunlink
	requiredrsasize revokedhostkeys'
# The same, only where they have been set: the defaults are each program's own.
SET='identityfile ipqos hostkeyalgorithms ciphers kexalgorithms macs'

# One form for what may be said in two ways: names of files as they are written or as
# they come out, the ^ of an escape character, an address of all interfaces, the
# target of a dynamic forward.
one_form() {
	host=$(sed -n 's/^hostname //p' "$1")
	sed -i -e "/^[igu][a-z]*file /{ s|\([ /]\)~/|\1$THERE/|g; s|%d|$THERE|g; s|%u|$ME|g; s|%h|$host|g; s|\\\${TEST_DIR}|$TEST_DIR|g; }" \
		-e '/^identityfile none$/d' -e '/^escapechar /s/\\//' -e '/forward /s/ \[]:/ [*]:/' -e '/^remoteforward /s/ \[socks]:0$//' \
		-e '/^proxyjump /s|ssh://||g' -e '/^loglevel /s/QUIET/SILENT/' "$1"
}
THERE=$T/home
home_is_ours || THERE=$(getent passwd "$(id -u)" | cut -d: -f6)

# same_config NAME WORD...: `-G WORD...` of ssh and of PROGRAM say the same
same_config() {
	same_name=$1
	shift
	[ -s "$T/default" ] || {
		at_home ssh -G -F none x >"$T/default" 2>/dev/null </dev/null
		one_form "$T/default"
	}
	at_home ssh -G "$@" >"$T/want" 2>"$T/want.err" </dev/null
	same_status=$?
	at_home timeout 30 "$PROGRAM" -G "$@" >"$T/got" 2>"$T/got.err" </dev/null
	got_status=$?
	one_form "$T/want"
	one_form "$T/got"
	# ssh shows a local forward to a path as a dynamic one, too; Debian's takes an
	# interval of 300 where BatchMode is on and none is given.
	awk -v same="$SAME" -v set="$SET" '
		FNR == 1 { file++ }
		{
			key = tolower($1)
			value = $0
			sub(/^[^ ]* ?/, "", value)
			all[file, key] = all[file, key] "|" value
			if (key == "localforward" && $3 ~ /^\//) path[$2] = 1
		}
		function check(key) {
			if (all[2, key] != all[3, key])
				print key ": got " all[3, key] ", want " all[2, key]
		}
		function without_paths(file,    n, i, old, new) {
			n = split(substr(all[file, "dynamicforward"], 2), old, "|")
			for (i = 1; i <= n; i++) if (!(old[i] in path)) new = new "|" old[i]
			all[file, "dynamicforward"] = new
		}
		END {
			without_paths(2)
			without_paths(3)
			for (f = 2; f <= 3; f++)
				if (all[f, "batchmode"] == "|yes" && all[f, "serveraliveinterval"] == "|300")
					all[f, "serveraliveinterval"] = "|0"
			# without a session nobody asks for a terminal
			if (all[2, "sessiontype"] == "|none") all[3, "requesttty"] = all[2, "requesttty"]
			n = split(same, keys)
			for (i = 1; i <= n; i++) check(keys[i])
			n = split(set, keys)
			for (i = 1; i <= n; i++) if (all[1, keys[i]] != all[2, keys[i]]) check(keys[i])
		}' "$T/default" "$T/want" "$T/got" >"$T/differ" 2>&1
	if [ "$same_status$got_status" = 00 ] && [ ! -s "$T/differ" ]; then ok "$same_name"; else
		not_ok "$same_name"
		note "status: $got_status, ssh's $same_status"
		note "$(head -n 12 "$T/differ" | cut -c 1-300)"
		note "$(head -n 3 "$T/got.err")"
	fi
}

# --- in ssh's place ---------------------------------------------------------------

# in_place: $T/bin/ssh is PROGRAM, hosts x and jump are the server; further lines of
# the configuration for all hosts are the arguments
in_place() {
	mkdir -p "$T/bin" "$T/home/.ssh"
	if [ ! -e "$T/bin/ssh" ]; then
		if home_is_ours; then
			ln -s "$PROGRAM" "$T/bin/ssh"
		else
			printf '%s\n' '#!/bin/sh' "exec '$PROGRAM' -F '$T/home/.ssh/config' \"\$@\"" >"$T/bin/ssh"
			chmod 755 "$T/bin/ssh"
		fi
	fi
	printf '%s\n' "$@" 'Host x jump' 'HostName 127.0.0.1' "Port $PORT" "User $ME" \
		"IdentityFile $KEY" 'IdentitiesOnly yes' 'Host *' "UserKnownHostsFile $T/known_hosts" \
		'StrictHostKeyChecking yes' 'BatchMode yes' >"$T/home/.ssh/config"
}

# p COMMAND...: with that ssh first in PATH, by a deadline; exec_p in this shell's place
p() (exec_p "$@")
exec_p() {
	PATH=$T/bin:$PATH
	if home_is_ours; then
		exec env LD_PRELOAD="$HOMELIB" TEST_ME="$ME" TEST_HOME="$T/home" TEST_SHELL=/bin/sh \
			timeout "${DEADLINE:-60}" "$@"
	fi
	exec timeout "${DEADLINE:-60}" "$@"
}

# gives NAME STATUS OUTPUT COMMAND...: what a command of p must give; stdin is ours
gives() {
	gives_name=$1 gives_want="$3
status $2"
	shift 3
	gives_got=$(p "$@" 2>"$T/err"; echo "
status $?")
	gives_got=$(printf '%s\n' "$gives_got" | sed '/^$/d')
	is "$gives_name" "$gives_got" "$(printf '%s\n' "$gives_want" | sed '/^$/d')"
	[ "$gives_got" = "$(printf '%s\n' "$gives_want" | sed '/^$/d')" ] || note "$(head -n 3 "$T/err")"
}

# How often somebody has logged in to the server; how often since count_logins
all_logins() { grep -c 'Accepted publickey' "$SERVER_LOG" || :; }
count_logins() { counted=$(all_logins); }
logins() { echo $(($(all_logins) - counted)); }

# How many connections the server has, by its processes
connections() {
	grep -l "^PPid:[[:space:]]*$SERVER_PID\$" /proc/[0-9]*/status 2>/dev/null | grep -c ''
}
no_connections() { [ "$(connections)" = 0 ]; }

# find_master [WORD...]: the master that -O check finds, MASTER_PID
find_master() {
	MASTER_PID=$(p ssh -O check "$@" x 2>&1 </dev/null | sed -n 's/.*(pid=\([0-9]*\)).*/\1/p')
	[ -n "$MASTER_PID" ] && ends_later "$MASTER_PID"
}

# leaves NAME [WORD...]: -O exit, and nothing of that master remains
leaves() {
	leaves_name=$1
	shift
	find_master "$@" || { not_ok "$leaves_name: there is a master"; return; }
	gives "$leaves_name: -O exit" 0 '' ssh -O exit "$@" x </dev/null
	works "$leaves_name: the master ends" wait_for 20 gone "$MASTER_PID"
	works "$leaves_name: no connection is left" wait_for 20 no_connections
}

# files DIRECTORY: everything below it, as one text
files() {
	(cd "$1" && find . -path ./.git -prune -o -type f -exec sha256sum {} + -o -printf '%y %p %l\n' | sort)
}

# make_data: a tree with what copies get wrong
make_data() {
	mkdir -p "$T/data/sub/empty directory"
	head -c 300000 /dev/urandom >"$T/data/random"
	head -c 200000 /dev/zero >"$T/data/sub/zeros"
	echo text >"$T/data/a name with 'blanks' & more"
	: >"$T/data/empty"
	ln -s ../random "$T/data/sub/link"
}
