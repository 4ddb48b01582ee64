#!/usr/bin/env bash
#
# Every function that SQL can call asks first whether the library and the extension's objects are of
# versions that fit: sl_require_version(), before it relies on anything else. Those that only lead to
# another function, through sl_http_call(), have it there. The exceptions:
#   sl_versions                    says what doesn't fit
#   sl_guard                       asks through sl_table_of_relation(), once it knows it is a trigger
#   sl_verify_webhook_signature    touches no object of the extension
#   sl_pre_request                 likewise, and is called for requests that have nothing to do with it

set -eu
cd "$(dirname "$0")/../../src"

# body NAME: the function's text
body()
{
	sed -n "/^$1(PG_FUNCTION_ARGS)/,/^}/p" ./*.c
}

bad=0
n=0
for name in $(sed -nE 's/^PG_FUNCTION_INFO_V1\( *([a-z_0-9]+) *\).*/\1/p' ./*.c); do
	n=$((n + 1))
	case $name in
		sl_versions | sl_guard | sl_verify_webhook_signature | sl_pre_request) continue ;;
	esac
	inner=$(body "$name" | sed -nE 's/^\treturn sl_http_call\(([a-z_]+),.*/\1/p')
	body "${inner:-$name}" | awk '
		/sl_require_version\(\);/ { found = 1; exit }
		/SPI_connect|sl_run\(|sl_deliver\(|ereport\(|elog\(/ { exit }
		END { exit !found }
	' || {
		echo "${inner:-$name}() does not begin with sl_require_version()"
		bad=1
	}
done
[ "$n" -ge 10 ] || { echo "hardly any function found: has the layout of the sources changed?"; bad=1; }
exit $bad
