# The package of LuCI's views: its files, what the init script does for it with a real
# master, and the views in a real browser, on what stands for LuCI (tests/openwrt/luci).
# shellcheck shell=sh disable=SC2016,SC2034,SC2153
. "$TESTDIR/lib.sh"

TOP=${TESTDIR%/*}
APP=$TOP/port/openwrt/luci-app-sshmux
BUSYBOX=$(command -v busybox)

[ "$MASTER" = sshmux ] || { skip "the views" "OpenSSH differs: they are of sshmux"; finish; }
[ -n "$BUSYBOX" ] || { skip "the views" "busybox is not installed"; finish; }

export UCI="$T/uci" PROCD="$T/procd" LOGGED="$T/logged"
mkdir "$UCI" "$T/etc" "$T/run" "$T/dist"

# init ACTION [WORD...]: its output in OUT, its status in RC
init() {
	: >"$LOGGED"
	OUT=$("$BUSYBOX" ash "$TESTDIR/openwrt/rc.common" "$T/init" "$@" 2>&1 </dev/null)
	RC=$?
}

set_up() {
	sed -e "s,/var/run/sshmux,$T/run,g" -e "s,/etc/sshmux\$,$T/etc," -e "s,^PROGRAM=.*,PROGRAM=$SSHMUX," \
		-e "s,/sbin/ujail,$T/ujail,g" "$TOP/port/openwrt/sshmux.init" >"$T/init"
}

# --- the files ------------------------------------------------------------------------------

files() {
	for file in "$APP"/root/usr/share/luci/menu.d/*.json "$APP"/root/usr/share/rpcd/acl.d/*.json; do
		works "JSON: ${file##*/}" python3 -m json.tool "$file"
	done
	# shellcheck disable=SC2013	# words
	for view in $(sed -n 's/.*"path": "\(sshmux\/.*\)"/\1/p' "$APP"/root/usr/share/luci/menu.d/*.json); do
		works "the menu's view is there: $view" test -e "$APP/htdocs/luci-static/resources/view/$view.js"
	done
	"$APP/pot" >"$T/pot"
	is "the template for translators is that of the views" "$(diff "$T/pot" "$APP/po/templates/sshmux.pot")" ""
	is "every string for translators is in it" "$(cat "$APP"/htdocs/luci-static/resources/view/sshmux/*.js |
		grep -o '\b_(' | grep -c '')" "$(cat "$APP"/htdocs/luci-static/resources/view/sshmux/*.js | grep -o "\b_('[^']*')" | grep -c '')"
}

# --- what the init script does for the views ---------------------------------------------------

# up: the server office in the configuration, its master as procd would start it
up() {
	start_sshd
	cat >"$UCI/sshmux" <<-END
		config sshmux globals
		config server office
			option hostname 127.0.0.1
			option port $PORT
			option user $ME
			option IdentityFile $KEY
			list ssh_option 'KexAlgorithms curve25519-sha256'
		config server home
			option hostname home.example.org
			option enabled 0
	END
	cp "$T/known_hosts" "$T/etc/known_hosts"
	init start
	# shellcheck disable=SC2046	# words
	"$SSHMUX" $(sed -n 's/^command //p' "$PROCD/instances/office" | sed -e 1d -e '/^-y$/d') 2>"$T/master.log" &
	master=$!
	ends_later $master
	wait_for 20 "$SSHMUX" -F "$T/etc/servers" -O check office 2>/dev/null || give_up "a master for the views: $(cat "$T/master.log")"
}

# said PATTERN: what init printed, and its status
said() { like "$1" "$RC $OUT" "$2"; }

commands() {
	init report
	said "report: every server" '0 {"name":"office",*"state":"up"*{"name":"home",*"status":null}'
	init events office
	said "events" '0 {"event":"uplink-up"*'
	init events nosuch
	said "events: of nobody" "1 sshmux: there is no server 'nosuch'"
	init events '-O exit office'
	said "events: options are no name" "1 sshmux: there is no server '-O exit office'"
	init events '.*'
	said "events: a pattern is no name" "1 sshmux: there is no server '.[*]'"
	init reconnect office
	said "reconnect" "0*"
	works "reconnect: logged in again" wait_for 20 sh -c '"$@" | grep -q "\"logins\":2"' sh \
		"$BUSYBOX" ash "$TESTDIR/openwrt/rc.common" "$T/init" report
	init host_key 127.0.0.1 "$PORT"
	is "host_key: the fingerprint, nobody logs in" "$RC $OUT" "0 $(ssh-keygen -lf "$T/sshd_ed25519.pub" | cut -d' ' -f2)"
	init host_key 127.0.0.1 "$FREE"
	said "host_key: nobody there: why" "1 sshmux: 127.0.0.1: *refused*"
	init host_key '-oProxyCommand=x'
	said "host_key: a wrong host" "1 sshmux: '-oProxyCommand=x' is not a valid host"
	init host_key h 99999
	said "host_key: a wrong port" "1 sshmux: '99999' is not a number in 1-65535"
	init create_key new
	said "create_key: its public part" "0 *ssh-ed25519 AAAA*"
	public=$OUT
	is "create_key: is private" "$(stat -c %a "$T/etc/id_new")" 600
	init create_key new
	said "create_key: not over one that is there" "1 sshmux: there is a key $T/etc/id_new"
	init create_key '../x'
	said "create_key: a name is no path" "1 sshmux: '../x' is not a name for a key*"
	ssh-keygen -q -t ed25519 -N '' -f "$T/etc/id_openssh"
	init keys
	is "keys: those of dropbear and OpenSSH" "$OUT" "$T/etc/id_new $(echo "$public" | grep -o 'ssh-ed25519.*')
$T/etc/id_openssh $(cat "$T/etc/id_openssh.pub")"
}

# What a real master says is what the views are shown.
sample() {
	"$SSHMUX" -F "$T/etc/servers" -O forward -R 127.0.0.1:0:127.0.0.1:9 office >/dev/null
	mkfifo "$T/hold"
	exec 9<>"$T/hold"
	"$SSHMUX" -F "$T/etc/servers" office 'echo up; exec cat' <"$T/hold" >"$T/up" 9<&- &
	passenger=$!
	ends_later $passenger
	wait_for 20 has "$T/up" up
	init report
	echo "$OUT" >"$T/report"
	init events office
	echo "$OUT" >"$T/report.events"
}

drains() {
	init drain office
	said "drain: is done" "0*"
	works "drain: the master lives while a session does" kill -0 $master
	exec 9>&-
	wait $passenger
	wait_for 20 gone $master
	is "drain: then it ends" $? 0
}

further_options() {
	is "ssh_option: a line" "$(grep -c '^	KexAlgorithms curve25519-sha256$' "$T/run/office.conf")" 1
	for line in "Ciphers rot13" "LocalForwards 1 2" "ControlPath /x" "Host x" "Ciphers" "User x"; do
		printf '%s\n' 'config server office' 'option hostname h' "list ssh_option '$line'" >"$UCI/sshmux"
		init reload
		like "ssh_option: refused: $line" "$(cat "$LOGGED")" "*server 'office', option ssh_option: *is not started*"
	done
}

# --- its package ------------------------------------------------------------------------------

# packages: .ipk and .apk, for every processor, with the files that LuCI looks for
packages() {
	[ -r "$TOP/sshmux.1" ] || export SOURCE_DATE_EPOCH=1700000000
	for format in ipk apk; do
		works "$format: is built" "$TOP/port/openwrt/pack" $format luci "$T/dist"
		sleep 1
		(umask 0; TZ=Asia/Tokyo "$TOP/port/openwrt/pack" $format luci "$T/again") >"$T/works"
	done
	works "a package is the same, byte by byte, when built again" diff -r "$T/dist" "$T/again"
	mkdir -p "$T/ipk" "$T/apk"
	tar -xzf "$T"/dist/luci-app-sshmux_*_all.ipk -C "$T/ipk"
	tar -xzf "$T/ipk/control.tar.gz" -C "$T/ipk"
	is "ipk: files" "$(tar -tzf "$T/ipk/data.tar.gz" | grep -v '/$')" "./usr/share/luci/menu.d/luci-app-sshmux.json
./usr/share/rpcd/acl.d/luci-app-sshmux.json
./www/luci-static/resources/view/sshmux/servers.js
./www/luci-static/resources/view/sshmux/status.js"
	is "ipk: what it needs" "$(grep -e ^Depends -e ^Architecture "$T/ipk/control" | tr '\n' ' ')" \
		"Depends: luci-base, sshmux Architecture: all "
	is "ipk: after an installation LuCI's menu is made anew" "$(grep -c 'rm -f /tmp/luci-indexcache' "$T/ipk/postinst")" 1
	works "ipk: scripts" "$BUSYBOX" ash -c 'ash -n "$0/postinst" && ash -n "$0/prerm"' "$T/ipk"
	tar --warning=no-unknown-keyword -xzf "$T"/dist/luci-app-sshmux-*_noarch.apk -C "$T/apk" 2>/dev/null
	is "apk: what it needs" "$(grep -e ^depend -e ^arch "$T/apk/.PKGINFO" | tr '\n' ' ')" \
		"arch = noarch depend = luci-base depend = sshmux "
	works "apk: the same files" diff -r "$TOP/port/openwrt/luci-app-sshmux/htdocs/luci-static" "$T/apk/www/luci-static"
}

# --- in a browser -----------------------------------------------------------------------------

views() {
	for program in chromium-headless-shell chromium google-chrome; do
		browser=$(command -v $program) && break
	done
	if [ -z "$browser" ]; then
		skip "the views in a browser" "no chromium-headless-shell, and it could not be installed"
		return
	fi
	PYTHONDONTWRITEBYTECODE=1 timeout 300 python3 "$TESTDIR/openwrt/luci/views.py" "$browser" "$T/browser" "$T/report" \
		${PICTURES:+"$PICTURES"} >"$T/views" 2>"$T/views.err" || not_ok "the views: $(tail -n 3 "$T/views.err")"
	while read -r line; do
		case $line in
		'ok '*) ok "${line#ok * - }" ;;
		'not ok '*) not_ok "${line#not ok * - }" ;;
		*) echo "$line" ;;
		esac
	done <"$T/views"
}

FREE=$(random_port)
while listening "$FREE"; do FREE=$(random_port); done
set_up
files
up
commands
sample
drains
further_options
packages
views
stop_server
finish
