# Text that a server or another user chooses does nothing to a terminal and forges
# no line of a log, wherever it is shown; what is readable in it stays.
# shellcheck shell=sh disable=SC1091,SC2016,SC2034,SC2059,SC2086,SC2153
. "$TESTDIR/lib.sh"

if [ "$MASTER" = stock ]; then
	skip "foreign text" "OpenSSH's is not under test"
	finish
fi

# A window title, a forged line, a CSI of 8 bits, a byte that is no UTF-8; and é
EVIL='\033]0;title\007\r\033[2K\302\233J\377caf\303\251'
RAW=$(printf "$EVIL")
SHOWN=$(printf '\\033]0;title\\007\\015\\033[2K\\302\\233J\\377caf\303\251')

# clean NAME FILE [COUNT]: the text is in FILE, so often if COUNT is given, and harmless
clean() {
	clean_left=$(tr -d '\n\t\40-\176\200-\376' <"$2" | tr -d '\r' | od -An -c)$(grep -c "$(printf '\302\233')" "$2")
	is "$1: harmless" "$clean_left" 0
	if [ $# = 3 ]; then
		is "$1: shown" "$(grep -cF "$SHOWN" "$2")" "$3"
	else
		works "$1: shown" grep -qF "$SHOWN" "$2"
	fi
}

# One packet as it is before encryption: its payload, a format of printf
packet() {
	printf "$1" >"$T/payload"
	n=$(size "$T/payload")
	pad=$((16 - (n + 5) % 8))
	printf "\\000\\000\\$(printf %o $(((n + pad + 1) / 256)))\\$(printf %o $(((n + pad + 1) % 256)))\\$(printf %o $pad)"
	cat "$T/payload"
	head -c $pad /dev/zero
}
length() { printf "$1" | wc -c; }
string() { printf '\\000\\000\\000\\%o%s' "$(length "$1")" "$1"; }

# served NAME WORD...: who logs in meets a server that says $T/script
served() {
	served_name=$1
	shift
	cat >"$T/conf" <<-END
		Host hop
		 ProxyCommand sh -c 'cat $T/script; exec cat >/dev/null'
		Host *
		 StrictHostKeyChecking yes
		 UserKnownHostsFile $T/none
	END
	timeout 30 "$SSHMUX" -F "$T/conf" "$@" true >"$T/out" 2>"$T/err" </dev/null
	is "$served_name: status" $? 255
	clean "$served_name" "$T/err" 1
}

before_login() {
	LABEL="server: "
	printf "SSH-1.5-$EVIL\r\n" >"$T/script"
	served "version" hop
	printf "welcome $EVIL\r\nSSH-1.5-x\r\n" >"$T/script"
	served "a line before the version" -v hop
	{ printf 'SSH-2.0-x\r\n'; packet '\001\000\000\000\002'"$(string "$EVIL")$(string '')"; } >"$T/script"
	served "disconnect" hop
	emulated "" "disconnect of a jump host" "$NO_SELF" || served "disconnect of a jump host" -J hop target
	{
		printf 'SSH-2.0-x\r\n'
		packet '\004\001'"$(string "$EVIL")$(string '')"
		packet '\001\000\000\000\002'"$(string 'good bye')$(string '')"
	} >"$T/script"
	served "debug message" -vv hop
}

banners() {
	LABEL="banner: "
	most=1100
	"$SSHMUX" --version | grep -q router && most=500	# packets of 32 KB
	{
		printf "first\n$EVIL\n\n"
		i=0
		while [ $i -lt $most ]; do
			i=$((i + 1))
			printf 'line %d of a banner longer than thirty-two kilobytes\n' $i
		done
		printf '%0900d|\n' 0
	} >"$T/banner"
	start_sshd "Banner $T/banner"
	need_master -o Reconnect=yes -o ReconnectMin=1
	clean "text" "$T/master.log" 1
	is "all of its lines" "$(grep -c 'line [0-9]* of a banner' "$T/master.log")" $most
	is "a long line is whole" "$(sed -n 's/^sshmux: \(0*|*\)$/\1/p' "$T/master.log" | tr -d '\n')" "$(tail -n 1 "$T/banner")"
	works "an empty line stays" grep -qx 'sshmux: ' "$T/master.log"
	for pid in $(connection_processes); do kill "$pid"; done
	works "lost and back" wait_for 60 has "$T/master.log" 'connected to .* again'
	is "not said again" "$(grep -c 'first' "$T/master.log")" 1
	stop_master
}

# asked NAME LINES: a question of that many lines is shown whole and can be answered
asked() {
	printf 1 >"$T/question"
	i=0
	while [ $i -lt "$2" ]; do
		i=$((i + 1))
		printf 'option %d: some telephone that ends in XXX-XX%02d\n' $i $i >>"$T/question"
	done
	printf "$EVIL\nPasscode or option: " >>"$T/question"
	"$PTY" expect 'Passcode or option: ' send 'right\r' -- "$SSHMUX" -F none -p "$PORT" -l "$ME" -o PubkeyAuthentication=no \
		-o UserKnownHostsFile="$T/known_hosts" 127.0.0.1 'echo in' >"$T/out" 2>&1
	is "$1: status" $? 0
	works "$1: its answer is right" grep -q '^in' "$T/out"
	is "$1: each line on a line" "$(tr -d '\r' <"$T/out" | grep -cE '^(\(.*\) )?option [0-9]*: some .* in XXX-XX[0-9]*$')" "$2"
	clean "$1" "$T/out" 1
}

prompts() {
	LABEL="prompt: "
	if ! terminals; then
		skip "prompts" "$NO_TERMINALS"
		return
	fi
	TEST_PAM=$T/question TEST_PAM_ANSWER=right
	export TEST_PAM TEST_PAM_ANSWER
	start_sshd 'UsePAM yes' 'KbdInteractiveAuthentication yes' 'PermitRootLogin yes'
	asked "one line" 1
	asked "a menu" 12
	asked "a long text" 400
	unset TEST_PAM TEST_PAM_ANSWER
}

# foreign NAME OPTIONS WORD...: our client and somebody else's master that plays these
foreign() {
	foreign_name=$1 foreign_options=$2
	shift 2
	rm -f "$T/odd"
	"$MUXC" -l "$T/odd" accept send 1 4 :info :0 :sshmux :1 expect 1 4 ... "$@" close >"$T/played" 2>&1 &
	foreign_pid=$!
	ends_later $foreign_pid
	wait_for 10 test -S "$T/odd"
	timeout 30 "$SSHMUX" -F none -o Fallback=no -S "$T/odd" $foreign_options x </dev/null >"$T/err" 2>&1
	clean "$foreign_name" "$T/err"
	wait $foreign_pid
}

masters() {
	LABEL="master: "
	no="0x80000003" denied="0x80000002"
	foreign "check" "-O check" expect 0x10000004 @q send $no @q ":$RAW"
	foreign "state" "-O check" expect 0x10000004 @q send 0x80000005 @q 1 expect 0x20736d03 @r ... send 0x90736d03 @r 0 ":$RAW"
	foreign "forward" "-O forward -L 1:h:1" expect 0x10000006 @q ... send $no @q ":$RAW"
	foreign "cancel" "-O cancel -L 1:h:1" expect 0x10000007 @q ... send $no @q ":$RAW"
	foreign "stop" "-O stop" expect 0x10000009 @q send $denied @q ":$RAW"
	foreign "proxy" "-O proxy" expect 0x1000000f @q send $no @q ":$RAW"
	foreign "connection" "-O conninfo" expect 0x20000001 @q ... send 0x90000001 @q 0 ":first
$RAW"
	foreign "channels, a long text" "-O channels" expect 0x20000001 @q ... send 0x90000001 @q 0 ":$(printf %0990d 0)$RAW$(printf %09000d 0)$RAW"
	foreign "session" "-T" expect 0x10000002 @q ... take 3 send $no @q ":$RAW"
	foreign "session, later" "-T" expect 0x10000002 @q ... take 3 send 0x90736d02 @q ":$RAW"
	foreign "stdio" "-W h:1" expect 0x10000008 @q ... take 2 send $denied @q ":$RAW"
}

# What one user names, another one reads.
passengers() {
	LABEL="names: "
	start_sshd
	need_master -v
	port=$(random_port)
	plays "a forward" hello expect 1 4 ... send 0x10000006 1 1 :127.0.0.1 $port ":$RAW" 1 expect 0x80000001 1
	(CLIENT=sshmux; exec_client -O channels x) >"$T/out" 2>&1 </dev/null
	clean "-O channels" "$T/out"
	plays "a forward that fails" hello expect 1 4 ... send 0x10000006 1 1 ":$RAW" $port ":$RAW" 1 expect 0x80000003 1 ...
	clean "log" "$T/master.log"
	stop_master
}

# A log that may not grow any more ends nobody (SIGXFSZ).
full_log() {
	LABEL=
	start_sshd
	usual
	(
		ulimit -f 2
		exec "$SSHMUX" -F none -M -S "$CTL" -N -p "$PORT" -l "$ME" -vv -E "$T/full.log" $USUAL 127.0.0.1
	) >/dev/null 2>&1 </dev/null &
	MASTER_PID=$!
	ends_later "$MASTER_PID"
	works "a log with a limit: the master serves" wait_for 30 test -S "$CTL"
	i=0
	while [ $i -lt 20 ]; do
		i=$((i + 1))
		mx true </dev/null
	done
	works "it has reached its limit" [ "$(size "$T/full.log")" -ge 900 ]
	alive "and the master lives"
	stop_master
}

before_login
banners
stop_server
prompts
masters
passengers
full_log
finish
