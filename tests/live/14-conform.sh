# port/transport.h: dropbear's transport and the one of the unit tests behave alike.
# shellcheck shell=sh disable=SC2034,SC2119,SC2153
. "$TESTDIR/lib.sh"

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

for program in conform conform-fake; do
	if [ ! -x "${MUXC%/*}/$program" ]; then
		skip "the transport" "not built here"
		finish
	fi
done
start_sshd
each dropbear "${MUXC%/*}/conform" "$PORT" "$ME" "$KEY" "$T/known_hosts"
each fake "${MUXC%/*}/conform-fake"
finish
