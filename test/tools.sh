#!/usr/bin/env bash
# Makes sure that what the tests need is here: Go, and on Debian and its
# relatives the packages below. Where something is missing it is installed (as
# root or by sudo), or the script says what to install and exits 1. Quiet and
# quick when everything is there.
set -euo pipefail

# A program that a test runs, and the Debian package that has it.
needs='
initdb         postgresql          store/postgres against a real server
mosquitto      mosquitto           the peer in benchmarks
mosquitto_pub  mosquitto-clients   wire/mqtt against clients of others
curl           curl                scenarios: the API from outside
jq             jq                  docs/read-an-avatar.md
unshare        util-linux          a disk that is full or read-only
strace         strace              an fsync that fails
gcc            gcc                 the race detector
chromium       chromium            pages of the console in a browser
node           nodejs              builds the page of the console (a newer one comes from npm where it is old)
npm            npm                 what the page is built with, by its lock file
'
# Packages that have no program to look for: a file that they bring.
files='
/etc/ssl/certs/ca-certificates.crt  ca-certificates
/usr/include/stdlib.h               libc6-dev
'

have() {
	case $1 in
	initdb) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ;;
	mosquitto) command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

missing() {
	local program package file
	while read -r program package _; do
		[ -z "$program" ] || have "$program" || printf '%s ' "$package"
	done <<<"$needs"
	while read -r file package; do
		[ -z "$file" ] || [ -e "$file" ] || printf '%s ' "$package"
	done <<<"$files"
}

fail() {
	printf 'tools: %s\n' "$@" >&2
	exit 1
}

check_go() {
	local go=${GO:-go} version
	command -v "$go" >/dev/null || fail "Go is missing: install 1.26 or newer from https://go.dev/dl/"
	# With a toolchain line of its own an older Go fetches the one that go.mod asks for.
	version=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && "$go" env GOVERSION) ||
		fail "Go can't be used here: install 1.26 or newer from https://go.dev/dl/"
	version=${version#go}
	[ "$(printf '%s\n' 1.26 "$version" | sort -V | head -n 1)" = 1.26 ] ||
		fail "Go $version is too old: install 1.26 or newer from https://go.dev/dl/"
}

install() {
	local packages=$1 sudo=
	command -v apt-get >/dev/null ||
		fail "missing: $packages" "these are the names in Debian; install what your system calls them"
	if [ "$(id -u)" != 0 ]; then
		sudo -n true 2>/dev/null || fail "missing: $packages" "run: sudo apt-get install $packages"
		sudo=sudo
	fi
	echo "tools: installing $packages" >&2
	# Tests start servers of their own on free ports. The packages must not
	# make a cluster or leave a broker running on the usual ones.
	local running=no
	pgrep -x mosquitto >/dev/null 2>&1 && running=yes
	if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
		$sudo mkdir -p /etc/postgresql-common
		echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
	fi
	local log
	log=$(mktemp)
	# shellcheck disable=SC2086 # a list of words
	if ! {
		$sudo apt-get update &&
			$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
	} >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		fail "apt-get could not install $packages"
	fi
	rm -f "$log"
	case " $packages " in
	*' mosquitto '*) if [ $running = no ]; then stop_broker "$sudo"; fi ;;
	esac
}

# stop_broker ends the broker that the package has just started, if it did.
stop_broker() {
	if [ -d /run/systemd/system ]; then
		$1 systemctl disable --now mosquitto >/dev/null 2>&1 || true
	elif [ -x /etc/init.d/mosquitto ]; then
		$1 /etc/init.d/mosquitto stop >/dev/null 2>&1 || true
	fi
}

check_go
packages=$(missing)
if [ -n "$packages" ]; then
	install "${packages% }"
	packages=$(missing)
	[ -z "$packages" ] || fail "still missing after the installation: $packages"
fi
if ! unshare --user --map-root-user --mount true 2>/dev/null; then
	# Nothing to install: those tests fail, and the others still say something.
	echo "tools: this machine doesn't permit unshare --user --map-root-user --mount: tests of full disks will fail" >&2
fi
