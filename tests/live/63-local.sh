# LocalCommand: after each login of the master, and nobody waits for it.
# shellcheck shell=sh disable=SC1091,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

start_sshd
if [ "$MASTER" = stock ]; then
	skip "LocalCommand" "OpenSSH's master waits for it"
	finish
fi
need_master -o LocalCommand="echo %n %h %p %r %T >>$T/ran; exec sleep 20" -o PermitLocalCommand=yes -o Reconnect=yes -o ReconnectMin=1
works "it runs" wait_for 20 has "$T/ran" "^127.0.0.1 127.0.0.1 $PORT $ME NONE\$"
alive "the master does not wait for it"
for pid in $(connection_processes); do kill "$pid"; done
works "again after the next login" wait_for 60 has "$T/ran" NONE 2
stop_master
need_master -o LocalCommand="touch $T/not"
stop_master
is "not without PermitLocalCommand" "$(ls "$T/not" 2>/dev/null)" ""
finish
