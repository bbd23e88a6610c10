# Who may use the control socket, and for what: its directory, ControlGroup,
# ControlAllow, MaxPerUser; what strangers hear, and how often the log does.
# shellcheck shell=sh disable=SC2016,SC2034,SC2046,SC2086,SC2153
. "$TESTDIR/lib.sh"

[ "$MASTER" != stock ] || { skip "access" "OpenSSH differs: its own user and root alone"; finish; }
start_sshd

mkdir "$T/open"
chmod 777 "$T/open"
usual
got=$("$SSHMUX" -F none -M -N -S "$T/open/c" -p "$PORT" -l "$ME" $USUAL 127.0.0.1 2>&1 </dev/null)
is "a directory that everybody may write to is refused" "$got" \
	"sshmux: ControlSocket $T/open/c: everybody may write to its directory, which is not sticky: chmod o-w"
# A group may as well; root can give the directory to one (65533 is nobody's number).
if [ "$(id -u)" = 0 ]; then
	starts() { "$SSHMUX" -F none -M -N -S "$T/open/c" -o ConnectTimeout=5 -o ConnectionAttempts=1 "$@" -p 1 127.0.0.1 2>&1 </dev/null; }
	by_group="sshmux: ControlSocket $T/open/c: a group may write to its directory, which is not sticky: chmod g-w"
	chgrp 65533 "$T/open"
	chmod 770 "$T/open"
	is "one that a foreign group may write to is" "$(starts)" "$by_group"
	is "with another ControlGroup, too" "$(starts -o ControlGroup=root)" "$by_group"
	chmod 3770 "$T/open"
	like "a sticky one is not" "$(starts)" "*Connection refused*"
	chgrp "$(id -g nobody)" "$T/open"
	chmod g+w,-t,g-s "$T/open"
	like "nor one of ControlGroup" "$(starts -o ControlGroup="$(id -gn nobody)")" "*Connection refused*"
	chgrp 0 "$T/open"
	chmod 775 "$T/open"
	like "nor one of the user's own group" "$(starts)" "*Connection refused*"
	# Its owner may replace what is in it, whatever its mode.
	by_owner="sshmux: ControlSocket $T/open/c: its directory belongs to another user, who is not root"
	chown 65533 "$T/open"
	for mode in 755 555 1777; do
		chmod $mode "$T/open"
		is "one of another user, mode $mode, is refused" "$(starts)" "$by_owner"
	done
	chown 0 "$T/open"
	# Under a running master somebody else takes the place of its directory.
	mkdir -m 755 "$T/ours"
	CTL=$T/ours/c
	need_master
	rm -r "$T/ours"
	mkdir -m 755 "$T/ours"
	chown 65533 "$T/ours"
	kill -USR1 "$MASTER_PID"
	works "nor does a running master listen in one" wait_for 10 has "$T/master.log" \
		'c was removed: its directory belongs to another user, who is not root'
	works "where no socket is then" test ! -e "$CTL"
	chown 0 "$T/ours"
	kill -USR1 "$MASTER_PID"
	works "in its own it does again" wait_for 10 test -S "$CTL"
	stop_master
	CTL=$T/c
else
	skip "directories of others, or that a group may write to" "only root can give them away"
fi
chmod 1777 "$T/open"
CTL=$T/open/c
need_master
alive "a sticky one is not"
stop_master
CTL=$T/c
refused() { "$SSHMUX" -F none -M -N -S "$CTL" -p "$PORT" -l "$ME" "$@" $USUAL 127.0.0.1 2>&1 </dev/null; }
is "ControlAllow needs ControlGroup" "$(refused -o 'ControlAllow=0 all')" \
	"sshmux: ControlAllow without ControlGroup: nobody else may connect"
is "ControlGroup must exist" "$(refused -o ControlGroup=no-such-group)" 'sshmux: there is no group "no-such-group"'
like "ControlAllow knows its words" "$(refused -o 'ControlAllow=0 sessions')" "*ControlAllow*"
like "a command needs a pattern" "$(refused -o 'ControlAllow=0 command')" "*ControlAllow*"
is "-G prints the rules" "$("$SSHMUX" -F none -G -o 'ControlAllow=@7 "command=df -h" forward' -o 'ControlAllow=8 all' x |
	grep controlallow)" 'controlallow @7 "command=df -h" forward
controlallow 8 all'

# --- what a running master gives up -----------------------------------------------

status_of() { awk -v n="$1:" '$1 == n { print $2 }' "/proc/$MASTER_PID/status"; }
confined() { [ "$(status_of Seccomp)" = 2 ]; }
core() { awk '/^Max core/ { print $5 }' "/proc/$MASTER_PID/limits"; }
printf '#!/bin/sh\nprintf "%%s\\n" "$SSHMUX_EVENT" >>"%s"\ngrep "^NoNewPrivs\|^Seccomp:" /proc/self/status >>"%s"\n' \
	"$T/events" "$T/rights" >"$T/event"
chmod 755 "$T/event"
proxied() {
	need_master -v -o Reconnect=yes -o ReconnectMin=1 -o ReconnectMax=1 -o ServerAliveInterval=5 \
		-o EventCommand="$T/event" -o EventDelay=0 -o PermitLocalCommand=yes -o LocalCommand="echo in >>$T/local" "$@"
}
works "before that nothing is limited" test "$(awk '/^Seccomp:/ { print $2 }' /proc/self/status)" = "$(proxied -o Confine=no; status_of Seccomp; stop_master)"
rm -f "$T/events" "$T/rights" "$T/local"
proxied -o ProxyCommand="$NET call 127.0.0.1:$PORT"
settled() { confined || grep -q 'not confined' "$T/master.log"; }
wait_for 10 settled
if confined; then
	is "no new privileges, no core file" "$(status_of NoNewPrivs) $(core)" "1 0"
	works "an event's command runs" wait_for 10 has "$T/events" up
	works "and a local command" wait_for 10 has "$T/local" in
	for process in $(connection_processes); do kill "$process" 2>/dev/null; done
	works "ProxyCommand runs again after a loss" wait_for 60 has "$T/events" up 2
	works "LocalCommand does" wait_for 20 has "$T/local" in 2
	is "neither is limited itself" "$(sort -u "$T/rights" | tr -s '\t\n' '  ')" "NoNewPrivs: 0 Seccomp: 0 "
	alive "and the master serves"
	helper=$(children_of "$MASTER_PID" | tr ' ' '\n' | while read -r p; do
		! grep -q sshmux "/proc/$p/comm" 2>/dev/null || echo "$p"; done)
	works "it has a helper" test -n "$helper"
	kill -9 "$MASTER_PID"
	reap_master
	works "which ends with it" wait_for 10 gone "$helper"
	rm -f "$CTL"
	# Without it the master serves, but cannot connect again: it does not pretend to try.
	HOST=localhost
	need_master -o Reconnect=yes -o ReconnectMin=1 -o ReconnectMax=1 -o HostKeyAlias="[127.0.0.1]:$PORT"
	HOST=
	wait_for 10 confined
	kill -9 $(children_of "$MASTER_PID")
	works "its helper is killed: said" wait_for 10 has "$T/master.log" 'the helper, .*, was ended'
	alive "and the master serves"
	for process in $(connection_processes); do kill "$process" 2>/dev/null; done
	reap_master
	is "but ends when it has to connect by a name" "$MASTER_RC $(grep -c 'localhost: No child processes$' "$T/master.log")" "255 1"
	CLOSED=$(random_port)
	need_master -R "$CLOSED:localhost:$PORT"
	like "names are resolved" "$(timeout 30 "$NET" call 127.0.0.1:$CLOSED </dev/null | head -c 4)" "SSH-"
	stop_master
else
	skip "a filter of system calls" "this build, CPU or kernel has none: $(grep confined "$T/master.log")"
	stop_master
fi

if [ "$(id -u)" != 0 ] || ! setpriv --reuid=65534 --regid=65534 --clear-groups true 2>/dev/null; then
	skip "other users" "only root can become one"
	finish
fi

! emulated "" "other users" "a peer's groups are not told" || finish

# As the user NOBODY of the group OTHERS, who may reach the socket but not the rest
NOBODY=65534
OTHERS=54321
SECOND=54322
mkdir "$T/pub"
cp "$SSHMUX" "$T/pub/sshmux"
cp "$MUXC" "$T/pub/"
MUXC_COPY=$T/pub/${MUXC##*/}
chmod 711 "$T"
chmod -R a+rX "$T/pub"
CTL=$T/pub/c
as() { user=$1 groups=$2; shift 2; setpriv --reuid="$user" --regid="$NOBODY" --groups="$groups" "$@"; }
# other WORD...: stock ssh as NOBODY, one of OTHERS
other() { as $NOBODY $OTHERS ssh -F none -o ProxyCommand=false -S "$CTL" "$@" </dev/null 2>&1; }
# bare USER WORD...: a scripted client as that user, one of OTHERS
bare() { user=$1; shift; as "$user" $OTHERS "$MUXC_COPY" "$CTL" "$@" </dev/null 2>&1; }
count() { grep -c "$1" "$T/master.log"; }
denied() {
	like "$1" "$2" "*ermission denied*"
}

need_master
chmod 666 "$CTL"
like "another user is refused" "$(other x true; other x true)" "*master*"
is "which is said once" "$(count 'uid mismatch: peer euid 65534 != uid 0')" 1
like "and is an event" "$("$SSHMUX" -S "$CTL" -O log --json)" '*"event":"client-refused","age":*,"uid":65534,"reason":*'
stop_master

need_master -o ControlGroup=$OTHERS
is "ControlGroup: the socket is the group's" "$(stat -c '%a %g' "$CTL")" "660 $OTHERS"
is "who is in the group may run commands" "$(other x 'echo hello; exit 3' | tr -d '\r'; other x 'exit 3'; echo $?)" "hello
3"
like "who is not may not" "$(as $NOBODY 1 ssh -F none -o ProxyCommand=false -S "$CTL" x true 2>&1)" "*Permission denied*"
like "our client serves no other user's master unasked, but root's" \
	"$(as $NOBODY $OTHERS "$T/pub/sshmux" -F none -o Fallback=no -S "$CTL" x 'echo hi' 2>&1 </dev/null |
		grep -v '^profiling:')" "hi"	# make coverage: that user's program cannot write where it counts
stop_master

need_master -o ControlGroup=$OTHERS -o "ControlAllow=$NOBODY command=uptime \"command=echo *\" subsystem=where" \
	-o "ControlAllow=@$SECOND forward control"
like "ControlAllow: the command that he may" "$(other x uptime)" "*load average*"
is "a pattern" "$(other x 'echo one two')" "one two"
denied "but no more shell in it" "$(other x 'echo one; id')"
denied "nor a substitution" "$(other x 'echo $(id)')"
denied "nor a second line" "$(other x 'echo one
id')"
denied "another command" "$(other x id)"
denied "a shell" "$(other x)"
like "the subsystem that he may" "$(other -s x where)" "*subsystem*"
denied "another subsystem" "$(other -s x sftp)"
denied "a stdio forward" "$(other -W 127.0.0.1:$PORT x)"
denied "a forward" "$(other -O forward -L $(random_port):127.0.0.1:$PORT x)"
denied "the end of the master" "$(other -O exit x)"
denied "what others do" "$(as $NOBODY $OTHERS "$T/pub/sshmux" -F none -S "$CTL" -O channels x 2>&1)"
denied "proxy mode" "$(other -O proxy x)"
denied "a control command" "$(as $NOBODY $OTHERS "$T/pub/sshmux" -F none -S "$CTL" -O drain x 2>&1)"
like "whether it runs he may ask" "$(other -O check x)" "Master running*"
like "the log has each kind once" "$(count 'user 65534 may not: command') $(count 'may not: control') $(count 'may not: forward')" "1 1 1"
second() { as $NOBODY $OTHERS,$SECOND ssh -F none -o ProxyCommand=false -S "$CTL" "$@" </dev/null 2>&1; }
denied "by a second group: no session of an unknown kind" "$(second x id)"
like "but a forward" "$(second -W 127.0.0.1:$PORT x | head -c 4)" "SSH-"
denied "no forward to a socket of the master's user" "$(second -O forward -R $(random_port):/var/run/docker.sock x)"
denied "nor a port that only root may have" "$(second -O forward -L 77:127.0.0.1:$PORT x)"
p=$(random_port)
is "a port of his own" "$(second -O forward -L $p:127.0.0.1:$PORT x)" ""
like "which another user cannot take away" "$(setpriv --reuid=1 --regid=1 --groups=$OTHERS,$SECOND ssh -F none \
	-o ProxyCommand=false -S "$CTL" -O cancel -L $p:127.0.0.1:$PORT x 2>&1)" "*not forwarded*"
is "he may" "$(second -O cancel -L $p:127.0.0.1:$PORT x)" ""
alive "the master's own user may do everything"
stop_master

need_master -o ControlGroup=$OTHERS -o MaxPerUser=2
pids=
mkfifo "$T/hold"
for i in 1 2; do
	setpriv --reuid=$NOBODY --regid=$NOBODY --groups=$OTHERS ssh -F none -o ProxyCommand=false -S "$CTL" x \
		'echo up; exec cat' >"$T/up.$i" 2>&1 <>"$T/hold" &
	pids="$pids $!"
	ends_later $!
	wait_for 20 has "$T/up.$i" up
done
like "MaxPerUser: a third connection is closed" "$(other x true)" "*master*"
is "which is said" "$(count 'user 65534 has as many connections and forwards as MaxPerUser allows: 2')" 1
alive "others have room"
for p in $pids; do kill "$p"; wait "$p"; done 2>/dev/null
free() { [ "$(other x 'echo again')" = again ]; }
works "when he has left, he may come again" wait_for 20 free
stop_master
finish
