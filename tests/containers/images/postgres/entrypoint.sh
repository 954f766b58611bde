#!/bin/sh
# Makes the database, the first time, and becomes the server.
set -eu
if [ ! -e "$PGDATA/PG_VERSION" ]; then
	password=$(mktemp)
	printf '%s\n' "$POSTGRES_PASSWORD" >"$password"
	initdb --username="$POSTGRES_USER" --pwfile="$password" --auth-host=scram-sha-256 --auth-local=trust \
		--locale=C.UTF-8 --no-sync
	rm "$password"
	printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
	printf 'CREATE DATABASE "%s"\n' "$POSTGRES_DB" | postgres --single -D "$PGDATA" postgres
fi
exec postgres -c listen_addresses='*'
