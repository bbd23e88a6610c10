# Algorithms: what ssh_config's lists come to, beside `ssh -G`; servers that have
# little choice, old ones and new ones.
# shellcheck shell=sh disable=SC2016,SC2086,SC2119,SC2120,SC2153
. "$TESTDIR/lib.sh"
. "$TESTDIR/peers.sh"

home
: >"$T/empty"

# known_names KEYWORD: every name that both programs have, one a line
known_names() {
	{ ssh -Q "$1"; [ "$1" != HostKeyAlgorithms ] || ssh -Q PubkeyAcceptedAlgorithms; } | sort -u >"$T/theirs"
	"$PROGRAM" -Q "$1" | sort -u | comm -12 - "$T/theirs"
}

# list_of PROGRAM KEYWORD FILE: its names of $T/both, one a line
list_of() {
	at_home "$1" -F "$3" -G x 2>"$T/err" </dev/null | grep -i "^$2 " | cut -d' ' -f2 | tr ',' '\n' |
		grep -Fxf "$T/both"
}

# same_list KEYWORD LIST [LINE]: both programs make the same of it.  The order of a
# default, and of what a pattern finds, is each version's own, that of a list counts.
same_list() {
	known_names "$1" >"$T/both"
	[ -s "$T/both" ] || { not_ok "-Q $1"; return; }
	printf '%s %s\n' "$1" "$2" >"$T/list.conf"
	order="cat"
	case $2 in [+-]* | *\**) order="sort" ;; ^*) order='head -n 1' ;; esac
	list_of ssh "$1" "$T/list.conf" | $order >"$T/want"
	list_of "$PROGRAM" "$1" "$T/list.conf" | $order >"$T/got"
	is "-G: $1 $2" "$(cat "$T/got") $(head -n 1 "$T/err")" "$(cat "$T/want") "
}

lists() {
	[ -n "$PROGRAM" ] && [ "$MASTER" != stock ] || return 0
	for list in aes256-ctr,aes128-ctr +aes128-ctr -aes128-ctr '-aes*' '-*-gcm*,chacha*' ^aes256-ctr \
		^aes256-ctr,aes128-ctr +3des-cbc,aes128-cbc aes256-gcm@openssh.com,aes256-ctr; do
		same_list Ciphers "$list"
	done
	for list in hmac-sha2-512 -hmac-sha1 '-*sha1*' '-hmac-sha?-*' ^hmac-sha2-512 +hmac-md5 \
		hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,umac-128-etm@openssh.com \
		hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-512,hmac-sha2-256,umac-128@openssh.com; do
		same_list MACs "$list"
	done
	for list in curve25519-sha256 '-ecdh*' '-*sha1,*-nistp???' ^curve25519-sha256@libssh.org \
		+diffie-hellman-group1-sha1,diffie-hellman-group14-sha1 +diffie-hellman-group-exchange-sha1 \
		sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,diffie-hellman-group-exchange-sha256 \
		curve25519-sha256@libssh.org,ecdh-sha2-nistp521,ecdh-sha2-nistp384,ecdh-sha2-nistp256,diffie-hellman-group-exchange-sha256; do
		same_list KexAlgorithms "$list"
	done
	keys=sk-ssh-ed25519-cert-v01@openssh.com,ssh-ed25519-cert-v01@openssh.com,rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com,sk-ssh-ed25519@openssh.com,ssh-ed25519,rsa-sha2-512,rsa-sha2-256
	for word in HostKeyAlgorithms PubkeyAcceptedAlgorithms; do
		for list in $keys ssh-ed25519 rsa-sha2-512 rsa-sha2-256,rsa-sha2-512 +ssh-rsa '+ssh-*' '-ecdsa*' \
			'-*-cert-v01@openssh.com' '^rsa-sha2-512' 'ssh-ed25519*' '^rsa*,ssh-ed25519' +ssh-dss '*'; do
			same_list $word "$list"
		done
	done
	printf 'PubkeyAcceptedKeyTypes +ssh-rsa\n' >"$T/list.conf"
	like "an older word" "$("$PROGRAM" -F "$T/list.conf" -G x | grep '^pubkeyaccepted')" '*,ssh-rsa'
}

# Files that are published for whole sites: nothing in them may end the program.
whole_files() {
	[ "$MASTER" != stock ] || return 0
	cat >"$T/hardened" <<-'END'
		Host *
		 Ciphers aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes192-ctr,aes128-gcm@openssh.com,aes128-ctr
		 KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,gss-curve25519-sha256-,diffie-hellman-group16-sha512,gss-group16-sha512-,diffie-hellman-group18-sha512,diffie-hellman-group-exchange-sha256
		 MACs hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,umac-128-etm@openssh.com
		 HostKeyAlgorithms sk-ssh-ed25519-cert-v01@openssh.com,ssh-ed25519-cert-v01@openssh.com,rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com,sk-ssh-ed25519@openssh.com,ssh-ed25519,rsa-sha2-512,rsa-sha2-256
		 CASignatureAlgorithms sk-ssh-ed25519@openssh.com,ssh-ed25519,rsa-sha2-512,rsa-sha2-256
		 GSSAPIKexAlgorithms gss-curve25519-sha256-,gss-group16-sha512-
		 HostbasedAcceptedAlgorithms sk-ssh-ed25519-cert-v01@openssh.com,ssh-ed25519,rsa-sha2-512
		 PubkeyAcceptedAlgorithms sk-ssh-ed25519-cert-v01@openssh.com,ssh-ed25519-cert-v01@openssh.com,rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com,sk-ssh-ed25519@openssh.com,ssh-ed25519,rsa-sha2-512,rsa-sha2-256
	END
	cat >"$T/aged" <<-'END'
		Host *
		 KexAlgorithms curve25519-sha256@libssh.org,diffie-hellman-group-exchange-sha256
		 Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr,arcfour256
		 MACs hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-ripemd160-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-512,hmac-sha2-256,hmac-ripemd160
		 HostKeyAlgorithms ssh-ed25519-cert-v01@openssh.com,ssh-rsa-cert-v01@openssh.com,ssh-rsa-cert-v00@openssh.com,ssh-ed25519,ssh-rsa
	END
	for file in hardened aged; do
		usual
		is "the lists of a $file site" "$("$SSHMUX" -F "$T/$file" -S none $USUAL -p "$PORT" -l "$ME" \
			127.0.0.1 'echo in' 2>&1 </dev/null)" in
	done
	like "what is passed over is told at -v" "$("$SSHMUX" -F "$T/hardened" -v -G x 2>&1)" \
		'*umac-128-etm@openssh.com is not in this build*'
	printf 'Host x\n\n Ciphers aes256-crt\n' >"$T/typo"
	is "a name that nobody knows" "$("$SSHMUX" -F "$T/typo" -G x 2>&1; echo $?)" \
		"sshmux: $T/typo line 3: Ciphers: unknown cipher aes256-crt
255"
	printf 'MACs umac-64@openssh.com\n' >"$T/typo"
	like "nothing is left" "$("$SSHMUX" -F "$T/typo" -G x 2>&1; echo $?)" \
		"*$T/typo line 1: MACs: *in this build*255"
	is "-Q, an unknown word" "$("$SSHMUX" -Q nothing 2>&1; echo $?)" 'sshmux: Unsupported query "nothing"
255'
	is "-Q protocol-version" "$("$SSHMUX" -Q protocol-version)" 2
	for word in cipher mac kex key sig help; do
		works "-Q $word" sh -c '[ "$("$1" -Q "$2" | wc -l)" -ge 3 ]' sh "$SSHMUX" $word
	done
}

# reaches NAME WORD...: logs in, and 1.5 MB come back as they went, twice through a
# change of keys
head -c 1500000 /dev/urandom >"$T/data"
reaches() {
	reaches_name=$1
	shift
	if start_master -o RekeyLimit=500K "$@"; then
		is "$reaches_name" "$(sx cat <"$T/data" | sum)" "$(sum "$T/data")"
	else
		not_ok "$reaches_name"
	fi
	stop_master
}

# fails_with NAME PATTERN WORD...: no login, and that is said
fails_with() {
	fails_name=$1 fails_want=$2
	shift 2
	usual
	like "$fails_name" "$("$PROGRAM" -F none -S none "$@" $USUAL -p "$PORT" -l "$ME" 127.0.0.1 true 2>&1 </dev/null)" "$fails_want"
}

# with LINE...: another server, configured so
with() {
	stop_server
	start_sshd "$@"
}

router() { "$SSHMUX" --version | grep -q router; }

servers() {
	for mac in hmac-sha2-256-etm@openssh.com hmac-sha2-512-etm@openssh.com hmac-sha1-etm@openssh.com \
		hmac-sha2-512 hmac-sha1; do
		with 'Ciphers aes256-ctr,aes128-ctr' "MACs $mac"
		reaches "a server with $mac alone"
	done
	need_master
	[ "$MASTER" = stock ] || like "conninfo names the MAC" "$(mx -O conninfo 2>&1)" '*mac hmac-sha1*'
	stop_master
	with 'Ciphers aes192-ctr' 'MACs hmac-sha2-256-etm@openssh.com'
	reaches "a server with aes192-ctr alone"
	[ "$MASTER" = stock ] || fails_with "ciphers: what it offers" '*no matching cipher found. Their offer: aes192-ctr*' -c aes256-ctr
	[ "$MASTER" = stock ] || fails_with "MACs: what it offers" \
		'*no matching MAC found. Their offer: hmac-sha2-256-etm@openssh.com*' -m hmac-sha2-256
	kept=$SSHD_KEYS
	SSHD_KEYS=$T/host-rsa
	[ -e "$SSHD_KEYS" ] || ssh-keygen -q -t rsa -b 2048 -N '' -f "$SSHD_KEYS"
	with 'HostKeyAlgorithms rsa-sha2-512'
	reaches "a host key by rsa-sha2-512 alone"
	reaches "a host key by rsa-sha2-512, asked for" -o HostKeyAlgorithms=rsa-sha2-512
	[ "$MASTER" = stock ] || fails_with "host keys: what it offers" \
		'*no matching host key type found. Their offer: rsa-sha2-512*' -o HostKeyAlgorithms=rsa-sha2-256
	with 'HostKeyAlgorithms rsa-sha2-256'
	reaches "a host key by rsa-sha2-256 alone"
	with 'HostKeyAlgorithms ssh-rsa'
	reaches "a host key by ssh-rsa, asked for" -o HostKeyAlgorithms=+ssh-rsa
	fails_with "a host key by ssh-rsa, not asked for" '*no matching host key type found. Their offer: ssh-rsa*'
	SSHD_KEYS=$kept
	with 'KexAlgorithms diffie-hellman-group18-sha512'
	[ "$MASTER" = stock ] || fails_with "key exchange: what it offers" \
		'*no matching key exchange method found. Their offer: *diffie-hellman-group18-sha512*'
	if ! router; then
		with 'KexAlgorithms diffie-hellman-group14-sha1'
		reaches "an old key exchange, asked for" -o KexAlgorithms=+diffie-hellman-group14-sha1
		fails_with "an old key exchange, not asked for" '*no matching key exchange method found*'
	fi
}

# The user's RSA keys
user_keys() {
	kept=$KEY
	KEY=$T/user-rsa
	ssh-keygen -q -t rsa -b 2048 -N '' -f "$KEY"
	cat "$KEY.pub" >>"$T/home/.ssh/authorized_keys"
	for algorithm in rsa-sha2-512 rsa-sha2-256; do
		with "PubkeyAcceptedAlgorithms $algorithm"
		# sshd of 9.2 lists both whatever it takes: ssh's first choice decides
		[ $algorithm = rsa-sha2-256 ] || reaches "a user's key by $algorithm alone"
		reaches "a user's key by $algorithm, asked for" -o PubkeyAcceptedAlgorithms=$algorithm
	done
	with 'PubkeyAcceptedAlgorithms ssh-rsa'
	reaches "a user's key by ssh-rsa, asked for" -o PubkeyAcceptedAlgorithms=ssh-rsa
	with
	fails_with "a user's key that PubkeyAcceptedAlgorithms leaves out" '*Permission denied*' \
		-o PubkeyAcceptedAlgorithms=ssh-ed25519
	with 'PubkeyAcceptedAlgorithms rsa-sha2-512'
	rm -f "$T/agent"
	ssh-agent -D -a "$T/agent" >"$T/out" 2>&1 &
	ends_later $!
	wait_for 10 test -S "$T/agent"
	SSH_AUTH_SOCK=$T/agent ssh-add -q "$KEY" 2>"$T/err"
	KEY=$T/user-rsa.pub
	reaches "an agent's key by rsa-sha2-512 alone, named by its .pub" -o IdentityAgent="$T/agent" -o IdentitiesOnly=yes
	KEY=$kept
}

start_sshd
lists
whole_files
servers
user_keys
finish
