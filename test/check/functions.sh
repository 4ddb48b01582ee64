#!/usr/bin/env bash
#
# No function of src/ is longer than 70 lines, from its name to its closing brace. It relies on the
# layout of PostgreSQL's sources: a function's name and both of its braces begin a line.

set -eu
cd "$(dirname "$0")/../../src"

awk -v limit=70 '
	FNR == 1 { name = ""; body = 0 }
	/^[A-Za-z_][A-Za-z_0-9]*\(/ && !body { name = $0; sub(/\(.*/, "", name); first = FNR }
	/^\{/ { body = 1 }
	/^\}/ {
		if (body && name != "" && $0 == "}") {
			functions++
			if (FNR - first + 1 > limit) {
				printf "%s:%d: %s() has %d lines, more than %d\n",
					FILENAME, first, name, FNR - first + 1, limit
				bad = 1
			}
		}
		name = ""
		body = 0
	}
	END {
		if (functions == 0) {
			print "no function found: has the layout of the sources changed?"
			bad = 1
		}
		exit bad
	}
' ./*.[ch] ./*/*.[ch]
