# config.h: every number has its range in LIMITS; what is outside of it, or
# contradicts another one, does not compile; what is at either end does.
# shellcheck shell=sh disable=SC2034,SC2046,SC2086,SC2153
. "$TESTDIR/lib.sh"

TOP=${TESTDIR%/*}
if ! command -v gcc >/dev/null || [ ! -r "$TOP/config.h" ]; then
	skip "limits" "no gcc, or config.h is not beside the tests"
	finish
fi

# What is no number
TEXTS='ASKPASS CONFIG_DIRECTORY'

sed -n 's/^#ifndef \([A-Z][A-Z_]*\)$/\1/p' "$TOP/config.h" | grep -v SSHMUX_CONFIG_H >"$T/names"
sed -n 's/^	LIMIT(\([A-Z_]*\), \([0-9]*\), \([0-9]*\)).*/\1 \2 \3/p' "$TOP/config.h" >"$T/limits"
missing=
while read -r name; do
	case " $TEXTS " in *" $name "*) continue ;; esac
	grep -q "^$name " "$T/limits" || missing="$missing $name"
done <"$T/names"
is "every number of config.h has its range in LIMITS" "$missing" ""
is "and LIMITS has no other" "$(cut -d' ' -f1 "$T/limits" | grep -v -x -F -f "$T/names")" ""

# What must be set beside a number at its least or most, because the defaults of
# others contradict it: name, value, flags.
beside() {
	case $1 in
	CLIENTS2) echo -DSESSIONS=2 -DREQUESTS=2 ;;
	CHANNELS2) echo -DSESSIONS=2 ;;
	CHANNELS2048) echo -DWINDOW_POOL=4194304 ;;
	SESSIONS1024) echo -DCHANNELS=1024 -DCLIENTS=1024 -DWINDOW_POOL=4194304 ;;
	REQUEST_POOL1024) echo -DREQUEST_MAX=1024 ;;
	REQUESTS1024) echo -DCLIENTS=1024 ;;
	WINDOW_POOL4096) echo -DCHANNELS=4 -DSESSIONS=3 ;;
	WINDOW_BLOCK4096) echo -DCHANNELS=8 -DSESSIONS=8 -DWINDOW_POOL=1048576 ;;
	WINDOW_MIN_BLOCKS64) echo -DCHANNELS=8 -DSESSIONS=8 -DWINDOW_POOL=1048576 ;;
	PROXY_STORE255) echo -DREPLY_MAX=512 ;;
	ARENA_SIZE49152) echo -DRSA_BITS_MAX=2048 -DPAYLOAD_MAX=10240 -DPACKET_MAX=8192 -DNET_QUEUE=12288 -DFAST_QUEUE=12288 ;;
	RSA_BITS_MAX4096 | PAYLOAD_MAX32784 | PACKET_MAX32704) echo -DARENA_SIZE=1048576 ;;
	BULK_QUEUE1024) echo -DBULK_PACKET=1024 ;;
	BULK_QUEUE262144) echo -DNET_QUEUE=262144 -DARENA_SIZE=1048576 ;;
	BULK_PACKET32768) echo -DNET_QUEUE=65536 -DARENA_SIZE=1048576 ;;
	SHORT_INPUT1048576) echo -DSEND_QUANTUM=1048576 ;;
	FAST_QUEUE4096) echo -DNET_QUEUE=4096 -DBULK_PACKET=1024 ;;
	FAST_QUEUE524288) echo -DARENA_SIZE=1048576 ;;
	NET_UNSENT_SHARED1048576) echo -DNET_UNSENT=1048576 ;;
	NET_QUEUE4096) echo -DBULK_PACKET=1024 ;;
	NET_QUEUE262144) echo -DARENA_SIZE=1048576 ;;
	FLIGHT67108864) echo -DFLIGHT_MOST=134217728 ;;
	FLIGHT_MOST65536) echo -DFLIGHT=1024 ;;
	REPLY_MAX128) echo -DPROXY_STORE=48 ;;
	esac
}

# compiles FLAG...: config.h alone; what is wrong in $T/said
compiles() { gcc -std=c11 -fsyntax-only "$@" -x c "$TOP/config.h" >"$T/said" 2>&1; }

# ends PROFILE-FLAG: both ends of every range, and one beyond each
ends() {
	while read -r name least most; do
		bad=
		for value in "$least" "$most"; do
			compiles $1 -D$name=$value $(beside $name$value) || bad="$bad $value: $(grep -m 1 error "$T/said")"
		done
		for value in $((least - 1)) $((most + 1)); do
			compiles $1 "-D$name=$value" $(beside $name$least) && bad="$bad $value: compiles"
			grep -q "\"$name is not in $least..$most\"" "$T/said" || bad="$bad $value: not said"
		done
		is "$name: $least..$most, not one less or more" "$bad" ""
	done <"$T/limits"
}

LABEL="default: " ends ''
LABEL="router: " ends -DPROFILE_ROUTER

# contradicts TEXT FLAG...: two numbers that are each in their range
contradicts() {
	text=$1
	shift
	compiles "$@"
	works "$*: $text" grep -q "$text" "$T/said"
}

LABEL=
contradicts 'more SESSIONS than CHANNELS' -DSESSIONS=200 -DCHANNELS=100
contradicts 'more SESSIONS than CLIENTS' -DSESSIONS=100 -DCLIENTS=64
contradicts 'does not fit in REQUEST_POOL' -DREQUEST_POOL=2048
contradicts 'more REQUESTS than CLIENTS' -DREQUESTS=300
contradicts 'whole WINDOW_BLOCKs' -DWINDOW_BLOCK=100
contradicts 'than numbers' -DWINDOW_POOL=4194304 -DWINDOW_BLOCK=64
contradicts 'too small for CHANNELS' -DWINDOW_POOL=65536
contradicts 'must fit in REPLY_MAX' -DPROXY_STORE=160
contradicts 'multiple of 8' -DARENA_SIZE=200001
contradicts 'too small for PAYLOAD_MAX, PACKET_MAX and FAST_QUEUE' -DFAST_QUEUE=524288
contradicts 'NET_QUEUE is a part of FAST_QUEUE' -DFAST_QUEUE=16384
contradicts 'too small for RSA_BITS_MAX' -DARENA_SIZE=160000
contradicts 'part of FLIGHT_MOST' -DFLIGHT=67108864
contradicts 'part of NET_QUEUE' -DBULK_QUEUE=40000
contradicts 'does not fit in BULK_QUEUE' -DBULK_QUEUE=2048
contradicts 'in one SEND_QUANTUM' -DSHORT_INPUT=9000
contradicts 'part of NET_UNSENT' -DNET_UNSENT_SHARED=40000

# The program itself, at all the ends that a table's size or a number's width knows
for flags in '-DADDRESSES=128 -DFORWARDS=256 -DCONNECTORS=64 -DASKERS=64 -DREPLY_MAX=4096 -DPROXY_STORE=255' \
	'-DCLIENTS=1024 -DCHANNELS=2048 -DSESSIONS=1024 -DREQUESTS=1024 -DWINDOW_POOL=4194304 -DOPTION_LIST=1024' \
	'-DWINDOW_BLOCK=64 -DFORWARD_HOST=108 -DSCRATCH=2048 -DOPTION_TEXT=1024 -DADDRESSES=1 -DREPLY_MAX=128 -DPROXY_STORE=40' \
	'-DCLIENTS=2 -DCHANNELS=2 -DSESSIONS=1 -DREQUESTS=2 -DCONNECTORS=1 -DFORWARDS=1 -DASKERS=1 -DOPTION_LIST=4'; do
	works "sshmux.c with $flags" gcc -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only $flags "$TOP/sshmux.c"
done
finish
