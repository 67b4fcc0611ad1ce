#!/usr/bin/env bash
# The console's page: test/console.sh build writes console/dist; test/console.sh
# test BINARY checks the types, builds again and compares every byte with
# console/dist, and runs the browser tests against the binary: of the console, and of
# the parties' own page of documents (api/docs). Packages come by the
# lock file; Node is the machine's, or a pinned one from npm where that is older.
set -euo pipefail
cd "$(dirname "$0")/.."
app=console/app
least=20.19.0    # what the build needs (package.json, engines)
pinned=22.23.3   # else

# node_ finds a Node that is new enough, and puts it first in PATH.
node_() {
	local version
	version=$(node --version 2>/dev/null || echo v0)
	if [ "$(printf '%s\n' "$least" "${version#v}" | sort -V | head -n 1)" = "$least" ]; then
		return
	fi
	local dir=bin/node-$pinned
	if [ ! -x "$dir/node_modules/.bin/node" ]; then
		echo "console: Node ${version#v} is older than $least: fetching $pinned" >&2
		mkdir -p "$dir"
		echo '{}' >"$dir/package.json"
		npm install --prefix "$dir" --no-save --no-package-lock --no-fund --no-audit --loglevel=error "node@$pinned" >&2
	fi
	PATH="$PWD/$dir/node_modules/.bin:$PATH"
	export PATH
	[ "$(node --version)" = "v$pinned" ] || { echo "console: the pinned Node doesn't run" >&2; exit 1; }
}

# packages installs what the lock file says, once.
packages() {
	local stamp=$app/node_modules/.carnet-lock
	cmp -s "$app/package-lock.json" "$stamp" && return
	rm -rf "$app/node_modules"
	(cd "$app" && npm ci --no-fund --no-audit --loglevel=error >&2)
	cp "$app/package-lock.json" "$stamp"
}

build() { (cd "$app" && node node_modules/vite/bin/vite.js build --logLevel warn "$@"); }

# counted TOTALS NAME COMMAND…: runs one check.
counted() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then
		printf 'ok    %s\n' "$name"
		tell 1 0
	else
		printf 'FAIL  %s\n%s\n' "$name" "$out"
		tell 0 1
		failed=yes
	fi
}
tell() { [ -z "${CARNET_TOTALS:-}" ] || echo "$1 $2" >>"$CARNET_TOTALS"; }

locked() {
	! grep -nE '"resolved"|https?://[^"]*\.tgz' $app/package-lock.json || { echo "the lock file names a registry: npm config set omit-lockfile-registry-resolved true"; return 1; }
}
typed() {
	(cd "$app" && node node_modules/typescript/bin/tsc --noEmit) &&
		node "$app/node_modules/typescript/bin/tsc" --noEmit --allowJs --checkJs --strict --noUnusedLocals --target es2023 --module esnext \
			--moduleDetection force --lib es2023,dom,dom.iterable,dom.asynciterable api/docs/try.js
}
rebuilt() {
	local out
	out=$(mktemp -d)
	build --outDir "$out" && diff -r "$out" console/dist && rm -rf "$out" ||
		{ rm -rf "$out"; echo 'console/dist is not what console/app makes: run make console'; return 1; }
}

# browser BINARY FILE runs a file of tests in Chromium; TAP says how many there were.
browser() {
	local tap passed failures code=0
	tap=$(mktemp)
	CARNET=$1 timeout -k 30 1200 node --test --test-reporter=tap "$app/test/$2" >"$tap" 2>&1 || true
	passed=$(sed -n 's/^# pass //p' "$tap") failures=$(sed -n 's/^# fail //p' "$tap")
	if [ -z "$passed" ] || [ "$passed" = 0 ] || [ "${failures:-1}" != 0 ]; then
		cat "$tap"
		[ -z "${CARNET_FAILURES:-}" ] || sed -n '/^ *not ok/,/^ *\.\.\./p' "$tap" >>"$CARNET_FAILURES"
		tell "${passed:-0}" "$((${failures:-0} == 0 ? 1 : failures))"
		code=1
	else
		grep '^ok ' "$tap"
		tell "$passed" 0
	fi
	rm -f "$tap"
	return $code
}

node_
case ${1:-} in
build)
	# A lock file that was meant to change has been written by npm install.
	packages
	build
	;;
test)
	failed=
	packages
	counted 'lock file' locked
	counted types typed
	counted 'console/dist is what console/app makes' rebuilt
	# Both at once: each waits for its own demo most of the time.
	browser "$2" docs.test.mjs &
	browser "$2" console.test.mjs || failed=yes
	wait $! || failed=yes
	[ -z "$failed" ]
	;;
*)
	echo 'usage: test/console.sh build | test BINARY' >&2
	exit 2
	;;
esac
