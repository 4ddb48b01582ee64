#!/usr/bin/env bash
#
# The version stands in the control file; META.json, the changelog and the scripts have to agree, and
# there is a way from every released version to it. Released scripts are as they were (released.sha256).

set -eu
cd "$(dirname "$0")/../.."

bad=0
complain()
{
	echo "$*"
	bad=1
}

version=$(sed -nE "s/^default_version *= *'(.*)'.*/\1/p" stripe_lifecycle.control)
[ -n "$version" ] || complain "the control file has no default_version"

python3 - "$version" <<'END' || bad=1
import json, sys
version = sys.argv[1]
meta = json.load(open("META.json", encoding="utf-8"))
semantic = version + ".0" * (2 - version.count("."))
for where, found in (("META.json", meta["version"]),
                     ("META.json provides", meta["provides"]["stripe_lifecycle"]["version"])):
    if found != semantic:
        sys.exit(f"{where} says version {found}, expected {semantic}")
END

grep -qE "^## ${version//./\\.}( |$)" CHANGELOG.md || complain "CHANGELOG.md has no section for $version"

# PostgreSQL picks a chain of scripts itself; here it is enough that each one leads on.
if [ ! -e "sql/stripe_lifecycle--$version.sql" ]; then
	ls sql/stripe_lifecycle--*--"$version".sql >/dev/null 2>&1 ||
		complain "no script in sql/ leads to version $version"
fi
for script in sql/*; do
	case ${script#sql/} in
		stripe_lifecycle--*.sql) ;;
		*) complain "$script: only scripts of the extension may be in sql/, or a test's name could meet one" ;;
	esac
done
released=$(grep -v '^#' test/check/released.sha256 || true)
[ -z "$released" ] || sha256sum --check --quiet --strict <<<"$released" ||
	complain "a script that was released is not what it was: write a new one that updates"

grep -qE '^ACCEPTS = .*\$\(EXTVERSION\)' Makefile ||
	complain "ACCEPTS in the Makefile lacks the extension's own version"
exit $bad
