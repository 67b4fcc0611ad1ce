#!/usr/bin/env bash
# Reads the code without running it: formatting, vet, module files, the
# architecture test, documents, staticcheck, and known vulnerabilities where their
# database is reachable. With --quick only what needs no other program.
set -uo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
tool() { "$go" tool -modfile=test/tool/go.mod "$@"; }

failed=0 passed=0 skipped=75 # EX_TEMPFAIL
# check NAME COMMAND…: shows what the command says when it fails, or can't check.
check() {
	local name=$1 out code
	shift
	out=$("$@" 2>&1)
	code=$?
	if [ $code = 0 ]; then
		passed=$((passed + 1))
		printf 'ok    %s\n' "$name"
	elif [ $code = $skipped ]; then
		printf 'skip  %s: %s\n' "$name" "$out"
	else
		failed=$((failed + 1))
		printf 'FAIL  %s\n%s\n' "$name" "$out"
	fi
}

formatted() {
	local files
	files=$("$("$go" env GOROOT)/bin/gofmt" -l .) || return 1
	[ -z "$files" ] || { printf '%s\n' 'run gofmt -w on:' "$files"; return 1; }
}

vetted() { "$go" vet ./... && "$go" -C test/tool vet ./...; }

tidy() { "$go" mod tidy -diff; }

architecture() { "$go" test -run '^Test(Imports|Vocabulary|EveryPackage)' .; }

# documents name tests and files that exist, and each page stands in its index.
documents() {
	local file target bad=0
	"$go" test -run Requirements ./docs || bad=1
	while IFS=: read -r file target; do
		target=${target#](} target=${target%)} target=${target%%#*}
		[ -e "$(dirname "$file")/$target" ] || { echo "$file links to $target, which doesn't exist"; bad=1; }
	done < <(grep -oHE '\]\([^)# :]+[^):]*\)' ./*.md docs/*.md docs/*/*.md)
	for file in docs/design/*.md docs/decisions/*.md; do
		[ "${file##*/}" = README.md ] || grep -qF "](${file##*/})" "${file%/*}/README.md" ||
			{ echo "$file isn't in ${file%/*}/README.md"; bad=1; }
	done
	return $bad
}

# vulnerabilities fails on findings and on what can't be analysed; it is skipped
# where its database is out of reach, which no change of the code could mend.
vulnerabilities() {
	local out
	if out=$(tool govulncheck ./... 2>&1); then
		return 0
	fi
	if grep -q '^govulncheck: fetching vulnerabilities:' <<<"$out"; then
		printf 'not checked, the database is out of reach: %s\n' "$(tail -n 1 <<<"$out")"
		return $skipped
	fi
	printf '%s\n' "$out"
	return 1
}

check gofmt formatted
check 'go vet' vetted
check 'go mod tidy' tidy
check architecture architecture
check documents documents
if [ "${1:-}" != --quick ]; then
	check 'go mod tidy, tools' "$go" -C test/tool mod tidy -diff
	check staticcheck tool staticcheck ./...
	check govulncheck vulnerabilities
fi
if [ -n "${CARNET_TOTALS:-}" ]; then
	echo "$passed $failed" >>"$CARNET_TOTALS"
fi
[ $failed = 0 ]
