# 80-reconnect, with dropbear as the server.
# shellcheck shell=sh disable=SC2034
SERVERS=dropbear
. "$TESTDIR/live/80-reconnect.sh"
