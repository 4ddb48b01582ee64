"""Events a second through ingest_webhook(), and what each writes to the WAL.

Against a floor that does the bare writes only, and against two ways of doing
the same without the extension.  Every event is of a payment of its own, signed,
and about 3 KB long.
"""

from .cluster import Failed
from .figures import take_turns

NAME = "ingest"
DATABASE = "bench_ingest"
OURS = "stripe_lifecycle"
FLOOR = "the floor"
CLIENTS = (1, 8, 16)
RATE = {1: 5000, 8: 10000, 16: 10000}     # events a second that no contender will reach

# Each contender has its own tables, and takes one event after the other.
NEXT = "FROM bench.events WHERE n = (SELECT nextval('bench.{0}'))"
SCRIPTS = {
    FLOOR: "SELECT bench.floor_ingest(event_id, payment_id, intent) " + NEXT.format("floor_next"),
    OURS: "SELECT stripe_lifecycle.ingest_webhook(body, header) " + NEXT.format("next_event"),
    "PL/pgSQL + pgcrypto": "SELECT bench.plpgsql_ingest(body, header) " + NEXT.format("plpgsql_next"),
}
SEQUENCES = {FLOOR: "floor_next", OURS: "next_event", "PL/pgSQL + pgcrypto": "plpgsql_next"}


def prepare(cluster, database, events, rivals=True):
    """Makes a database with that many payments and events, for every contender."""
    cluster.fresh_database(database)
    cluster.script("events.sql", database, n=events, secret=cluster.secret)
    cluster.script("ingest_floor.sql", database)
    if rivals:
        cluster.script("ingest_plpgsql.sql", database, secret=cluster.secret)
        cluster.script("ingest_node.sql", database)
    cluster.sql("CHECKPOINT", database)


def contender(cluster, database, name, clients, seconds, events):
    """A function that measures one round of a contender of SCRIPTS."""
    def measure():
        cluster.sql("CHECKPOINT", database)
        load = cluster.pgbench(SCRIPTS[name], clients, seconds, database)
        used = int(cluster.value(f"SELECT last_value FROM bench.{SEQUENCES[name]}", database))
        if used > events:
            raise Failed(f"{name} used up all {events} events: raise RATE in measure/ingest.py")
        return {"events/s": load.tps, "WAL bytes/event": load.wal_each}
    return measure


def node_contender(cluster, database, node, mode, clients, seconds):
    """The same for the handler in Node."""
    def measure():
        cluster.sql("CHECKPOINT", database)
        return {"events/s": node.run(cluster, mode, clients, seconds, database=database)["tps"]}
    return measure


def check(cluster, database):
    """Were the events really taken in?  Says how many; raises if something is missing."""
    applied, succeeded, audited = map(int, cluster.sql("""
        SELECT (SELECT count(*) FROM stripe_lifecycle.webhook_events WHERE outcome = 'applied'),
            (SELECT count(*) FROM stripe_lifecycle.payments WHERE state = 'succeeded'),
            (SELECT count(*) FROM stripe_lifecycle.payment_transitions WHERE to_state = 'succeeded')
        """, database)[0])
    if not applied or applied != succeeded or applied != audited:
        raise Failed(f"{applied} events applied, {succeeded} payments succeeded, {audited} audit rows")
    return applied


def run(bench):
    """Measures, and makes the rows."""
    events = bench.rounds * bench.seconds * sum(RATE.values())
    bench.say(f"ingest: making {events} payments and as many signed events")
    prepare(bench.cluster, DATABASE, events)
    node = bench.node()

    for clients in CLIENTS:
        case = f"{clients} client" + "s" * (clients > 1)
        contenders = {name: contender(bench.cluster, DATABASE, name, clients, bench.seconds, events)
                      for name in SCRIPTS}
        if not node.missing:
            contenders["Node in process"] = node_contender(
                bench.cluster, DATABASE, node, "inproc", clients, bench.seconds)
            contenders["Node over HTTP"] = node_contender(
                bench.cluster, DATABASE, node, "http", clients, bench.seconds)
        take_turns(bench.figures, NAME, case, contenders, bench.rounds, bench.progress)
        show(bench.figures, case, contenders, clients)

    if node.missing:
        bench.figures.note(f"no contender in Node: {node.missing}")
    else:
        bench.figures.note(f"contender in Node: {node.versions}")
    bench.figures.note(f"{check(bench.cluster, DATABASE)} events were taken in, "
                       "and as many payments and audit rows changed")
    bench.cluster.sql(f"DROP DATABASE {DATABASE}")


def show(figures, case, contenders, clients):
    """The rows of a case."""
    for name in contenders:
        figures.row(NAME, case, name, "events/s", "/s",
                    against=None if name == FLOOR else FLOOR,
                    bar=(">=", 0.9) if name == OURS and clients >= 8 else None)
    figures.row(NAME, case, FLOOR, "WAL bytes/event", "B")
    figures.row(NAME, case, OURS, "WAL bytes/event", "B", against=FLOOR, bar=("<=", 1.4))
