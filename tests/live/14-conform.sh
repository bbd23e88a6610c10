# port/transport.h: dropbear's transport and the one of the unit tests behave alike.
# shellcheck shell=sh disable=SC2034,SC2119,SC2153
. "$TESTDIR/lib.sh"
. "$TESTDIR/link.sh"

for program in conform conform-fake; do
	if [ ! -x "${MUXC%/*}/$program" ]; then
		skip "the transport" "not built here"
		finish
	fi
done
start_sshd
each dropbear "${MUXC%/*}/conform" "$PORT" "$ME" "$KEY" "$T/known_hosts"
each fake "${MUXC%/*}/conform-fake"
start_link -rate 200000
"${MUXC%/*}/conform" "$PORT" "$ME" "$KEY" "$T/known_hosts" >"$T/parts"
is "on a slow network, too" "$(grep -c '^not ok' "$T/parts")" 0
works "where packets come in parts" grep '^# [1-9][0-9]* turns ended inside' "$T/parts"
finish
