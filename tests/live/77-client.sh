# Our client beside ssh: the same words, streams and statuses from masters of
# both kinds; its terminal; what ssh's own newer clients do with our master.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

TERM=xterm
export TERM
[ -x "$SSHMUX" ] || { skip "the client" "there is none"; finish; }
mkfifo "$T/hold"
exec 9<>"$T/hold"

serve() {
	"$NET" serve "$2" "$T/$1.port" sh -c "$3" 2>/dev/null &
	ends_later $!
	wait_for 10 test -s "$T/$1.port" || give_up "the $1 server starts"
	SERVED=$(cat "$T/$1.port")
}

free_port() {
	FREE=$(random_port)
	while listening "$FREE"; do FREE=$(random_port); done
}

words() {
	case $CLIENT in
	sshmux) CL="$SSHMUX -F none -o Fallback=no -S $CTL" ;;
	*) CL="ssh -F none -o ProxyCommand=false -S $CTL" ;;
	esac
}

# --- transcripts: the same script by both clients -----------------------------

# Messages without the prefix that says who speaks; what ssh adds about the
# connection of its own that it tries then is left out.
plain() {
	tr -d '\r' <"$1" | sed -e 's/^[a-z_]*: //' \
		-e '/^Connection closed by UNKNOWN/d' -e '/^Connection to UNKNOWN/d' \
		-e '/banner exchange/d' -e '/^Connection closed by remote host/d' -e 's/\(pid=\)[0-9]*/\1N/'
}

# does NAME WORD...: the client with these words; all that can be seen of it
does() {
	does_name=$1
	shift
	timeout 30 $CL "$@" >"$T/c.out" 2>"$T/c.err" <"$INPUT" 9>&-
	printf '%s: status %s, out [%s], err [%s]\n' "$does_name" $? "$(cat "$T/c.out")" "$(plain "$T/c.err")"
}

script() {
	INPUT=/dev/null
	does "CLIENT-check: -O check" -O check x
	does "CLIENT-check: -q -O check" -q -O check x
	does "CLIENT-forward: -L" -O forward -L $P:127.0.0.1:$ECHO x
	does "CLIENT-forward: -L again" -O forward -L $P:127.0.0.1:$ECHO x
	does "CLIENT-forward: -L, the port is taken" -O forward -L $P:127.0.0.1:9 x
	echo "it works: $(echo word | "$NET" call 127.0.0.1:$P)"
	does "CLIENT-cancel: another target" -O cancel -L $P:127.0.0.1:9 x
	does "CLIENT-cancel: -L" -O cancel -L $P:127.0.0.1:$ECHO x
	does "CLIENT-cancel: -L again" -O cancel -L $P:127.0.0.1:$ECHO x
	for listen in :$P '*':$P localhost:$P 127.0.0.1:$P; do
		does "FWD-bind-text: -L $listen" -O forward -L "$listen:127.0.0.1:$ECHO" x
		does "FWD-bind-text: cancel -L $listen" -O cancel -L "$listen:127.0.0.1:$ECHO" x
	done
	does "CLIENT-forward: -D" -O forward -D $P x
	echo "it works: $(echo word | "$NET" -s5 127.0.0.1:$ECHO call 127.0.0.1:$P)"
	does "CLIENT-cancel: -D" -O cancel -D $P x
	does "CLIENT-forward: -L of paths" -O forward -L "$T/$CLIENT.l:$T/echo.s" x
	echo "it works: $(echo word | "$NET" call "$T/$CLIENT.l")"
	does "CLIENT-cancel: -L of paths" -O cancel -L "$T/$CLIENT.l:$T/echo.s" x
	does "CLIENT-forward: -R" -O forward -R $P:127.0.0.1:$ECHO x
	echo "it works: $(echo word | "$NET" call 127.0.0.1:$P)"
	does "CLIENT-cancel: -R" -O cancel -R $P:127.0.0.1:$ECHO x
	does "CLIENT-forward: -R, the port is taken" -O forward -R $PORT:127.0.0.1:9 x
	does "CLIENT-forward: -R, a path that cannot be" -O forward -R "/nowhere/s:127.0.0.1:9" x
	does "CLIENT-forward: three at once, one fails" -O forward -L $P:127.0.0.1:$ECHO \
		-R $PORT:127.0.0.1:9 -D $Q x
	does "CLIENT-cancel: the others were set up" -O cancel -L $P:127.0.0.1:$ECHO -D $Q x
	does "FWD-port0: -R 0" -O forward -R 0:127.0.0.1:$ECHO x | sed 's/out \[[0-9][0-9]*\]/out [a port]/'
	does "FWD-port0: cancelled" -O cancel -R 0:127.0.0.1:$ECHO x
	does "CLIENT-unknown: -O with an unknown word" -O weather x
	echo word >"$T/word"
	INPUT=$T/word
	does "CLIENT-stdio: -W" -W 127.0.0.1:$ECHO x
	does "CLIENT-stdio: -W to a name" -W localhost:$ECHO x
	! have_ipv6 || does "CLIENT-stdio: -W to IPv6" -W "[::1]:$ECHO6" x
	does "CLIENT-stdio: -W, refused" -W 127.0.0.1:$CLOSED x
	does "CLIENT-session: -L beside a session" -L $P:127.0.0.1:$ECHO x 'cat; echo done; exit 3'
	does "CLIENT-session: the forward stays" -O cancel -L $P:127.0.0.1:$ECHO x
	does "CLIENT-session: -D and -R beside it" -D $P -R $Q:127.0.0.1:$ECHO x 'cat; exit 4'
	does "CLIENT-session: they stay" -O cancel -D $P -R $Q:127.0.0.1:$ECHO x
	does "CLIENT-session: a forward that fails" -R $PORT:127.0.0.1:9 x 'echo not this'
	does "CLIENT-session: -T" -T x 'tty; exit 5'
	does "CLIENT-session: -t without a terminal" -t x 'tty; exit 6'
	INPUT=$T/hold			# input would be echoed, or not, before stty
	! terminals || does "CLIENT-session: -tt" -tt x 'stty -echo; echo up; exit 7'
	INPUT=$T/word
	echo 'echo a shell; exit 8' >"$T/word"
	does "CLIENT-shell: -N is a shell's session" -N x
	does "CLIENT-shell: no command" x
	does "CLIENT-subsystem: -s" -s x where
	does "CLIENT-subsystem: one that is not there" -s x nowhere
	INPUT=/dev/null
	does "CLIENT-stop: -O stop" -O stop x
}

ends() {
	INPUT=/dev/null
	does "CLIENT-exit: $1 -O exit" $1 -O exit x
}

no_master() {
	INPUT=/dev/null
	does "CLIENT-none: -O check without a master" -O check x
	does "CLIENT-none: -O forward" -O forward -L $P:127.0.0.1:9 x
	does "CLIENT-none: -O exit" -O exit x
}

# Both transcripts, line by line
compare() {
	for CLIENT in ssh sshmux; do
		words
		need_master
		{
			script
			reap_master
		} >"$T/said.$CLIENT"
		need_master
		ends '' >>"$T/said.$CLIENT"
		reap_master
		need_master
		ends -q >>"$T/said.$CLIENT"
		reap_master
		no_master | sed "s|$T/c|CTL|" >>"$T/said.$CLIENT"
		sed -i "s|$T/$CLIENT\.|$T/|g" "$T/said.$CLIENT"
	done
	# A text may have several lines: each begins where a name does.
	for f in ssh sshmux; do
		awk '/^[A-Z]+-[a-z0-9-]+: |^it works/ { if (n++) printf "\n" } { printf "%s|", $0 } END { print "" }' \
			"$T/said.$f" >"$T/line.$f"
	done
	is "transcripts: all was said" "$(lines "$T/line.sshmux")" "$(lines "$T/line.ssh")"
	n=0
	while IFS= read -r want <&3 && IFS= read -r got <&4; do
		is "${want%%: status*}" "$got" "$want"
	done 3<"$T/line.ssh" 4<"$T/line.sshmux"
}

# --- the wire: what our client sends ------------------------------------------

# sends NAME "WORDS" FIELD...: our client with those words sends that request
sends() {
	sends_name=$1 sends_words=$2
	shift 2
	rm -f "$T/odd"
	"$MUXC" -l "$T/odd" accept hello expect 1 4 ... "$@" >"$T/played" 2>&1 &
	odd_pid=$!
	ends_later $odd_pid
	wait_for 10 test -S "$T/odd"
	timeout 30 "$SSHMUX" -S "$T/odd" $sends_words x </dev/null >"$T/out" 2>"$T/err"
	sends_rc=$?
	wait $odd_pid
	is "$sends_name" "$? $sends_rc $(grep muxc: "$T/played")" '0 0 '
}

wire() {
	path=0xfffffffe
	while read -r option listen port host to_port; do
		case $option in
		-L) type=1 ;;
		-R) type=2 ;;
		-D) type=3 ;;
		esac
		sends "FWD-wire: $option $listen" "-O forward $option $listen" \
			expect 0x10000006 @r $type ":${port%,*}" "${port#*,}" ":$host" "$to_port" \
			send 0x80000001 @r close
	done <<-END
		-L 8080:h:80 ,8080 h 80
		-L :8080:h:80 *,8080 h 80
		-L localhost:8080:h:80 localhost,8080 h 80
		-L [::1]:8080:[::2]:80 ::1,8080 ::2 80
		-L /l:h:80 /l,$path h 80
		-L 8080:/r ,8080 /r $path
		-L /l:/r /l,$path /r $path
		-D 1080 ,1080 socks 0
		-D *:1080 *,1080 socks 0
		-R 8080:h:80 ,8080 h 80
		-R 1080 ,1080 socks 0
		-R *:1080 *,1080 socks 0
		-R /rs:/l /rs,$path /l $path
		-R /rs:h:80 /rs,$path h 80
		-R 8080:/l ,8080 /l $path
		-R /rs /rs,$path socks 0
	END
	sends "FWD-wire: -R 0 and the port that comes back" "-O forward -R 0:h:80" \
		expect 0x10000006 @r 2 : 0 :h 80 send 0x80000007 @r 45678 close
	is "FWD-wire: the port goes to stdout" "$(cat "$T/out" "$T/err")" 45678
	sends "FWD-wire: CLOSE_FWD has the same fields" "-O cancel -L 8080:h:80" \
		expect 0x10000007 @r 1 : 8080 :h 80 send 0x80000001 @r close
	sends "FWD-order: local ones first, then remote ones" "-O forward -R 8081:h:80 -D 1080 -L 8080:h:80" \
		expect 0x10000006 @a '*' : 1080 ... send 0x80000001 @a \
		expect 0x10000006 @b '*' : 8080 ... send 0x80000001 @b \
		expect 0x10000006 @c 2 : 8081 :h 80 send 0x80000001 @c close
	sends "STDIO-wire: -W" "-W [::1]:80" \
		expect 0x10000008 @r : :::1 80 take 2 send 0x80000006 @r 5 drop close
	sends "STDIO-wire: -W to a path" "-W /r" \
		expect 0x10000008 @r : :/r $path take 2 send 0x80000006 @r 5 drop close
}

# --- its terminal ----------------------------------------------------------------

shared_closed() {
	terminals || { skip "CLIENT-closed" "$NO_TERMINALS"; return; }
	for CLIENT in ssh sshmux; do
		words
		"$PTY" -- $CL -t x 'exit 3' >"$T/pty.$CLIENT" 2>&1
		echo "status $?" >>"$T/pty.$CLIENT"
		"$PTY" -- $CL -q -t x 'exit 3' >>"$T/pty.$CLIENT" 2>&1
	done
	like "CLIENT-closed: the connection is said to be closed" "$(cat "$T/pty.ssh")" "*Shared connection to x closed.*"
	is "CLIENT-closed: with the same words" "$(cat "$T/pty.sshmux")" "$(cat "$T/pty.ssh")"
}

# ~^Z: the shell comes back, its lines stay with it; fg goes on, nothing is lost.
suspended() {
	terminals || { skip "ESC-suspend" "$NO_TERMINALS"; return; }
	CLIENT=sshmux
	words
	rm -f "$T/typed"
	env PS1='prompt> ' "$PTY" expect 'prompt> ' \
		send "$CL -t x 'stty raw -echo; echo ready; sed -u /q/q >$T/typed; echo the-end; exit 4'\\r" \
		expect ready raw send 'one\n' send '~\032' expect 'prompt> ' \
		send 'echo local $((6*7)); stty -a >'"$T/stopped"'\r' expect 'local 42' expect 'prompt> ' \
		send 'jobs\r' expect Stopped expect 'prompt> ' \
		send 'fg\r' raw send 'two\nq\n' expect the-end expect 'prompt> ' \
		send 'echo status $?; exit\r' expect 'status 4' -- sh -i >"$T/pty" 2>"$T/err"
	is "ESC-suspend: stops, the shell goes on, fg goes on" "$(cat "$T/err")" ''
	is "ESC-suspend: what was typed meanwhile stayed with the shell" "$(tr '\n' ' ' <"$T/typed")" "one two q "
	works "ESC-suspend: the terminal was not raw meanwhile" grep -q ' icanon' "$T/stopped"
	# Output that comes while it is stopped is not lost; the first of the two bytes is the line end before ~.
	env PS1='prompt> ' "$PTY" expect 'prompt> ' \
		send "$CL -t x 'stty raw -echo; echo ready; until [ -e $T/stopped.2 ]; do sleep 0.1; done; echo after; head -c 2; exit 5'\\r" \
		expect ready raw send '\n~\032' expect 'prompt> ' send "touch $T/stopped.2\\r" expect 'prompt> ' \
		send 'fg\r' raw send 'x' expect 'prompt> ' \
		send 'echo status $?; exit\r' expect 'status 5' -- sh -i >"$T/pty" 2>"$T/err"
	is "ESC-suspend: it ends with its status" "$(cat "$T/err")" ''
	works "ESC-suspend: output of that time is shown" has "$T/pty" after
	alive "ESC-suspend: the master lives"
}

# --- newer clients -------------------------------------------------------------

newer() {
	if [ -z "${NEWER_SSH:-}" ]; then
		skip "CLIENT-background: ssh -f" "needs a newer ssh"
		return
	fi
	"$NEWER_SSH" -F none -o ProxyCommand=false -S "$CTL" -f x "read line <$T/go; echo \$line >$T/went" \
		</dev/null >"$T/out" 2>&1
	is "CLIENT-background: ssh -f returns at once" "$? $(cat "$T/out")" "0 "
	alive "CLIENT-background: the master serves others"
	echo word >"$T/go"
	wait_for 20 has "$T/went" word
	is "CLIENT-background: its command goes on" $? 0
	is "a newer ssh: a session" "$("$NEWER_SSH" -F none -o ProxyCommand=false -S "$CTL" x 'cat; exit 9' <"$T/word"; echo $?)" \
		"$(cat "$T/word")
9"
}

# Files of a network file system, which may be served through this very master, are
# read and written by our client: home.so has all files seem so.
networked() {
	need_master
	head -c 300000 /dev/urandom >"$T/file"
	rm -f "$T/release"
	(
		LD_PRELOAD=$HOMELIB TEST_NETWORKED=1 exec "$SSHMUX" -F none -o Fallback=no -S "$CTL" x \
			": >$T/started; until test -e $T/release; do sleep 0.05; done; cat; echo said >&2; exit 3" <"$T/file" >"$T/copied" 2>"$T/said"
	) &
	client=$!
	works "networked files: a session with them" wait_for 20 test -e "$T/started"
	is "networked files: the master has none" "$(find "/proc/$MASTER_PID/fd" -lname "$T/file" -o -lname "$T/copied" -o -lname "$T/said")" ""
	: >"$T/release"
	wait $client
	is "networked files: status" $? 3
	is "networked files: all bytes" "$(sum "$T/copied") $(cat "$T/said")" "$(sum "$T/file") said"
	timeout 20 env LD_PRELOAD="$HOMELIB" TEST_NETWORKED=1 "$SSHMUX" -F none -o Fallback=no -S "$CTL" x true <"$T/file" >"$T/copied"
	is "networked files: input that nobody reads does not hold it" $? 0
	stop_master
}

serve echo 127.0.0.1:0 'exec cat'
ECHO=$SERVED
! have_ipv6 || serve echo6 '[::1]:0' 'exec cat'
ECHO6=$SERVED
serve unix "$T/echo.s" 'exec cat'
free_port; P=$FREE
free_port; Q=$FREE
free_port; CLOSED=$FREE
mkfifo "$T/go"
start_sshd
ours=$MASTER
for MASTER in $ours stock; do
	LABEL="$MASTER master: "
	compare
	need_master
	shared_closed
	stop_master
	[ $ours != stock ] || break
done
MASTER=$ours
LABEL=
if [ $ours != stock ]; then
	wire
	need_master
	suspended
	newer
	stop_master
	if [ -n "${EMULATED:-}" ] || ! LD_PRELOAD=$HOMELIB "$SSHMUX" -V >/dev/null 2>&1 || ! grep -q ld-linux "$SSHMUX" ||
		grep -q __asan_init "$SSHMUX"; then
		skip "networked files" "a static binary cannot be told that files are"
	else
		networked
	fi
fi
stop_server
finish
