# What is left of private keys in the memory of a master: nothing.
# shellcheck shell=sh disable=SC2034,SC2086,SC2119,SC2120,SC2153
. "$TESTDIR/lib.sh"

if [ "$MASTER" = stock ] || grep -q __asan_init "$SSHMUX" || [ "${EMULATED:-none}" != none ]; then
	skip "secrets in memory" "of sshmux as it is built for use"
	finish
fi

home
cp "$KEY" "$T/ed25519"
ssh-keygen -q -t ecdsa -b 256 -N '' -f "$T/ecdsa"
ssh-keygen -q -t rsa -b 2048 -N '' -f "$T/rsa"
ssh-keygen -q -t rsa -b 2048 -m PEM -N '' -f "$T/rsa-pem"
ssh-keygen -q -t ed25519 -N '' -f "$T/stranger"
ssh-keygen -q -t rsa -b 2048 -N '' -f "$T/stranger-rsa"
cat "$T/ecdsa.pub" "$T/rsa.pub" "$T/rsa-pem.pub" >>"$T/home/.ssh/authorized_keys"
ALL="$T/ed25519 $T/ecdsa $T/rsa $T/rsa-pem $T/stranger $T/stranger-rsa"

scan() { /usr/bin/python3 "$TESTDIR/secrets.py" "$1" $ALL 2>&1; }

# clean NAME: nothing in the master
clean() {
	found=$(scan "$MASTER_PID")
	case $? in
	2) skip "$1" "its memory cannot be read: $found" ;;
	*) is "$1" "$found" '' ;;
	esac
}

scan self >"$T/out"
is "the search finds what is there" "$?" 1
start_sshd
for key in ed25519 ecdsa rsa rsa-pem; do
	KEY=$T/$key
	need_master
	clean "$key: as the login is over"
	is "$key: a session" "$(sx 'echo in' </dev/null 2>&1)" in
	clean "$key: after a session"
	stop_master
done
KEY=$T/rsa
need_master -i "$T/stranger" -i "$T/stranger-rsa"
clean "several keys, the last is the right one"
stop_master
DROPBEAR_PASSWORD=wrong
export DROPBEAR_PASSWORD
KEY=$T/stranger-rsa
usual
# always: after a login that failed it waits, and is there to be looked at
run_master -o Reconnect=always -o ReconnectMin=60 -i "$T/stranger" -o BatchMode=yes $USUAL 127.0.0.1 >"$T/out" 2>"$T/master.log" </dev/null &
MASTER_PID=$!
ends_later $MASTER_PID
wait_for 30 has "$T/master.log" 'Permission denied'
works "a login that fails" has "$T/master.log" 'Permission denied'
clean "a login that failed"
stop_master
unset DROPBEAR_PASSWORD
ssh-agent -D -a "$T/agent" >"$T/out" 2>&1 &
ends_later $!
wait_for 10 test -S "$T/agent"
SSH_AUTH_SOCK=$T/agent ssh-add -q "$T/rsa" "$T/ecdsa" 2>"$T/err"
KEY=$T/none
need_master -o IdentityAgent="$T/agent"
clean "an agent's key"
stop_master
finish
