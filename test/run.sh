#!/usr/bin/env bash
# Runs every test there is: make test. Each stage says how long it took; the last
# line says how many tests passed and failed, and so does the exit code.
set -uo pipefail
cd "$(dirname "$0")/.."

# Shared state of many goroutines lives here: these run under the race detector, too.
racy='./link/... ./thing/... ./avatar/... ./wire/mqtt/... ./depot/... ./ledger/... ./keys/...
	./revocation ./peering ./activity ./entity ./mandate ./crossing/... ./node'

go=${GO:-go}
test/tools.sh || exit 1
# A test whose tool is missing fails instead of skipping.
export CARNET_REQUIRE_TOOLS=1
# inMemory says whether tests can have their files in memory: a sync there takes no time,
# and half of what the tests take is syncs. What is killed finds its files there as well,
# and tests of disks that fail or are full make those themselves.
inMemory() {
	local free there
	[ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ] && [ -w /dev/shm ] || return
	free=$(df -k --output=avail /dev/shm | tail -n 1) there=$(awk '$1 == "MemAvailable:" {print $2}' /proc/meminfo)
	[ "$free" -ge $((6 << 20)) ] && [ "$there" -ge $((10 << 20)) ] && ! findmnt -n -o OPTIONS /dev/shm | grep -qw noexec
}
scratch=$(mktemp -d) memory=
trap 'rm -rf "$scratch" ${memory:+"$memory"}' EXIT
if [ -z "${TMPDIR:-}" ] && inMemory; then
	memory=$(mktemp -d -p /dev/shm)
	chmod 755 "$memory" # PostgreSQL has a user of its own
fi
echo "The tests of Go have their files in ${memory:-${TMPDIR:-/tmp}}."
# near runs a command with its files in memory, if that is possible. What go builds is on
# the disk all the same, and its tests don't hear of that: T.TempDir goes there, too.
near() {
	if [ -n "$memory" ]; then
		TMPDIR=$memory GOTMPDIR=/tmp "$@"
	else
		"$@"
	fi
}
trap 'exit 130' INT TERM
export CGO_ENABLED=0 # what is tested is what is shipped

began=$SECONDS passed=0 failed=0 report=
totals=$scratch/totals
# What failed and why: the end of the output, where a reader looks first.
failures=$scratch/failures
: >"$failures"
# stage NAME COMMAND…: runs a command that appends "PASSED FAILED" to $totals. One
# that fails without having counted a failure counts as one.
stage() {
	local name=$1 start=$SECONDS status=0 p=0 f=0 a b
	shift
	printf '\n== %s\n' "$name"
	: >"$totals"
	"$@" || status=$?
	while read -r a b; do p=$((p + a)) f=$((f + b)); done <"$totals"
	if [ $status != 0 ] && [ $f = 0 ] || [ $((p + f)) = 0 ]; then f=$((f + 1)); fi
	passed=$((passed + p)) failed=$((failed + f))
	report+=$(printf '%-10s %5d s %6d passed %4d failed' "$name" $((SECONDS - start)) $p $f)$'\n'
	[ $f = 0 ]
}
count() { echo "$1 $2" >>"$totals"; }

lint() { CARNET_TOTALS=$totals test/lint.sh --quick; }

build() { make -s build GO="$go" && count 1 0; }

summary() { "$scratch/summary" -totals "$totals" -failures "$failures" -skips test/skips.txt; }

# judge tests the program that counts the tests.
judge() { "$go" -C test/tool test ./summary && count 1 0; }

# What takes longest begins first.
tests() {
	near test/postgres.sh -- "$go" test -exec 'env -u GOTMPDIR' -json -vet=off -timeout 20m ./test/faults ./test/... ./cmd/... ./... | summary
}

race() {
	# shellcheck disable=SC2086 # a list of words
	CGO_ENABLED=1 near "$go" test -exec 'env -u GOTMPDIR' -json -vet=off -race -short -timeout 10m $racy | summary
}

# scenarios are stories over real processes; each gets the binary as its argument.
scenarios() {
	local script start
	for script in test/scenario/*.sh; do
		start=$SECONDS
		if timeout -k 10 300 "$script" "$PWD/bin/carnet"; then
			count 1 0
			printf 'ok  \t%s\t%ds\n' "$script" $((SECONDS - start))
		else
			count 0 1
			printf 'FAIL\t%s\t%ds\n' "$script" $((SECONDS - start)) | tee -a "$failures"
		fi
	done
}

# The page in a browser, against the binary.
console() { CARNET_TOTALS=$totals CARNET_FAILURES=$failures test/console.sh test "$PWD/bin/carnet"; }

# In a function, so that the whole file has been read before anything runs.
main() {
	"$go" -C test/tool build -o "$scratch/summary" ./summary || exit 1
	stage lint lint
	stage summary judge
	stage build build && built=yes
	stage tests tests
	stage race race
	if [ -n "${built:-}" ]; then
		stage console console
	else
		report+='console    not run: there is no binary'$'\n'
	fi
	if compgen -G 'test/scenario/*.sh' >/dev/null; then
		if [ -n "${built:-}" ]; then
			stage scenarios scenarios
		else
			report+='scenarios  not run: there is no binary'$'\n'
		fi
	fi

	if [ -s "$failures" ]; then printf '\n== what failed\n' && cut -c 1-1000 "$failures"; fi
	printf '\n%s%-10s %5d s\n' "$report" all $((SECONDS - began))
	printf 'Tests: %d passed, %d failed\n' $passed $failed
	[ $failed = 0 ]
}

main
exit
