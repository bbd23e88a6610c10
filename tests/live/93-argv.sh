# The words that real programs put behind ssh (tests/argv.tsv): sshmux takes them
# for what ssh takes them for, and the same command arrives through a master.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"
. "$TESTDIR/peers.sh"

TAB=$(printf '\t')


# arrives CLIENT WORD...: what the server was asked for, the status; for -O what
# the master said
arrives() {
	arrives_client=$1
	shift
	at_home timeout 30 "$arrives_client" -F none -o ControlPath="$CTL" "$@" \
		</dev/null >"$T/arrived" 2>"$T/arrived.err"
	echo "$(cat "$T/arrived")status $?"
	case " $* " in
	*' -O '*) tr -d '\r' <"$T/arrived.err" ;;
	esac
}

rows() {
	while IFS= read -r row; do
		case $row in
		'#'*) continue ;;
		esac
		program=${row%%"$TAB"*}
		IFS=$TAB
		set -f
		set -- ${row#*"$TAB"}
		set +f
		unset IFS
		name="$program: $(echo "$*" | sed 's/-o[A-Za-z ]*=[^ ]* //g' | cut -c 1-80)"
		same_config "$name" -F none "$@"
		case " $* " in
		*' -G '*) continue ;;
		*' -tt '*) terminals || continue ;;
		esac
		want=$(arrives ssh "$@")
		is "$name: arrives" "$(arrives "$PROGRAM" "$@")" "$want"
		case $want in
		*'asked for <'*'>'*'status 9' | *'Master running'*) arrived=$((arrived + 1)) ;;
		*) note "not by ssh: $want" ;;
		esac
		asked=$((asked + 1))
	done <"$T/argv"
	is "each was carried by ssh, too" "$arrived" "$asked"
}

home
sed "s|@T@|$T|g" "$TESTDIR/argv.tsv" >"$T/argv"
# ControlPath= of a row comes too late: ours is first.
start_sshd 'ForceCommand printf "asked for <%%s>" "$SSH_ORIGINAL_COMMAND"; exit 9'
need_master
arrived=0
asked=0
rows
stop_master
stop_server
finish
