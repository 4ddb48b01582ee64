#!/usr/bin/env bash
#
# The library exports what PostgreSQL looks up by name and nothing else: the magic block, _PG_init,
# the workers' entry points, and the functions that a script in sql/ names, all of which must be there.

set -eu
cd "$(dirname "$0")/../.."

exported=$(mktemp)
needed=$(mktemp)
trap 'rm -f "$exported" "$needed"' EXIT

[ -e stripe_lifecycle.so ] || { echo "stripe_lifecycle.so has not been built"; exit 1; }
nm -D --defined-only stripe_lifecycle.so | awk '{ print $NF }' | LC_ALL=C sort -u >"$exported"

{
	printf '%s\n' Pg_magic_func _PG_init
	sed -nE "s/.*'MODULE_PATHNAME', *'([A-Za-z0-9_]+)'.*/\1/p" sql/*--*.sql | sort -u |
		while read -r name; do printf '%s\n' "$name" "pg_finfo_$name"; done
	# bgw_function_name is where a worker's entry point is named
	sed -nE 's/.*bgw_function_name.*"([A-Za-z0-9_]+)".*/\1/p' src/*.c
} | LC_ALL=C sort -u >"$needed"

bad=0
while read -r name; do
	echo "exported, but nothing looks it up: $name"
	bad=1
done < <(LC_ALL=C comm -23 "$exported" "$needed")
while read -r name; do
	echo "named in a script or as a worker's entry point, but not exported: $name"
	bad=1
done < <(LC_ALL=C comm -13 "$exported" "$needed")
while read -r name; do
	echo "an exported name has to begin with sl_: $name"
	bad=1
done < <(grep -vE '^(Pg_magic_func|_PG_init|(pg_finfo_)?sl_)' "$exported")
exit $bad
