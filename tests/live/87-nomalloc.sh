# libc's allocator is never called once the control socket is there: a copy of the
# program whose malloc() ends it, through logins, sessions, forwards, re-keys.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153,SC2154
. "$TESTDIR/lib.sh"
. "$TESTDIR/link.sh"
if [ "$MASTER" = stock ]; then
	skip "no malloc" "OpenSSH's master allocates"
	finish
fi

# The regions of memory that are the process's own: nothing may be added.
regions() { grep -c ' rw-p ' "/proc/$MASTER_PID/maps"; }

# watched PROGRAM
watched() {
	rm -f "$T/armed" "$T/echo.port"
	program=$SSHMUX
	SSHMUX=$1
	NOMALLOC=$T/armed
	export NOMALLOC
	link refuse >"$T/said"
	"$NET" serve 127.0.0.1:0 "$T/echo.port" cat &
	echo_pid=$!
	ends_later $echo_pid
	wait_for 10 nonempty "$T/echo.port"
	near=$(random_port) far=$(random_port) socks=$(random_port) late=$(random_port)
	# The control socket is there before the first login, the host has a name.
	HOST=localhost
	sed "s/^\[127.0.0.1\]/[localhost]/" "$T/known_hosts" >"$T/known_hosts.name"
	cat "$T/known_hosts.name" >>"$T/known_hosts"
	start_master -4 -v -o Reconnect=always -o ReconnectMax=2 -o SessionWait=60 -o RekeyLimit=1M \
		-o ServerAliveInterval=5 -L "$near:localhost:$(cat "$T/echo.port")" -D "$socks" \
		-R "$far:localhost:$(cat "$T/echo.port")" || not_ok "a master starts"
	wait_for 20 says connecting
	unset NOMALLOC
	: >"$T/armed"
	had=$(regions)
	link accept >"$T/said"
	comes_back "the first login" 1
	for again in '' ' after a new login'; do
		for CLIENT in $CLIENTS; do
			is "a session by $CLIENT$again" "$(cx 'cat; exit 3' <"$T/data" | sum; cx 'exit 3' </dev/null; echo $?)" \
				"$(sum <"$T/data")
3"
		done
		"$PTY" expect up send 'x\r' expect x -- "$SSHMUX" -S "$CTL" -tt x 'echo up; read line; echo $line' \
			>"$T/typed" 2>&1
		is "a terminal$again" "$?" 0
		is "a local forward to a name$again" \
			"$(echo through | timeout 30 "$NET" call "127.0.0.1:$near")" through
		is "SOCKS to a name$again" "$(echo socks | timeout 30 "$NET" -s5name "localhost:$(cat "$T/echo.port")" \
			call "127.0.0.1:$socks")" socks
		works "the remote forward is there$again" wait_for 60 listening "$far"
		is "a remote forward to a name$again" \
			"$(echo back | timeout 30 "$NET" call "127.0.0.1:$far")" back
		[ -z "$again" ] || break
		works "-O forward" "$SSHMUX" -S "$CTL" -O forward -L "$late:localhost:22" x
		works "-O cancel" "$SSHMUX" -S "$CTL" -O cancel -L "$late:localhost:22" x
		works "keys were exchanged again" rekeyed
		link cut >"$T/said"
		comes_back "the second login" 2
	done
	is "the process is the same" "$(gone "$MASTER_PID"; echo $?)" 1
	is "no region of memory was added" "$(regions)" "$had"
	stop_master
	is "its end" "$MASTER_RC" 0
	is "it has not called malloc" "$(grep 'was called' "$T/master.log")" ''
	SSHMUX=$program
	HOST=
	end $echo_pid
}
rekeyed() { [ "$(info | sed -n 's/^  rekey count //p')" -ge 2 ]; }

head -c 4000000 /dev/urandom >"$T/data"
start_sshd
start_link

LABEL="glibc: "
own=${MUXC%/*}/sshmux-nomalloc
if [ -x "$own" ]; then
	watched "$own"
else
	skip "no malloc" "not built (sanitizers have an allocator of their own)"
fi

LABEL="static musl: "
for objects in "$TESTDIR"/../build/*-musl-gcc-static; do :; done
is_new() { [ -n "$(find "$1" -newer "$TESTDIR/../sshmux.c" 2>/dev/null)" ]; }
if ! command -v musl-gcc >/dev/null; then
	skip "no malloc" "no musl-gcc"
elif ! is_new "$objects/sshmux.o"; then
	skip "no malloc" "make static has not been run since the last change"
else
	musl-gcc -std=c11 -O1 -fno-builtin -D_GNU_SOURCE -static -no-pie -o "$T/static" "$TESTDIR/nomalloc.c" \
		"$objects/sshmux.o" "$objects/linux.o" "$objects/confine.o" "$objects/libtransport.a" && watched "$T/static"
fi

LABEL=
printf '#include <stdlib.h>\n#include <stdio.h>\nint main(void) { void *p = malloc(9); printf("%%p", p); }\n' >"$T/trap.c"
if gcc -fno-builtin -D_GNU_SOURCE -o "$T/trap" "$T/trap.c" "$TESTDIR/nomalloc.c"; then
	: >"$T/armed.now"
	(NOMALLOC=$T/armed.now exec "$T/trap") >"$T/out" 2>&1
	like "a program that calls malloc is ended" "$?, $(cat "$T/out")" "134, malloc was called*"
	is "but not before" "$(NOMALLOC=$T/nothing "$T/trap" >"$T/out"; echo $?)" 0
else
	not_ok "a program with this allocator"
fi
finish
