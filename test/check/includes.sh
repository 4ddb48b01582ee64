#!/usr/bin/env bash
#
# How the rooms of src/ may know each other, read from their #include lines:
# * no circles, neither between headers nor between rooms (a room is NAME.c with NAME.h);
# * a pure room includes nothing of PostgreSQL's, directly or through another room, and neither does
#   the stand-alone verifier in verifier/;
# * only the worker sees both SQL (SPI) and HTTP (libcurl, our client);
# * only compat.h looks at the version of PostgreSQL.

set -eu
cd "$(dirname "$0")/../../src"

pure='state_machine signature form_encoder retry_policy token_bucket currency audit_hash
	merkle checkpoint checkpoint_key sealed_trail client_address rate_limit http_status card_number redact json_scan'
crypto='signature audit_hash merkle checkpoint checkpoint_key'
bad=0
loops=$(mktemp)
trap 'rm -f "$loops"' EXIT

complain()
{
	echo "$*"
	bad=1
}

# edges FILE...: "room room-it-includes", for every #include "..." of one of ours
edges()
{
	local file included

	for file in "$@"; do
		sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]+"([^"]+)".*/\1/p' "$file" |
			while read -r included; do
				if [ -e "$included" ] && [ "${included%.h}" != "${file%.[ch]}" ]; then
					echo "${file%.[ch]} ${included%.h}"
				fi
			done
	done
}

ls ./*.c >/dev/null

for set in '*.h' '*.[ch]'; do
	# shellcheck disable=SC2086
	edges $set | tsort >/dev/null 2>"$loops" || complain "includes of $set go in a circle:" "$(cat "$loops")"
done

for room in $pure; do
	for file in "$room".[ch]; do
		[ -e "$file" ] || { complain "$file, a pure room, does not exist"; continue; }
		while read -r included; do
			case $included in
				\<openssl/*) [[ " $crypto " == *" $room "* ]] || complain "$file includes $included" ;;
				\<postgres*\> | \<libpq* | \<pg_* | \<curl/*) complain "$file includes $included" ;;
				\<*) ;;
				*)
					included=${included//\"/}
					[[ " ${pure//[$'\n\t']/ } " == *" ${included%.h} "* ]] ||
						complain "$file, a pure room, includes $included"
					;;
			esac
		done < <(sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]+([<"][^>"]+[>"]).*/\1/p' "$file")
	done
done

(
	cd verifier
	for set in '*.h' '*.[ch]'; do
		# shellcheck disable=SC2086
		edges $set | tsort >/dev/null 2>"$loops" ||
			complain "includes of verifier/$set go in a circle:" "$(cat "$loops")"
	done
	for file in *.[ch]; do
		while read -r included; do
			case $included in
				\<openssl/* | \<postgres*\> | \<libpq* | \<pg_* | \<curl/*)
					complain "verifier/$file includes $included" ;;
				\<*) ;;
				*)
					included=${included//\"/}
					[ -e "$included" ] || [[ " ${pure//[$'\n\t']/ } " == *" ${included%.h} "* ]] ||
						complain "verifier/$file includes $included, which is no pure room"
					;;
			esac
		done < <(sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]+([<"][^>"]+[>"]).*/\1/p' "$file")
	done
	exit $bad
) || bad=1

# What speaks SQL, and what speaks HTTP, by what each room includes itself.
for file in *.c; do
	[ "$file" != worker.c ] || continue
	if grep -qE '#include "executor/spi\.h"' "$file" &&
		grep -qE '#include ("http_client\.h"|<curl/)' "$file"; then
		complain "$file sees both SQL and HTTP; only worker.c may"
	fi
done

for file in $(grep -lE 'PG_VERSION_NUM' ./*.[ch] || true); do
	[ "$file" = ./compat.h ] || complain "$file looks at PG_VERSION_NUM; that belongs into compat.h"
done

exit $bad
