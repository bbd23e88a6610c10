# What goes wrong at a login or at the control path: one clear line that names
# the thing, status 255, nothing left behind.
# shellcheck shell=sh disable=SC2016,SC2034,SC2059,SC2086,SC2153
. "$TESTDIR/lib.sh"

# fails NAME PATTERN WORD...: a master with these options
fails() {
	fails_name=$1 fails_text=$2
	shift 2
	usual
	(run_master "$@" $USUAL "${HOST:-127.0.0.1}") >"$T/out" 2>"$T/err" </dev/null &
	fails_pid=$!
	if ! wait_for 40 gone $fails_pid; then
		kill -9 $fails_pid
		note "still running after 40 s"
	fi
	wait $fails_pid 2>/dev/null
	is "$fails_name: status" $? 255
	[ "$MASTER" != stock ] || return 0
	case $fails_text in
	*refused*) emulated mips "$fails_name: says so" "$NO_SO_ERROR" ;;
	*) false ;;
	esac || like "$fails_name: says so" "$(cat "$T/err")" "$fails_text"
	is "$fails_name: in one line" "$(lines "$T/err")" "${LINES_SAID:-1}"
	is "$fails_name: nothing on stdout" "$(cat "$T/out")" ''
	if [ -z "$KEEPS" ]; then
		is "$fails_name: nothing left" "$(find "$T" -maxdepth 2 -name 'c*')" ''
	fi
}

answers() { ssh -F none -S "$CTL" -O check x 2>"$T/err"; }

# In place of the test's known_hosts: FILE
trusting() { cp "$1" "$T/known_hosts"; }

logins() {
	cp "$T/known_hosts" "$T/right"
	rm -f "$T/other" "$T/locked"
	ssh-keygen -q -t ed25519 -N '' -f "$T/other"

	known "$T/other.pub" >"$T/known_hosts"
	fails "wrong host key" '*host key*127.0.0.1*'
	fails "wrong host key, accept-new" '*host key*' -o StrictHostKeyChecking=accept-new
	is "wrong host key: known_hosts is untouched" "$(cat "$T/known_hosts")" "$(known "$T/other.pub")"

	: >"$T/known_hosts"
	fails "unknown host" '*host key*127.0.0.1*'
	fails "unknown host, ask without a terminal" '*host key*' -o StrictHostKeyChecking=ask \
		-o BatchMode=no
	is "unknown host: known_hosts is untouched" "$(size "$T/known_hosts")" 0
	trusting "$T/right"

	sed 's/^/@revoked /' "$T/right" >"$T/revoked"
	cat "$T/right" "$T/revoked" >"$T/known_hosts"
	fails "revoked host key" '*127.0.0.1*revoked*'
	# (OpenSSH goes on with a warning.)
	[ "$MASTER" = stock ] ||
		fails "revoked host key, no checking" '*revoked*' -o StrictHostKeyChecking=no
	sed 's/^/@cert-authority /' "$T/right" >"$T/known_hosts"
	fails "a cert-authority line is no host key" '*host key*'
	trusting "$T/right"

	kept=$KEY
	KEY=$T/other
	fails "refused key" "*$ME*127.0.0.1*"
	# A key that cannot be used is named, and then there is the login's own end.
	LINES_SAID=2
	KEY=$T/no-such-key
	fails "no key file" '*no-such-key*'
	head -c 300 /dev/urandom >"$T/garbage"
	KEY=$T/garbage
	fails "a key file of garbage" '*garbage*'
	KEY=$kept
	ssh-keygen -q -t ed25519 -N secret -f "$T/locked"
	KEY=$T/locked
	fails "an encrypted key without a terminal" '*locked*'
	LINES_SAID=
	KEY=$kept

	if [ "$MASTER" != stock ]; then
		fails "another key is pinned" '*127.0.0.1*' \
			-o HostKeyFingerprint="$(ssh-keygen -lf "$T/other.pub" | cut -d' ' -f2)"
	fi
}

network() {
	kept=$PORT
	while PORT=$(random_port) && listening "$PORT"; do :; done
	fails "no server" "*127.0.0.1*$PORT*refused*"
	HOST=no-such-host.invalid
	fails "unknown name" '*no-such-host.invalid*'
	HOST=
	# A backlog of one that is full: connections are not answered.
	black_hole
	began=$(date +%s)
	fails "a server that never answers" "*127.0.0.1*tim*" -o ConnectTimeout=2
	took=$(($(date +%s) - began))
	works "ConnectTimeout=2 took $took s" test $took -le 8
	end $hole
	PORT=$kept
}

# A TCP server that accepts and says nothing: a stopped sshd
black_hole() {
	start_sshd
	hole=$SERVER_PID
	kill -STOP $hole
}

control_paths() {
	mkdir "$T/locked-dir"
	kept=$CTL
	CTL=$T/no-dir/c
	fails "no such directory" "*$CTL*"
	if [ "$(id -u)" != 0 ]; then
		chmod 500 "$T/locked-dir"
		CTL=$T/locked-dir/c
		fails "a directory that cannot be written" "*$CTL*"
	fi
	CTL=$T/$(head -c 100 /dev/zero | tr '\0' c)
	fails "a path that is too long" '*too long*'
	CTL=$kept
	if [ "$MASTER" = stock ]; then return; fi

	KEEPS=1
	echo precious >"$CTL"
	fails "a file at the control path" "*$CTL*"
	is "the file is untouched" "$(cat "$CTL")" precious
	rm "$CTL"
	mkdir "$CTL"
	fails "a directory at the control path" "*$CTL*"
	rmdir "$CTL"
	ln -s "$T/elsewhere" "$CTL"
	fails "a dangling link at the control path" "*$CTL*"
	rm "$CTL"
	mkfifo "$CTL"
	fails "a FIFO at the control path" "*$CTL*"
	rm "$CTL"

	need_master
	first=$MASTER_PID
	fails "a live master there" "*$CTL*"
	alive "and it goes on"
	is "nothing but its socket" "$(find "$T" -maxdepth 1 -name 'c*')" "$CTL"

	kill -9 $first
	wait $first 2>/dev/null
	works "a killed master leaves its socket" test -S "$CTL"
	KEEPS=
	start_master
	works "a stale socket is replaced" wait_for 20 answers
	alive "by a master that works"
	rm "$CTL"
	echo other >"$CTL"
	stop_master
	is "what is not ours any more stays at the end" "$(cat "$CTL")" other
	rm "$CTL"
}

options() {
	[ "$MASTER" != stock ] || return
	fails "an unknown option" '*NoSuchOption*' -o NoSuchOption=yes
	fails "a bad value" '*ConnectTimeout*' -o ConnectTimeout=soon
	fails "a bad cipher" '*no-such-cipher*' -c no-such-cipher
}

# client_fails NAME STATUS PATTERN WORD...: our client
client_fails() {
	client_name=$1 client_status=$2 client_text=$3
	shift 3
	timeout 20 "$SSHMUX" "$@" >"$T/out" 2>"$T/err" </dev/null
	is "$client_name: status" $? "$client_status"
	like "$client_name: says so" "$(cat "$T/err")" "$client_text"
	is "$client_name: in one line" "$(lines "$T/err")" 1
}

clients() {
	[ -x "$SSHMUX" ] || return
	client_fails "client, no socket" 75 "*$T/none*No such file*" -o Fallback=no -S "$T/none" x true
	echo file >"$T/file"
	client_fails "client, a file" 75 "*$T/file*" -o Fallback=no -S "$T/file" x true
	long=$T/$(head -c 120 /dev/zero | tr '\0' c)
	client_fails "client, path too long" 255 '*too long*' -S "$long" x true
	need_master
	kill -9 $MASTER_PID
	wait $MASTER_PID 2>/dev/null
	client_fails "client, a stale socket" 75 "*$CTL*refused*" -o Fallback=no -S "$CTL" x true
	client_fails "-O check, a stale socket" 255 "*$CTL*refused*" -S "$CTL" -O check x
	rm "$CTL"
}

# MaxSessions: refused with a reason, the others unharmed.  Our master lets the
# request wait first; our client tells that the command has not started.
too_many() {
	start_sshd 'MaxSessions 1'
	case $MASTER in
	stock) need_master ;;
	*) need_master -o SessionWait=2 ;;
	esac
	mkfifo "$T/hold"
	(exec_client x 'echo up; cat' <"$T/hold" >"$T/up") &
	holder=$!
	ends_later $holder
	exec 9>"$T/hold"
	wait_for 20 has "$T/up" up
	for CLIENT in $CLIENTS; do
		cx 'echo never' >"$T/out" 2>"$T/err" </dev/null 9>&-
		rc=$?
		case $MASTER-$CLIENT in
		sshmux-sshmux) want=75 reason='refused by peer' ;;
		sshmux-*) want=255 reason='refused by peer' ;;
		*) want=255 reason='Session open refused by peer' ;;
		esac
		is "$CLIENT, one session too many" "$rc $(cat "$T/out")" "$want "
		like "$CLIENT, one session too many: the reason" "$(cat "$T/err")" "*$reason*"
	done
	exec 9>&-
	wait $holder
	is "the first session is unharmed" $? 0
	stop_master
	stop_server
}

# What a server of odd messages is told to be, in plain words
u32() { printf "$(printf '\\%03o\\%03o\\%03o\\%03o' $(($1 >> 24 & 255)) $(($1 >> 16 & 255)) $(($1 >> 8 & 255)) $(($1 & 255)))"; }
text() { u32 ${#1}; printf %s "$1"; }
# packet FILE: its bytes as an SSH packet without encryption
packet() {
	n=$(size "$1")
	pad=$((16 - (n + 5) % 8))
	u32 $((n + pad + 1))
	printf "$(printf '\\%03o' $pad)"
	cat "$1"
	head -c $pad /dev/zero
}
plain_words() {
	{
		printf '\024'
		head -c 16 /dev/zero
		for list in curve25519-sha256 ssh-rsa,rsa-sha2-256,ssh-ed25519 aes256-ctr aes256-ctr hmac-sha2-256 hmac-sha2-256 \
			none none '' ''; do text "$list"; done
		head -c 5 /dev/zero
	} >"$T/kexinit"
	printf '\037' >"$T/reply.empty"
	{ printf '\037'; u32 25; text ssh-ed25519; text 0123456789; } >"$T/reply.short"
	{ printf '\037'; u32 1046; text ssh-rsa; u32 3; printf '\001\000\001'; u32 1024; head -c 1024 /dev/urandom; text sig; text sig; } \
		>"$T/reply.rsa"
	for reply in empty:"*server*" short:"*server*" \
		rsa:"*its RSA host key has more than 4096 bits, which is not supported*"; do
		what=${reply%%:*}
		{ printf 'SSH-2.0-odd\r\n'; packet "$T/kexinit"; packet "$T/reply.$what"; } >"$T/odd"
		fails "a key exchange of a server: $what" "${reply#*:}" -o ProxyCommand="cat $T/odd; cat >/dev/null" -o StrictHostKeyChecking=no
		[ "$MASTER" = stock ] || like "$what: no word of a library" "$(grep -c 'Bad [bK]' "$T/err")" 0
	done
}

KEEPS=
for server in sshd dropbear; do
	LABEL="$server: "
	start_server $server
	logins
	if [ $server = sshd ]; then
		control_paths
		options
		clients
	fi
	stop_server
done
LABEL=
start_dropbear
network
plain_words
too_many
finish
