# sshmux in ssh's place under programs that few machines have: sshfs, borg, ansible.
# Only with BIG=1 (make check-more): what it needs is a lot to install.
# shellcheck shell=sh disable=SC2016,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"
. "$TESTDIR/peers.sh"

if [ -z "${BIG:-}" ]; then
	skip "sshfs, borg, ansible" "BIG=1 asks for them"
	finish
fi

# --- sshfs ---------------------------------------------------------------------------

mounted() { grep -q " $T/mount fuse.sshfs " /proc/mounts; }
not_mounted() { ! mounted; }

mounting() {
	if ! { : <>/dev/fuse; } 2>/dev/null; then
		skip "sshfs" "/dev/fuse cannot be opened"
		return
	fi
	mkdir -p "$T/mount" "$T/there"
	works "sshfs" p sshfs x:"$T/there" "$T/mount" -o cache=no
	if ! wait_for 20 mounted; then
		not_ok "sshfs: it is mounted"
		return
	fi
	works "sshfs: copies go there" cp -R "$T/data/." "$T/mount/"
	is "sshfs: the same" "$(files "$T/there")" "$(files "$T/data")"
	rm "$T/there/sub/link"	# not every kernel lets links be read through FUSE
	is "sshfs: the same read back" "$(files "$T/mount")" "$(files "$T/there")"
	# A file there, through the master that serves it: our client reads it, and stores it
	# there.  OpenSSH's master reads it itself, and waits for itself for ever.
	if [ "$MASTER" = stock ]; then
		skip "sshfs: a file of its own is sent through the same master" "OpenSSH differs: it hangs"
	else
		is "sshfs: a file of its own is sent through the same master" \
			"$(p ssh x sha256sum <"$T/mount/random" | cut -d' ' -f1)" "$(sum "$T/there/random")"
		p ssh x "cat $T/there/random" </dev/null >"$T/mount/again"
		is "sshfs: and one comes that way" "$(sum "$T/there/again")" "$(sum "$T/there/random")"
		rm "$T/mount/again"
	fi
	works "sshfs: a file is removed" rm "$T/mount/random"
	works "sshfs: it is gone" test ! -e "$T/there/random"
	works "sshfs: it ends" fusermount3 -u "$T/mount"
	works "sshfs: it is no longer mounted" wait_for 20 not_mounted
	rm -rf "$T/there"
}

# --- borg ----------------------------------------------------------------------------

BORG_BASE_DIR=$T/borg
BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
export BORG_BASE_DIR BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK BORG_RELOCATED_REPO_ACCESS_IS_OK
unset BORG_RSH BORG_REPO

backups() {
	repo=ssh://x$T/backup
	works "borg init" p borg init -e none "$repo"
	works "borg create" p borg create "$repo::one" "$T/data"
	echo more >>"$T/data/sub/zeros"
	works "borg create again" p borg create "$repo::two" "$T/data"
	is "borg list" "$(p borg list --short "$repo" 2>"$T/err" | tr '\n' ' ')" "one two "
	mkdir "$T/back"
	(cd "$T/back" && p borg extract "$repo::two") >"$T/out" 2>&1
	is "borg extract: status" $? 0
	is "borg extract: the same" "$(files "$T/back$T/data")" "$(files "$T/data")"
	works "borg check" p borg check "$repo"
	p borg list "ssh://x$T/no-backup" >"$T/out" 2>&1 </dev/null
	is "borg, no such repository: status" $? 2
	rm -rf "$T/back" "$T/backup" "$T/borg"
}

# --- ansible ---------------------------------------------------------------------------

ansibles() {
	p env LC_ALL=C.UTF-8 ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3 "$@" >"$T/out" 2>"$T/err" </dev/null
}

# answers NAME WORD...: ansible's ping by that way
answers() {
	answers_name=$1
	shift
	ansibles "$@" ansible -i x, all -m ping -e ansible_sftp_extra_args="-S$T/bin/ssh" \
		-e ansible_scp_extra_args="-S$T/bin/ssh"
	is "ansible ping, $answers_name" "$? $(grep -c '"ping": "pong"' "$T/out")" "0 1"
	grep -q pong "$T/out" || note "$(tail -n 4 "$T/out" "$T/err")"
}

commands() {
	answers "$1, sftp" ANSIBLE_SSH_TRANSFER_METHOD=sftp
	answers "$1, scp" ANSIBLE_SSH_TRANSFER_METHOD=scp
	answers "$1, dd" ANSIBLE_SSH_TRANSFER_METHOD=piped
	answers "$1, pipelining" ANSIBLE_PIPELINING=1
	ansibles ansible -i x, all -m raw -a 'echo "a  b"; exit 0'
	is "ansible raw, $1" "$? $(grep -c '^a  b' "$T/out")" "0 1"
	ansibles ansible -i x, all -m raw -a 'exit 3'
	is "ansible raw, $1, a command that fails" "$? $(grep -c 'rc=3' "$T/out")" "2 1"
}

own_masters() { find "$T/home/.ansible/cp" -type s 2>/dev/null; }
no_masters() { [ -z "$(own_masters)" ]; }

with_its_own_master() {
	in_place
	count_logins
	commands "its own master"
	is "ansible: one login for all" "$(logins)" 1
	is "ansible: one master" "$(own_masters | grep -c '')" 1
	socket=$(own_masters)
	printf '%s\n' '- hosts: all' '  gather_facts: no' '  tasks:' '  - raw: "true"' \
		'  - meta: reset_connection' '  - raw: "true"' >"$T/play.yml"
	find_master -S "$socket"
	before=$MASTER_PID
	ansibles ansible-playbook -i x, "$T/play.yml"
	is "ansible: reset_connection" $? 0
	works "ansible: reset_connection ends the master" wait_for 20 gone "$before"
	leaves "ansible: its master" -S "$socket"
	ansibles env ANSIBLE_SSH_ARGS='-o ControlMaster=auto -o ControlPersist=1' ansible -i x,jump, all -m raw -a true
	is "ansible: two hosts at once" $? 0
	works "ansible: its masters end by ControlPersist" wait_for 20 no_masters
	works "ansible: no connection is left" wait_for 20 no_connections
	ansibles ansible -i x, all -m ping -e ansible_port=1
	is "ansible: a host that is not there: status" $? 4
}

make_data
start_sshd
LABEL="a running master: "
need_master
in_place "ControlPath $CTL"
count_logins
mounting
backups
ANSIBLE_SSH_ARGS=
export ANSIBLE_SSH_ARGS
commands "a running master"
unset ANSIBLE_SSH_ARGS
is "nobody logged in beside the master" "$(logins)" 0
gives "-O exit" 0 '' ssh -O exit x </dev/null
reap_master
LABEL="auto: "
in_place "ControlPath $T/cm-%C" 'ControlMaster auto' 'ControlPersist 60'
count_logins
mounting
backups
is "one login for all" "$(logins)" 1
leaves "in the end"
LABEL=
with_its_own_master
stop_server
finish
