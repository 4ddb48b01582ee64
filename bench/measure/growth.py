"""Does a long past make payments dearer?  And what does the guard cost each row?

The same work in two databases of one server, by turns: one in which ten
thousand payments have been, and one with a thousand times as many.  The other
figure is the guard's: an UPDATE that changes nothing, of many rows at once, with
the trigger and on a copy of the table without it.
"""

import statistics

from . import create, ingest
from .figures import take_turns

NAME = "growth"
SMALL_ROWS = 10000
CLIENTS = 8
RATE = 12000            # events a second that will not be reached
GUARD_ROWS = 20000
GUARD_PASSES = 5


def count(rows):
    """A number of rows in words."""
    return f"{rows // 1000000} million" if rows >= 1000000 else f"{rows // 1000} thousand"


def prepare(cluster, database, rows, events):
    """A database with a past of `rows` payments, and events to come."""
    cluster.fresh_database(database)
    cluster.script("events.sql", database, n=events, secret=cluster.secret)
    cluster.script("growth.sql", database, rows=rows)


def ingest_cost(cluster, database, seconds, events):
    """A function that measures one round: microseconds of server for an event."""
    round_of = ingest.contender(cluster, database, ingest.OURS, CLIENTS, seconds, events)

    def measure():
        return {"ingest, time per event": 1e6 / round_of()["events/s"]}
    return measure


def create_cost(cluster, database, seconds):
    """The same for create_payment()."""
    round_of = create.create_contender(cluster, database, create.OURS, CLIENTS, seconds)

    def measure():
        return {"create, time per payment": 1e6 / round_of()["payments/s"]}
    return measure


GUARD_SETUP = f"""
CREATE TABLE bench.unguarded (LIKE stripe_lifecycle.payments INCLUDING ALL) WITH (fillfactor = 70);
INSERT INTO bench.unguarded SELECT * FROM stripe_lifecycle.payments ORDER BY id LIMIT {GUARD_ROWS};
CREATE TABLE bench.guarded_ids AS SELECT id FROM bench.unguarded;
VACUUM ANALYZE bench.unguarded, bench.guarded_ids;
"""


def guard_cost(cluster, database, table):
    """A function that measures one round: microseconds for each row of an UPDATE."""
    statement = (f"BEGIN;\nUPDATE {table} SET updated_at = updated_at "
                 "WHERE id IN (SELECT id FROM bench.guarded_ids);\nROLLBACK;\n")

    def measure():
        cluster.sql(f"VACUUM {table}", database)
        output = cluster.sql("\\timing on\n" + statement * GUARD_PASSES, database)
        times = [float(line[0].split()[1]) for line in output if line[0].startswith("Time:")]
        return {"time per UPDATE": statistics.median(times[1::3]) * 1000 / GUARD_ROWS}
    return measure


def run(bench):
    """Measures, and makes the rows."""
    big_rows = bench.options.growth_rows
    small, big = count(SMALL_ROWS), count(big_rows)
    events = max(GUARD_ROWS, bench.rounds * bench.seconds * RATE)
    for database, rows in (("growth_small", SMALL_ROWS), ("growth_big", big_rows)):
        bench.say(f"growth: making {count(rows)} payments with all that belongs to them")
        prepare(bench.cluster, database, rows, events)
    size = bench.cluster.value("SELECT pg_size_pretty(pg_database_size('growth_big'))")

    for measure, cost in (
            ("ingest, time per event", lambda d: ingest_cost(bench.cluster, d, bench.seconds, events)),
            ("create, time per payment", lambda d: create_cost(bench.cluster, d, bench.seconds))):
        case = f"{CLIENTS} clients"
        take_turns(bench.figures, NAME, case,
                   {f"with {small}": cost("growth_small"), f"with {big}": cost("growth_big")},
                   bench.rounds, bench.progress)
        bench.figures.row(NAME, case, f"with {small}", measure, "us")
        bench.figures.row(NAME, case, f"with {big}", measure, "us",
                          against=f"with {small}", bar=("<=", 1.25))
    bench.figures.note(f"the database with {big} payments has {size}")

    bench.cluster.sql(GUARD_SETUP, "growth_small")
    take_turns(bench.figures, NAME, "plain UPDATE",
               {"without guard": guard_cost(bench.cluster, "growth_small", "bench.unguarded"),
                "with guard": guard_cost(bench.cluster, "growth_small", "stripe_lifecycle.payments")},
               bench.rounds, bench.progress)
    bench.figures.row(NAME, "plain UPDATE", "without guard", "time per UPDATE", "us")
    bench.figures.row(NAME, "plain UPDATE", "with guard", "time per UPDATE", "us", against="without guard")
    for database in ("growth_small", "growth_big"):
        bench.cluster.sql(f"DROP DATABASE {database}")
