#!/usr/bin/env bash
# Measures the figures of docs/design/figures.md: make bench. Its flags are those
# of the program in test/bench (--only 1,3 --short --json FILE --profile DIR);
# bin/carnet must be there.
set -euo pipefail
cd "$(dirname "$0")/.."
export GO=${GO:-go} CGO_ENABLED=0
"$GO" build -trimpath -ldflags '-s -w' -o bin/bench ./test/bench
# In the script's place: a signal then reaches the program, which ends what it
# has started.
exec bin/bench "$@"
