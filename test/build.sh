#!/usr/bin/env bash
# Builds the binary $1 with linker flags $2 and shows how far it is: a first
# build fetches modules and compiles for minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 flags=$2
go=${GO:-go}
start=$SECONDS

# -v names each package as it is compiled; what is cached is not named. Lines of
# any other form are what a person must read.
show() {
	local done=0 line
	while IFS= read -r line; do
		case $line in
		'go: downloading '*) step "fetching ${line#go: downloading }" ;;
		*[!a-zA-Z0-9._/~-]*) clear_line; printf '%s\n' "$line" >&2 ;;
		*)
			done=$((done + 1))
			if [ -t 2 ] || [ $((done % 50)) = 0 ]; then
				step "compiling $done of at most $total packages: $line"
			fi
			;;
		esac
	done
	clear_line
}
step() {
	if [ -t 2 ]; then
		printf '\r\033[K%.78s' "$((SECONDS - start)) s, $1" >&2
	else
		printf '%s\n' "$((SECONDS - start)) s, $1" >&2
	fi
}
clear_line() { if [ -t 2 ]; then printf '\r\033[K' >&2; fi; }

mkdir -p "$(dirname "$binary")"
total=0
list=$("$go" list -deps ./cmd/carnet 2> >(show))
total=$(wc -l <<<"$list")
"$go" build -v -trimpath -ldflags "$flags" -o "$binary" ./cmd/carnet 2>&1 | show
