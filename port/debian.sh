# debian.sh - upstream tarballs out of Debian's source packages; sourced.
#
# They come from the mirror that this machine's own apt sources name, asked
# through a private apt state: nothing under /etc/apt or /var/lib/apt changes
# and an ordinary user may do it.  The script that sources this has
#   work   an absolute directory of its own, which it removes afterwards
#   hint   what a user can set where there is no mirror
#   die    a function that says why and ends
# shellcheck shell=sh disable=SC2154	# work, hint

# Prints "URI keyring" of the machine's first Debian archive, "-" for no
# keyring.  Understands one-line (.list) and deb822 (.sources) files.
machine_source() {
	for f in /etc/apt/sources.list.d/*.sources; do
		[ -r "$f" ] || continue
		awk 'function out() { if (uri != "") print uri, key; uri = ""; key = "-" }
			BEGIN { key = "-" }
			/^[ \t]*$/ { out() }
			tolower($1) == "uris:" {
				for (i = 2; i <= NF; i++)
					if ($i ~ /\/debian\/?$/) { uri = $i; break }
			}
			tolower($1) == "signed-by:" && $2 ~ /^\// { key = $2 }
			END { out() }' "$f"
	done
	for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -r "$f" ] || continue
		awk '$1 == "deb" || $1 == "deb-src" {
				key = "-"
				for (i = 2; i <= NF; i++) {
					if ($i ~ /signed-by=\//) {
						key = $i
						sub(/.*signed-by=/, "", key)
						sub(/[],].*/, "", key)
					}
					if ($i ~ /\/debian\/?$/) { print $i, key; break }
				}
			}' "$f"
	done
}

# Every apt program below sees only the private state under $work/apt.
apt() {
	program=$1
	shift
	"$program" -qq -o Dir::State="$work/apt" -o Dir::State::lists="$work/apt/lists" \
		-o Dir::State::status="$work/apt/status" -o Dir::Cache="$work/apt/cache" \
		-o Dir::Etc::SourceList="$work/apt/list" -o Dir::Etc::SourceParts=- \
		-o Dir::Log="$work/apt" -o APT::Sandbox::User="$(id -un)" \
		-o Acquire::Languages=none -o Acquire::Retries=2 \
		-o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false "$@" </dev/null
}

# Asks the mirror for the lists of sources, once a run.
debian_update() {
	command -v apt-get >/dev/null ||
		die "no apt-get here; $hint"
	source=$(machine_source | head -n 1)
	[ -n "$source" ] ||
		die "apt's sources name no Debian archive; $hint"
	uri=${source% *} key=${source##* }
	if [ "$key" = - ]; then
		key=/usr/share/keyrings/debian-archive-keyring.gpg
	fi
	option=
	if [ -r "$key" ]; then
		option="[signed-by=$key] "
	fi
	mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
	: >"$work/apt/status"
	for suite in sid forky trixie; do
		echo "deb-src $option$uri $suite main"
	done >"$work/apt/list"
	apt apt-get update >"$work/log" 2>&1 ||
		die "apt-get update: $(grep -m 1 '^E:' "$work/log" || tail -n 1 "$work/log")"
	# An unreachable mirror is only a warning to apt-get update.
	ls "$work"/apt/lists/*Sources* >/dev/null 2>&1 ||
		die "no list of sources from $uri: $(grep -m 1 '^[EW]:' "$work/log")"
}

# debian_tarball PACKAGE VERSION SUFFIX: leaves $work/PACKAGE_VERSION.orig.tar.SUFFIX;
# fails if the mirror lacks it.
debian_tarball() {
	revision=$(apt apt-cache showsrc "$1" 2>/dev/null |
		sed -n 's/^Version: \('"$2"'-.*\)/\1/p' | head -n 1)
	[ -n "$revision" ] || return 1
	(cd "$work" && apt apt-get source --download-only "$1=$revision") \
		>"$work/log" 2>&1 && [ -f "$work/$1_$2.orig.tar.$3" ]
}
