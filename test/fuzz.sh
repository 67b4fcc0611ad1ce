#!/usr/bin/env bash
# Gives each fuzz target some seconds ($1, default 10): make fuzz. What it finds is
# written to the package's testdata/fuzz, and then is a seed that make test runs.
set -uo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go} seconds=${1:-10} failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
while IFS=: read -r file target; do
	if "$go" test -vet=off -run '^$' -fuzz "^$target\$" -fuzztime "${seconds}s" "./$(dirname "$file")" >"$log" 2>&1; then
		printf 'ok  \t%s\t%s\n' "$(dirname "$file")" "$target"
	else
		failed=$((failed + 1))
		printf 'FAIL\t%s\t%s\n' "$(dirname "$file")" "$target"
		cat "$log"
	fi
done < <(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's/func //; s|^\./||' | sort)
[ $failed = 0 ]
