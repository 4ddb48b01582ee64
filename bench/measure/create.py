"""create_payment() and payment_status(), each against the bare SQL under it."""

from .figures import take_turns

NAME = "create"
DATABASE = "bench_create"
OURS = "create_payment"
FLOOR = "the floor"
STATUS = "payment_status"
SELECT = "bare SELECT"
CLIENTS = (1, 8, 16)
LOOKED_AT = 20000       # payments that payment_status() is asked for

CREATE_SCRIPTS = {
    FLOOR: "SELECT bench.floor_create('order-' || nextval('bench.next_payment'));",
    OURS: "SELECT stripe_lifecycle.create_payment(2000, 'usd', 'order-' || nextval('bench.next_payment'));",
}
ID = f"""\\set n random(1, {LOOKED_AT})
"""
STATUS_SCRIPTS = {
    SELECT: ID + """SELECT id, state, amount, currency, payment_intent_id, client_secret, last_error,
		decline_count, livemode, created_at, updated_at, finished_at
	FROM stripe_lifecycle.payments WHERE id = ('00000000-0000-7000-8000-' || lpad(:n::text, 12, '0'))::uuid;""",
    STATUS: ID + """SELECT * FROM stripe_lifecycle.payment_status(
		('00000000-0000-7000-8000-' || lpad(:n::text, 12, '0'))::uuid);""",
}


def prepare(cluster, database):
    """A database with payments to look at, and the floors."""
    cluster.fresh_database(database)
    cluster.script("create_floor.sql", database, n=LOOKED_AT)


def create_contender(cluster, database, name, clients, seconds):
    """A function that measures one round of creation."""
    def measure():
        cluster.sql("CHECKPOINT", database)
        load = cluster.pgbench(CREATE_SCRIPTS[name], clients, seconds, database)
        return {"payments/s": load.tps, "WAL bytes/payment": load.wal_each}
    return measure


def status_contender(cluster, database, name, clients, seconds):
    """A function that measures one round of looking at payments."""
    def measure():
        return {"looks/s": cluster.pgbench(STATUS_SCRIPTS[name], clients, seconds, database).tps}
    return measure


def run(bench):
    """Measures, and makes the rows."""
    prepare(bench.cluster, DATABASE)
    for clients in CLIENTS:
        case = f"{clients} client" + "s" * (clients > 1)
        take_turns(bench.figures, NAME, case,
                   {name: create_contender(bench.cluster, DATABASE, name, clients, bench.seconds)
                    for name in CREATE_SCRIPTS}, bench.rounds, bench.progress)
        bench.figures.row(NAME, case, FLOOR, "payments/s", "/s")
        bench.figures.row(NAME, case, OURS, "payments/s", "/s", against=FLOOR, bar=(">=", 0.85))
        bench.figures.row(NAME, case, FLOOR, "WAL bytes/payment", "B")
        bench.figures.row(NAME, case, OURS, "WAL bytes/payment", "B", against=FLOOR)
    for clients in (1, 8):
        case = f"{clients} client" + "s" * (clients > 1)
        take_turns(bench.figures, NAME, case,
                   {name: status_contender(bench.cluster, DATABASE, name, clients, bench.seconds)
                    for name in STATUS_SCRIPTS}, bench.rounds, bench.progress)
        bench.figures.row(NAME, case, SELECT, "looks/s", "/s")
        bench.figures.row(NAME, case, STATUS, "looks/s", "/s", against=SELECT, bar=(">=", 0.8))
    bench.cluster.sql(f"DROP DATABASE {DATABASE}")
