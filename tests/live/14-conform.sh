# port/transport.h: dropbear's transport and the one of the unit tests behave alike.
# shellcheck shell=sh disable=SC2034,SC2119,SC2153
. "$TESTDIR/lib.sh"

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
