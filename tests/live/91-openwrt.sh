# The package for OpenWrt: its init script, run by BusyBox's ash on what stands for
# rc.common and procd (tests/openwrt/rc.common); the packages, taken apart; a package
# unpacked into a BusyBox root and run from there.
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
	"$BUSYBOX" ash "$TESTDIR/openwrt/rc.common" "$T/init" "$@" >"$T/init.out" 2>&1
	INIT_RC=$?
	DID=$(tr '\n' ' ' <"$PROCD/did")
	LOG=$(tr '\n' ' ' <"$LOGGED")
	case $1 in start | reload) [ ! -s "$T/init.out" ] || note "$(cat "$T/init.out")" ;; esac
}

instances() { find "$PROCD/instances" -type f -printf '%f\n' | sort | tr '\n' ' '; }

# conf NAME: the file of that server without its first line and paths of the test
conf() { sed -e 1d -e 's/^	//' -e "s,$T/run,RUN,g" -e "s,$T/etc,ETC,g" "$T/run/$1.conf"; }

# about NAME WORD: what its instance was given as that parameter
about() { sed -n "s/^$2 //p" "$PROCD/instances/$1" | sed -e "s,$T/run,RUN,g" | tr '\n' ' '; }

triggers() { sed "s,$T/,," "$PROCD/triggers"; }

# uci LINE...: the configuration; leading blanks do not count
uci() { printf '%s\n' "$@" >"$UCI/sshmux"; }

set_up() {
	sed -e "s,/var/run/sshmux,$T/run,g" -e "s,/etc/sshmux\$,$T/etc," -e "s,/sbin/ujail,$T/ujail,g" \
		-e "s,/etc/capabilities/,$T/,g" "$PORT_DIR/sshmux.init" >"$T/init"
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
	is "sshtunnel's: what clients read" "$(cat "$T/run/config")" "Host example
	ControlPath $T/run/example.sock
	HostName server.example.com
	User root
	Port 22
	Fallback no"
	is "instance: command" "$(about example command)" \
		"/usr/sbin/sshmux -F RUN/example.conf -M -N -o Reconnect=always example "
	is "instance: environment" "$(about example env)" "HOME=/root "
	is "instance: respawn, output, end" "$(grep '^[rst]' "$PROCD/instances/example" | tr '\n' ' ')" \
		"respawn 3600 10 0 stdout 1 stderr 1 term_timeout 10 "
	like "instance: the files that it depends on" "$(about example file)" "/usr/sbin/sshmux *RUN/example.conf *"
	is "instance: no jail without ujail" "$(grep -c jail "$PROCD/instances/example")" 0
	is "triggers: a change of the configuration" "$(triggers)" "config.change sshmux: init reload"
	like "sshtunnel's: what has no effect is logged" "$LOG" \
		"*daemon.notice options without effect: CheckHostIP Compression PKCS11Provider VerifyHostKeyDNS *"
	like "sshtunnel's: tunnelW is refused" "$LOG" "*daemon.err tunnelW 'vpn': tun and tap devices are not supported*"
	is "sshtunnel's: files are private" "$(find "$T/run" -name '*conf*' -perm /077)" ""
	init reload
	is "reload: nothing has changed, nothing is done" "$DID" ""
	is "reload: what has no effect is not logged again" "$(grep -c 'without effect' "$LOGGED")" 0
}

# reads_files: the program knows configuration files, and what only they say
reads_files() { "$SSHMUX" -h | grep -q -e '^  -F '; }

# Every line that the script can write is one that the program takes.
understood() {
	sed 's/^	//' "$T"/run/config "$T"/run/*.conf "$T/saved" | grep -v '^Host ' | sort -u >"$T/lines"
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
	is "reload: the file of the one that is gone" "$(ls "$T/run")" "config
home.conf
ignored
office.conf"
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
	is "reload: clients know of it no more" "$(grep -c office "$T/run/config")" 0
	is "wake: not who is not enabled" "$(woken wan)" "home "
	uci "config sshmux globals" "option enabled 0" "$HOME_SERVER" "$OFFICE"
	init reload
	is "globals: not enabled" "$DID$(cat "$T/run/config")" "stop home "
	is "globals: a reload can enable it again" "$(triggers)" "config.change sshmux: init reload"
	uci "$HOME_SERVER" "$OFFICE"
	init start office
	is "start NAME: starts that one" "$DID$(instances)" "start office office "
	is "start NAME: clients know all" "$(grep -c '^Host' "$T/run/config")" 2
	init stop office
	is "stop NAME" "$(instances)" ""
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
	is "hotplug: loopback" "$(event ACTION=ifup INTERFACE=loopback)" ""
}

kicks() {
	rm -f "$PROCD/signals"
	init kick
	init kick office home
	is "kick: a signal to all, or to those named" "$(cat "$PROCD/signals")" "sshmux * USR1
sshmux office USR1
sshmux home USR1"
	init nonsense
	like "help has the commands of its own" "$(cat "$T/init.out")" "*kick [[]NAME[]]*import_autossh*"
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
	is "wrong: the whole file: nothing is done, clients find their masters" "$DID$(grep -c ^Host "$T/run/config")" 2
	is "wrong: the whole file: is logged" "$LOG" "sshmux daemon.err /etc/config/sshmux cannot be read "
	init stop
	init start
	is "wrong: the whole file: a start waits for a reload" "$DID$(triggers)" "config.change sshmux: init reload"
	uci "$OFFICE" "$HOME_SERVER"
	init reload
	uci "$OFFICE" "option port x" "$HOME_SERVER"
	init reload
	is "wrong: a running server is stopped" "$DID$(ls "$T/run")" "stop office config
home.conf
ignored"
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
	sed -i "s,file /usr/sbin/sshmux,file $T/program," "$T/init"
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
	uci 'config sshmux globals' "option jail 0" "$OFFICE"
	init reload
	is "jail: not wanted" "$(grep -c -e jail -e cap "$PROCD/instances/office")" 0
	rm "$T/ujail"
	cp "$PORT_DIR/sshmux.config" "$UCI/sshmux"
	init reload
	is "the shipped configuration: no server, no message" "$(instances)$LOG" ""
	grep '^#[c	]' "$PORT_DIR/sshmux.config" | sed 's/^#//; /HostKey/d' >>"$UCI/sshmux"
	init reload
	is "the shipped example works" "$(instances)$LOG$(conf example | grep -c Forward)" "example 3"
}

# --- import_autossh -----------------------------------------------------------------------------------

imports() {
	cat >"$UCI/autossh" <<'END'
config autossh
	option gatetime '0'
	option monitorport '20000'
	option poll '600'
	option ssh '-i /etc/dropbear/id_rsa -NT -y -R 2222:localhost:22 -L [::1]:80:[fe80::2]:8080 -D 1080 -o ServerAliveInterval=20 -C -p 2200 bob@example.org'
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
	for t in mips-24kc mipsel-24kc armv7 armv5 aarch64 x86_64 i386 riscv64; do
		for format in ipk apk; do pack $format $t "$PORT_DIR/sshmux.include" "$T/all" || echo "no $format for $t"; done
	done >"$T/works" 2>&1
	like "every target has a package of both kinds" "$(grep -c 'no .* for' "$T/works") $(cd "$T/all" && echo -- *) " \
		"0 -- *-r1_mips_24kc.apk*-r1_mipsel_24kc.apk*-r1_riscv64_generic.apk*_arm_cortex-a7_neon-vfpv4.ipk*_riscv64_riscv64.ipk*"
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
endef
define BuildPackage
tree:
	$(call Package/$(1)/install,$(OUT))
prepare:
	$(Build/Prepare)
show:
	@echo '$(PKG_NAME) $(PKG_VERSION)-r$(PKG_RELEASE)'
	@echo '$(FILE) $(HASH)'
	@echo '$(strip $(Package/$(1)/conffiles))'
endef
END
}

feed_make() (
	unset MAKEFLAGS MFLAGS MAKELEVEL
	cd "$PORT_DIR" && exec make -s TOPDIR="$T/feed" OUT="$T/feed/out" PKG_BUILD_DIR="$T/feed/build" "$@"
)

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
	file=$(sed -n '2s/ .*//p' "$T/show")
	is "feed: dropbear, as it is fetched" "$(sed -n 2p "$T/show")" \
		"$file $(sed -n "s/.*$(echo "$file" | tr -dc 0-9.- | sed 's/^-//; s/\..*//').*) echo \([0-9a-f]*\) .*/\1/p" "$TOP/port/dropbear/fetch")"
	is "feed: configuration that is kept" "$(sed -n 3p "$T/show")" "/etc/config/sshmux /etc/sshmux/config /etc/sshmux/"
	works "feed: test.sh" "$BUSYBOX" ash -n "$PORT_DIR/test.sh"
}

# --- installed, and run from there ------------------------------------------------------------------------

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
	echo '127.0.0.1 localhost' >"$ROOT/etc/hosts"
	cp "$TESTDIR/openwrt/rc.common" "$ROOT/etc/rc.common"
	tar -xf "$T/ipk/data.tar" -C "$ROOT"
	put_in "$SSHMUX" usr/sbin/sshmux
	cp "$KEY" "$ROOT/etc/sshmux/id_ed25519"
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
}

installed() {
	if [ "$(id -u)" != 0 ]; then
		skip "installed: runs in a root of its own" "an ordinary user cannot change the root directory"
		return
	fi
	if ! reads_files; then
		skip "installed: runs in a root of its own" "this program reads no configuration file"
		return
	fi
	! emulated "" "installed: runs in a root of its own" "the emulator is not in that root" || return
	if grep -q __asan_init "$SSHMUX"; then
		skip "installed: runs in a root of its own" "a sanitizer needs /proc in that root"
		return
	fi
	start_sshd
	make_root
	FREE=$(random_port)
	while listening "$FREE"; do FREE=$(random_port); done
	there sh -c 'cat >/etc/config/sshmux' <<-END
		config server 'office'
			option hostname '127.0.0.1'
			option port '$PORT'
			option user '$ME'
			list HostKey '$(cut -d' ' -f2,3 "$T/known_hosts")'
		config tunnelL
			option server 'office'
			option localaddress '127.0.0.1'
			option localport '$FREE'
			option remoteaddress '127.0.0.1'
			option remoteport '$PORT'
	END
	works "installed: the init script runs by its first line" there /etc/init.d/sshmux start
	is "installed: procd would start it" "$(cat "$ROOT/var/procd/did")" "start office"
	supervise office
	if ! wait_for 20 there sshmux --wait=5 office true; then
		not_ok "installed: the master serves"
		note "$(cat "$T/master.log")"
		return
	fi
	is "installed: a command, by the name in UCI" \
		"$(there sshmux office 'echo through; exit 3' 2>&1; echo $?)" "through
3"
	is "installed: a command, by the socket" "$(there sshmux -S /var/run/sshmux/office.sock x 'echo through' 2>&1)" through
	like "installed: the tunnel" "$(there sh -c "echo | nc 127.0.0.1 $FREE" | head -n 1)" "SSH-2.0-*"
	like "installed: -O list" "$(there sshmux -O list 2>&1)" "*office*"
	crontab_lines
	there /etc/init.d/sshmux reload
	is "installed: a reload leaves it alone" "$(cat "$ROOT/var/procd/did")" ""
	kill $MASTER_PID
	reap_master
	is "installed: TERM ends it" "$MASTER_RC" 0
}

set_up
of_sshtunnel
cp "$T/run/example.conf" "$T/saved"
reloads
hotplug
kicks
wrong_values
wrong_tunnels
more_options
imports
understood
twice
ipk
apk
targets
feed
installed
finish
