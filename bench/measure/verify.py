"""The signature check alone: microseconds for a 3 KB event, in one backend.

Each way goes through the same thousand events in one statement, so what is
measured is the check and the executor's loop around it.  The floor of it all
is one HMAC of the same bytes.
"""

import statistics

from .figures import take_turns

NAME = "verify"
DATABASE = "bench_verify"
CASE = "3 KB event"
OURS = "stripe_lifecycle"
FLOOR = "hmac() of pgcrypto"
PLPGSQL = "PL/pgSQL + pgcrypto"
NODE = "npm stripe"
EVENTS = 1000
PASSES = 20             # in one round, of which the median counts

CHECKS = {
    FLOOR: "hmac(signed, key, 'sha256') IS NOT NULL",
    OURS: "stripe_lifecycle.verify_webhook_signature(body, header, secret, '24 h', now())",
    PLPGSQL: "bench.plpgsql_verify(body, header, secret, 86400)",
}

SETUP = """
CREATE TABLE bench.to_verify (body text, header text, signed bytea, key bytea, secret text);
ALTER TABLE bench.to_verify ALTER body SET STORAGE PLAIN, ALTER header SET STORAGE PLAIN,
	ALTER signed SET STORAGE PLAIN;
INSERT INTO bench.to_verify
	SELECT body, header, convert_to(substring(header FROM 't=([0-9]+)') || '.' || body, 'UTF8'),
		convert_to(:'secret', 'UTF8'), :'secret'
	FROM bench.events WHERE n <= :n;
VACUUM ANALYZE bench.to_verify;
"""


def contender(cluster, database, check):
    """A function that measures one round of a check."""
    def measure():
        statement = f"SELECT count(*) FILTER (WHERE {check}) FROM bench.to_verify;\n"
        output = cluster.sql("SET max_parallel_workers_per_gather = 0; SET jit = off;\n"
                             "\\timing on\n" + statement * PASSES, database)
        times = [float(line[0].split()[1]) for line in output if line[0].startswith("Time:")]
        counts = {line[0] for line in output if not line[0].startswith("Time:")}
        assert counts == {str(EVENTS)}, counts
        return {"time": statistics.median(times) * 1000 / EVENTS}
    return measure


def prepare(cluster, database, rivals=True):
    """A database with events to verify."""
    cluster.fresh_database(database)
    cluster.script("events.sql", database, n=EVENTS, secret=cluster.secret)
    if rivals:
        cluster.script("ingest_plpgsql.sql", database, secret=cluster.secret)
    cluster.sql(SETUP, database, secret=cluster.secret, n=EVENTS)


def run(bench):
    """Measures, and makes the rows."""
    prepare(bench.cluster, DATABASE)
    contenders = {name: contender(bench.cluster, DATABASE, check) for name, check in CHECKS.items()}
    node = bench.node()
    if not node.missing:
        contenders[NODE] = lambda: {"time": node.run(bench.cluster, "verify", database=DATABASE)["us"]}
    take_turns(bench.figures, NAME, CASE, contenders, bench.rounds, bench.progress)

    bench.figures.row(NAME, CASE, FLOOR, "time", "us")
    bench.figures.row(NAME, CASE, OURS, "time", "us", against=FLOOR, bar=("<=", 1.25))
    bench.figures.row(NAME, CASE, PLPGSQL, "time", "us", against=OURS, bar=(">=", 2.2))
    if node.missing:
        bench.figures.note(f"no contender in Node: {node.missing}")
    else:
        bench.figures.row(NAME, CASE, NODE, "time", "us", against=OURS, bar=(">=", 5))
    bench.cluster.sql(f"DROP DATABASE {DATABASE}")
