# Names that cannot be resolved yet, addresses that change or vanish: in a network
# and with a hosts file of our own.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153,SC2154
if [ -z "${IN_NAMESPACE:-}" ] && unshare -n -m true 2>/dev/null && command -v ip >/dev/null; then
	IN_NAMESPACE=1
	export IN_NAMESPACE
	exec unshare -n -m sh "$0"
fi
. "$TESTDIR/lib.sh"
. "$TESTDIR/link.sh"
if [ "$MASTER" = stock ]; then
	skip "names and addresses" "OpenSSH's master ends with its connection"
	finish
fi
if [ -z "${IN_NAMESPACE:-}" ]; then
	skip "names and addresses" "needs root, unshare and ip: network and mount namespaces"
	finish
fi

ip link set lo up
: >"$T/hosts"
printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >"$T/resolv.conf"
if ! mount --bind "$T/hosts" /etc/hosts 2>"$T/err" || ! mount --bind "$T/resolv.conf" /etc/resolv.conf 2>"$T/err"; then
	skip "names and addresses" "cannot mount: $(cat "$T/err")"
	finish
fi
QUICK="-o ReconnectMin=1 -o ReconnectMax=2 -o SessionWait=100 -o ServerAliveInterval=1 -o ServerAliveCountMax=2"

any_host() { sed 's/^[^ ]* /* /' "$T/known_hosts" >"$T/any" && mv "$T/any" "$T/known_hosts"; }

# start_always WORD...: a master that need not have logged in
start_always() {
	start_master -v -o Reconnect=always $QUICK "$@" || not_ok "a master without a login"
}

names() {
	HOST=router.test
	printf '127.0.0.1 localhost\n' >"$T/hosts"
	if start_master -o Reconnect=yes $QUICK; then
		not_ok "Reconnect=yes: an unknown name is told at once"
	else
		reap_master
		like "Reconnect=yes: an unknown name is told at once" "$MASTER_RC $(cat "$T/master.log")" \
			"255 sshmux: router.test: Could not resolve hostname*"
	fi
	start_always
	works "Reconnect=always: no name yet" wait_for 30 says "connecting, try " "Could not resolve hostname"
	exit_of "$SSHMUX" -S "$CTL" -O check x
	is "-O check" $RC 75
	(exec_client x 'echo served' </dev/null >"$T/waited" 2>&1) &
	waiting=$!
	ends_later $waiting
	printf '127.0.0.1 localhost router.test\n' >"$T/hosts"
	comes_back "the name appears" 1
	wait $waiting
	is "who waited is served" "$?, $(cat "$T/waited")" "0, served"
	is "one line about it" "$(grep -c 'trying again' "$T/master.log")" 1

	# The name gets another address.
	end $LINK_PID
	wait_for 30 says reconnecting
	LINK_ADDRESS=127.0.0.2 LINK_ON=$LINK_PORT
	PORT=$SERVER_PORT
	start_link
	any_host
	LINK_ADDRESS='' LINK_ON=''
	printf '127.0.0.1 localhost\n127.0.0.2 router.test\n' >"$T/hosts"
	comes_back "the name has another address" 2
	alive "and is served there"
	# Two addresses, the first of which is dead
	end $LINK_PID
	wait_for 30 says reconnecting
	PORT=$SERVER_PORT LINK_ON=$LINK_PORT
	start_link
	any_host
	LINK_ON=
	printf '127.0.0.1 localhost\n127.0.0.2 router.test\n127.0.0.1 router.test\n' >"$T/hosts"
	comes_back "the second address of a name is tried" 3
	stop_master
	HOST=
}

# A name server that never answers: the control socket does.
silent_names() {
	cat "$T/resolv.conf" >"$T/resolv.old"
	printf 'nameserver 127.0.0.1\noptions timeout:20 attempts:5\n' >"$T/resolv.conf"
	"${MUXC%/*}/link" hole 127.0.0.1:53 "$T/hole" &
	hole=$!
	ends_later $hole
	wait_for 10 nonempty "$T/hole"
	HOST=silent.test
	start_always -o ConnectTimeout=200
	n=0
	while [ $n -lt 20 ]; do
		n=$((n + 1))
		exit_of "$SSHMUX" -S "$CTL" -O check x
		[ $RC = 75 ] || break
	done
	is "20 answers while a name is being resolved" $n 20
	works "it is still the first try" says "connecting, try 1"
	began=$(date +%s)
	stop_master
	is "it ends while a name is being resolved" $MASTER_RC 0
	works "at once" test $(($(date +%s) - began)) -lt 15
	start_always -o ConnectTimeout=2
	works "ConnectTimeout holds for names" wait_for 30 says "timed out"
	stop_master
	end $hole
	cat "$T/resolv.old" >"$T/resolv.conf"
	HOST=
}

# Our own address, and the server's, vanish.
addresses() {
	ip addr add 10.9.8.7/32 dev lo
	ip addr add 10.9.8.6/32 dev lo
	PORT=$SERVER_PORT
	end $LINK_PID
	LINK_ADDRESS=10.9.8.7
	start_link
	LINK_ADDRESS=
	any_host
	HOST=10.9.8.7
	need_master $QUICK
	ip addr del 10.9.8.7/32 dev lo
	works "the server's address is gone, and that is noticed" wait_for 60 says reconnecting
	works "the reason is told" wait_for 60 kick_says "nreachable"
	ip addr add 10.9.8.7/32 dev lo
	comes_back "it is there again" 2
	alive "and serves"
	stop_master
	need_master $QUICK -b 10.9.8.6
	ip addr del 10.9.8.6/32 dev lo
	works "our own address is gone, and that is noticed" wait_for 60 says reconnecting
	works "the reason of that is told" wait_for 60 kick_says_one "Cannot assign requested address" "Address not available"
	ip addr add 10.9.8.6/32 dev lo
	comes_back "we have it again" 2
	stop_master
	HOST=
}
kick_says() { kick; says "$1"; }
kick_says_one() { kick_says "$1" || says "$2"; }	# each libc has its words

start_sshd
start_link
any_host
for part in ${PARTS:-names silent_names addresses}; do $part; done
finish
