#!/usr/bin/env bash
# A story: an operator makes a things agent, a world and a depot by hand, peers
# them, and adds a watch. Each party is killed in turn while somebody else's MQTT
# client publishes; started again, it goes on, and nothing is missing. Then the
# watch's owner stops it, and the world gets nothing more.
set -euo pipefail
carnet=$1
dir=$(mktemp -d)
declare -A pid=()
cleanup() {
	local p
	for p in "${pid[@]}"; do kill -9 "$p" 2>/dev/null || true; done
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
fail() {
	printf 'restart: %s\n' "$*" >&2
	tail -n 5 "$dir"/*.log >&2
	exit 1
}

# A port below those that the kernel gives to connections, which nobody has.
port() {
	local p
	while p=$((12000 + RANDOM % 20000)); do
		(exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || break
	done
	echo $p
}
start() { # NAME ROLE
	"$carnet" "$2" --config "$dir/$1/carnet.toml" --log-level warn >>"$dir/$1.log" 2>&1 &
	pid[$1]=$!
	# Its status is asked with the token that its making left.
	for _ in $(seq 200); do
		"$carnet" status --access "$dir/$1/access.json" >"$dir/status" 2>&1 && return
		kill -0 "${pid[$1]}" 2>/dev/null || fail "$1 ended when started"
		sleep 0.05
	done
	fail "$1 doesn't answer: $(cat "$dir/status")"
}
crash() { # NAME
	kill -9 "${pid[$1]}"
	wait "${pid[$1]}" 2>/dev/null || true
}
words() { # PARTY PEER: what its operator reads out
	"$carnet" peer show "$2" --json --access "$dir/$1/access.json" | sed -n 's/.*"words": *"\([^"]*\)".*/\1/p' | head -n 1
}
peer() { # A B FLAGS…: A invites, B accepts, and both operators compare the words
	local a=$1 b=$2 read=
	shift 2
	"$carnet" peer invite "$b" --access "$dir/$a/access.json" --out "$dir/invitation" "$@" >/dev/null
	"$carnet" peer accept "$a" "$dir/invitation" --access "$dir/$b/access.json" >/dev/null
	rm "$dir/invitation"
	for _ in $(seq 200); do
		read=$(words "$a" "$b")
		[ -z "$read" ] || break
		sleep 0.05
	done
	[ "$read" = "$(words "$b" "$a")" ] || fail "$a and $b have other words"
	"$carnet" peer accept "$b" --words="$read" --access "$dir/$a/access.json" >/dev/null
	"$carnet" peer accept "$a" --words="$read" --access "$dir/$b/access.json" >/dev/null
}

mqtt=$(port)
"$carnet" party init --role depot --party vault --dir "$dir/vault" --listen-http "localhost:$(port)" --listen-r2 "localhost:$(port)" >/dev/null
"$carnet" party init --role world --party clinic --dir "$dir/clinic" --listen-http "localhost:$(port)" --listen-link "localhost:$(port)" \
	--purpose care --sensitivity health+location >/dev/null
"$carnet" party init --role things --party hub --dir "$dir/hub" --listen-http "localhost:$(port)" --listen-mqtt "localhost:$mqtt" >/dev/null
start vault depot
start clinic world
start hub things
peer vault hub --scope=r2
peer vault clinic --scope=r2
peer clinic hub --scope=r1 --purpose=care --sensitivity=health+location

hub=(--access "$dir/hub/access.json") clinic=(--access "$dir/clinic/access.json")
cat >"$dir/td.json" <<'TD'
{"@context": ["https://www.w3.org/2022/wot/td/v1.1", {"carnet": "urn:carnet:td#"}], "title": "Watch", "security": "nosec_sc",
 "securityDefinitions": {"nosec_sc": {"scheme": "nosec"}}, "properties": {"heart_rate": {"type": "integer", "unit": "beat/min",
 "minimum": 0, "maximum": 254, "readOnly": true, "carnet:sensitivity": "health", "carnet:linger": 0, "forms": [{"href": "x"}]}}}
TD
echo '{"properties": {"heart_rate": {}}, "purposes": ["care"]}' >"$dir/view.json"
"$carnet" thing add "${hub[@]}" --id watch-7 --owner ann --description "$dir/td.json" >"$dir/added"
password=$(sed -n 's/^Password, shown once: //p' "$dir/added")
for _ in $(seq 100); do
	"$carnet" thing map "${hub[@]}" watch-7 --world clinic --view "$dir/view.json" >"$dir/mapped" 2>&1 && break
	sleep 0.1
done
avatar=$("$carnet" avatar list "${clinic[@]}" --json | sed -n 's/.*"id": *"\([0-9a-f]*\)".*/\1/p' | head -n 1)
[ -n "$avatar" ] || fail "the watch has no avatar: $(cat "$dir/mapped")"

published=0
publish() { # until it is acknowledged, as a good device does
	published=$((published + 1))
	local message="[{\"n\":\"heart_rate\",\"t\":$((base + published)),\"v\":$((60 + published))}]"
	for _ in $(seq 100); do
		mosquitto_pub -h localhost -p "$mqtt" --cafile "$dir/hub/ca.pem" -u watch-7 -P "$password" -q 1 -t things/watch-7/measurements \
			-m "$message" 2>/dev/null && return
		sleep 0.1
	done
	fail "message $published isn't acknowledged"
}
# held waits until the clinic has n measurements, and no more.
held() {
	local n=0
	for _ in $(seq 300); do
		n=$("$carnet" avatar history "${clinic[@]}" "$avatar" 2>/dev/null | grep -c heart_rate) || true
		[ "$n" = "$1" ] && return
		sleep 0.1
	done
	fail "the clinic has $n measurements, want $1"
}
base=$(($(date +%s) - 1000))
for victim in "hub things" "clinic world" "vault depot"; do
	publish
	crash ${victim% *}
	[ "${victim% *}" = hub ] || publish
	# shellcheck disable=SC2086 # two words
	start $victim
	publish
	held $published
done

# What the owner stops is stopped, also over a restart.
"$carnet" thing unmap "${hub[@]}" watch-7/clinic >/dev/null
before=$published
publish
crash hub
start hub things
publish
sleep 1
held $before
for name in hub clinic vault; do
	kill "${pid[$name]}"
	wait "${pid[$name]}" || fail "$name ended with $?"
done
pid=()
