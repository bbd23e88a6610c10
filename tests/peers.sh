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
	at_home() { "$@"; }
fi

# --- what a configuration comes to -------------------------------------------------

# Keywords that both must print with the same values in the same order.
SAME='host hostname user port identitiesonly userknownhostsfile globalknownhostsfile
	hostkeyalias stricthostkeychecking controlpath controlmaster controlpersist
	serveraliveinterval serveralivecountmax tcpkeepalive connecttimeout
	connectionattempts proxycommand proxyjump localforward remoteforward
	dynamicforward exitonforwardfailure gatewayports sendenv setenv requesttty
	remotecommand sessiontype loglevel batchmode rekeylimit addressfamily
	bindaddress bindinterface forwardagent forwardx11 escapechar'
# The same, only where they have been set: the defaults are each program's own.
SET='identityfile ipqos hostkeyalgorithms ciphers kexalgorithms macs'

# same_config NAME WORD...: `-G WORD...` of ssh and of PROGRAM say the same
same_config() {
	same_name=$1
	shift
	[ -s "$T/default" ] || at_home ssh -G -F none x >"$T/default" 2>/dev/null </dev/null
	at_home ssh -G "$@" >"$T/want" 2>"$T/want.err" </dev/null
	same_status=$?
	at_home timeout 30 "$PROGRAM" -G "$@" >"$T/got" 2>"$T/got.err" </dev/null
	got_status=$?
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
