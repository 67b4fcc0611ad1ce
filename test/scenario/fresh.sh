#!/usr/bin/env bash
# A story: somebody who has Go, make and nothing else clones the repository and runs
# make demo. It ends well, and what it has built is one static binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
go=$(command -v "${GO:-go}")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
fail() {
	printf 'fresh: %s\n' "$*" >&2
	tail -n 20 "$dir/err" >&2
	exit 1
}

# What is committed, or what is about to be.
git clone -q . "$dir/carnet"
git diff --binary HEAD | (cd "$dir/carnet" && git apply --allow-empty)
cd "$dir/carnet"
touch "$dir/err"
env -i HOME="$HOME" PATH="$(dirname "$go"):/usr/bin:/bin" make demo ARGS='--for 5s --json' >"$dir/report" 2>"$dir/err" ||
	fail "make demo ended with $?"
grep -q '"lost": *0' "$dir/report" || fail "its report has no \"lost\": 0"
grep -q '"verified": *true' "$dir/report" || fail "its report has no \"verified\": true"
built=$("$go" version -m bin/carnet)
grep -q 'CGO_ENABLED=0' <<<"$built" || fail "the binary was built with cgo"
# A program that needs a loader names it in its headers.
! grep -aqE '/ld-(linux|musl)' bin/carnet || fail "the binary isn't static"
