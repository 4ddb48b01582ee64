"""Where the instructions of a call go, counted by callgrind.

The whole server runs under valgrind.  One session makes few calls, another one
many; the difference of their counts, divided by that of the calls, is what a
call costs once a session has warmed up.
"""

import argparse
import glob
import os
import re
import subprocess
import sys
import time

from . import create, ingest
from .cluster import Cluster, Failed

FEW, MANY = 300, 1500
EVENTS = 2 * (FEW + MANY)
DATABASE = "bench_profile"

# Each with the database that it is prepared in.
CALLS = {
    "ingest": (ingest, ingest.SCRIPTS[ingest.OURS]),
    "floor": (ingest, ingest.SCRIPTS[ingest.FLOOR]),
    "create": (create, create.CREATE_SCRIPTS[create.OURS]),
    "create_floor": (create, create.CREATE_SCRIPTS[create.FLOOR]),
    "status": (create, create.STATUS_SCRIPTS[create.STATUS]),
    "select": (create, create.STATUS_SCRIPTS[create.SELECT]),
}


def prepare(cluster, module):
    """The database of a call; returns its name."""
    database = f"{DATABASE}_{module.NAME}"
    if module is ingest:
        ingest.prepare(cluster, database, EVENTS, rivals=False)
    else:
        create.prepare(cluster, database)
    return database


class Valgrind:
    """The server, run by valgrind; a file of counts is left by each process that ends."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.pattern = os.path.join(cluster.home, "callgrind.*")
        with open(os.path.join(cluster.home, "valgrind.log"), "w", encoding="utf-8") as log:
            self._server = subprocess.Popen(
                ["valgrind", "--tool=callgrind", "--trace-children=yes",
                 f"--callgrind-out-file={cluster.home}/callgrind.%p",
                 os.path.join(cluster.bindir, "postgres"), "-D", cluster.data, "-c", "autovacuum=off",
                 "-c", "stripe_lifecycle.databases=none"], stdout=log, stderr=log)
        self._program("pg_isready", attempts=120)

    def _program(self, name, *arguments, attempts=1):
        command = [os.path.join(self.cluster.bindir, name), "-h", self.cluster.socket, "-U", "postgres"]
        for attempt in range(attempts):
            done = subprocess.run([*command, *arguments], text=True, capture_output=True, check=False)
            if done.returncode == 0:
                return
            time.sleep(0.5 if attempt + 1 < attempts else 0)
        raise Failed(f"{name}: {done.stderr.strip()[-500:]}")

    def counts(self, database, script, calls):
        """The file of counts of a session that made that many calls: the one with most in it."""
        path = os.path.join(self.cluster.home, "script.pgbench")
        with open(path, "w", encoding="utf-8") as file:
            file.write(script)
        before = set(glob.glob(self.pattern))
        self._program("pgbench", "-n", "-M", "prepared", "-c", "1", "-t", str(calls), "-f", path, database)
        time.sleep(3)           # until the session has written what it counted
        return max(set(glob.glob(self.pattern)) - before, key=lambda f: totals(f, "no")[TOTAL])

    def stop(self):
        """A fast shutdown."""
        self._server.send_signal(2)
        self._server.wait(timeout=120)


TOTAL = "PROGRAM TOTALS"
START = ("main", "PostmasterMain", "(below main)", "__libc_start_main")


def totals(path, inclusive):
    """Instructions by function, with those of the functions that it calls or without."""
    done = subprocess.run(["callgrind_annotate", "--threshold=99.9", "--auto=no",
                           f"--inclusive={inclusive}", path], text=True, capture_output=True, check=True)
    counts = {}
    for line in done.stdout.splitlines():
        match = re.match(r"\s*([\d,]+)\s*\([^)]*\)\s+(\S.*)", line)
        if match:
            name = re.sub(r"\s*\[.*$", "", match[2]).split(":")[-1]
            counts[name] = counts.get(name, 0) + int(match[1].replace(",", ""))
    return counts


def profile(valgrind, database, script, rows):
    """Prints what a call costs and where."""
    few, many = (valgrind.counts(database, script, calls) for calls in (FEW, MANY))
    for inclusive, title in (("yes", "with what they call"), ("no", "by themselves")):
        before, after = totals(few, inclusive), totals(many, inclusive)
        each = {name: (count - before.get(name, 0)) / (MANY - FEW) for name, count in after.items()}
        total = each.pop(TOTAL)
        if inclusive == "yes":
            print(f"  {total:10,.0f} instructions a call")
        print(f"  {title}:")
        nameless = [name for name in each if name.startswith("0x")]
        if inclusive == "no":
            each["functions of the server and of libcrypto without a name"] = sum(each[n] for n in nameless)
        shown = [name for name in each if name not in nameless and not name.startswith(START)]
        for name in sorted(shown, key=each.get, reverse=True)[:rows]:
            print(f"  {each[name]:10,.0f} {100 * each[name] / total:5.1f} %  {name}")


def main():
    parser = argparse.ArgumentParser(prog="bench/profile")
    parser.add_argument("--bindir", required=True)
    parser.add_argument("--home", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("calls", nargs="+", choices=list(CALLS))
    options = parser.parse_args()
    cluster = Cluster(options.bindir, options.home, None)

    cluster.start()
    databases = {module: prepare(cluster, module) for module in {CALLS[c][0] for c in options.calls}}
    cluster.stop()
    valgrind = Valgrind(cluster)
    try:
        for call in options.calls:
            module, script = CALLS[call]
            print(call, flush=True)
            profile(valgrind, databases[module], script, options.rows)
    finally:
        valgrind.stop()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(f"bench/profile: {error}")
