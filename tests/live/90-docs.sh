# README.md and sshmux.1: every shell example is run on a private server, or
# parsed where it says so; options, keywords, commands, messages and limits in the
# text are those of the program; README.md has at most 280 lines.
#
# In README.md a block is ```sh (run, line by line), ```sh parse (parsed; what it
# makes is known to the Makefile), ```crontab (its commands are run) or ```ssh-config
# (the configuration that all the others are run with).  In the manual the examples
# are the displays of EXAMPLES; those that begin with Host are configurations.
# Before a run the server's name becomes 127.0.0.1, root becomes us, and /tmp,
# /var/run and /etc/sshmux become directories of the test.
# shellcheck shell=sh disable=SC2013,SC2016,SC2034,SC2086,SC2153,SC2154
. "$TESTDIR/lib.sh"

TOP=${TESTDIR%/*}
README=$TOP/README.md
MANUAL=$TOP/sshmux.1
SOURCE=$TOP/sshmux.c

if [ "$MASTER" = stock ]; then
	skip "the examples" "OpenSSH differs: the texts are about sshmux"
	finish
fi
if [ ! -r "$README" ] || [ ! -r "$MANUAL" ]; then
	skip "the examples" "README.md and sshmux.1 are not beside the tests"
	finish
fi

# --- taking the texts apart -----------------------------------------------------

# blocks INFO: the README's blocks with that info string, a line "#block" before each
blocks() {
	awk -v info="$1" '
		/^```/ { if (inside) inside = 0
			else { inside = $0 == "```" info; other = !inside; if (inside) print "#block"
				if (other) inside = 2 }
			next }
		inside == 1' "$README"
}

# The manual's examples, the same way
displays() {
	sed -n '/^\.Sh EXAMPLES/,/^\.Sh SEE/p' "$MANUAL" | awk '
		/^\.Bd/ { inside = 1; print "#block"; next }
		/^\.Ed/ { inside = 0 }
		inside' | sed 's/\\e/\\/g; s/\\-/-/g'
}

# Joins lines that a backslash or && continues.
joined() {
	awk '{ line = line $0 }
		/\\$/ { sub(/\\$/, " ", line); next }
		/&&$/ { line = line " "; next }
		{ print line; line = "" }'
}

# free_port: nobody listens there
free_port() {
	port=$(random_port)
	while listening "$port"; do port=$(random_port); done
	echo "$port"
}

# ours: the examples' names and ports become the test's
ours() {
	sed -e "s,/tmp/,@T@/tmp/,g" -e "s,/var/run/,$T/run/,g" -e "s,/etc/sshmux/,$T/etc/,g" \
		-e "s,root@server\.example\.org,$ME@127.0.0.1,g" -e "s,User root,User $ME," -e 's,server\.example\.org,127.0.0.1,g' \
		-e "s,localhost:22,localhost:$PORT,g" -e "s/\<8080:/$FREE1:/g" -e "s/\<1080\>/$FREE2/g" \
		-e "s/\<2222:/$FREE3:/g" -e "s,@T@,$T,g"
}

# --- a place to run them ----------------------------------------------------------

# program NAME WORD...: a program of that name, first in the PATH
program() {
	name=$1
	shift
	printf '#!/bin/sh\n%s\n' "$*" >"$T/bin/$name"
	chmod 755 "$T/bin/$name"
}

# configuration <BLOCK: what the examples are run with: the test's own server and
# key, and what is to be shown
configuration() {
	{
		printf '%s\n' "Port $PORT" 'BatchMode yes' 'StrictHostKeyChecking yes' \
			"UserKnownHostsFile $T/known_hosts" "IdentityFile $KEY"
		grep -v '^#block' | ours
	} >"$T/config"
}

# configured WHERE: every keyword of it is one of ours
configured() {
	is "$1: a configuration is shown" "$(grep -c '^Host ' "$T/config")" 2
	for name in $(sed -n 's/^Host //p' "$T/config"); do
		is "$1: all of the configuration of $name has an effect" \
			"$("$SSHMUX" -F "$T/config" -v -G "$name" 2>&1 | grep 'has no effect')" ""
	done
}

place() {
	FREE1=$(free_port)
	FREE2=$(free_port)
	FREE3=$(free_port)
	mkdir "$T/bin" "$T/run" "$T/tmp" "$T/etc" "$T/tmp/mount"
	printf '[localhost]:%s %s\n' "$PORT" "$(cut -d' ' -f2- "$T/known_hosts")" >>"$T/known_hosts"
	configuration </dev/null
	program sshmux "exec $SSHMUX -F $T/config \"\$@\""
	program ssh "exec $(command -v ssh) -F none -o ProxyCommand=false \"\$@\""
	program scp "case \" \$* \" in *' -S '*) exec $(command -v scp) \"\$@\" ;; esac" "
		exec $(command -v scp) -F none -S $T/bin/ssh \"\$@\""
	# What is not under test: the system's log, and waiting.
	program logger "cat >>$T/logged; echo \"\$*\" >>$T/logged"
	program sleep "case \$1 in [1-9][1-9]) echo \$1 >>$T/slept ;; *) exec $(command -v sleep) \$1 ;; esac"
	cp "$KEY" "$T/etc/id_ed25519"
	PATH=$T/bin:$PATH
	UPLINK=$T/run/uplink
	if command -v git >/dev/null; then git init -q --bare "$T/tmp/repo"; fi
}

uplink_up() { [ -S "$UPLINK" ]; }

# master LINE: runs a line that starts a master, in the background
master() {
	sh -c "exec $1" >"$T/master.out" 2>"$T/master.log" </dev/null &
	MASTER_PID=$!
	ends_later $MASTER_PID
	wait_for 30 uplink_up
}

restart() { uplink_up || master "sshmux -M -S $UPLINK -N 127.0.0.1"; }

# needs LINE: the program that LINE starts is not here, so it is only parsed
needs() {
	for word in rsync git borg sshfs ansible; do
		case " $1" in
		*" $word "*) command -v $word >/dev/null || return 0 ;;
		esac
	done
	case $1 in
	sshfs* | fusermount*) [ ! -w /dev/fuse ] || ! command -v sshfs >/dev/null ;;
	*) false ;;
	esac
}

# one WHERE LINE: runs one example
one() {
	text=$(printf '%s' "$2" | tr '\t' ' ' | cut -c1-90 | head -n 1)
	line=$(printf '%s\n' "$2" | ours)
	case $2 in
	'sshmux -M '*)
		end_master
		if master "$line"; then ok "$1: $text"; else
			not_ok "$1: $text"
			note "$(tail -n 4 "$T/master.log")"
		fi
		return ;;
	esac
	if ! printf '%s\n' "$line" | sh -n 2>"$T/err"; then
		not_ok "$1: $text"
		note "$(cat "$T/err")"
	elif needs "$2"; then
		ok "$1: (parsed) $text"
	else
		case $2 in
		*' -J '* | 'sshmux inside '*) emulated "" "$1: $text" "$NO_SELF" && return ;;
		esac
		restart
		printf '%s\n' "$line" >"$T/example"
		works "$1: $text" env LC_ALL=C.UTF-8 timeout 60 sh "$T/example"
	fi
	case $2 in *'-O exit') reap_master ;; esac
}

end_master() {
	uplink_up || return 0
	kill $MASTER_PID
	reap_master
}

# each WHERE LEAST <EXAMPLES: line by line; a block with control structures whole,
# configurations not at all
each() {
	rm -rf "$T/each"
	mkdir "$T/each"
	joined | awk -v to="$T/each/" '
		function put(text) { if (text != "") { file = to (++n); print text >file; close(file) } }
		function out() {
			if (block ~ /^\nHost /) block = ""
			else if (block ~ /\n(case|while|if|for) /) put(substr(block, 2))
			else { m = split(block, l, "\n"); for (i = 1; i <= m; i++) put(l[i]) }
			block = ""
		}
		/^#block/ { out() }
		!/^#/ { block = block "\n" $0 }
		END { out() }'
	count=0
	while [ -e "$T/each/$((count + 1))" ]; do
		count=$((count + 1))
		one "$1" "$(cat "$T/each/$count")"
	done
	is "$1: at least $2 examples" "$((count >= $2))" 1
}

# --- what is only parsed -------------------------------------------------------------

# Lines that call make: known targets, known variables
made() {
	blocks 'sh parse' | grep -v '^#' | sed 's/ *#.*//' >"$T/parse"
	works "README: examples of make can be parsed" sh -n "$T/parse"
	is "README: these call make alone" "$(grep -cv '^make' "$T/parse")" 0
	[ -r "$TOP/Makefile" ] || return 0
	for word in $(sed 's/"[^"]*"//; s/^make//' "$T/parse"); do
		case $word in
		*=*) grep -q "\\<${word%%=*}\\>" "$TOP/Makefile" || unknown="$unknown $word" ;;
		*) grep -Eqs "^([a-z]+ )*$word( [a-z]+)*:" "$TOP/Makefile" "$TOP"/port/*/*.mk || unknown="$unknown $word" ;;
		esac
	done
	is "README: make knows what they name" "$unknown" ""
}

crontab_lines() {
	blocks crontab | grep -v '^#' >"$T/crontab"
	is "crontab: no % in it" "$(grep -c % "$T/crontab")" 0
	is "crontab: no job logs in by itself" \
		"$(sed 's/sshmux -S [^ ]* -O check//' "$T/crontab" | grep 'sshmux ' | grep -v 'sshmux -o Fallback=no ')" ""
	while read -r minute hour day month weekday command; do
		one "crontab" "$command"
	done <"$T/crontab"
	is "crontab: what the job says is logged" "$(grep -c 'load' "$T/logged")" 1
	is "crontab: the random spread sleeps" "$(grep -c '' "$T/slept")" 1
	end_master
	command=$(grep -e '-O check' "$T/crontab" | cut -d' ' -f6- | ours)
	is "crontab: no message while there is no master" "$(sh -c "$command" 2>&1 </dev/null)" ""
}

# --- the texts against the program ---------------------------------------------------

# same NAME: the lines of $T/program and of $T/text, sorted
same() {
	is "$1" "$(sort -u "$T/text" | tr '\n' ' ')" "$(sort -u "$T/program" | tr '\n' ' ')"
}

# The option table: letters and words of -h
options() {
	"$SSHMUX" -h >"$T/help"
	sed -n 's/^  -\([^-]\) .*/\1/p; s/^  --\([a-z-]*\).*/-\1/p' "$T/help" >"$T/program"
	sed -n '/^\.Ss Options/,/^\.Ss Control/p' "$MANUAL" | sed -n 's/^\.It Fl //p' |
		awk '{ for (i = 1; i <= NF; i++) if (i == 1 || $(i - 1) == "Fl") print $i }' |
		grep -v -x -e -help -e -version >"$T/text"
	same "manual: options are those of the program"
	works "manual: --help" "$SSHMUX" --help
	works "manual: --version" "$SSHMUX" --version
}

# rows TABLE [ROLE]: the first strings of a table in the source
rows() { sed -n "/^[^	]* $1\[\]/,/^};/s/^	{ \"\([A-Za-z0-9]*\)\"${2:+, $2}.*/\1/p" "$SOURCE"; }

# part TITLE: the lines of one of the manual's parts
part() { awk -v title=".Ss $1" '/^\.S[sh]/ { inside = $0 == title } inside' "$MANUAL"; }

# role WHERE ROLE: the keywords of one role in the manual's one list
role() {
	part Keywords | sed -n "s/^\.It Cm \(.*\) Pq $1\$/\1/p" | tr -s ', ' '\n' >"$T/text"
	rows op_keywords "$2" >"$T/program"
	cat "$T/text" >>"$T/keywords"
	same "manual: keywords of a $1 are those of the program"
}

# listed NAME FROM TO TABLE: names without an entry of their own, between two lines
listed() {
	part "Keywords without effect" | sed -n "/$2/,/$3/p" | sed -n "/no , none/d; s/^\.$5Cm //p" |
		tr -d ',.' | tr -s ' ' '\n' | grep -v '^any$' | grep . >"$T/text"
	sed -n "/^static const char $4\[\]/,/;/p" "$SOURCE" | sed -n 's/^[^"]*"\([^"]*\)".*/\1/p' |
		tr -s ' ' '\n' | grep . >"$T/program"
	same "manual: $1"
}

keywords() {
	rm -f "$T/keywords"
	role connection OP_MASTER
	role session OP_CLIENT
	role both OP_BOTH
	part Keywords | sed -n 's/^\.It Cm \([A-Za-z]*\).* Pq .*/\1/p' >"$T/text"
	is "manual: keywords are in alphabetical order" "$(sort -f "$T/text" | cmp - "$T/text" && echo yes)" yes
	listed "keywords without effect, each with what is lost" "^They are" "^\.El" op_idle "It "
	"$SSHMUX" -h | sed -n 's/^No effect, -o: //p' | tr ' ' '\n' >"$T/program"
	same "-h: keywords without effect"
	listed "keywords that are refused" "^in a file it" "^\.Pp" op_unsafe
	unknown=
	for k in $(cat "$T/keywords") $(grep -o -e '-o [A-Z][A-Za-z]*=' "$README" | sed 's/-o //; s/=//'); do
		case $("$SSHMUX" -o "$k=" -S "$T/none" -O check 2>&1) in
		*"Bad configuration option"*) unknown="$unknown $k" ;;
		esac
	done
	is "README, manual: the program takes every keyword" "$unknown" ""
}

# Tokens: those that a path takes, each of them
tokens() {
	part Tokens | sed -n 's/^\.It Cm \(\\&\)*//p' >"$T/text"
	sed -n '/^static const char \*tk_token/,/^}/p' "$SOURCE" | sed -n "s/^	case '\(.\)':.*/%\1/p" >"$T/program"
	same "manual: tokens are those of the program"
}

commands() {
	{ rows ct_commands; echo list; } >"$T/program"
	sed -n '/^\.Ss Control commands/,/^\.Ss Keywords$/p' "$MANUAL" | sed -n 's/^\.It Cm \([a-z]*\).*/\1/p' >"$T/text"
	same "manual: control commands are those of the program"
	unknown=
	for c in $(grep -o -e '-O [a-z][a-z]*' "$README" | cut -d' ' -f2); do
		grep -q -x "$c" "$T/program" || unknown="$unknown $c"
	done
	is "README: -O takes every command" "$unknown" ""
}

# SECURITY.md counts what tests/hostile.py has.
if python3 -c '' 2>/dev/null; then
	attacks() { python3 "$TESTDIR/hostile.py" list "$1" | grep -c .; }
	works "SECURITY.md: as many attacks as there are" grep -q \
		"| $(attacks after) attacks after the login, $(attacks before) before it" "$TOP/SECURITY.md"
else
	skip "the attacks that SECURITY.md counts" "needs python3"
fi

# The manual's limits: names and numbers of config.h, for both profiles
limits() {
	sed -n '/^\.Sh LIMITS/,/^\.Sh PROTOCOL/s/^\.It \([A-Z_]*\) : /\1 /p' "$MANUAL" | tr -d , >"$T/limits"
	is "manual: there are limits" "$(($(grep -c '' "$T/limits") > 10))" 1
	while read -r name router large; do
		for profile in "-DPROFILE_ROUTER $router" "-UPROFILE_ROUTER ${large:-$router}"; do
			value=$(printf '#include "config.h"\n= %s\n' "$name" |
				cc -E -P -I "$TOP" "${profile% *}" - | sed -n 's/^= //p')
			# shellcheck disable=SC2004	# an expression, not a number
			is "manual: $name, ${profile% *}" "$(($value))" "${profile#* }"
		done
	done <"$T/limits"
}

# Every message that the master has a handler for is in the manual's list
messages() {
	sed -n '/^} mx_table/,/^};/s/.*MUX_\(C\|MSG\)_\([A-Z_]*\),.*/\2/p' "$SOURCE" >"$T/program"
	sed -n '/^\.Sh PROTOCOL/,/^\.Sh PROFILES/s/^\.It //p' "$MANUAL" | tr -s ', ' '\n' >"$T/text"
	unknown=
	for m in $(cat "$T/program"); do
		grep -q -x "$m" "$T/text" || unknown="$unknown $m"
	done
	is "manual: every message the master knows is told" "$unknown" ""
}

# changed VERSION: whether what changed in it for users, as it is shown, has 1 to 40 lines
changed() {
	mandoc -Tascii -O width=78 "$MANUAL" | sed "s/.$(printf '\b')//g" | awk -v version="$1" '
		/^ ? ? ?[^ ]/ { inside = $1 == version; next }
		inside && /[^ ]/ { n++ }
		END { print (n >= 1 && n <= 40) }'
}

manual_is_clean() {
	if ! command -v mandoc >/dev/null; then
		skip "manual: mandoc -Tlint" "mandoc is not installed"
		return
	fi
	is "manual: 0.2.0: what changed has at most 40 lines" "$(changed 0.2.0)" 1
	is "manual: mandoc -Tlint" "$(mandoc -Tlint "$MANUAL" 2>&1 |
		grep -v -e 'outdated mandoc.db' -e 'REPORTS instead of ERRORS' -e 'referenced manual not found')" ""
}

is "README: nothing is left to fill in" "$(grep -c -e '@[A-Z]*@' -e TODO -e XXX "$README" "$MANUAL" | grep -v ':0$')" ""
is "README: at most 280 lines" "$(($(grep -c '' "$README") <= 280))" 1
manual_is_clean
options
[ ! -r "$SOURCE" ] || { keywords; tokens; commands; messages; limits; }
made

start_sshd 'GatewayPorts no' >/dev/null
place
LABEL="README: "
blocks ssh-config >"$T/readme.config"
configuration <"$T/readme.config"
configured "ssh-config"
blocks sh >"$T/readme.sh"
each "sh" 30 <"$T/readme.sh"
crontab_lines
LABEL="manual: "
displays >"$T/manual.sh"
awk '/^#block/ { getline; inside = /^Host / } inside' "$T/manual.sh" >"$T/manual.config"
configuration <"$T/manual.config"
configured "example"
each "example" 24 <"$T/manual.sh"
end_master
finish
