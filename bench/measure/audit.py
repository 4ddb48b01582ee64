"""What the audit trail and the redaction of the log cost.

The hash of a row is measured alone, in processor time; inside of an event it
can't be told from the rest.  verify_audit() replays a trail of 150000 rows and one
four times as long: time for each million, and the most memory that its session
had of its own, which should be the same for both.  Lines of the log are written
with the redaction on and off, by turns.
"""

import os
import statistics
import subprocess
import threading
import time

from .cluster import Failed
from .figures import take_turns

NAME = "audit"
DATABASE = "bench_audit"
PAYMENTS = (50000, 200000)      # each with three rows in the trail
LINES = 20000

LOG_LINES = f"""
SET stripe_lifecycle.log_redaction = %s;
SET log_min_error_statement = panic;
DO $$
DECLARE
	line text := left(repeat('duration: 0.412 ms  statement: SELECT id, state FROM shop.orders WHERE id = ''01890a5d-ac96-774b-bcce-b302099a8057'' AND created_at > ''2026-11-20 10:00:00+00''; ', 2), 200);
BEGIN
	FOR i IN 1 .. {LINES} LOOP RAISE LOG '%%', line; END LOOP;
	PERFORM set_config('bench.us', (extract(epoch FROM clock_timestamp() - now()) * 1e6 / {LINES})::text, false);
END
$$;
SELECT current_setting('bench.us');
"""


def hash_cost(cluster):
    """Builds the program of bench/audit_cost.c; returns a function that runs it."""
    program = os.path.join(cluster.home, "audit_cost")
    done = subprocess.run(
        ["gcc", "-std=gnu99", "-O2", "-I", os.path.join(cluster.tree, "src"), "-o", program,
         os.path.join(cluster.tree, "bench", "audit_cost.c"),
         os.path.join(cluster.tree, "src", "audit_hash.c"), "-lcrypto"],
        text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise Failed(f"audit_cost.c: {done.stderr[-500:]}")

    def measure():
        return {"time per row": float(subprocess.run([program], text=True, capture_output=True,
                                                     check=True).stdout)}
    return measure


def log_cost(cluster, setting):
    """A function that measures one round: microseconds for a line of 200 bytes."""
    def measure():
        return {"time per line": float(cluster.value(LOG_LINES % setting))}
    return measure


class Watch(threading.Thread):
    """The most memory of its own that a process had, looked at every few milliseconds."""

    def __init__(self, pid):
        super().__init__()
        self.path = f"/proc/{pid}/status"
        self.most = 0
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.005):
            with open(self.path, encoding="utf-8") as file:
                kilobytes = next(int(line.split()[1]) for line in file if line.startswith("RssAnon:"))
            self.most = max(self.most, kilobytes)


def verify(cluster, database, rows):
    """One look at the whole trail: seconds for each million rows, and memory in kB."""
    session = cluster.session(database)
    try:
        watch = Watch(session.run("SELECT pg_backend_pid()")[0])
        session.run("SET jit = off")        # which takes some megabytes of its own
        session.run("SELECT count(*) FROM stripe_lifecycle.payments")   # catalogs are read now
        watch.start()
        started = time.monotonic()
        breaks = session.run("SELECT count(*) FROM stripe_lifecycle.verify_audit()")[0]
        seconds = time.monotonic() - started
        watch.over.set()
        watch.join()
    finally:
        session.close()
    if breaks != "0":
        raise Failed(f"verify_audit() found {breaks} breaks")
    return {"verify_audit()": seconds * 1e6 / rows, "memory of verify_audit()": watch.most}


def make_trail(cluster, database, payments):
    """A database with a trail of three rows a payment, with all that belongs to them."""
    setup = os.path.join(cluster.tree, "test", "setup")
    cluster.fresh_database(database)
    cluster.sql("CREATE EXTENSION stripe_lifecycle; CREATE SCHEMA t", database)
    for name in ("audit.sql", "bulk.sql"):
        with open(os.path.join(setup, name), encoding="utf-8") as file:
            cluster.sql(file.read(), database, n=payments)
    cluster.sql("VACUUM ANALYZE", database)


def run(bench):
    """Measures, and makes the rows."""
    figures = bench.figures
    take_turns(figures, NAME, "move by an event", {"hash of the row": hash_cost(bench.cluster)},
               bench.rounds, bench.progress)
    figures.row(NAME, "move by an event", "hash of the row", "time per row", "us")

    names = {payments: f"{3 * payments} rows" for payments in PAYMENTS}
    for payments in PAYMENTS:
        bench.say(f"audit: making a trail of {names[payments]}")
        make_trail(bench.cluster, f"{DATABASE}_{payments}", payments)
    take_turns(figures, NAME, "verify_audit()",
               {names[p]: lambda p=p: verify(bench.cluster, f"{DATABASE}_{p}", 3 * p)
                for p in PAYMENTS}, bench.rounds, bench.progress)
    few, many = (names[payments] for payments in PAYMENTS)
    for measure, unit, bar in (("verify_audit()", "s/million", None),
                               ("memory of verify_audit()", "kB", ("<=", 1.1))):
        figures.row(NAME, "verify_audit()", few, measure, unit)
        figures.row(NAME, "verify_audit()", many, measure, unit, against=few, bar=bar)
    for payments in PAYMENTS:
        bench.cluster.sql(f"DROP DATABASE {DATABASE}_{payments}")

    take_turns(figures, NAME, "line of 200 bytes",
               {f"redaction {setting}": log_cost(bench.cluster, setting) for setting in ("off", "on")},
               bench.rounds, bench.progress)
    figures.row(NAME, "line of 200 bytes", "redaction off", "time per line", "us")
    figures.row(NAME, "line of 200 bytes", "redaction on", "time per line", "us", against="redaction off")
    cost = [on - off for on, off in zip(
        figures.of(NAME, "line of 200 bytes", "redaction on", "time per line"),
        figures.of(NAME, "line of 200 bytes", "redaction off", "time per line"))]
    figures.note(f"the redaction takes {statistics.median(cost):.2f} us of a logged line")
