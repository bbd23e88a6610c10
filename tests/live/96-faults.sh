# System calls that fail under a master: each call that it makes x each error that
# the call may have, at the first, second, ... of them.  It survives, or ends cleanly
# with a message; no client hangs, what succeeds is right, no descriptor is left.
# Only with FAULTS=1 (make check-more): about two minutes.
#
# strace puts the error in place of the call.  So close() is left out (Linux closes
# whatever it says, which cannot be shown this way), and so are short counts (nothing
# would be read or written): the unit tests make those.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

if [ -z "${FAULTS:-}" ] || [ "$MASTER" = stock ]; then
	skip "faults" "OpenSSH differs: FAULTS=1 asks for them"
	finish
fi
if ! strace -e inject=getppid:error=EIO true >"$T/strace" 2>&1; then
	skip "faults" "no strace here, or it may not trace"
	finish
fi

# faults of a master that serves: CALL ERROR...
SERVING='poll EINTR ENOMEM EINVAL
read EINTR EAGAIN EIO ECONNRESET
readv EINTR EAGAIN EIO
write EINTR EAGAIN EPIPE ENOSPC EIO
writev EINTR EAGAIN EPIPE ENOSPC EIO ECONNRESET
recvmsg EINTR EAGAIN ECONNRESET ENOMEM
recvfrom EINTR EAGAIN ECONNRESET ENOMEM
sendmsg EINTR EAGAIN EPIPE ECONNRESET ENOMEM
sendto EINTR EAGAIN EPIPE ECONNRESET ENOMEM
accept4 EINTR EAGAIN EMFILE ENFILE ENOMEM ECONNABORTED EPERM
socket EMFILE ENFILE ENOMEM EACCES
connect EINTR ECONNREFUSED ECONNRESET EIO
getsockopt EIO ENOMEM
setsockopt EIO ENOMEM
shutdown ENOTCONN ENOMEM
fcntl EIO EMFILE
ioctl EIO ENOTTY
openat EMFILE ENFILE ENOMEM EIO
pipe2 EMFILE ENFILE
clone EAGAIN ENOMEM
clone3 EAGAIN ENOMEM
wait4 EINTR ECHILD
getrandom EINTR EAGAIN EIO
getsockname ENOBUFS
getpeername ENOBUFS
newfstatat EIO
fstat EIO
lseek EIO
clock_gettime EIO'

# of one that listens again where its socket was removed
LISTENING='access EIO EACCES
socket EMFILE ENFILE ENOMEM
bind EADDRINUSE ENOMEM EIO ENOSPC
listen EIO
newfstatat EIO
link EIO ENOSPC EPERM
unlink EIO
getrandom EIO EINTR'

# and those of one that starts
STARTING='socket EMFILE ENFILE ENOMEM
bind EADDRINUSE ENOMEM EIO
listen EIO
connect ECONNREFUSED ENETUNREACH EINTR
openat EMFILE ENFILE ENOMEM EIO
read EINTR EIO
write EINTR ENOSPC
sendmsg EINTR EAGAIN ECONNRESET EPIPE
pipe2 EMFILE ENFILE
clone EAGAIN ENOMEM
rt_sigaction EIO
getrandom EIO EINTR
link EIO EMLINK
rename EIO ENOSPC
unlink EIO
chmod EIO
getsockopt EIO
setsockopt EIO
fcntl EIO
poll EINTR ENOMEM
prlimit64 EIO
access EIO EACCES
pread64 EIO
socketpair EMFILE ENFILE ENOMEM
getsockname ENOBUFS
getpeername ENOBUFS
prctl EINVAL ENOMEM
seccomp EINVAL ENOMEM
close_range ENOSYS'

# What the master calls besides, and why no row is about it: close() as said above; calls
# that have no errors; those of the loader and of libc, before main().
NO_ERRORS='getpid getuid geteuid umask alarm rt_sigreturn exit_group restart_syscall'
LOADER='execve brk mmap munmap mprotect arch_prctl set_tid_address set_robust_list rseq'

# verdict NAME STATUS: of `sha256sum` through a session that exits with 7
verdict() {
	case $2 in
	7) [ "$(cat "$T/out.$1")" = "$WANT" ] || echo "$1: wrong output with status 7" ;;
	255 | 75)			# a running session ends with the link: the master says so
		[ -s "$T/err.$1" ] || tail -n +$((said + 1)) "$T/master.log" | grep -q 'Connection to .* lost' ||
			echo "$1: failed without a word"
		;;
	124) echo "$1: hangs" ;;
	*) echo "$1: status $2" ;;
	esac
}

session() {
	timeout 10 "$@" 'sha256sum; exit 7' <"$T/input" >"$T/out.$NAME" 2>"$T/err.$NAME"
	verdict $NAME $?
}

work() {
	(NAME=ssh; session ssh -F none -o ProxyCommand=false -S "$CTL" x) &
	w1=$!
	(NAME=own; session "$SSHMUX" -F none -o Fallback=no -S "$CTL" x) &
	w2=$!
	echo hello | timeout 10 "$NET" call "127.0.0.1:$NEAR" >"$T/out.net" 2>/dev/null
	case $?:$(cat "$T/out.net") in
	0:hello | 0: | 3:* | 1:) ;;
	124:*) echo "forward: hangs" ;;
	*) echo "forward: wrong output" ;;
	esac
	kill -USR1 "$MASTER_PID"	# it asks for its route
	wait $w1 $w2
}

serve() {
	if ! start_master -o Reconnect=yes -o ReconnectMin=1 -o ReconnectMax=1 -o SessionWait=8 -L "127.0.0.1:$NEAR:127.0.0.1:$ECHO"; then
		return 1
	fi
	work >/dev/null
	BEFORE=$(fds)
}

# one CALL ERROR NTH: prints what is wrong
one() {
	if gone "$MASTER_PID"; then serve || { echo "no master"; return; }; fi
	said=$(lines "$T/master.log")
	strace -qq -p "$MASTER_PID" -o "$T/trace" -e trace="$1" -e inject="$1:error=$2:when=$3" >"$T/strace" 2>&1 &
	tracer=$!
	wait_for 5 traced || echo "strace did not attach"
	work
	kill $tracer 2>/dev/null
	wait $tracer 2>/dev/null
	if gone "$MASTER_PID"; then
		wait "$MASTER_PID"
		rc=$?
		{ [ $rc -lt 128 ] || [ $rc = 255 ]; } || echo "the master ended with status $rc"
		[ "$(lines "$T/master.log")" -gt "$said" ] || echo "the master ended without a word"
		return
	fi
	[ "$(timeout 20 ssh -F none -o ProxyCommand=false -S "$CTL" x 'echo alive' 2>&1)" = alive ] || echo "the master is deaf"
	wait_for 5 fds_are "$BEFORE" || echo "$(fds) descriptors, $BEFORE before"
}
traced() { ! grep -q '^TracerPid:.0$' "/proc/$MASTER_PID/status" 2>/dev/null; }

serving() {
	calls=0
	while read -r call errors; do
		bad='' n=0
		for error in $errors; do
			for nth in $NTHS; do
				n=$((n + 1))
				one "$call" "$error" "$nth" >"$T/wrong" 2>/dev/null </dev/null
				[ ! -s "$T/wrong" ] || bad="$bad
$error at call $nth: $(tr '\n' ';' <"$T/wrong")"
				# Not called at all: the other errors would show nothing either.
				[ -s "$T/trace" ] || break 2
			done
		done
		if [ -s "$T/trace" ]; then
			is "$call fails while serving ($n times)" "$bad" ""
		else
			note "$call is not called while serving"
		fi
	done <<END
$SERVING
END
}

# The socket is removed; what fails once works when it looks again.
relisten() {
	rm -f "$CTL"
	wait_for 10 reached || echo "it does not listen again"
}
reached() { [ -S "$CTL" ] || { kill -USR1 "$MASTER_PID"; false; }; }

listening_again() {
	while read -r call errors; do
		bad='' n=0
		for error in $errors; do
			for nth in $NTHS; do
				n=$((n + 1))
				work() { relisten; }
				one "$call" "$error" "$nth" >"$T/wrong" 2>/dev/null </dev/null
				[ ! -s "$T/wrong" ] || bad="$bad
$error at call $nth: $(tr '\n' ';' <"$T/wrong")"
			done
		done
		[ -s "$T/trace" ] && is "$call fails while it listens again ($n times)" "$bad" ""
	done <<END
$LISTENING
END
}

# The tables know each call that a master makes, from its first to its last.
known_calls() {
	rm -f "$CTL"
	usual
	strace -ff -o "$T/all" "$SSHMUX" -F "$T/conf" -M -S "$CTL" -N -p "$PORT" -l "$ME" $USUAL \
		-L "127.0.0.1:$NEAR:127.0.0.1:$ECHO" 127.0.0.1 >"$T/start.out" 2>"$T/master.log" </dev/null &
	tracer=$!
	ends_later $tracer
	wait_for 60 test -S "$CTL"
	said=0
	MASTER_PID=$("$SSHMUX" -F none -S "$CTL" -O check x 2>&1 | sed 's/.*pid=\([0-9]*\).*/\1/')
	work >/dev/null
	relisten
	"$SSHMUX" -F none -S "$CTL" -O exit x >/dev/null 2>&1 </dev/null
	wait_for 20 gone $tracer
	wait $tracer
	sed -n 's/^\([a-z_0-9]*\)(.*/\1/p' "$T/all.$MASTER_PID" | sort -u >"$T/calls"
	works "strace has seen a master ($(lines "$T/calls") calls)" grep -qx accept4 "$T/calls"
	# shellcheck disable=SC2046	# words
	is "each call that it makes has its row" "$(printf '%s\n' close $NO_ERRORS $LOADER \
		$(printf '%s\n' "$SERVING" "$LISTENING" "$STARTING" | cut -d' ' -f1) | grep -vxFf - "$T/calls")" ""
}

# A start under a fault: it serves, or ends with a message.
starting() {
	while read -r call errors; do
		bad='' n=0
		for error in $errors; do
			for nth in $NTHS; do
				n=$((n + 1))
				rm -f "$CTL"
				usual
				timeout 20 strace -qq -o "$T/trace" -e trace="$call" -e inject="$call:error=$error:when=$nth" \
					"$SSHMUX" -F "$T/conf" -M -S "$CTL" -N -p "$PORT" -l "$ME" $USUAL 127.0.0.1 \
					>"$T/start.out" 2>"$T/start.err" </dev/null &
				pid=$!
				wait_for 15 started
				if gone $pid; then
					wait $pid
					rc=$?
					# 127: the program could not be loaded, which is not ours to say
					[ $rc = 127 ] || [ -s "$T/start.err" ] || bad="$bad $error at $nth: no word, status $rc;"
					{ [ $rc -lt 128 ] || [ $rc = 255 ]; } || bad="$bad $error at $nth: status $rc;"
				else
					timeout 10 "$SSHMUX" -F none -S "$CTL" -O exit x >/dev/null 2>&1 </dev/null
					wait_for 10 gone $pid || { bad="$bad $error at $nth: does not end;"; kill $pid; }
					wait $pid
				fi
				[ -s "$T/trace" ] || break 2
			done
		done
		[ -s "$T/trace" ] && is "$call fails at the start ($n times)" "$bad" ""
	done <<END
$STARTING
END
}
started() { gone $pid || [ -S "$CTL" ]; }

start_sshd
head -c 300000 /dev/urandom >"$T/input"
WANT=$(sha256sum <"$T/input")
"$NET" serve 127.0.0.1:0 "$T/echo" cat &
ends_later $!
wait_for 10 test -s "$T/echo"
ECHO=$(cat "$T/echo")
NEAR=$(random_port)
NTHS=${NTHS:-1 3}
echo "ConnectTimeout 20" >"$T/conf"
known_calls
serve || give_up "a master logs in"
serving
listening_again
alive "the master that is left serves"
stop_master
starting
finish
