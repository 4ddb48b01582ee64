#!/usr/bin/env bash
#
# Every function that SQL can call asks first whether the library and the extension's objects are of
# versions that fit: sl_require_version(), before it relies on anything else. The exceptions:
#   sl_versions                    says what doesn't fit
#   sl_guard                       asks through sl_table_of_relation(), once it knows it is a trigger
#   sl_verify_webhook_signature    touches no object of the extension

set -eu
cd "$(dirname "$0")/../../src"

bad=0
n=0
for name in $(sed -nE 's/^PG_FUNCTION_INFO_V1\( *([a-z_0-9]+) *\).*/\1/p' ./*.c); do
	n=$((n + 1))
	case $name in
		sl_versions | sl_guard | sl_verify_webhook_signature) continue ;;
	esac
	# nothing but declarations, and the hiding of private arguments, may come before
	sed -n "/^$name(PG_FUNCTION_ARGS)/,/^}/p" ./*.c |
		awk '
			/sl_require_version\(\);/ { found = 1; exit }
			/SPI_connect|sl_run\(|ereport\(|elog\(/ { exit }
			END { exit !found }
		' || {
		echo "$name() does not begin with sl_require_version()"
		bad=1
	}
done
[ "$n" -ge 10 ] || { echo "hardly any function found: has the layout of the sources changed?"; bad=1; }
exit $bad
