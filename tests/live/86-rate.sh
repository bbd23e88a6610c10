# RateLimit: bulk is held back both ways, by no less than was asked for; whoever is
# interactive is not.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2119,SC2120,SC2153,SC2154
. "$TESTDIR/lib.sh"
if [ "$MASTER" = stock ]; then
	skip "RateLimit" "OpenSSH differs: it has none"
	finish
fi

now() { echo $(($(date +%s%N) / 1000000)); }
ours() { "$SSHMUX" -S "$CTL" "$@"; }
up() { ours "$@" x 'cat >/dev/null' <"$T/bulk"; }
down() { ours "$@" x "head -c $SIZE /dev/zero" >"$T/got"; }

# takes NAME LEAST MOST COMMAND...: so many ms; most of them are what the rate asks
takes() {
	takes_name=$1 least=$2 most=$3
	shift 3
	began=$(now)
	"$@"
	rc=$?
	took=$(($(now) - began))
	works "$takes_name ($took ms)" [ $rc = 0 -a $took -ge $least -a $took -lt $most ]
}

SIZE=400000
head -c $SIZE /dev/zero >"$T/bulk"
start_sshd
need_master -o RateLimit=4M
takes "bulk up" 700 60000 up
takes "bulk down" 700 60000 down
is "every byte of it" "$(size "$T/got")" $SIZE
began=$(now)
up &
first=$!
up &
second=$!
ends_later $first
ends_later $second
wait $first
wait $second
works "two share one rate" [ $(($(now) - began)) -ge 1500 ]
stop_master
# What would take 400 s takes none where somebody waits for it.
need_master -o 'RateLimit=8K 16K'
down >/dev/null 2>&1 &
bulk=$!
ends_later $bulk
takes "--bulk: short input waits, too" 1000 60000 sh -c 'head -c 3000 /dev/zero | "$0" "$@"' "$SSHMUX" -S "$CTL" --bulk x 'cat >/dev/null'
takes "--interactive: no limit up" 0 60000 up --interactive
takes "--interactive: no limit down" 0 60000 down --interactive
takes "a short answer beside bulk" 0 60000 ours x true
is "its status" "$(echo short | ours x 'cat; exit 3'; echo $?)" "short
3"
kill $bulk
stop_master
is "-G prints it" "$("$SSHMUX" -F none -o 'RateLimit=1500K none' -G x | grep '^ratelimit')" "ratelimit 1500000 none"
for bad in 7999 1T 1.5M K '1M 2M 3M' ''; do
	"$SSHMUX" -F none -o "RateLimit=$bad" -G x >"$T/out" 2>"$T/err"
	is "bad: RateLimit=$bad" "$? $(grep -c RateLimit "$T/err")" "255 1"
done
finish
