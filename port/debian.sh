# debian.sh - upstream tarballs out of Debian's source packages, and packages of
# other processors; sourced.
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
	if [ -n "${foreign:-}" ]; then
		set -- -o APT::Architecture="$foreign" -o APT::Architectures="$foreign" "$@"
	fi
	"$program" -qq -o Dir::State="$work/apt" -o Dir::State::lists="$work/apt/lists" \
		-o Dir::State::status="$work/apt/status" -o Dir::Cache="$work/apt/cache" \
		-o Dir::Etc::SourceList="$work/apt/list" -o Dir::Etc::SourceParts=- \
		-o Dir::Log="$work/apt" -o APT::Sandbox::User="$(id -un)" \
		-o Acquire::Languages=none -o Acquire::Retries=2 \
		-o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false "$@" </dev/null
}

# Sets $uri and $option, the mirror and how apt is to trust it; an empty state.
debian_state() {
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
}

# debian_lists KIND: fetches the lists of that kind that $work/apt/list names
debian_lists() {
	apt apt-get update >"$work/log" 2>&1 ||
		die "apt-get update: $(grep -m 1 '^E:' "$work/log" || tail -n 1 "$work/log")"
	# An unreachable mirror is only a warning to apt-get update.
	ls "$work"/apt/lists/*"$1"* >/dev/null 2>&1 ||
		die "no list of $1 from $uri: $(grep -m 1 '^[EW]:' "$work/log")"
}

# Asks the mirror for the lists of sources, once a run.
debian_update() {
	debian_state
	for suite in sid forky trixie; do
		echo "deb-src $option$uri $suite main"
	done >"$work/apt/list"
	debian_lists Sources
}

# debian_tarball PACKAGE VERSION SUFFIX: leaves $work/PACKAGE_VERSION.orig.tar.SUFFIX;
# fails if the mirror lacks it.
debian_tarball() {
	revision=$(apt apt-cache showsrc "$1" 2>/dev/null |
		sed -n 's/^Version: \('"$2"'-.*\)/\1/p' | head -n 1)
	[ -n "$revision" ] || return 1
	(cd "$work" && apt apt-get source --download-only --tar-only "$1=$revision") \
		>"$work/log" 2>&1 && [ -f "$work/$1_$2.orig.tar.$3" ]
}

# debian_foreign ARCHITECTURE SUITE: from here on apt sees the packages of that
# processor and no others.  Nothing is installed: the machine's dpkg is not asked.
debian_foreign() {
	debian_state
	foreign=$1
	echo "deb $option$uri $2 main" >"$work/apt/list"
	debian_lists Packages
}

# debian_depends PACKAGE PREFIX: the first package of that prefix that it needs
debian_depends() {
	apt apt-cache show "$1" 2>/dev/null |
		sed -n "s/^Depends: .*\\($2[^ ,]*\\).*/\\1/p; s/^Depends: \\($2[^ ,]*\\).*/\\1/p" | head -n 1
}

# debian_package PACKAGE DIR: unpacks it there
debian_package() {
	(cd "$work" && apt apt-get download "$1") >"$work/log" 2>&1 &&
		dpkg-deb -x "$work/$1"_*.deb "$2" >>"$work/log" 2>&1
}
