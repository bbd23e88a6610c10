# The table of the protocol's facts: every id has its test, every id that is
# cited has its row; and the checker sees what is wrong.
# shellcheck shell=sh disable=SC2034,SC2153
. "$TESTDIR/lib.sh"

table=$TESTDIR/protocol.tsv
works "each fact has its test, each id its fact" "$TESTDIR/protocol" "$table"

# complains NAME PATTERN: about $T/table, in a line like that
complains() {
	"$TESTDIR/protocol" "$T/table" >"$T/said" 2>&1
	is "$1: fails" $? 1
	works "$1: says so" grep -q "$2" "$T/said"
}
row() { cp "$table" "$T/table" && printf '%s\t%s\t%s\t%s\n' "$@" >>"$T/table"; }

row NEW-fact fact source ''
complains "a fact without a test" 'four columns: NEW-fact'
row NEW-fact fact source '20-sessions: no such point at all'
complains "a test point that is not there" 'NEW-fact: 20-sessions has no such point'
row NEW-fact fact source '99-nowhere: point'
complains "a test file that is not there" 'NEW-fact: no such test file: 99-nowhere'
row "$(sed -n '2s/\t.*//p' "$table")" fact source '20-sessions: exit'
complains "an id that occurs twice" 'is there twice'
grep -v '^FWD-match	' "$table" >"$T/table"
complains "an id that the program cites" 'sshmux.c:[0-9]*: cites FWD-match, which has no row'
complains "an id that a test cites" '55-forwards.sh:[0-9]*: cites FWD-match, which has no row'

# What sshmux.c promises of its own order.
if [ -r "$TESTDIR/../sshmux.c" ]; then
	works "house: sections call upward only, and write their own state alone" "$TESTDIR/house"
	sed '/^.\* ===== pool_/i static void buf_breach(void) { g.ch.end = 1; ch_settle(NULL); }' \
		"$TESTDIR/../sshmux.c" >"$T/breach.c"
	"$TESTDIR/house" "$T/breach.c" >"$T/said"
	is "house: a breach fails" $? 1
	works "house: a write is seen" grep -q 'buf_ writes g.ch.end' "$T/said"
	works "house: a call is seen" grep -q 'buf_ calls ch_settle() below it' "$T/said"
	works "house: a banner is seen" grep -q 'the banner of buf_ does not name ch_' "$T/said"
	cd "$TESTDIR/.." || exit 1
	is "house: no line of any C file has more than 100 columns" "$(
		for f in ./*.[ch] port/*.[ch] port/*/*.[ch] tests/*.[ch] tests/*/*.[ch]; do
			expand "$f" | awk -v f="$f" 'length > 100 { print f ":" NR }'
		done)" ''
fi
finish
