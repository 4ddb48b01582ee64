#!/usr/bin/env bash
#
# The model in test/model and the code it stands for belong together: every function that its README
# names exists in src/, every step it names exists in the model, and every defect that can be put into
# the model has a run that expects it to be found.

set -eu
cd "$(dirname "$0")/../.."

model=test/model/lifecycle.pml
bad=0
complain()
{
	echo "$*"
	bad=1
}

# a table's rows: the first column has steps, the second functions
rows=$(sed -n '/^## Which step/,/^## /p' test/model/README.md | grep '^| `')

functions=$(grep -oE '`[a-z_]+\(\)`' <<<"$rows" | tr -d '`()' | sort -u)
[ "$(wc -w <<<"$functions")" -ge 40 ] || complain "the model's README names hardly any function: has its table changed?"
for name in $functions; do
	grep -qE "^$name\(" src/*.c || complain "test/model/README.md names $name(), which is not in src/"
done

for name in $(sed -E 's/^\| ([^|]*) \|.*/\1/' <<<"$rows" | grep -oE '`[A-Za-z_]+`' | tr -d '`' | sort -u); do
	grep -qE "(inline|proctype|#define|bit [a-z, ]*) ?$name\b|^$name:" "$model" ||
		[ "$name" = FINE ] || complain "test/model/README.md names $name, which is not in $model"
done

for name in $(grep -oE 'BREAK_[A-Z_]+[A-Z]' "$model" | sort -u); do
	grep -qE "^[a-z_]+ +\| .* $name \|" test/model/check || complain "test/model/check has no run with $name"
done
for name in $(grep -oE 'BREAK_[A-Z_]+[A-Z]' test/model/check | sort -u); do
	grep -qw "$name" "$model" || complain "test/model/check defines $name, which $model does not know"
done

exit $bad
