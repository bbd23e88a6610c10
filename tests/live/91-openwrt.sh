# The package for OpenWrt: its init script, run by BusyBox's ash on what stands for
# rc.common and procd (tests/openwrt/rc.common); the packages, taken apart.  What they
# install is run by 96-router.sh.
# shellcheck shell=sh disable=SC2016,SC2034,SC2046,SC2086,SC2088,SC2153,SC2154
. "$TESTDIR/lib.sh"

TOP=${TESTDIR%/*}
PORT_DIR=$TOP/port/openwrt
BUSYBOX=$(command -v busybox)

if [ "$MASTER" = stock ]; then
	skip "the package" "OpenSSH differs: it is of sshmux"
	finish
fi
if [ -z "$BUSYBOX" ]; then
	skip "the package" "busybox is not installed"
	finish
fi

# --- the init script, its paths in the test's directory ---------------------------------

export UCI="$T/uci" PROCD="$T/procd" LOGGED="$T/logged"
mkdir "$UCI" "$T/etc"

# init ACTION [WORD...]: DID is what procd would do, LOG what was logged, on one line each
init() {
	: >"$LOGGED"
	"$BUSYBOX" ash "$TESTDIR/openwrt/rc.common" "$T/init" "$@" >"$T/init.out" 2>&1 </dev/null
	INIT_RC=$?
	OUT=$(cat "$T/init.out")
	DID=$([ ! -e "$PROCD/did" ] || tr '\n' ' ' <"$PROCD/did")
	LOG=$(tr '\n' ' ' <"$LOGGED")
	case $1 in start | reload) [ ! -s "$T/init.out" ] || note "$(cat "$T/init.out")" ;; esac
}

instances() { find "$PROCD/instances" -type f -printf '%f\n' | sort | tr '\n' ' '; }

# conf NAME: the file of that server without its first line and paths of the test
conf() { sed -e 1d -e 's/^	//' -e "s,$T/run,RUN,g" -e "s,$T/etc,ETC,g" "$T/run/$1.conf"; }

# about NAME WORD: what its instance was given as that parameter
about() { sed -n "s/^$2 //p" "$PROCD/instances/$1" | sed -e "s,$T/run,RUN,g" | tr '\n' ' '; }

# block NAME: what clients know of that server
block() { sed -n -e "/^Host $1\$/,/^	Fallback/{s/^	//; s,$T/run,RUN,g; p}" "$T/etc/servers"; }

# known_servers: those that clients know, and refuse to log in to by themselves
known_servers() { awk '/^Host/ { name = $2 } /^	Fallback no/ { print name }' "$T/etc/servers" | tr '\n' ' '; }

triggers() { sed "s,$T/,," "$PROCD/triggers"; }

# uci LINE...: the configuration; leading blanks do not count
uci() { printf '%s\n' "$@" >"$UCI/sshmux"; }

set_up() {
	sed -e "s,/var/run/sshmux,$T/run,g" -e "s,/etc/sshmux\$,$T/etc," -e "s,/sbin/ujail,$T/ujail,g" \
		-e "s,/etc/capabilities/,$T/,g" -e "s,/proc/meminfo,$T/meminfo," "$PORT_DIR/sshmux.init" >"$T/init"
	echo 'MemTotal: 60000 kB' >"$T/meminfo"
}

# The sample of sshtunnel's package, with its comment signs taken off
SAMPLE='
config server example
	option user			root
	option hostname			server.example.com
	option port			22
	option retrydelay		1
	option CheckHostIP		yes
	option Compression		no
	option IdentityFile		/root/.ssh/id_rsa
	option LogLevel			INFO
	option PKCS11Provider		/lib/pteidpkcs11.so
	option ServerAliveCountMax	3
	option ServerAliveInterval	0
	option StrictHostKeyChecking	accept-new
	option TCPKeepAlive		yes
	option VerifyHostKeyDNS		yes

config tunnelR http
	option server		example
	option remoteaddress	*
	option remoteport	9009
	option localaddress	192.168.1.13
	option localport	80

config tunnelL test
	option server		example
	option localaddress	*
	option localport	1022
	option remoteaddress	secretserver.example.com
	option remoteport	22

config tunnelD proxy
	option server		example
	option localaddress	*
	option localport	4055

config tunnelW vpn
	option server		example
	option vpntype		point-to-point
	option localdev		any
	option remotedev	0
'

of_sshtunnel() {
	uci "$SAMPLE"
	init start
	is "sshtunnel's: started" "$DID" "start example "
	is "sshtunnel's: the server's file" "$(conf example)" "ControlPath RUN/example.sock
HostName server.example.com
User root
Port 22
BatchMode yes
UserKnownHostsFile ETC/known_hosts /root/.ssh/known_hosts
IdentityFile /root/.ssh/id_rsa
StrictHostKeyChecking accept-new
ReconnectMax 1
ServerAliveInterval 0
ServerAliveCountMax 3
TCPKeepAlive yes
LogLevel INFO
RemoteForward *:9009 192.168.1.13:80
LocalForward *:1022 secretserver.example.com:22
DynamicForward *:4055"
	is "sshtunnel's: what clients read" "$(cat "$T/etc/servers")" "Host example
	ControlPath $T/run/example.sock
	HostName server.example.com
	User root
	Port 22
	Fallback no"
	is "instance: command" "$(about example command)" \
		"/usr/sbin/sshmux -F RUN/example.conf -M -N -y -o SyslogFacility=DAEMON -o Reconnect=always example "
	is "instance: environment" "$(about example env)" "HOME=/root "
	is "instance: respawn, output, end" "$(grep '^[rst]' "$PROCD/instances/example" | tr '\n' ' ')" \
		"respawn 3600 10 0 stdout 1 stderr 1 term_timeout 10 "
	like "instance: the files that it depends on" "$(about example file)" "/usr/sbin/sshmux *RUN/example.conf *"
	is "instance: no jail without ujail" "$(grep -c jail "$PROCD/instances/example")" 0
	is "triggers: a change of the configuration" "$(triggers)" "config.change sshmux: init reload"
	like "sshtunnel's: what has no effect is logged" "$LOG" \
		"*daemon.notice options without effect: CheckHostIP Compression PKCS11Provider VerifyHostKeyDNS *"
	like "sshtunnel's: tunnelW is refused" "$LOG" "*daemon.err tunnelW 'vpn': tun and tap devices are not supported*"
	is "sshtunnel's: files are private" "$(find "$T/run" "$T/etc" -type f -perm /077)" ""
	init info
	is "info: what procd has, rc.common's alone" "$INIT_RC $(echo "$OUT" | sed "s,$T/,,")" \
		'0 {"init":{"instances":{"example":{"command":["/usr/sbin/sshmux","-F","run/example.conf","-M","-N","-y","-o","SyslogFacility=DAEMON","-o","Reconnect=always","example"]}}}}'
	init reload
	is "reload: nothing has changed, nothing is done" "$DID" ""
	is "reload: what has no effect, or is not supported, is not logged again" "$LOG" ""
}

# reads_files: the program knows configuration files, and what only they say
reads_files() { "$SSHMUX" -h | grep -q -e '^  -F '; }

# Every line that the script can write is one that the program takes.
understood() {
	sed 's/^	//' "$T"/etc/servers "$T"/run/*.conf "$T/saved" | grep -v '^Host ' | sort -u >"$T/lines"
	reads_files || sed -i '/^HostName/d; /^Proxy/d; /^Fallback/d' "$T/lines"
	while read -r line; do
		case $("$SSHMUX" -o "$line" -S "$T/none" -O check 2>&1 </dev/null) in
		*"No such file"*) ;;
		*) echo "$line" ;;
		esac
	done <"$T/lines" >"$T/refused"
	is "every line is understood by the program ($(lines "$T/lines") lines)" "$(cat "$T/refused")" ""
}

# --- reload touches only what changed -------------------------------------------------------

OFFICE='config server office
	option hostname office.example.net'
HOME_SERVER='config server home
	option hostname home.example.net
	list IdentityFile /etc/a
	list IdentityFile /etc/b'

reloads() {
	uci "$OFFICE" "$HOME_SERVER"
	init start
	is "reload: two servers for one that is gone" "$DID" "start home start office stop example "
	is "reload: the file of the one that is gone" "$(cd "$T/run" && echo *)" "home.conf ignored office.conf unsupported"
	uci "$OFFICE" "$HOME_SERVER" 'config tunnelD' 'option server home' 'option localport 1080'
	init reload
	is "reload: a new tunnel restarts its server alone" "$DID" "restart home "
	uci "$OFFICE" 'list interface wan' 'list interface wwan' \
		"$HOME_SERVER" 'config tunnelD' 'option server home' 'option localport 1080'
	init reload
	is "reload: interfaces restart nothing" "$DID" ""
	is "wake: an interface of nobody's wakes who has no list" "$(woken guest)" "home "
	is "wake: one of the list wakes both" "$(woken wwan)" "office home "
	cp "$T/run/home.conf" "$T/saved"
	uci "$HOME_SERVER" 'config tunnelD' 'option server home' 'option enabled 0' 'option localport 1080' \
		"$OFFICE" 'option enabled 0'
	init reload
	is "reload: a server and a tunnel that are not enabled" "$DID" "restart home stop office "
	is "reload: clients know it still" "$(known_servers)" "home office "
	is "wake: not who is not enabled" "$(woken wan)" "home "
	uci "config sshmux globals" "option enabled 0" "$HOME_SERVER" "$OFFICE"
	init reload
	is "globals: not enabled, but known" "$DID$(known_servers)" "stop home home office "
	is "globals: a reload can enable it again" "$(triggers)" "config.change sshmux: init reload"
	uci "$HOME_SERVER" "$OFFICE"
	init start office
	is "start NAME: starts that one" "$DID$(instances)" "start office office "
	is "start NAME: clients know all" "$(known_servers)" "home office "
	init start nosuch
	like "start NAME: of nobody: says so" "$INIT_RC $OUT" "1 sshmux: server 'nosuch' is not started: there is none*"
	init stop office
	is "stop NAME" "$(instances)" ""
}

# on_up and on_down: programs, as one that the master can run
events() {
	for program in first second third; do
		printf '#!/bin/sh\necho %s $SSHMUX_EVENT $SSHMUX_SERVER >>%s/ran\n' $program "$T" >"$T/$program"
		chmod 755 "$T/$program"
	done
	uci "$OFFICE" "list on_up $T/first" "list on_up $T/second" "list on_down $T/third"
	init start
	is "on_up: the master's EventCommand" "$(conf office | grep EventCommand)" "EventCommand RUN/office.event"
	for event in up down forward-failed; do SSHMUX_EVENT=$event "$T/run/office.event"; done
	is "on_up, on_down: each runs for its event" "$(cat "$T/ran")" "first up office
second up office
third down office"
	uci "$OFFICE" "list on_up $T/third"
	init reload
	rm "$T/ran"
	for event in up down; do SSHMUX_EVENT=$event "$T/run/office.event"; done
	is "on_up: another program restarts nobody" "$DID$(cat "$T/ran")" "third up office"
	uci "$OFFICE" "list on_up 'true;id'"
	init reload
	like "on_up: what is no path stops its server" "$DID$LOG" "stop office *option on_up: 'true;id' is not a valid path*"
	works "on_up: its file is gone" [ ! -e "$T/run/office.event" ]
	uci "$OFFICE" "list on_down '/bin/true;\$(id)'"
	init start
	is "on_down: a name is no command" "$(SSHMUX_EVENT=down "$T/run/office.event" 2>&1 | grep -c 'not found')" 1
	init stop
	works "on_down: it goes with its server" [ ! -e "$T/run/office.event" ]
}

# woken INTERFACE: whom it kicks
woken() {
	rm -f "$PROCD/signals"
	init wake "$1"
	[ ! -e "$PROCD/signals" ] || sed 's/^sshmux \(.*\) USR1$/\1/' "$PROCD/signals" | tr '\n' ' '
}

# event NAME=VALUE...: what the hotplug script makes of it
event() {
	sed 's,/etc/init.d/sshmux,echo,' "$PORT_DIR/sshmux.hotplug" >"$T/hotplug"
	env -i PATH="$PATH" "$@" "$BUSYBOX" ash -c '(. "$0")' "$T/hotplug" 2>&1
}

hotplug() {
	is "hotplug: an interface comes up" "$(event ACTION=ifup INTERFACE=wan)" "wake wan"
	is "hotplug: it has another address" "$(event ACTION=ifupdate INTERFACE=wan IFUPDATE_ADDRESSES=1)" "wake wan"
	is "hotplug: a lease is renewed" "$(event ACTION=ifupdate INTERFACE=wan)" ""
	is "hotplug: it goes down" "$(event ACTION=ifdown INTERFACE=wan)" ""
	is "hotplug: mwan3 found an uplink dead" "$(event ACTION=disconnected INTERFACE=wan)" "wake wan"
	is "hotplug: mwan3 found it alive" "$(event ACTION=connected INTERFACE=wan)" "wake wan"
	is "hotplug: loopback" "$(event ACTION=ifup INTERFACE=loopback)" ""
}

kicks() {
	init start
	rm -f "$PROCD/signals"
	init kick
	init kick office home
	is "kick: a signal to all, or to those named" "$(cat "$PROCD/signals")" "sshmux * USR1
sshmux office USR1
sshmux home USR1"
	init kick office nosuch
	is "kick: of nobody: says so" "$INIT_RC $OUT" "1 sshmux: no master 'nosuch' runs"
	init info
	like "info: two" "$OUT" '{"init":{"instances":{"home":{"command":*"home"]},"office":{"command":*"office"]}}}}'
	init stop
	init info
	is "info: nothing of a service that is stopped" "$INIT_RC $OUT" "0 {}"
	rm -f "$PROCD/signals"
	init kick
	is "kick: when all are stopped: says so" "$INIT_RC $OUT" "1 sshmux: no master runs"
	init wake wan
	is "wake: not who is stopped, and no message" "$OUT$(ls "$PROCD/signals" 2>/dev/null)" ""
	init nonsense
	like "help has the commands of its own" "$(cat "$T/init.out")" "*status [[]NAME[]]*kick [[]NAME[]]*import_autossh*"
}

# --- clients know every server ------------------------------------------------------------------

# A section's block is there whatever is wrong with the section, and whoever is stopped:
# without it its name is any host's (96-router.sh has jobs that would run there).
blocks() {
	rm -rf "$PROCD" "$T/run" "$T/etc/servers"
	uci "$OFFICE" "option LogLevel LOUD" "list HostKey SHA256:abc" "option port 2022" "$HOME_SERVER" "option enabled 0" \
		"option HostKey SHA256:def" 'config server bare' 'config server spaced' "option hostname 'a b'"
	init start
	is "clients: a wrong section" "$(block office)" "Host office
ControlPath RUN/office.sock
HostName office.example.net
Port 2022
HostKeyFingerprint SHA256:abc
Fallback no"
	like "clients: a wrong section: no login, even where somebody allows it" "$(grep -A 7 '^Host office' "$T/etc/servers")" \
		"*	ProxyCommand echo \"sshmux: server 'office' in /etc/config/sshmux is wrong\" >&2; exit 1*"
	is "clients: a section that is not enabled" "$(block home)" "Host home
ControlPath RUN/home.sock
HostName home.example.net
HostKeyFingerprint SHA256:def
Fallback no"
	is "clients: sections without a valid host" "$(known_servers)" "office home bare spaced "
	is "clients: the section that is not enabled is not complained about" "$(grep -c home "$LOGGED")" 0
	cp "$T/etc/servers" "$T/before"
	touch -d @1000000000 "$T/etc/servers"
	init reload
	is "clients: unchanged, the flash is not written" "$(stat -c %Y "$T/etc/servers")" 1000000000
	init stop
	works "clients: after a stop" cmp "$T/before" "$T/etc/servers"
	rm -rf "$PROCD" "$T/run"
	works "clients: after a boot, before a start" cmp "$T/before" "$T/etc/servers"
	uci "$HOME_SERVER" "config server 'of-fice'"
	init start
	is "clients: after a boot with a configuration that cannot be read" \
		"$(cmp "$T/before" "$T/etc/servers")$INIT_RC$DID" 0
	rm -rf "$PROCD" "$T/run"
	uci "$OFFICE" "$HOME_SERVER" "config sshmux globals" "option enabled 0"
	init names
	is "names: clients know the servers, nothing is started" "$(known_servers)$(cd "$T/run" && echo *)" "office home *"
	uci "config server hq" "option hostname office.example.net" "$HOME_SERVER"
	init reload
	is "clients: a section that has another name" "$(known_servers)" "hq home "
	mkdir "$T/etc/servers.new" "$T/etc/servers.new/x"
	uci "$OFFICE" "$HOME_SERVER"
	init reload
	like "clients: what cannot be written is not left as it was" "$(ls "$T/etc")$LOG" "*servers cannot be written*"
	works "clients: what cannot be written is not left as it was" test ! -e "$T/etc/servers"
	rm -rf "$T/etc/servers.new"
	same_sockets
}

# Two servers with one socket: jobs of the second would run at the first.
same_sockets() {
	ln -s "$T/run" "$T/alias"
	for path in "$T/run/office.sock" "$T/run/../run/office.sock" "$T/alias/office.sock" "$T/run//office.sock"; do
		uci "$OFFICE" "$HOME_SERVER" "option ControlPath $path"
		init reload
		is "clients: two servers with one socket: ${path#"$T"}" "$(instances)$(block home | grep Path)" "office ControlPath none"
	done
	like "clients: two servers with one socket is logged" "$LOG" "*server 'home', option ControlPath: '*' is another server's*"
	uci "$OFFICE" "option ControlPath $T/run/home.sock" "option enabled 0" "$HOME_SERVER"
	init reload
	is "clients: also where one is not enabled" "$(instances)$(block home | grep Path)" "ControlPath none"
}

# --- what is wrong ------------------------------------------------------------------------------

# refused OPTION VALUE PATTERN: that server alone is not started, and the log says why
refused() {
	uci "$OFFICE" "option $1 '$2'" "$HOME_SERVER"
	rm -rf "$PROCD" "$T/run"
	init start
	is "wrong $1 '$2': only that server" "$DID$INIT_RC" "start home 0"
	like "wrong $1 '$2': is logged" "$LOG" \
		"sshmux daemon.err server 'office', option $1: $3 sshmux daemon.err server 'office' is not started "
}

# accepted OPTION VALUE LINE...: it becomes these lines
accepted() {
	accepted_name="$1 $2"
	uci "$OFFICE" "option $1 '$2'"
	shift 2
	init reload
	cat "$T/run/office.conf" >>"$T/saved"
	is "$accepted_name" "$(conf office | grep -F "$(printf '%s\n' "$@")")$LOG" "$(printf '%s\n' "$@")"
}

wrong_values() {
	refused port 0 "'0' is not a number in 1-65535"
	refused port 65536 "*not a number*"
	refused port 22x "*not a number*"
	refused port 08888888 "*not a number*"
	refused user 'a b' "'a b' is not a valid word"
	refused user '-oProxyCommand=x' "*not a valid word"
	refused hostname 'host;reboot' "*not a valid host"
	refused IdentityFile 'id_rsa' "'id_rsa' is not a valid path"
	refused IdentityFile '/a "b' "*not a valid path"
	refused LogLevel LOUD "'LOUD' is not one of QUIET FATAL ERROR *"
	refused StrictHostKeyChecking maybe "'maybe' is not one of yes no ask accept-new"
	refused TCPKeepAlive 1 "'1' is not one of yes no"
	refused retrydelay 0 "*not a number*"
	refused retry_max -1 "*not a number*"
	refused ConnectTimeout soon "*not a number*"
	refused ServerAliveInterval 1.5 "*not a number*"
	refused ServerAliveCountMax 0 "*not a number*"
	refused ControlPath run/x "*not a valid path"
	refused ControlPath "/$(printf %090d 0)" "*more than 90 characters"
	refused ControlPath /nowhere/x "there is no directory '/nowhere/'"
	refused HostKey 'MD5:aa' "'MD5:aa' is neither*"
	refused HostKey '$(reboot)' "*characters that are in no key"
	refused HostKey 'AAAAC3' "the type of the key 'AAAAC3' is missing or unknown"
	refused HostKey 'ssh-ed25519 AAAAC3 me sk-ssh-ed25519@openssh.com AAAAG' \
		"*neither a SHA256 fingerprint nor a key*the type of the key 'AAAAG' is missing*"
	refused HostKey 'SHA256:abc ssh-ed25519 AAAAC3' "give fingerprints or keys, not both"
	uci "config server office" "$HOME_SERVER"
	init reload
	like "wrong: no host name" "$LOG" "*server 'office', option hostname: is missing*"
	uci "$OFFICE" "option ServerAliveIntervall 3" "$HOME_SERVER" "option recv_window 3"
	init reload
	like "wrong: an option that does not exist is logged" "$LOG" \
		"*daemon.warn server 'office': there is no option ServerAliveIntervall *options without effect: recv_window *"
	is "wrong: but it stops nothing" "$DID" "start office "
	uci "$OFFICE" "option user 'joe" "$HOME_SERVER"
	init reload
	is "wrong: the whole file: nothing is done, clients find their masters" "$DID$(known_servers)" "office home "
	like "wrong: the whole file: uci says where" "$LOG" \
		"sshmux daemon.err /etc/config/sshmux: Parse error (*) at line 3, byte *; nothing is changed "
	uci "$OFFICE" "config server 'bad-name'" "$HOME_SERVER"
	init reload
	like "wrong: a section's name with a -: uci says where" "$DID$LOG" "sshmux daemon.err */sshmux: Parse error (*) at line 3, byte *"
	init stop
	init start
	is "wrong: the whole file: a start waits for a reload" "$DID$(triggers)" "config.change sshmux: init reload"
	uci "$OFFICE" "$HOME_SERVER"
	init reload
	uci "$OFFICE" "option port x" "$HOME_SERVER"
	init reload
	is "wrong: a running server is stopped" "$DID$(cd "$T/run" && echo *)" "stop office home.conf ignored"
}

# tunnel_of TYPE OPTION...: a tunnel of the server office
tunnel_of() {
	type=$1
	shift
	uci "$OFFICE" "$HOME_SERVER" "config $type t" "$(printf 'option %s\n' "$@")"
	rm -rf "$PROCD" "$T/run"
	init start
}

wrong_tunnels() {
	tunnel_of tunnelR "server office" "remoteport 80" "localaddress h" "localport 99999"
	is "wrong tunnel: only its server" "$DID" "start home "
	like "wrong tunnel: is logged" "$LOG" "*tunnelR 't', option localport: '99999' is not a number in 1-65535*"
	tunnel_of tunnelR "server office" "remoteport 80" "localport 99"
	like "wrong tunnel: no address" "$DID$LOG" "start home *tunnelR 't', option localaddress: is missing*"
	tunnel_of tunnelL "server office" "localaddress /tmp/x" "localport 99" "remoteaddress h" "remoteport 1"
	like "wrong tunnel: a path" "$DID$LOG" "start home *tunnelL 't', option localaddress: '/tmp/x' is not a valid host*"
	tunnel_of tunnelD "server ofice" "localport 99"
	like "wrong tunnel: of nobody" "$DID$LOG" "start home start office *tunnelD 't', option server: there is no server 'ofice'*"
	tunnel_of tunnelL "server office" "localaddress ::1" "localport 99" "remoteaddress fe80::1" "remoteport 1"
	is "tunnel: IPv6" "$(conf office | grep Forward)" "LocalForward [::1]:99 [fe80::1]:1"
	cat "$T/run/office.conf" >>"$T/saved"
}

# --- the rest of the schema -----------------------------------------------------------------------

more_options() {
	rm -rf "$PROCD" "$T/run"
	accepted retry_max 300 "ReconnectMax 300"
	accepted ConnectTimeout 20 "ConnectTimeout 20"
	accepted ProxyCommand 'ncat --proxy "a b" %h %p' 'ProxyCommand ncat --proxy "a b" %h %p'
	accepted ControlPath /tmp/office "ControlPath /tmp/office"
	accepted ControlPath '~/office' "ControlPath ~/office"
	accepted HostKey SHA256:abc/+= "HostKeyFingerprint SHA256:abc/+="
	accepted HostKey "ssh-ed25519 AAAAC3 ssh-rsa AAAAB3" "HostKeyAlias office" \
		"UserKnownHostsFile RUN/office.known_hosts" "StrictHostKeyChecking yes"
	is "HostKey: the keys" "$(cat "$T/run/office.known_hosts")" "office ssh-ed25519 AAAAC3
office ssh-rsa AAAAB3"
	accepted HostKey "ssh-ed25519 AAAAC3 root@office ssh-rsa AAAAB3 root@office" "HostKeyAlias office"
	is "HostKey: lines of a .pub file" "$(cat "$T/run/office.known_hosts")" "office ssh-ed25519 AAAAC3
office ssh-rsa AAAAB3"
	like "HostKey: the instance depends on them" "$(about office file)" "*RUN/office.conf * RUN/office.known_hosts *"
	sh -c 'echo new >"$0"' "$T/program"
	sed -i "s,^PROGRAM=.*,PROGRAM=$T/program," "$T/init"
	init reload
	sh -c 'echo newer >"$0"' "$T/program"
	init reload
	is "reload: a new program restarts" "$DID" "restart office "
	accepted hostname office.example.net "StrictHostKeyChecking accept-new"
	touch "$T/etc/id_ed25519" "$T/etc/id_ed25519.pub"
	accepted user joe "User joe" "IdentityFile ETC/id_ed25519"
	accepted IdentityFile /etc/mine "IdentityFile /etc/mine"
	rm "$T"/etc/id_*
	uci 'config sshmux globals' "option control_dir $T/sockets" 'option log_level VERBOSE' \
		"option known_hosts /etc/kh" "$OFFICE" "$HOME_SERVER" 'option LogLevel QUIET'
	init reload
	is "globals: reach every server" "$(conf office | grep -e Path -e Known -e Level)" \
		"ControlPath $T/sockets/office.sock
UserKnownHostsFile /etc/kh
LogLevel VERBOSE"
	is "globals: a server's own value goes before" "$(conf home | grep Level)" "LogLevel QUIET"
	is "globals: the directory is made, and private" "$(stat -c %a "$T/sockets")" 700
	uci 'config sshmux globals' "option control_dir x" "$OFFICE"
	init reload
	like "globals: a wrong one is logged, its default holds" "$LOG$(conf office)" \
		"*sshmux 'globals', option control_dir: 'x' is not a valid path*ControlPath RUN/office.sock*"
	printf '#!/bin/sh\n' >"$T/ujail"
	chmod 755 "$T/ujail"
	touch "$T/sshmux.json"
	init reload
	is "jail: with ujail" "$(sed "s,$T/,," "$PROCD/instances/office" | grep -e jail -e cap -e priv)" "jail sshmux
capabilities sshmux.json
no_new_privs 1"
	keys_of_others
	uci 'config sshmux globals' "option jail 0" "$OFFICE"
	init reload
	is "jail: not wanted" "$(grep -c -e jail -e cap "$PROCD/instances/office")" 0
	echo 'MemTotal: 29192 kB' >"$T/meminfo"
	uci "$OFFICE"
	init reload
	is "jail: none where memory is small" "$(grep -c -e jail -e cap "$PROCD/instances/office")" 0
	uci 'config sshmux globals' "option jail 1" "$OFFICE"
	init reload
	is "jail: one there, if it is asked for" "$(grep -c -e jail "$PROCD/instances/office")" 1
	rm "$T/ujail"
	cp "$PORT_DIR/sshmux.config" "$UCI/sshmux"
	init reload
	is "the shipped configuration: no server, no message" "$(instances)$LOG" ""
	grep -v '^#' "$PORT_DIR/sshmux.config" | sed "s/enabled '0'/enabled '1'/" >"$UCI/sshmux"	# as after a uci commit
	init reload
	is "the shipped example works, without its comments" "$(instances)$LOG$(conf example | grep -c Forward)" "example 3"
}

# A key that is not root's cannot be read in the jail.
keys_of_others() {
	if [ "$(id -u)" != 0 ]; then
		skip "jail: a key of another user's" "an ordinary user cannot make one"
		return
	fi
	touch "$T/mine" "$T/theirs"
	chown 65534 "$T/theirs"
	uci "$OFFICE" "list IdentityFile $T/mine" "list IdentityFile $T/theirs"
	init reload
	is "jail: a key of another user's is named" "$LOG" "sshmux daemon.warn server 'office': in its jail the master \
cannot read $T/theirs, which is user 65534's: \`chown root $T/theirs\`, or option jail 0 "
}

# --- import_autossh -----------------------------------------------------------------------------------

imports() {
	cat >"$UCI/autossh" <<'END'
config autossh
	option gatetime '0'
	option monitorport '20000'
	option poll '600'
	option ssh '-i /etc/dropbear/id_rsa -NT -y -o StrictHostKeyChecking=no -R 2222:localhost:22 -L [::1]:80:[fe80::2]:8080 -D 1080 -o ServerAliveInterval=20 -C -p 2200 bob@example.org'
config autossh inner
	option ssh '-N -i "/a" dave@inner'
	option dropbearproxy 'ncat --proxy-type '\''http'\'' %h %p'
config autossh hq
	option enabled 0
	option ssh '-N -g carol@host -L 8080:a:80 -L /tmp/x:b:1 -J jump -R 9000'
	option localport 1
	option remotehost h
	option remoteport 2
	option poll 60
END
	init import_autossh
	cp "$T/init.out" "$UCI/sshmux"
	is "import_autossh: of an option the first value" "$(grep -c StrictHostKeyChecking "$UCI/sshmux")" 1
	is "import_autossh: what has no place is a comment" "$(grep '^#' "$UCI/sshmux")" "# autossh1: no place for -C
# hq: no place for -L /tmp/x:b:1
# hq: no place for -J jump
# hq: no place for -R 9000"
	rm -rf "$PROCD" "$T/run"
	init start
	like "import_autossh: is a configuration" "$DID$LOG" "start autossh1 *IdentityFile: '\"/a\"' is not a valid path *"
	is "import_autossh: the same server and tunnels" "$(conf autossh1 | grep -v '^BatchMode')" \
		"ControlPath RUN/autossh1.sock
HostName example.org
User bob
Port 2200
UserKnownHostsFile ETC/known_hosts /root/.ssh/known_hosts
IdentityFile /etc/dropbear/id_rsa
StrictHostKeyChecking accept-new
ServerAliveInterval 20
RemoteForward localhost:2222 localhost:22
LocalForward [::1]:80 [fe80::2]:8080
DynamicForward localhost:1080"
	sed -i "s/enabled '0'/enabled '1'/" "$UCI/sshmux"
	init reload
	is "import_autossh: -g, poll and the newer options" "$(conf hq | grep -e Forward -e Alive)" \
		"ServerAliveInterval 20
LocalForward *:8080 a:80
LocalForward *:1 h:2"
}

# --- recipes ------------------------------------------------------------------------------------------

# Configurations of the README are taken without a word; lines of the shell are such.
recipes() {
	awk -v dir="$T" '/^```/ { inside = !inside; if (inside) file = dir "/recipe." ++n ($0 == "```uci" ? ".uci" : ".sh"); next }
		inside { print >file }' "$PORT_DIR/README.md"
	is "README: there are recipes" "$(find "$T" -name 'recipe.*.uci' | grep -c '')" 3
	for recipe in "$T"/recipe.*.uci; do
		cp "$recipe" "$UCI/sshmux"
		rm -rf "$PROCD" "$T/run"
		init start
		is "README: a recipe is a configuration: $(sed -n 's/^config tunnel//p' "$recipe")" "$DID$LOG" "start office "
		cat "$T/run/office.conf" >>"$T/saved"
	done
	for recipe in "$T"/recipe.*.sh; do
		sed '/^opkg/d; s/^[0-9*/]* [0-9*/]* \* \* \* //; /^Host /d; /^	Fallback/d' "$recipe" >"$T/recipe"
		works "README: the shell reads: $(head -n 1 "$T/recipe" | cut -c1-40)" "$BUSYBOX" ash -n "$T/recipe"
	done
	sed -n '/^dropbearkey/,/^uci commit/{s/ *#.*//; s/; /\n/g; p}' "$PORT_DIR/README.md" | awk -F"[ .=']+" '
		/^uci set sshmux\.[a-z_]*=/ { print "config", $5, $4 }
		/^uci set sshmux\.[a-z_]*\./ { v = $0; sub(/^[^=]*=/, "", v); print "option", $5, v }' >"$UCI/sshmux"
	rm -rf "$PROCD" "$T/run"
	init start
	is "README: the first server and its tunnel" "$DID$LOG$(conf office | grep Forward)" \
		"start office RemoteForward localhost:2222 127.0.0.1:22"
}

# --- packages -----------------------------------------------------------------------------------------

[ -r "$TOP/sshmux.1" ] || export SOURCE_DATE_EPOCH=1700000000
NAME=sshmux
VERSION=$(sed -n 's/^#define SSHMUX_VERSION "\(.*\)"$/\1/p' "$TOP/config.h")

pack() { "$PORT_DIR/pack" "$@"; }

# listing ARCHIVE.tar: mode, owner, size (of directories none), path
listing() { tar --warning=no-unknown-keyword --numeric-owner -tvf "$1" | awk '{ print $1, $2, $3, $6 }'; }

tree() {
	cat <<-END
		drwxr-xr-x 0/0 0 etc/
		drwxr-xr-x 0/0 0 etc/capabilities/
		-rw-r--r-- 0/0 $(size "$PORT_DIR/sshmux.capabilities") etc/capabilities/sshmux.json
		drwxr-xr-x 0/0 0 etc/config/
		-rw------- 0/0 $(size "$PORT_DIR/sshmux.config") etc/config/sshmux
		drwxr-xr-x 0/0 0 etc/hotplug.d/
		drwxr-xr-x 0/0 0 etc/hotplug.d/iface/
		-rw-r--r-- 0/0 $(size "$PORT_DIR/sshmux.hotplug") etc/hotplug.d/iface/90-sshmux
		drwxr-xr-x 0/0 0 etc/init.d/
		-rwxr-xr-x 0/0 $(size "$PORT_DIR/sshmux.init") etc/init.d/sshmux
		drwx------ 0/0 0 etc/sshmux/
		-rw------- 0/0 $(size "$PORT_DIR/sshmux.include") etc/sshmux/config
		drwxr-xr-x 0/0 0 etc/uci-defaults/
		-rw-r--r-- 0/0 $(size "$PORT_DIR/sshmux.defaults") etc/uci-defaults/60-sshmux
		drwxr-xr-x 0/0 0 lib/
		drwxr-xr-x 0/0 0 lib/upgrade/
		drwxr-xr-x 0/0 0 lib/upgrade/keep.d/
		-rw-r--r-- 0/0 13 lib/upgrade/keep.d/sshmux
		drwxr-xr-x 0/0 0 usr/
		drwxr-xr-x 0/0 0 usr/sbin/
		-rwxr-xr-x 0/0 $(size "$SSHMUX") usr/sbin/sshmux
	END
}

# bytes DIRECTORY: of all files, as a package manager counts
bytes() { find "$1" -type f -exec cat {} + | wc -c; }

# field NAME FILE
field() { sed -n "s/^$1 *[:=] //p" "$2"; }

twice() {
	for format in ipk apk; do
		works "$format: is built" pack $format x86_64 "$SSHMUX" "$T/dist"
		sleep 1
		(umask 0; TZ=Asia/Tokyo LC_ALL=C.UTF-8 pack $format x86_64 "$SSHMUX" "$T/again") >"$T/works"
	done
	works "a package is the same, byte by byte, when built again" diff -r "$T/dist" "$T/again"
}

ipk() {
	mkdir -p "$T/ipk/data" "$T/ipk/control"
	IPK=$T/dist/${NAME}_$VERSION-r1_x86_64.ipk
	is "ipk: members" "$(tar -tzf "$IPK" | tr '\n' ' ')" "./debian-binary ./data.tar.gz ./control.tar.gz "
	tar -xzf "$IPK" -C "$T/ipk"
	is "ipk: version of the format" "$(cat "$T/ipk/debian-binary")" 2.0
	gzip -dc "$T/ipk/data.tar.gz" >"$T/ipk/data.tar"
	is "ipk: files, modes, owners, sizes" "$(listing "$T/ipk/data.tar")" "$(echo "drwxr-xr-x 0/0 0 ./"; tree | sed 's, \([a-z]\), ./\1,')"
	works "ipk: BusyBox unpacks it" "$BUSYBOX" tar -xzf "$T/ipk/control.tar.gz" -C "$T/ipk/control"
	tar -xf "$T/ipk/data.tar" -C "$T/ipk/data" --no-same-owner
	is "ipk: control" "$(gzip -dc "$T/ipk/control.tar.gz" >"$T/control.tar"; listing "$T/control.tar" | cut -d' ' -f1,2,4)" \
		"drwxr-xr-x 0/0 ./
-rw-r--r-- 0/0 ./conffiles
-rw-r--r-- 0/0 ./control
-rwxr-xr-x 0/0 ./postinst
-rwxr-xr-x 0/0 ./prerm"
	c=$T/ipk/control/control
	is "ipk: name, version, processor" "$(field Package $c) $(field Version $c) $(field Architecture $c)" \
		"sshmux $VERSION-r1 x86_64"
	is "ipk: installed size" "$(field Installed-Size $c)" "$(bytes "$T/ipk/data")"
	is "ipk: configuration that is kept, files only" "$(tr '\n' ' ' <"$T/ipk/control/conffiles")" \
		"/etc/config/sshmux /etc/sshmux/config "
	is "ipk: directories that sysupgrade keeps" "$(cat "$T/ipk/data/lib/upgrade/keep.d/sshmux")" "/etc/sshmux/"
	works "ipk: scripts" "$BUSYBOX" ash -c 'ash -n "$0/postinst" && ash -n "$0/prerm" && grep -q "^default_postinst" "$0/postinst" &&
		grep -q "^default_prerm" "$0/prerm"' "$T/ipk/control"
	works "ipk: the program is the one that was given" cmp "$SSHMUX" "$T/ipk/data/usr/sbin/sshmux"
}

# Offsets of the gzip members: all are made without a name and a time.
members() { grep -obUaP '\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03' "$1" | cut -d: -f1 | tr '\n' ' '; }

apk() {
	mkdir -p "$T/apk/data" "$T/apk/control"
	APK=$T/dist/$NAME-$VERSION-r1_x86_64.apk
	set -- $(members "$APK")
	is "apk: two gzip members" "$# $1" "2 0"
	head -c "$2" "$APK" >"$T/apk/control.gz"
	tail -c +$(($2 + 1)) "$APK" >"$T/apk/data.gz"
	works "apk: each is whole" gzip -t "$T/apk/control.gz" "$T/apk/data.gz"
	gzip -dc "$T/apk/control.gz" >"$T/apk/control.tar"
	gzip -dc "$T/apk/data.gz" >"$T/apk/data.tar"
	gzip -dc "$APK" >"$T/apk/all.tar"
	is "apk: the first member has no end of a tar" \
		"$(($(size "$T/apk/control.tar") % 512)) $(($(tail -c 512 "$T/apk/control.tar" | tr -d '\0' | wc -c) > 0))" "0 1"
	is "apk: the second has" "$(($(size "$T/apk/data.tar") % 512)) $(tail -c 1024 "$T/apk/data.tar" | tr -d '\0' | wc -c)" "0 0"
	listing "$T/apk/all.tar" >"$T/listing"
	is "apk: control" "$(grep ' \.' "$T/listing" | cut -d' ' -f1,2,4)" "-rw-r--r-- 0/0 .PKGINFO
-rwxr-xr-x 0/0 .post-install
-rwxr-xr-x 0/0 .post-upgrade
-rwxr-xr-x 0/0 .pre-deinstall"
	is "apk: files, modes, owners, sizes" "$(grep -v -e ' \.' -e lib/apk "$T/listing")" "$(tree)"
	tar -xf "$T/apk/control.tar" -C "$T/apk/control" 2>/dev/null
	tar --warning=no-unknown-keyword --no-same-owner -xf "$T/apk/data.tar" -C "$T/apk/data"
	c=$T/apk/control/.PKGINFO
	is "apk: name, version, processor" "$(field pkgname $c) $(field pkgver $c) $(field arch $c)" "sshmux $VERSION-r1 x86_64"
	is "apk: installed size" "$(field size $c)" "$(bytes "$T/apk/data")"
	is "apk: checksum of the data" "$(field datahash $c)" "$(sum "$T/apk/data.gz")"
	is "apk: checksum of each file" "$(grep -ao 'APK-TOOLS.checksum.SHA1=[0-9a-f]*' "$T/apk/data.tar" | cut -d= -f2)" \
		"$(grep '^-.* [a-z]' "$T/listing" | cut -d' ' -f4 | (cd "$T/apk/data" && xargs sha1sum) | cut -d' ' -f1)"
	(cd "$T/apk/data" && find . -type f ! -path './lib/apk/*' | sed 's/^\.//' | sort) >"$T/files"
	works "apk: the list of files for OpenWrt" cmp "$T/files" "$T/apk/data/lib/apk/packages/sshmux.list"
	is "apk: configuration that is kept" "$(tr '\n' ' ' <"$T/apk/data/lib/apk/packages/sshmux.conffiles")" \
		"/etc/config/sshmux /etc/sshmux/config /etc/sshmux/ "
	is "apk: as it was shipped" "$(cat "$T/apk/data/lib/apk/packages/sshmux.conffiles_static")" \
		"/etc/config/sshmux $(sum "$PORT_DIR/sshmux.config")
/etc/sshmux/config $(sum "$PORT_DIR/sshmux.include")"
	works "apk: scripts" "$BUSYBOX" ash -c 'cd "$0" && ash -n .post-install && ash -n .post-upgrade && ash -n .pre-deinstall &&
		grep -q "^default_postinst" .post-upgrade && grep -q PKG_UPGRADE=1 .post-upgrade && ! grep -q UPGRADE .post-install' "$T/apk/control"
}

targets() {
	for t in mips-24kc mipsel-24kc mips32 mipsel32 mips64 mips64el armv7 armv5 armv4 armeb aarch64 x86_64 i386 i586 \
		powerpc powerpc64 riscv64 loongarch64; do
		for format in ipk apk; do pack $format $t "$PORT_DIR/sshmux.include" "$T/all" || echo "no $format for $t"; done
	done >"$T/works" 2>&1
	like "every target has a package of both kinds" "$(grep -c 'no .* for' "$T/works") $(cd "$T/all" && echo -- *) " \
		"0 -- *-r1_loongarch64_generic.apk*-r1_mips_24kc.apk*-r1_mipsel_24kc.apk*-r1_powerpc64_e5500.apk*-r1_riscv64_generic.apk*_arm_cortex-a7_neon-vfpv4.ipk*_riscv64_riscv64.ipk*"
	pack ipk vax "$SSHMUX" "$T/all" >"$T/works" 2>&1
	is "a target that OpenWrt does not have" "$? $(cat "$T/works")" "1 pack: no architecture of OpenWrt is known for vax"
}

# --- the feed's Makefile, on what stands for OpenWrt's rules ------------------------------------------

# variables of OpenWrt that it uses; BuildPackage becomes targets that show what it says
rules() {
	mkdir -p "$T/feed/include"
	cat >"$T/feed/rules.mk" <<'END'
INCLUDE_DIR = $(TOPDIR)/include
CP = cp -fpR
INSTALL_DIR = install -d -m0755
INSTALL_BIN = install -m0755
INSTALL_DATA = install -m0644
INSTALL_CONF = install -m0600
END
	cat >"$T/feed/include/package.mk" <<'END'
define Download
$(eval $(Download/$(1)))
$(eval DOWNLOADS += $(FILE) $(HASH))
endef
define BuildPackage
tree:
	$(call Package/$(1)/install,$(OUT))
prepare:
	$(Build/Prepare)
show:
	@echo '$(PKG_NAME) $(PKG_VERSION)-r$(PKG_RELEASE)'
	@echo '$(strip $(DOWNLOADS))'
	@echo '$(strip $(Package/$(1)/conffiles))'
endef
END
}

feed_make() (
	unset MAKEFLAGS MFLAGS MAKELEVEL
	cd "${FEED_DIR:-$PORT_DIR}" && exec make -s TOPDIR="$T/feed" OUT="$T/feed/out" PKG_BUILD_DIR="$T/feed/build" "$@"
)

# fetched: file and sum of each tarball that our own builds take
fetched() {
	version=$(sed -n 's/^DROPBEAR_VERSION:=//p' "$PORT_DIR/Makefile")
	printf 'dropbear-%s.tar.bz2 ' "$version"
	sed -n "s/.*$version) echo \([0-9a-f]*\) .*/\1/p" "$TOP/port/dropbear/fetch" | tr '\n' ' '
	awk '/^[a-z]*\)$/ { name = substr($0, 1, length - 1) }
		/^	version=/ { split($0, a, /[ =	]+/); file = name "_" a[3] ".orig.tar." a[5] }
		/^	sha256=/ { split($0, a, /[ =	]+/); printf "%s%s %s", sep, file, a[3]; sep = " " }' "$TOP/port/dropbear/fetch-ciphers"
}

feed() {
	if [ ! -r "$TOP/Makefile" ]; then
		skip "feed: Makefile" "the tree is not beside the tests"
		return
	fi
	rules
	works "feed: the sources are the tree's" feed_make prepare
	works "feed: they can be built" make -n -C "$T/feed/build" sshmux
	cp "$SSHMUX" "$T/feed/build/sshmux"
	works "feed: installs" feed_make tree
	pack stage "$SSHMUX" "$T/staged"
	rm -r "$T/staged/lib"
	is "feed: the same files and modes as in our packages" "$(cd "$T/feed/out" && find . -printf '%P %m\n' | sort)" \
		"$(cd "$T/staged" && find . -printf '%P %m\n' | sort)"
	works "feed: the same contents" diff -r "$T/feed/out" "$T/staged"
	feed_make show >"$T/show"
	is "feed: the version of the program" "$(sed -n 1p "$T/show")" "sshmux $VERSION-r1"
	is "feed: dropbear and the ciphers, as they are fetched" "$(sed -n 2p "$T/show")" "$(fetched)"
	is "feed: configuration that is kept" "$(sed -n 3p "$T/show")" "/etc/config/sshmux /etc/sshmux/"
	works "feed: test.sh" "$BUSYBOX" ash -n "$PORT_DIR/test.sh"
	release
}

# The tarball of a release, and the package of a feed that has nothing else
release() {
	if ! git -C "$TOP" ls-files --error-unmatch sshmux.c >/dev/null 2>&1; then
		skip "release" "not a clone"
		return
	fi
	tarball=$NAME-$VERSION.tar.gz
	works "release" "$PORT_DIR/release" "$T/release"
	sleep 1
	(umask 077; TZ=Asia/Tokyo LC_ALL=C.UTF-8 "$PORT_DIR/release" "$T/released") >"$T/works"
	works "release: the same, byte by byte, when made again" diff -r "$T/release" "$T/released"
	works "release: its checksum" sh -c 'cd "$0" && sha256sum -c --quiet ./*.sha256' "$T/release"
	FEED_DIR=$T/release/feed/sshmux
	is "release: the feed's Makefile names it" "$(sed -n 's/^PKG_HASH:=//p' "$FEED_DIR/Makefile")" "$(sum "$T/release/$tarball")"
	mkdir -p "$T/feed/released" "$T/feed/out2"
	tar -xzf "$T/release/$tarball" -C "$T/feed/released" --strip-components=1
	works "release: it can be built" make -n -C "$T/feed/released" sshmux
	cp "$SSHMUX" "$T/feed/released/sshmux"
	works "release: the feed's package installs" feed_make OUT="$T/feed/out2" PKG_BUILD_DIR="$T/feed/released" tree
	works "release: the same files" diff -r "$T/feed/out" "$T/feed/out2"
}

set_up
of_sshtunnel
cp "$T/run/example.conf" "$T/saved"
reloads
hotplug
kicks
events
blocks
wrong_values
wrong_tunnels
more_options
imports
recipes
understood
twice
ipk
apk
targets
feed
finish
