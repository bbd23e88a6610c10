# Exit codes, signals, the environment, subsystems, long commands, 64 at once.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

codes() {
	for code in 0 1 44 255; do
		cx "exit $code" </dev/null >"$T/out" 2>"$T/err"
		is "exit $code" "$?" $code
		is "exit $code says nothing" "$(cat "$T/out" "$T/err")" ''
	done
	cx 'kill -9 $$' </dev/null >"$T/out" 2>"$T/err"
	is "a command killed by a signal" "$?" 255
	is "a shell reads its commands" "$(echo 'echo $((6*7)); exit 3' | cx 2>/dev/null; echo $?)" \
		"42
3"
	is "arguments are joined" "$(cx echo one '"two  three"' </dev/null)" "one two  three"
}

# The longest command that must be taken: 8 KB, with 16 KB of environment
long_command() {
	padding=$(head -c 8000 /dev/zero | tr '\0' x)
	is "a command of 8 KB" "$(cx "echo \${#0}-end-${padding} | wc -c" </dev/null 2>/dev/null)" \
		"$(sh -c "echo \${#0}-end-${padding} | wc -c")"
}

environment() {
	padding=$(head -c 3600 /dev/zero | tr '\0' v)
	plays "16 KB of environment" hello expect 1 ... \
		$SESSION ":test \${#TEST_1} = 3600 -a \${#TEST_4} = 3600 && exit 9" \
		":TEST_1=$padding" ":TEST_2=$padding" ":TEST_3=$padding" ":TEST_4=$padding" \
		":FORBIDDEN=x" fd 0 1 2 expect 0x80000006 1 @s expect 0x80000004 @s 9 eof
	plays "a variable without = or name, with a NUL-free rest, is dropped" hello expect 1 ... \
		$SESSION ':env | grep -c TEST_' :TEST_X :=y ":TEST_1=1" fd 0 1 2 \
		expect 0x80000006 1 @s expect 0x80000004 @s 0 eof
}

over_long() {
	plays "a command of 200,000 bytes is refused" hello expect 1 ... $SESSION +200000 \
		fd 0 1 2 expect 0x80000003 1 ':*'
	alive "the master lives after it"
}

# large WORD...: 30 KB of command and 60 KB of environment; how many variables came
large() {
	(
		n=0
		while [ $n -lt 60 ]; do
			n=$((n + 1))
			export "TEST_$n=$(printf %01000d 0)"
		done
		"$SSHMUX" -F none "$@" -o 'SendEnv=TEST_*' x ": $(printf %030000d 0); env | grep -c '^TEST_[0-9]'" 2>&1 </dev/null
	)
}

large_ones() {
	usual
	is "30 KB of command, 60 KB of environment: through the master" "$(large -S "$CTL")" 60
	is "30 KB of command, 60 KB of environment: by a login of its own" \
		"$(large -S none -p "$PORT" -l "$ME" $USUAL -o HostName=127.0.0.1)" 60
}

# As many as the profile is for
case $MASTER-$("$SSHMUX" --version 2>/dev/null) in
sshmux-*router*) most=32 ;;
*) most=64 ;;
esac

many() {
	mkfifo "$T/hold"
	exec 9<>"$T/hold"
	n=0
	rm -f "$T"/many.*
	before=$(fds)
	while [ $n -lt $most ]; do
		n=$((n + 1))
		(
			exec 9>&-
			exec_client x "echo up; cat; exit $((n + 100))"
		) <"$T/hold" >"$T/many.$n" 2>"$T/many.err.$n" &
		echo $! >"$T/many.pid.$n"
	done
	wait_for 60 all_up
	is "$most sessions are open at once" "$(cat "$T"/many.[0-9]* | grep -c up)" $most
	exec 9>&-
	bad=0
	n=0
	while [ $n -lt $most ]; do
		n=$((n + 1))
		wait "$(cat "$T/many.pid.$n")"
		[ $? = $((n + 100)) ] || bad=$((bad + 1))
	done
	is "each ends with its own status" $bad 0
	rm "$T/hold"
	same_fds "$most sessions leave no descriptor behind" "$before"
}
all_up() { [ "$(cat "$T"/many.[0-9]* 2>/dev/null | grep -c up)" = "$most" ]; }

for server in sshd dropbear; do
	LABEL="$server: "
	start_server $server
	need_master -o 'SendEnv=TEST_*'
	for CLIENT in $CLIENTS; do
		LABEL="$server, $CLIENT: "
		codes
		long_command
		many
	done
	LABEL="$server: "
	[ "$MASTER" = stock ] || over_long
	if [ $server = sshd ]; then
		environment
		[ $most$MASTER != 64sshmux ] || large_ones
	fi
	stop_master
	stop_server
done
finish
