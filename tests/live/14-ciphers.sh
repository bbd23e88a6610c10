# Ciphers: the known answers, then each cipher alone, and each way to go it that this
# CPU has, with 8 MiB each way through changes of keys.
# shellcheck shell=sh disable=SC2013,SC2016,SC2086,SC2119,SC2120,SC2153
. "$TESTDIR/lib.sh"
. "$TESTDIR/link.sh"
if [ "$MASTER" = stock ] || [ -n "${EMULATED:-}" ]; then
	skip "ciphers" "of this build for this CPU"
	finish
fi
home
answers=${UNIT%/*}/ciphers
ways=${UNIT%/*}/sshmux-ways
if ! [ -x "$answers" ]; then
	skip "ciphers" "not built: SODIUM=0, or a binary of another build"
	finish
fi
works "the known answers" sh -c '"$1" >"$2" 2>&1 || { grep "^not ok" "$2"; false; }' sh "$answers" "$T/answers"

rekeys() { "$SSHMUX" -S "$CTL" -O conninfo x | sed -n 's/.*rekey count \([0-9]*\).*/\1/p'; }

# both_ways NAME CIPHER: up and down, the connection with that cipher
both_ways() {
	name=$1 cipher=$2
	if ! start_master -v -o RekeyLimit=3M -o "Ciphers=$cipher"; then
		not_ok "$name: a master logs in"
		stop_master
		return
	fi
	like "$name: the cipher" "$("$SSHMUX" -S "$CTL" -O conninfo x)" "*cipher $cipher*"
	is "$name: up" "$(mx 'sha256sum | cut -d" " -f1' <"$T/data")" "$SUM"
	is "$name: down" "$(mx "cat $T/data" </dev/null | sum)" "$SUM"
	works "$name: keys changed in the middle ($(rekeys))" test "$(rekeys)" -ge 3
	stop_master
}

# damaged NAME WORD...: one bit on its way from the server, with these options
damaged() {
	name="damaged, $1"
	shift
	if ! start_master "$@"; then
		not_ok "$name: a master logs in"
		stop_master
		return
	fi
	link damage 50000 >"$T/said"
	mx 'head -c 300000 /dev/zero; echo end' >"$T/got" 2>"$T/err" </dev/null
	is "$name: the session is lost" "$?" 255
	is "$name: nothing of what was damaged has come" "$(tr -d '\0' <"$T/got" | head -c 100 | od -An -c)" ''
	works "$name: it is said" grep -q 'lost: 127.0.0.1: message damaged on its way' "$T/master.log"
	stop_master
}

head -c 8388608 /dev/urandom >"$T/data"
SUM=$(sum "$T/data")
program=$SSHMUX
start_sshd 'RekeyLimit 1G' "Ciphers $(ssh -Q cipher | tr '\n' ',' | sed 's/,$//')"
for cipher in chacha20-poly1305@openssh.com aes128-gcm@openssh.com aes256-gcm@openssh.com aes256-ctr; do
	both_ways "sshd, $cipher" $cipher
done
kept=$PORT
cp "$T/known_hosts" "$T/kept"
start_link
for cipher in chacha20-poly1305@openssh.com aes128-gcm@openssh.com; do
	damaged $cipher -c $cipher
done
for mac in hmac-sha2-256-etm@openssh.com hmac-sha2-256; do
	damaged "aes256-ctr, $mac" -c aes256-ctr -o MACs=$mac
done
end "$LINK_PID"
PORT=$kept
cp "$T/kept" "$T/known_hosts"
if [ -x "$ways" ]; then
	SSHMUX=$ways
	for way in $(sed -n 's/^ok [0-9]* - chosen, \([a-z0-9-]*\), 0$/\1/p' "$T/answers"); do
		export CIPHER_WAYS=$way
		both_ways "sshd, chacha20-poly1305 by $way" chacha20-poly1305@openssh.com
	done
	for bits in 128 256; do
		for way in $(sed -n "s/^ok [0-9]* - chosen, \([a-z0-9-]*\), $((bits / 8))\$/\1/p" "$T/answers"); do
			export CIPHER_WAYS=$way
			both_ways "sshd, aes$bits-gcm by $way" aes$bits-gcm@openssh.com
		done
	done
	CIPHER_WAYS=none
	like "without AES instructions GCM comes last" "$("$SSHMUX" -G x | grep '^ciphers')" \
		'ciphers chacha20-*ctr,aes128-gcm*,aes256-gcm@openssh.com'
	unset CIPHER_WAYS
	SSHMUX=$program
fi
stop_server

start_dropbear
for cipher in chacha20-poly1305@openssh.com aes256-ctr; do
	both_ways "dropbear, $cipher" $cipher
done
finish
