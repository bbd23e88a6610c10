# sshmux in ssh's place: rsync, git, scp and sftp through a master that runs and
# through one that the first call starts; ControlPersist, -f, -J, ProxyCommand,
# connections of its own.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"
. "$TESTDIR/peers.sh"

unset GIT_SSH GIT_SSH_COMMAND RSYNC_RSH
GIT_CONFIG_GLOBAL=$T/gitconfig
GIT_CONFIG_NOSYSTEM=1
GIT_TERMINAL_PROMPT=0
export GIT_CONFIG_GLOBAL GIT_CONFIG_NOSYSTEM GIT_TERMINAL_PROMPT

# --- the programs ------------------------------------------------------------------

copies_of_rsync() {
	works "rsync there" p rsync -a "$T/data/" "x:$T/there/"
	is "rsync there: the same" "$(files "$T/there")" "$(files "$T/data")"
	works "rsync back" p rsync -az -e ssh "x:$T/there/" "$T/back/"
	is "rsync back: the same" "$(files "$T/back")" "$(files "$T/data")"
	echo more >>"$T/back/random"
	works "rsync there, a change, -e with words" p rsync -a --delete -e 'ssh -o LogLevel=ERROR' "$T/back/" "x:$T/there/"
	is "rsync there, a change: the same" "$(files "$T/there")" "$(files "$T/back")"
	works "rsync, a name with blanks" p rsync -as "x:$T/data/a name*" "$T/back/sub/"
	p rsync -a "x:$T/not-there" "$T/back/" >"$T/out" 2>&1 </dev/null
	is "rsync, a file that is not there: status" $? 23
	rm -rf "$T/there" "$T/back"
}

copies_of_git() {
	rm -rf "$T/repo.git" "$T/clone" "$T/second"
	git init -q --bare -b main "$T/repo.git"
	cp -R "$T/data" "$T/first"
	(cd "$T/first" && git init -q -b main && git add . && git commit -qm one &&
		git remote add origin "x:$T/repo.git") >"$T/out" 2>&1
	works "git push" p git -C "$T/first" push -q origin main
	works "git clone" p git clone -q "ssh://x$T/repo.git" "$T/clone"
	is "git clone: the same" "$(git -C "$T/clone" rev-parse HEAD; git -C "$T/clone" status --porcelain)" \
		"$(git -C "$T/first" rev-parse HEAD)"
	(cd "$T/first" && echo two >two && git add two && git commit -qm two) >"$T/out" 2>&1
	works "git push again" p git -C "$T/first" push -q origin main
	works "git fetch" p git -C "$T/clone" fetch -q
	is "git fetch: the same" "$(git -C "$T/clone" rev-parse origin/main)" "$(git -C "$T/first" rev-parse main)"
	# Another name than ssh: git asks it with -G whether it knows -p.
	is "git asks the program for its kind" \
		"$(GIT_SSH_COMMAND="'$PROGRAM' -F $T/home/.ssh/config" p git ls-remote "ssh://x:$PORT$T/repo.git" main 2>"$T/err" | cut -f1)" \
		"$(git -C "$T/first" rev-parse main)"
	p git ls-remote "x:$T/no-repo.git" >"$T/out" 2>&1 </dev/null
	is "git, no such repository: status" $? 128
	rm -rf "$T/first" "$T/clone"
}

copies_of_scp() {
	for protocol in -s -O; do
		mkdir "$T/there" "$T/back"
		works "scp $protocol there" p scp $protocol -qr -S "$T/bin/ssh" "$T/data" "x:$T/there/"
		works "scp $protocol back" p scp $protocol -qrp -S "$T/bin/ssh" "x:$T/there/data" "$T/back/"
		rm "$T/there/data/sub/link" "$T/back/data/sub/link"	# scp copies what it points to
		is "scp $protocol: the same" "$(files "$T/back/data")" "$(files "$T/there/data")"
		works "scp $protocol: the same as sent" cmp "$T/back/data/random" "$T/data/random"
		p scp $protocol -q -S "$T/bin/ssh" "x:$T/not-there" "$T/back/" >"$T/out" 2>&1 </dev/null
		is "scp $protocol, a file that is not there: status" $? 1
		rm -rf "$T/there" "$T/back"
	done
}

copies_of_sftp() {
	mkdir "$T/there"
	printf '%s\n' "put $T/data/random $T/there/one" "rename $T/there/one $T/there/two" \
		"get $T/there/two $T/back" "ls -l $T/there" >"$T/batch"
	works "sftp -b" p sftp -q -S "$T/bin/ssh" -b "$T/batch" x
	works "sftp -b: the same" cmp "$T/back" "$T/data/random"
	echo "get $T/not-there $T/back" >"$T/batch"
	p sftp -q -S "$T/bin/ssh" -b "$T/batch" x >"$T/out" 2>&1 </dev/null
	is "sftp -b, a file that is not there: status" $? 1
	rm -rf "$T/there" "$T/back"
}

programs() {
	copies_of_rsync
	copies_of_git
	copies_of_scp
	copies_of_sftp
}

by_running_master() {
	LABEL="a running master: "
	need_master
	in_place "ControlPath $CTL"
	count_logins
	programs
	is "nobody logged in beside the master" "$(logins)" 0
	gives "-O exit" 0 '' ssh -O exit x </dev/null
	reap_master
}

by_started_master() {
	LABEL="auto: "
	in_place "ControlPath $T/cm-%C" 'ControlMaster auto' 'ControlPersist 60'
	count_logins
	programs
	is "one login for all" "$(logins)" 1
	leaves "in the end"
}

# --- the first call starts the master -------------------------------------------

auto() { in_place "ControlPath $T/m" 'ControlMaster auto' 'ControlPersist 60'; }
no_socket() { [ ! -e "$T/m" ]; }

# Status and streams of the call that starts the master, then of one that finds it
first_call() {
	for call in first second; do
		is "the $call call: streams and status" \
			"$(echo word | p ssh x 'cat; echo err >&2; exit 7' 2>"$T/err"; echo $?; cat "$T/err")" "word
7
err"
	done
	find_master || not_ok "-O check finds the master"
	like "the master runs in a session of its own" "$(session_of $MASTER_PID) $(session_of $$)" "$MASTER_PID *"
	gives "a signal ends the command: status" 255 '' ssh x 'kill -9 $$' </dev/null
	is "300,000 bytes in and out" "$(p ssh x cat <"$T/data/random" | sum)" "$(sum <"$T/data/random")"
	leaves "then"
	for call in first second; do
		gives "SetEnv, SendEnv, the $call call" 0 "set sent" env TEST_2=sent \
			ssh -o SetEnv=TEST_1=set -o 'SendEnv=TEST_*' x 'echo $TEST_1 $TEST_2' </dev/null
	done
	leaves "then again"
}

session_of() { cut -d' ' -f6 "/proc/$1/stat"; }

# Nothing of the caller stays open in the master: no pipe would ever end.
first_call_in_a_pipe() {
	for streams in 1 '1 and 2'; do
		rm -f "$T/done"
		(
			[ "$streams" = 1 ] || exec 2>&1
			p ssh x 'echo x' </dev/null | cat >"$T/out"
			echo over >"$T/done"
		) 2>&1 | cat >"$T/out2" &
		waiter=$!
		ends_later $waiter
		works "a pipe at $streams: it ends at once" wait_for 30 test -s "$T/done"
		works "a pipe at $streams: all readers see the end" wait_for 30 gone $waiter
		is "a pipe at $streams: output" "$(cat "$T/out")" x
		leaves "a pipe at $streams"
	done
	mkfifo "$T/in" "$T/up" "$T/errors"
	exec 7<>"$T/in" 8<>"$T/up" 9<>"$T/errors"
	p ssh x 'echo x; echo y >&2' <&7 >&8 2>&9
	is "named pipes: status" $? 0
	is "named pipes: output" "$(head -n 1 <&8)$(head -n 1 <&9)" xy
	find_master
	is "the master holds none of the caller's descriptors" "$(holds "$T/in") $(holds "$T/up") $(holds "$T/errors")" "0 0 0"
	exec 7>&- 8>&- 9>&-
	rm "$T/in" "$T/up" "$T/errors"
	leaves "named pipes"
}

# holds FILE: how many of the master's descriptors are that file
holds() { find "/proc/$MASTER_PID/fd" -lname "$1" | grep -c ''; }

# Several first calls at the same moment: all succeed, one master remains.
race() {
	count_logins
	n=0
	pids=
	while [ $n -lt 4 ]; do
		n=$((n + 1))
		exec_p ssh x "cat; exit $n" >"$T/race.$n" 2>"$T/race.err.$n" <"$T/batch.race" &
		pids="$pids $!"
	done
	n=0
	for pid in $pids; do
		n=$((n + 1))
		wait $pid
		is "first call $n of 4: status, output" "$? $(sum <"$T/race.$n")" "$n $(sum <"$T/batch.race")"
	done
	gives "one master remains" 0 x ssh x 'echo x' </dev/null
	works "each logged in at most once" test "$(logins)" -le 4
	leaves "the race"
	works "the race: no other file is left" nothing_beside
}
nothing_beside() { [ -z "$(find "$T" -maxdepth 1 -name 'm*' ! -name 'master.*')" ]; }

# What else the first call must not do to its caller, and what ends with it
first_call_and_others() {
	for call in first second; do
		is "the $call call, -n: the rest of the input stays" "$(echo word | { p ssh -n x true; cat; })" word
		is "the $call call: input that it does not read ends it" "$(p ssh x 'echo x' </dev/zero)" x
	done
	leaves "input"
	mkfifo "$T/hold"
	exec 9<>"$T/hold"
	(
		exec 9<&-
		exec_p ssh x 'echo up; cat' <"$T/hold" >"$T/out" 2>"$T/err"
	) &
	passenger=$!
	ends_later $passenger
	wait_for 30 has "$T/out" up
	kill -TERM $passenger
	wait $passenger 2>/dev/null
	exec 9>&-
	rm "$T/hold"
	count_logins
	gives "a first call that was killed: the master serves" 0 x ssh x 'echo x' </dev/null
	is "a first call that was killed: no login" "$(logins)" 0
	leaves "a first call that was killed"
	works "-N returns at once" p ssh -N x
	find_master || not_ok "-N: there is a master"
	leaves "-N"
	free_port
	gives "-L by the first call" 0 x ssh -L $FREE:127.0.0.1:$ECHO x 'echo x' </dev/null
	is "-L by the first call: it carries" "$(echo word | "$NET" call 127.0.0.1:$FREE)" word
	gives "-L by the second call" 0 x ssh -L $((FREE + 1)):127.0.0.1:$ECHO x 'echo x' </dev/null
	is "-L by the second call: it carries" "$(echo word | "$NET" call 127.0.0.1:$((FREE + 1)))" word
	leaves "-L"
	gives "ExitOnForwardFailure, a port that is taken" 255 '' \
		ssh -o ExitOnForwardFailure=yes -R $PORT:127.0.0.1:1 x 'echo not this' </dev/null
	works "ExitOnForwardFailure: no socket" no_socket
	works "ExitOnForwardFailure: no connection" wait_for 20 no_connections
}

# A terminal: the master keeps none, and the words at the end are the client's.
first_call_at_a_terminal() {
	terminals || { skip "at a terminal" "$NO_TERMINALS"; return; }
	for call in first second; do
		p "$PTY" -- ssh -t x 'test -t 0 && echo yes; exit 3' >"$T/out" 2>&1
		is "the $call call at a terminal" "$? $(tr -d '\r' <"$T/out" | grep -cx 'yes')$(grep -c 'Shared connection to' "$T/out")" "3 11"
	done
	find_master
	is "the master holds no terminal" "$(holds '/dev/pts/*') $(cut -d' ' -f7 "/proc/$MASTER_PID/stat")" "0 0"
	leaves "at a terminal"
}

# The server goes away under the master; the next call gets through.
server_lost() {
	p ssh x true </dev/null
	find_master
	for pid in $(connection_processes); do kill -9 "$pid"; done
	works "the connection is lost: the master ends" wait_for 20 gone $MASTER_PID
	gives "the connection is lost: the next call" 5 back ssh x 'echo back; exit 5' </dev/null
	leaves "the connection is lost"
}

# ControlPersist=1: it stays as long as somebody is there, and no longer.
persist() {
	mkfifo "$T/hold"
	exec 9<>"$T/hold"
	(
		exec 9<&-
		exec_p ssh -o ControlPersist=1 x 'echo up; cat' <"$T/hold" >"$T/out" 2>"$T/err"
	) &
	passenger=$!
	ends_later $passenger
	wait_for 30 has "$T/out" up
	find_master
	n=0
	while [ $n -lt 3 ]; do
		n=$((n + 1))
		p ssh x 'sleep 1' </dev/null
	done
	is "ControlPersist=1: it lives while a session does" "$(gone $MASTER_PID; echo $?)" 1
	exec 9>&-
	wait $passenger
	works "ControlPersist=1: then it ends" wait_for 20 gone $MASTER_PID
	works "ControlPersist=1: the socket is gone" no_socket
	works "ControlPersist=1: the connection too" wait_for 20 no_connections
	rm "$T/hold"
	# 0 is for ever, no is for one session
	p ssh -o ControlPersist=0 x true </dev/null
	find_master
	is "ControlPersist=0: it stays" "$(p ssh x 'sleep 2'; gone $MASTER_PID; echo $?)" 1
	leaves "ControlPersist=0"
	gives "ControlPersist=no: the command" 5 x ssh -o ControlPersist=no x 'echo x; exit 5' </dev/null
	works "ControlPersist=no: the socket is gone" no_socket
	works "ControlPersist=no: the connection too" wait_for 20 no_connections
}

stale() {
	p ssh x true </dev/null
	find_master
	kill -9 $MASTER_PID
	wait_for 20 gone $MASTER_PID
	works "the socket of a master that was killed is there" test -S "$T/m"
	gives "a dead socket is replaced" 6 x ssh x 'echo x; exit 6' </dev/null
	count_logins
	gives "the new master serves" 0 y ssh x 'echo y' </dev/null
	is "the new master serves: no login" "$(logins)" 0
	leaves "a dead socket"
	gives "a dead socket, ControlMaster=no: a connection of its own" 3 x ssh -o ControlMaster=no x 'echo x; exit 3' </dev/null
	differs "a file in the socket's place" "it deletes the file" && return
	gives "--wait: it becomes the master, and waits for none" 0 x ssh --wait=100 x 'echo x' </dev/null
	works "--wait: the socket is there" test -S "$T/m"
	leaves "--wait"
	echo precious >"$T/m"
	gives "a file in the socket's place: the command runs" 0 x ssh x 'echo x' </dev/null
	is "a file in the socket's place: it stays" "$([ ! -f "$T/m" ] || cat "$T/m")" precious
	p ssh -O exit x >"$T/out" 2>&1 </dev/null
	rm -f "$T/m"
}

# What cannot be: nothing is left, 255
failing() {
	gives "a login that fails: 255" 255 '' ssh -o IdentityFile=none -i /dev/null -o User=nobody-at-all x true </dev/null
	works "a login that fails: no socket" no_socket
	gives "no server: 255" 255 '' ssh -p 1 x true </dev/null
	works "no server: no socket" no_socket
	gives "an unknown host key: 255" 255 '' ssh -o UserKnownHostsFile=/dev/null x true </dev/null
	works "an unknown host key: no socket" no_socket
	gives "no directory for the socket: 255 " 255 '' ssh -S "$T/no/where" x true </dev/null
	gives "-O check without a master: 255" 255 '' ssh -O check x </dev/null
	works "none of them stays" wait_for 20 no_connections
}

by_first_call() {
	LABEL="auto: "
	auto
	first_call
	first_call_in_a_pipe
	first_call_and_others
	first_call_at_a_terminal
	race
	server_lost
	persist
	stale
	failing
}

# --- connections of its own ----------------------------------------------------------

own() {
	LABEL="own connection: "
	in_place
	count_logins
	for code in 0 3 255; do
		gives "exit $code" $code x ssh x "echo x; exit $code" </dev/null
	done
	gives "a signal ends the command" 255 '' ssh x 'kill -9 $$' </dev/null
	is "streams" "$(echo word | p ssh x 'cat; echo err >&2; exit 4' 2>"$T/err"; echo $?; cat "$T/err")" "word
4
err"
	is "300,000 bytes in and out" "$(p ssh x cat <"$T/data/random" | sum)" "$(sum <"$T/data/random")"
	is "a shell reads its commands" "$(echo 'echo $((6*7)); exit 3' | p ssh -T x 2>"$T/err"; echo $?)" "42
3"
	is "-n reads nothing" "$(echo word | { p ssh -n x cat; cat; })" word
	is "-s: a subsystem" "$(echo word | p ssh -s x where)" "subsystem
word"
	gives "user@host, -p, words" 0 "one  two" ssh -p $PORT "$ME@127.0.0.1" -i "$KEY" echo '"one  two"' </dev/null
	gives "ssh://" 0 x ssh "ssh://$ME@x:$PORT" echo x </dev/null
	gives "RemoteCommand" 7 x ssh -o 'RemoteCommand=echo %n; exit 7' x </dev/null
	gives "RemoteCommand: tokens" 0 "127.0.0.1 $PORT $ME x $(id -un) %" ssh -o 'RemoteCommand=echo %h %p %r %n %u %%' x </dev/null
	is "RemoteCommand none" "$(echo 'echo $((6*7))' | p ssh -T -o RemoteCommand=none x 2>"$T/err")" 42
	gives "SendEnv -PATTERN" 0 "one three" env TEST_1=one TEST_2=two TEST_3=three \
		ssh -o 'SendEnv=TEST_1 TEST_2' -o SendEnv=-TEST_2 -o SendEnv=TEST_3 x 'echo $TEST_1 $TEST_2 $TEST_3' </dev/null
	gives "an unknown cipher" 255 '' ssh -c foo x true </dev/null
	gives "an unknown MAC" 255 '' ssh -m foo x true </dev/null
	gives "-W to no port" 255 '' ssh -W abc x </dev/null
	gives "SetEnv, SendEnv" 0 "set sent" env TEST_2=sent ssh -o SetEnv=TEST_1=set -o SendEnv=TEST_2 x 'echo $TEST_1 $TEST_2' </dev/null
	if terminals; then
		like "-tt: a terminal" "$(p ssh -tt x 'test -t 0 && echo yes' </dev/null 2>"$T/err")" "yes*"
	fi
	gives "ControlPath none" 0 x ssh -S none x 'echo x' </dev/null
	works "no connection stays" wait_for 20 no_connections
	free_port
	exec_p ssh -N -L $FREE:127.0.0.1:$ECHO x </dev/null &
	forwarding=$!
	ends_later $forwarding
	works "-N -L: it listens" wait_for 30 listening $FREE
	is "-N -L: it carries" "$(echo word | "$NET" call 127.0.0.1:$FREE)" word
	is "-L beside a command: both" "$(p ssh -L $((FREE + 1)):127.0.0.1:$ECHO x "echo word | '$NET' call 127.0.0.1:$((FREE + 1))" </dev/null)" word
	is "-W" "$(echo word | p ssh -W 127.0.0.1:$ECHO x)" word
	end $forwarding
	works "-N -L: TERM ends it" wait_for 20 no_connections
	gives "ExitOnForwardFailure, a port that is taken" 255 '' \
		ssh -o ExitOnForwardFailure=yes -R $PORT:127.0.0.1:1 x 'echo not this' </dev/null
	gives "a host that is not there" 255 '' ssh -p 1 x true </dev/null
}

free_port() {
	FREE=$(random_port)
	while listening "$FREE" || listening $((FREE + 1)); do FREE=$(random_port); done
}

# No master where ControlPath says: a connection of its own, or none
fallback() {
	LABEL="no master: "
	in_place "ControlPath $T/m"
	count_logins
	gives "a connection of its own" 3 x ssh x 'echo x; exit 3' </dev/null
	is "a connection of its own: silent" "$(cat "$T/err")" ''
	is "a connection of its own: a login" "$(logins)" 1
	works "a connection of its own: no socket" no_socket
	differs "Fallback=no" "it has no such keyword" && return
	count_logins
	gives "Fallback=no" 75 '' ssh -o Fallback=no x 'echo x' </dev/null
	is "Fallback=no: one line" "$(lines "$T/err")" 1
	gives "Fallback=no: auto does not become the master" 75 '' \
		ssh -o Fallback=no -o ControlMaster=auto x 'echo x' </dev/null
	gives "Fallback=no without a ControlPath" 255 '' ssh -o Fallback=no -S none x 'echo x' </dev/null
	is "Fallback=no without a ControlPath: why, in one line" "$(tr -d '\r' <"$T/err")" \
		"sshmux: x: no ControlPath leads to a master, and Fallback=no forbids a login without one"
	gives "Fallback=no: not for -W either" 255 '' ssh -o Fallback=no -S none -W 127.0.0.1:1 x </dev/null
	is "Fallback=no: no login" "$(logins)" 0
	need_master
	gives "Fallback=no with a master" 3 x ssh -o Fallback=no -S "$CTL" x 'echo x; exit 3' </dev/null
	stop_master
}

# backs NAME STATUS WORD...: ssh -f WORD... returns with STATUS.  What it leaves
# behind keeps its stdout and stderr, as ssh's does.
backs() {
	backs_name=$1 backs_status=$2
	shift 2
	p ssh -f "$@" </dev/null >"$T/out" 2>"$T/err"
	is "$backs_name" "status $?, $(cat "$T/out")" "status $backs_status, "
}

background() {
	LABEL="-f: "
	in_place
	mkfifo "$T/go"
	rm -f "$T/went"
	backs "it returns at once" 0 x "read -r line <$T/go; echo \$line; echo over >$T/went"
	is "the connection stays" "$(connections)" 1
	(echo word >"$T/go") &
	ends_later $!
	works "the command goes on" wait_for 20 has "$T/went" over
	works "its output arrives" wait_for 20 has "$T/out" word
	works "it ends with the command" wait_for 20 no_connections
	rm "$T/go"
	free_port
	backs "-M -N -L: it returns" 0 -M -N -S "$T/m" -L $FREE:127.0.0.1:$ECHO x
	is "-M -N -L: the forward is there" "$(echo word | "$NET" call 127.0.0.1:$FREE)" word
	gives "-M -N: the socket is there" 0 x ssh -S "$T/m" x 'echo x' </dev/null
	leaves "-M -N" -S "$T/m"
	backs "-N, a port that is taken" 255 -N -M -S "$T/m" -o ExitOnForwardFailure=yes -R $PORT:127.0.0.1:1 x
	is "-N, a port that is taken: it is said once" "$(lines "$T/err")" 1
	works "-N, a port that is taken: no socket" no_socket
	works "-N, a port that is taken: no connection" wait_for 20 no_connections
	backs "a login that fails" 255 -o UserKnownHostsFile=/dev/null x true
}

jumps() {
	LABEL="jump: "
	emulated "" "-J, ProxyJump" "$NO_SELF" && return
	in_place
	count_logins
	is "-J: streams and status" "$(echo word | p ssh -J jump x 'cat; exit 6' 2>"$T/err"; echo $?)" "word
6"
	is "-J: two logins" "$(logins)" 2
	gives "-J: two hosts" 0 x ssh -J "jump,$ME@x:$PORT" x 'echo x' </dev/null
	is "-J: two hosts, three logins" "$(logins)" 5
	gives "ProxyJump" 0 x ssh -o "ProxyJump ssh://$ME@jump:$PORT" x 'echo x' </dev/null
	is "ProxyJump: two logins" "$(logins)" 7
	gives "-J none" 0 x ssh -J none -o ProxyJump=jump x 'echo x' </dev/null
	is "-J none: one login" "$(logins)" 8
	is "300,000 bytes in and out" "$(p ssh -J jump x cat <"$T/data/random" | sum)" "$(sum <"$T/data/random")"
	p ssh -J jump -p 1 x true >"$T/out" 2>"$T/err" </dev/null
	is "what the jump host cannot reach" "$?, $(grep -c 'onnection refused' "$T/err")" "255, 1"
	gives "a jump host that is not there" 255 '' ssh -J "nobody@127.0.0.1:1" x 'echo x' </dev/null
	works "nothing is left" wait_for 20 no_connections
	printf '%s\n' 'Host *' 'ProxyJump bastion' >"$T/loop"
	p ssh -F "$T/loop" x true >"$T/out" 2>"$T/err" </dev/null
	is "a jump host that leads to itself" "$?, $(grep -c 'jumphost loop via bastion' "$T/err")" "255, 1"
	printf '%s\n' '#!/bin/bash -O' 'shopt -s failglob' 'eval "$2"' >"$T/failglob"
	sed -i '1s/ -O//' "$T/failglob"
	chmod 755 "$T/failglob"
	SHELL=$T/failglob
	export SHELL
	if have_ipv6; then
		DEADLINE=20 p ssh -J 'x@[::1]:1' x true >"$T/out" 2>"$T/err" </dev/null
		is "a jump host by its IPv6 address, for a shell that minds" "$?, $(grep -c 'no match' "$T/err")" "255, 0"
	fi
	unset SHELL
	auto
	gives "a master behind a jump host" 0 x ssh -J jump -o ControlPath="$T/m" x 'echo x' </dev/null
	count_logins
	gives "a master behind a jump host: again" 4 y ssh -J jump x 'echo y; exit 4' </dev/null
	is "a master behind a jump host: no login" "$(logins)" 0
	DEADLINE=20 p ssh -O exit jump >"$T/out" 2>&1 </dev/null || :
	if find_master; then leaves "a master behind a jump host"; fi
	works "a master behind a jump host: nothing is left" wait_for 20 no_connections
}

proxies() {
	LABEL="ProxyCommand: "
	in_place
	proxy="sh -c 'echo \$\$ >$T/proxy.pid; exec \"$NET\" call \"\$0\"' %h:%p"
	is "streams and status" "$(echo word | p ssh -o "ProxyCommand=$proxy" x 'cat; exit 6' 2>"$T/err"; echo $?)" "word
6"
	works "it ran" test -s "$T/proxy.pid"
	works "it ended" wait_for 20 gone "$(cat "$T/proxy.pid")"
	rm -f "$T/proxy.pid"
	is "300,000 bytes in and out" "$(p ssh -o "ProxyCommand=$proxy" x cat <"$T/data/random" | sum)" "$(sum <"$T/data/random")"
	rm -f "$T/proxy.pid"
	gives "none" 0 x ssh -o ProxyCommand=none -o "ProxyCommand=$proxy" x 'echo x' </dev/null
	works "none: it did not run" test ! -e "$T/proxy.pid"
	gives "one that fails" 255 '' ssh -o ProxyCommand=false x 'echo x' </dev/null
	# It ends before, while or after we write our first words.
	n=0
	ended=0
	while [ $n -lt 20 ]; do
		n=$((n + 1))
		DEADLINE=20 p ssh -o ProxyCommand=/no/such/program x 'echo x' </dev/null >"$T/out" 2>&1
		[ $? != 255 ] || ended=$((ended + 1))
	done
	is "one that is not there, 20 times" $ended 20
	auto
	gives "a master behind it" 0 x ssh -o "ProxyCommand=$proxy" x 'echo x' </dev/null
	gives "a master behind it: again" 4 y ssh x 'echo y; exit 4' </dev/null
	leaves "a master behind it"
	works "a master behind it: it ended" wait_for 20 gone "$(cat "$T/proxy.pid")"
	works "nothing is left" wait_for 20 no_connections
}

git config --file "$GIT_CONFIG_GLOBAL" user.name "A Name"
git config --file "$GIT_CONFIG_GLOBAL" user.email name@example.org
make_data
head -c 70000 /dev/urandom >"$T/batch.race"
"$NET" serve 127.0.0.1:0 "$T/echo.port" sh -c 'exec cat' 2>/dev/null &
ends_later $!
wait_for 10 test -s "$T/echo.port" || give_up "the echo server starts"
ECHO=$(cat "$T/echo.port")
start_sshd
by_running_master
by_started_master
by_first_call
own
fallback
background
jumps
proxies
stop_server
finish
