#!/bin/sh
# Runs a command with a PostgreSQL cluster of its own:
#
#     test/postgres.sh -- go test ./store/...
#
# The cluster lives in a temporary directory (in memory where there is /dev/shm,
# since tests make many small databases; TMPDIR overrides), listens on 127.0.0.1
# on a free port, and ends with the command, whatever happens. The command finds
# it in CARNET_PG, a connection string of its superuser. As root the server runs
# as the user postgres, and the package is installed if there is none.
set -eu

[ "${1:-}" = -- ] && shift
[ $# -gt 0 ] || { echo "usage: $0 -- COMMAND..." >&2; exit 64; }

find_bin() {
	for dir in /usr/lib/postgresql/*/bin; do
		[ -x "$dir/initdb" ] && bin=$dir
	done
	[ -n "${bin:-}" ]
}

if ! find_bin; then
	[ "$(id -u)" = 0 ] || { echo "$0: PostgreSQL is missing: apt-get install postgresql" >&2; exit 69; }
	# The package would start a cluster on the usual port; none is wanted.
	mkdir -p /etc/postgresql-common
	[ -e /etc/postgresql-common/createcluster.conf ] ||
		echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
	(apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql) >&2
	find_bin || { echo "$0: the package has no initdb" >&2; exit 69; }
fi

if [ "$(id -u)" = 0 ]; then
	as() { runuser -u postgres -- "$@"; }
else
	as() { "$@"; }
fi

if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then
	base=/dev/shm
else
	base=${TMPDIR:-/tmp}
fi
dir=$(mktemp -d "$base/carnet-pg.XXXXXX")
stop() {
	status=$?
	trap - EXIT
	trap '' HUP INT TERM
	if pid=$(head -n 1 "$dir/data/postmaster.pid" 2>/dev/null); then
		kill -INT "$pid" 2>/dev/null || true # fast shutdown
		for _ in $(seq 100); do
			kill -0 "$pid" 2>/dev/null || break
			sleep 0.1
		done
		kill -QUIT "$pid" 2>/dev/null || true # it did not stop in 10 s
	fi
	rm -rf "$dir"
	exit "$status"
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

[ "$(id -u)" = 0 ] && chown postgres "$dir"
cd "$dir"
as "$bin/initdb" -N -D "$dir/data" -U carnet -A trust -E UTF8 --locale=C.UTF-8 >"$dir/initdb.log" 2>&1 ||
	{ cat "$dir/initdb.log" >&2; exit 70; }
cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 64MB
checkpoint_timeout = 1h
CONF

# A free port can be taken before the server has it: then another.
for _ in 1 2 3 4 5 6 7 8 9 10; do
	port=$(od -An -N2 -tu2 /dev/urandom | awk '{ print 20000 + $1 % 40000 }')
	if as "$bin/pg_ctl" -D "$dir/data" -l "$dir/data/log" -o "-p $port" -w -t 60 start >/dev/null 2>&1; then
		started=yes
		break
	fi
done
[ -n "${started:-}" ] || { cat "$dir/data/log" >&2; exit 70; }

cd "$OLDPWD"
CARNET_PG="postgres://carnet@127.0.0.1:$port/postgres?sslmode=disable"
export CARNET_PG
status=0
"$@" &
child=$!
# A signal ends wait; the command gets it, too, and is then waited for.
trap 'kill -TERM "$child" 2>/dev/null || true; wait "$child" || true; exit 143' HUP INT TERM
wait "$child" || status=$?
exit "$status"
