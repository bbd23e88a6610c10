# The fuzzers' corpora, and 1000 mutations of each, the same ones each time.
# shellcheck shell=sh disable=SC2153
. "$TESTDIR/lib.sh"

export FUZZ_RUNS=1000
for name in mux ssh proxy socks options config hosts keys login; do
	fuzzer=${MUXC%/*}/fuzz_$name
	[ -x "$fuzzer" ] || { skip "fuzz $name" "not built here"; continue; }
	"$fuzzer" "$TESTDIR/corpus/$name/" >"$T/said" 2>&1
	is "fuzz $name: nothing breaks" "$? $(sed -n 's/^[0-9]* files, 1000 mutations: //p' "$T/said")" "0 no crash"
	tail -n 3 "$T/said" | sed 's/^/#  /'
done
finish
