# SOCKS: dynamic forwards here and at the server, by curl and word for word.
# shellcheck shell=sh disable=SC2016,SC2059,SC2034,SC2086,SC2153
. "$TESTDIR/lib.sh"

# serve NAME ADDRESS COMMAND...: answers connections; its port in SERVED
serve() {
	serve_name=$1
	shift
	"$NET" serve "$1" "$T/$serve_name.port" sh -c "$2" 2>/dev/null &
	SERVER_OF=$!
	ends_later $SERVER_OF
	wait_for 10 test -s "$T/$serve_name.port" || give_up "the $serve_name server starts"
	SERVED=$(cat "$T/$serve_name.port")
}

free_port() {
	FREE=$(random_port)
	while listening "$FREE"; do FREE=$(random_port); done
}

ask() { ssh -F none -S "$CTL" -O "$@" x </dev/null; }

# fetched NAME OPTION PROXY HOST: curl gets the data through the proxy
fetched() {
	is "$1" "$(curl -sS --max-time 60 "$2" "$3" "http://$4:$HTTP/" 2>"$T/curl.err" | sum)" "$(sum "$T/data")"
	[ ! -s "$T/curl.err" ] || note "$(cat "$T/curl.err")"
}

# through NAME WORD...: net speaks SOCKS with those words
through() {
	through_name=$1
	shift
	is "$through_name" "$("$NET" "$@" <"$T/data" 2>"$T/net.err" | sum)" "$(sum "$T/data")"
	[ ! -s "$T/net.err" ] || note "$(cat "$T/net.err")"
}

# silent NAME WORDS: those bytes (octal) to the proxy; it closes without a word
silent() {
	is "$1" "$(printf "$2" | timeout 20 "$NET" -on call $PROXY 2>/dev/null | wc -c; echo)" "${3:-0}"
}

speaks() {
	fetched "$1: curl, SOCKS 5, by address" --socks5 $PROXY 127.0.0.1
	fetched "$1: curl, SOCKS 5, by name" --socks5-hostname $PROXY localhost
	fetched "$1: curl, SOCKS 4, by address" --socks4 $PROXY 127.0.0.1
	fetched "$1: curl, SOCKS 4a, by name" --socks4a $PROXY localhost
	through "$1: SOCKS 4" -s4 127.0.0.1:$ECHO call $PROXY
	through "$1: SOCKS 4a" -s4a localhost:$ECHO call $PROXY
	through "$1: SOCKS 5, IPv4" -s5 127.0.0.1:$ECHO call $PROXY
	through "$1: SOCKS 5, name" -s5name localhost:$ECHO call $PROXY
	! have_ipv6 || through "$1: SOCKS 5, IPv6" -s5 "[::1]:$ECHO6" call $PROXY
	through "$1: greeting and request at once" -together -s5name localhost:$ECHO call $PROXY
	through "$1: byte for byte, SOCKS 5" -bytewise -s5name localhost:$ECHO call $PROXY
	through "$1: byte for byte, SOCKS 4a" -bytewise -s4a localhost:$ECHO call $PROXY
}

refuses() {
	silent "$1: another version" '\003\001'
	silent "$1: HTTP is none" 'GET / HTTP/1.0\r\n\r\n'
	silent "$1: SOCKS 4, BIND" '\004\002\000\026\177\000\000\001u\000'
	silent "$1: SOCKS 5 without the method \"no authentication\"" '\005\001\002'
	if ! differs "$1: SOCKS 5, BIND" "newer ones answer with an error, older may lose the method"; then
		silent "$1: SOCKS 5, BIND: nothing after the method" \
			'\005\001\000\005\002\000\001\177\000\000\001\000\026' 2
		silent "$1: SOCKS 5, an unknown kind of address" \
			'\005\001\000\005\001\000\002\177\000\000\001\000\026' 2
	fi
	is "$1: a refused target closes without a SOCKS error" "$(
		timeout 20 "$NET" -s4 127.0.0.1:$CLOSED call $PROXY 2>&1 </dev/null
	)" "net: SOCKS server closed the connection"
	is "$1: a name that is none closes likewise" "$(
		timeout 60 "$NET" -s4a name.invalid:80 call $PROXY 2>&1 </dev/null
	)" "net: SOCKS server closed the connection"
	through "$1: others are served all the while" -s4 127.0.0.1:$ECHO call $PROXY
}

head -c 3000000 /dev/urandom >"$T/data"
serve http 127.0.0.1:0 "while read -r line && [ \"\${line%?}\" ]; do :; done
	printf 'HTTP/1.0 200 OK\r\nContent-Length: 3000000\r\n\r\n'; exec cat '$T/data'"
HTTP=$SERVED
serve echo 127.0.0.1:0 'exec cat'
ECHO=$SERVED
! have_ipv6 || serve echo6 '[::1]:0' 'exec cat'
ECHO6=$SERVED
free_port
CLOSED=$FREE
for server in sshd dropbear; do
	LABEL="$server: "
	start_server $server
	need_master
	before=$(fds)
	free_port
	PROXY=127.0.0.1:$FREE
	is "SOCKS-set-up: -D" "$(ask forward -D $FREE 2>&1; echo $?)" 0
	speaks "SOCKS-local"
	refuses "SOCKS-refuse"
	plays "SOCKS-match: the connect fields of a dynamic forward" hello expect 1 4 ... \
		send 0x10000006 1 3 : $FREE :socks 0 expect 0x80000001 1
	is "SOCKS-cancel: -D" "$(ask cancel -D $FREE 2>&1; echo $?)" 0
	is "SOCKS-cancel: nothing listens" "$(listening $FREE; echo $?)" 1
	if ! differs "SOCKS-connect-host: a dynamic forward without one" "Port forwarding failed, by accident"; then
		plays "SOCKS-connect-host: a dynamic forward without one" hello expect 1 4 ... \
			send 0x10000006 1 3 : $FREE : 0 expect 0x80000001 1 \
			send 0x10000007 2 3 : $FREE : 0 expect 0x80000001 2
	fi
	LABEL="$server, at the server: "
	port=$(ask forward -R 0 2>"$T/err")
	is "SOCKS-remote: -R with a port alone" "$? $(cat "$T/err")" "0 "
	PROXY=127.0.0.1:$port
	speaks "SOCKS-remote"
	refuses "SOCKS-remote"
	is "SOCKS-remote: cancelled" "$(ask cancel -R 0 2>&1; echo $?)" 0
	if [ $server = sshd ] && ! differs "SOCKS-remote: by a unix socket" "it refuses the channel"; then
		is "SOCKS-remote: listening on a path" "$(ask forward -R "$T/r.s" 2>&1; echo $?)" 0
		PROXY=$T/r.s
		through "SOCKS-remote: by a unix socket" -s5name localhost:$ECHO call $PROXY
		is "SOCKS-remote: the path is cancelled" "$(ask cancel -R "$T/r.s" 2>&1; echo $?)" 0
	fi
	LABEL="$server: "
	same_fds "no descriptor left" "$before"
	stop_master
	need_master -o "PermitRemoteOpen=other:* localhost:$ECHO"
	PROXY=127.0.0.1:$(ask forward -R 0 2>/dev/null)
	through "PermitRemoteOpen: what is named" -s4a localhost:$ECHO call $PROXY
	for to in localhost:$CLOSED ocalhost:$ECHO 127.0.0.1:$ECHO; do
		is "PermitRemoteOpen: not $(echo $to | sed "s/$ECHO/ECHO/; s/$CLOSED/CLOSED/")" \
			"$(timeout 20 "$NET" -s4a $to call $PROXY 2>&1 </dev/null)" "net: SOCKS server closed the connection"
	done
	differs "PermitRemoteOpen: it is said" "at -v only" ||
		works "PermitRemoteOpen: it is said" grep -q 'open failed: administratively prohibited by PermitRemoteOpen' "$T/master.log"
	stop_master
	stop_server
done
finish
