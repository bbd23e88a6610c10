# What the package installs, in a BusyBox root, as a router runs it: the init script by
# its first line (tests/openwrt/rc.common stands for OpenWrt's), masters that the test
# starts where procd would, cron jobs; above all: no job runs on another machine.
# shellcheck shell=sh disable=SC2016,SC2034,SC2046,SC2086,SC2153,SC2154
. "$TESTDIR/lib.sh"

TOP=${TESTDIR%/*}
PORT_DIR=$TOP/port/openwrt
BUSYBOX=$(command -v busybox)

if [ "$MASTER" = stock ]; then
	skip "a router" "OpenSSH differs: it is about the package of sshmux"
	finish
fi
if [ -z "$BUSYBOX" ]; then
	skip "a router" "busybox is not installed"
	finish
fi

# Into the root: a program, with its libraries
put_in() {
	install -D -m 755 "$1" "$ROOT/$2"
	ldd "$1" 2>/dev/null | grep -o '/[^ ]*' | while read -r lib; do
		[ -e "$ROOT$lib" ] || install -D "$lib" "$ROOT$lib"
	done
}

# A router's root file system, as far as it goes: BusyBox, the package, no more
make_root() {
	ROOT=$T/root
	mkdir -p "$ROOT/bin" "$ROOT/dev" "$ROOT/tmp" "$ROOT/root" "$ROOT/var/run" "$ROOT/etc" "$ROOT/usr/bin" "$ROOT/usr/sbin" "$ROOT/sbin"
	chmod 755 "$ROOT"
	mknod -m 666 "$ROOT/dev/null" c 1 3
	mknod -m 666 "$ROOT/dev/urandom" c 1 9
	put_in "$BUSYBOX" bin/busybox
	chroot "$ROOT" /bin/busybox --install -s
	echo 'root:x:0:0:root:/root:/bin/ash' >"$ROOT/etc/passwd"
	echo '127.0.0.1 localhost office branch' >"$ROOT/etc/hosts"
	cp "$TESTDIR/openwrt/rc.common" "$ROOT/etc/rc.common"
	"$PORT_DIR/pack" stage "$SSHMUX" "$ROOT"
	put_in "$SSHMUX" usr/sbin/sshmux
	cp "$KEY" "$ROOT/etc/sshmux/id_ed25519"
	mkdir "$ROOT/root/.ssh"
	cp "$KEY" "$ROOT/root/.ssh/id_ed25519"
}

# there COMMAND...: in the root, as cron would run it
there() {
	timeout 60 chroot "$ROOT" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		UCI=/etc/config PROCD=/var/procd LOGGED=/var/log.txt "$@"
}

# supervise NAME: starts what procd would
supervise() {
	set -- "$ROOT/var/procd/instances/$1"
	env=$(sed -n 's/^env //p' "$1")
	# shellcheck disable=SC2046	# no word of it has a blank
	chroot "$ROOT" env -i $env $(sed -n 's/^command //p' "$1") >"$T/master.out" 2>"$T/master.log" </dev/null &
	MASTER_PID=$!
	ends_later $MASTER_PID
}

# Lines of the package's README, as cron has them, with names of the test
crontab_lines() {
	awk '/^```crontab/ { inside = 1; next } /^```/ { inside = 0 } inside && !/^#/' "$PORT_DIR/README.md" >"$T/crontab"
	is "README: there are lines for cron, without a %" "$(($(lines "$T/crontab") > 5)) $(grep -c % "$T/crontab")" "1 0"
	printf '#!/bin/sh\necho "$*" >>/tmp/slept\n' >"$ROOT/usr/sbin/sleep"
	printf '#!/bin/sh\n{ cat; echo "$*"; } >>/tmp/logged\n' >"$ROOT/usr/sbin/logger"
	chmod 755 "$ROOT/usr/sbin/sleep" "$ROOT/usr/sbin/logger"
	[ -e "$ROOT/usr/bin/flock" ] || put_in "$(command -v flock)" usr/bin/flock
	while read -r minute hour day month weekday command; do
		works "README: $(echo "$command" | cut -c1-70)" there /bin/sh -c "$command"
	done <"$T/crontab"
	rm "$ROOT/usr/sbin/sleep" "$ROOT/usr/sbin/logger"
}

possible() {
	why=
	[ "$(id -u)" = 0 ] || why="an ordinary user cannot change the root directory"
	! grep -q __asan_init "$SSHMUX" || why="a sanitizer needs /proc in that root"
	"$SSHMUX" -h | grep -q -e '^  -F ' || why="this program reads no configuration file"
	[ -z "$why" ] || { skip "runs in a root of its own" "$why"; return 1; }
	! emulated "" "runs in a root of its own" "the emulator is not in that root"
}

# config LINE...: the configuration, after the lines of the server that there is
config() {
	{
		cat <<-END
			config server 'office'
				option hostname '127.0.0.1'
				option port '$PORT'
				option user '$ME'
				list HostKey '$(cut -d' ' -f2,3 "$T/known_hosts")'
		END
		printf '%s\n' "$@"
	} >"$ROOT/etc/config/sshmux"
}

# --- no job runs on another machine -----------------------------------------------------------------------
# The names of the jobs are in /etc/hosts, root has a key, and there is a server that
# takes it: whatever is tried there, succeeds.

connections() { grep -c 'Connection from' "$SERVER_LOG"; }

# job NAME [WORD...]: as a crontab has it
job() { there sshmux -p "$PORT" -l "$ME" -o StrictHostKeyChecking=no "$@" 'echo ran' </dev/null 2>&1 | tr -d '\r'; }

# stays NAME_OF_POINT STATUS PATTERN WORD...: that job ends so, and nothing was connected
stays() {
	stays_name=$1 stays_status=$2 stays_text=$3
	shift 3
	before=$(connections)
	text=$(job "$@"; )
	there sshmux -p "$PORT" -l "$ME" -o StrictHostKeyChecking=no "$@" true </dev/null >"$T/works" 2>&1
	is "$stays_name: status" $? "$stays_status"
	like "$stays_name: says why" "$text" "$stays_text"
	is "$stays_name: no connection" $(($(connections) - before)) 0
}
NO_MASTER='Control socket connect(/var/run/sshmux/office.sock): No such file or directory'

reboot() {
	rm -rf "$ROOT/var/run" "$ROOT/var/procd"
	mkdir "$ROOT/var/run"
}

installs() { there sh -c 'cd /etc/uci-defaults && (. ./60-sshmux)'; }

wrong_machine() {
	LABEL="wrong machine: "
	rm -f "$ROOT/etc/sshmux/servers"
	config
	stays "before anything has run" 255 "*no ControlPath leads to a master*Fallback=no (/etc/sshmux/config line *" office
	installs
	stays "the service was never started" 75 "$NO_MASTER" office
	stays "--wait" 75 "$NO_MASTER" --wait=1 office
	reboot
	stays "a boot with the service disabled" 75 "$NO_MASTER" office
	for wrong in 'option enabled 0' 'option LogLevel LOUD' 'list HostKey SHA256:abc' 'option port 70000' \
		'option hostname "a b"' 'option ControlPath relative' 'option ControlPath /none/x'; do
		config
		sed -i "s/option user.*/&\n$(echo "$wrong" | sed 's,/,\\/,g')/" "$ROOT/etc/config/sshmux"
		there /etc/init.d/sshmux start
		stays "$wrong" 75 "Control socket connect(*): No such file or directory" office
	done
	stays "$wrong, and somebody allows logins" 255 "*in /etc/config/sshmux is wrong*" -o Fallback=yes -S none office
	config
	there /etc/init.d/sshmux start
	there /etc/init.d/sshmux stop
	stays "the service was stopped" 75 "$NO_MASTER" office
	config "config server 'bad-name'"
	reboot
	there /etc/init.d/sshmux start
	stays "a boot with a file that uci does not read" 75 "$NO_MASTER" office
	config "config sshmux 'globals'" "option enabled 0"
	there /etc/init.d/sshmux start
	stays "globals: not enabled" 75 "$NO_MASTER" office
	config "config server 'branch'" "option hostname 127.0.0.1"
	sed -i "s/'office'/'hq'/" "$ROOT/etc/config/sshmux"
	there /etc/init.d/sshmux start
	stays "a section that has another name now" 255 "*no ControlPath leads to a master*" office
	is "one line" "$(lines "$T/works")" 1
	stays "a name that is no section" 255 "sshmux: localhost: no ControlPath leads to a master, and Fallback=no (/etc/sshmux/config line *" localhost
	stays "an address" 255 "*no ControlPath leads to a master*" 127.0.0.1
	stays "ControlMaster=auto" 75 "Control socket connect(/tmp/%*" -o ControlMaster=auto -o ControlPath=/tmp/%%n office
	stays "-W" 255 "*no ControlPath leads to a master*" -W "127.0.0.1:$PORT" localhost
	printf 'Host *\n\tControlMaster auto\n\tControlPath /tmp/%%%%C\n' >"$ROOT/root/.ssh/config"
	stays "the user's own auto for all" 75 "Control socket connect(*" branch
	printf 'Host localhost\n\tFallback yes\n' >"$ROOT/root/.ssh/config"
	is "the user's configuration can allow it" "$(job localhost 2>&1 | tail -n 1)" ran
	rm "$ROOT/root/.ssh/config"
	upgrades
	no_traffic
	LABEL=
}

# A configuration of 0.1.0, edited, stays over an upgrade.
upgrades() {
	cp "$ROOT/etc/sshmux/config" "$T/shipped"
	printf 'Include /var/run/sshmux/config\nHost own\n\tHostName 127.0.0.1\n' >"$ROOT/etc/sshmux/config"
	mkdir -p "$ROOT/etc/rc.d"
	ln -s ../init.d/sshmux "$ROOT/etc/rc.d/S90sshmux"
	installs
	stays "an upgrade: a server" 75 "*/branch.sock): No such file*" branch
	stays "an upgrade: no server" 255 "*no ControlPath leads to a master*" localhost
	is "an upgrade: starts before cron" "$(cd "$ROOT/etc/rc.d" && echo *)" "S45sshmux"
	cp "$ROOT/etc/sshmux/config" "$T/upgraded"
	installs
	works "an upgrade: once is enough" cmp "$T/upgraded" "$ROOT/etc/sshmux/config"
	cp "$T/shipped" "$ROOT/etc/sshmux/config"
}

# Not even a question to a name server
no_traffic() {
	if ! strace -o /dev/null true 2>/dev/null; then
		skip "a name that is no section: no socket of the network" "strace does not work here"
		return
	fi
	there=$(command -v strace)
	timeout 60 "$there" -f -e trace=network,clone,fork,vfork,execve -o "$T/strace" \
		chroot "$ROOT" env -i HOME=/root PATH=/usr/sbin sshmux no-such-server.example true >"$T/works" 2>&1
	is "a name that is no section: no socket, no child" "$? $(grep -c -e AF_INET -e clone -e fork "$T/strace")" "255 0"
}

# --- what the system's log gets -------------------------------------------------------------------------

logged() { grep -c "$1" "$ROOT/tmp/messages"; }

starts_syslogd() {
	: >"$ROOT/tmp/messages"
	chroot "$ROOT" /sbin/syslogd -n -O /tmp/messages >/dev/null 2>&1 &
	ends_later $!
	wait_for 10 test -S "$ROOT/dev/log"
}

levels() {
	works "log: the first login, as a notice" wait_for 20 logged "daemon.notice sshmux\[$MASTER_PID\]: connected to 127.0.0.1$"
	is "log: and no more than that" "$(logged sshmux)" 1
	for pid in $(connection_processes); do kill "$pid" 2>/dev/null; done
	works "log: a loss, as an error" wait_for 20 logged "daemon.err sshmux\[$MASTER_PID\]: .*; trying again"
	works "log: another login, as a notice" wait_for 30 logged "daemon.notice sshmux\[$MASTER_PID\]: connected to 127.0.0.1 again"
	is "log: nothing on stderr" "$(cat "$T/master.log")" ""
	there sshmux -y -o Fallback=no -S /none office true
	works "log: -y of a client" wait_for 10 logged "user.err sshmux\[.*Control socket connect(/none): No such file"
}

# --- a day of one ---------------------------------------------------------------------------------------

# state NAME: of the status page
state() { there /etc/init.d/sshmux status | sed -n "s/^$1  *//p" | tr -s ' '; }

states() {
	config "config server 'spare'" "option hostname spare.example" "option enabled 0" \
		"config server 'wrong'" "option hostname wrong.example" "option port x" \
		"config server 'idle'" "option hostname idle.example"
	is "status: a server that is up" "$(state office)" "127.0.0.1 up"
	is "status: one that is not enabled" "$(state spare)" "spare.example not enabled"
	is "status: one that is wrong" "$(state wrong)" "wrong.example wrong, see logread -e sshmux"
	is "status: one whose master does not run" "$(state idle)" "idle.example no master"
	there /etc/init.d/sshmux status >"$T/works"
	is "status: 1 when not all are up" $? 1
	config
	works "status: 0 when all are" there /etc/init.d/sshmux status
	like "status NAME: the connection, its channels" "$(there /etc/init.d/sshmux status office | tr -d '\r')" \
		"*Connection information for 127.0.0.1*tcp 127.0.0.1:*"
	kill -STOP "$SERVER_PID" $(connection_processes)
	kill $(connection_processes) 2>/dev/null
	kill -KILL $(connection_processes) 2>/dev/null
	works "status: a link that is lost, and why" wait_for 20 reconnecting
	kill -CONT "$SERVER_PID"
	wait_for 60 there sshmux --wait=5 office true
}
reconnecting() { case $(state office) in "127.0.0.1 reconnecting, try "*) ;; *) false ;; esac; }

# stop, as an upgrade does: what runs may end, what comes waits or gets 75
drains() {
	there sshmux office "touch '$T/started'; sleep 2; echo over" >"$T/job" 2>&1 &
	job=$!
	wait_for 20 test -e "$T/started"
	there /etc/init.d/sshmux stop >"$T/works" 2>&1 &
	stopping=$!
	wait_for 20 not_there
	there sshmux office true >"$T/late" 2>&1
	is "stop: a job that comes meanwhile" $? 75
	wait $stopping
	is "stop: procd was told after the job had ended" "$(gone $job && echo ended)" ended
	kill $MASTER_PID 2>/dev/null		# procd's TERM, if there is still somebody
	wait $job
	is "stop: a job that runs ends as it should" "$? $(cat "$T/job")" "0 over"
	reap_master
	is "stop: the master has ended" "$MASTER_RC" 0
}
not_there() { [ ! -S "$ROOT/var/run/sshmux/office.sock" ]; }

installed() {
	LABEL="installed: "
	reboot
	FREE=$(random_port)
	while listening "$FREE"; do FREE=$(random_port); done
	config 'config tunnelL' 'option server office' 'option localaddress 127.0.0.1' "option localport $FREE" \
		'option remoteaddress 127.0.0.1' "option remoteport $PORT"
	works "syslogd is there" starts_syslogd
	works "the init script runs by its first line" there /etc/init.d/sshmux start
	is "procd would start it" "$(cat "$ROOT/var/procd/did")" "start office"
	supervise office
	if ! wait_for 20 there sshmux --wait=5 office true; then
		not_ok "the master serves"
		note "$(cat "$T/master.log")"
		return
	fi
	levels
	is "a command, by the name in UCI" \
		"$(there sshmux office 'echo through; exit 3' 2>&1; echo $?)" "through
3"
	is "a command, by the socket" "$(there sshmux -S /var/run/sshmux/office.sock x 'echo through' 2>&1)" through
	like "the tunnel" "$(there sh -c "echo | nc 127.0.0.1 $FREE" | head -n 1)" "SSH-2.0-*"
	like "-O list" "$(there sshmux -O list 2>&1)" "*office*"
	crontab_lines
	there /etc/init.d/sshmux reload
	is "a reload leaves it alone" "$(cat "$ROOT/var/procd/did")" ""
	states
	drains
}

possible || finish
start_sshd
make_root
wrong_machine
installed
finish
