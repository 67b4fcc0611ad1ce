#!/usr/bin/env bash
# Builds the binary $1 with linker flags $2 and shows how far it is.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 flags=$2
go=${GO:-go}
mkdir -p "$(dirname "$binary")"
total=$("$go" list -deps ./cmd/carnet | wc -l)
start=$SECONDS
show() {
	local n=0 package
	while read -r package; do
		n=$((n + 1))
		if [ -t 2 ]; then
			printf '\r\033[Kbuilding: %d of at most %d packages (%ss) %.50s' "$n" "$total" "$((SECONDS - start))" "$package" >&2
		elif [ $((n % 50)) = 0 ]; then
			printf 'building: %d of at most %d packages (%ss)\n' "$n" "$total" "$((SECONDS - start))" >&2
		fi
	done
	[ -t 2 ] && [ "$n" -gt 0 ] && printf '\r\033[K' >&2
	true
}
# -v names each package as it is compiled; what is cached is not named.
"$go" build -v -trimpath -ldflags "$flags" -o "$binary" ./cmd/carnet 2> >(tee .build-errors.$$ | show) || {
	sleep 1
	grep -v '^[a-z0-9./_-]*$' .build-errors.$$ >&2 || true
	rm -f .build-errors.$$
	exit 1
}
rm -f .build-errors.$$
