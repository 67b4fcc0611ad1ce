#!/usr/bin/env bash
# Measures the figures of docs/design/figures.md: make bench. Its flags are those
# of the program in test/bench (--only 1,3 --short --json FILE --profile DIR);
# bin/carnet must be there.
set -euo pipefail
cd "$(dirname "$0")/.."
export GO=${GO:-go} CGO_ENABLED=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$GO" build -trimpath -o "$scratch/bench" ./test/bench
# A signal reaches the program, too, which ends what it started.
"$scratch/bench" "$@"
