#!/bin/sh
# test.sh PACKAGE VERSION - what a feed's tests run where the package is installed.
#
# With the dropbear that is there: a master, a command through it, its end.
set -eu
[ "$1" = sshmux ] || exit 0

fail() { echo "test.sh: $*" >&2; exit 1; }

sshmux --version 2>&1 | grep -F "sshmux $2" || fail "the version is not $2"
sshmux -S /tmp/none -O check 2>/dev/null && fail "there is a master where none is"
[ "$(command -v dropbear)" ] && [ "$(command -v dropbearkey)" ] || exit 0

dir=$(mktemp -d)
server='' master=''
clean_up() {
	for p in $master $server; do kill "$p" 2>/dev/null || :; done
	[ ! -e "$dir/keys" ] || cp "$dir/keys" /etc/dropbear/authorized_keys
	rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

# A stock dropbear looks for root's keys here.
mkdir -p /etc/dropbear
touch /etc/dropbear/authorized_keys
cp /etc/dropbear/authorized_keys "$dir/keys"
for key in host user; do dropbearkey -t ed25519 -f "$dir/$key" >/dev/null 2>&1; done
dropbearkey -y -f "$dir/user" | grep '^ssh-' >>/etc/dropbear/authorized_keys
dropbear -F -E -r "$dir/host" -p 127.0.0.1:2722 2>"$dir/server.log" &
server=$!
sshmux -M -N -S "$dir/ctl" -i "$dir/user" -p 2722 -o StrictHostKeyChecking=accept-new \
	-o UserKnownHostsFile="$dir/known_hosts" -o BatchMode=yes -o Reconnect=always \
	root@127.0.0.1 2>"$dir/master.log" &
master=$!
said=$(sshmux --wait=30 --timeout=60 -S "$dir/ctl" x 'echo out; exit 7') && status=0 || status=$?
[ "$said $status" = "out 7" ] || { cat "$dir"/*.log; fail "the command said '$said', status $status"; }
sshmux -S "$dir/ctl" -O exit
wait $master || fail "the master ended with $?"
master=
