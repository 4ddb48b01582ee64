"""Calls to Stripe a second, and what each costs.

A queue of payments is sent with 1, 16 and 64 calls in flight and no cap on their
rate.  The stand-in for Stripe is one Python process on the same machine, so it
is mostly the limit: how busy it was, and how busy the worker was, is part of
the table.  pg_net sends as many requests with its default settings to the same
stand-in (which refuses them, since pg_net can send no form: that is less work).
"""

import time

from . import stand_in
from .cluster import Failed
from .figures import take_turns

NAME = "worker"
DATABASE = "bench_worker"
PG_NET_DATABASE = "postgres"        # the one that pg_net serves by default
WINDOWS = (1, 16, 64)
DEFAULT_WINDOW = 16
PG_NET = "pg_net, defaults"

WORKER_PID = """SELECT pid FROM pg_stat_activity
    WHERE backend_type = 'stripe_lifecycle worker' AND datname = current_database()"""
COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


class Sample:
    """What a process and the server have used up to now."""

    def __init__(self, cluster, pid, sim):
        self.at = time.monotonic()
        self.worker = stand_in.cpu_seconds(pid)
        self.stand_in = stand_in.cpu_seconds(sim.process.pid)
        self.wal = cluster.wal_position(DATABASE)


def worker_commits(cluster):
    """Commits in this database so far; a worker tells of them once in a while."""
    time.sleep(1.2)
    return int(cluster.value(COMMITS, DATABASE))


def contender(cluster, sim, window, payments):
    """A function that measures one round with so many calls in flight."""
    def measure():
        cluster.reload(stripe_lifecycle__max_in_flight=window)
        sim.forget()
        key = f"{window}-{cluster.wal_position()}"
        # a first call, so that the worker is there and its plans are made
        cluster.sql(f"SELECT stripe_lifecycle.create_payment(1000, 'usd', 'warm-{key}')", DATABASE)
        stand_in.wait_drained(cluster, DATABASE)
        cluster.sql("SELECT stripe_lifecycle.pause_worker('bench')", DATABASE)
        cluster.sql(f"""SELECT count(stripe_lifecycle.create_payment(1000, 'usd', '{key}-' || i))
            FROM generate_series(1, {payments}) i; CHECKPOINT""", DATABASE)
        pid = cluster.value(WORKER_PID, DATABASE)
        commits = worker_commits(cluster)
        before = Sample(cluster, pid, sim)
        cluster.sql("SELECT stripe_lifecycle.resume_worker()", DATABASE)
        stand_in.wait_drained(cluster, DATABASE)
        after = Sample(cluster, pid, sim)
        commits = worker_commits(cluster) - commits
        seconds = after.at - before.at
        return {"calls/s": payments / seconds,
                "CPU/call": (after.worker - before.worker) * 1e6 / payments,
                "commits/call": commits / payments,
                "WAL/call": (after.wal - before.wal) / payments,
                "worker busy": (after.worker - before.worker) / seconds,
                "stand-in busy": (after.stand_in - before.stand_in) / seconds}
    return measure


def pg_net_contender(cluster, sim, payments):
    """A function that measures one round of pg_net."""
    def measure():
        sim.forget()
        cluster.sql("TRUNCATE net._http_response, net.http_request_queue", PG_NET_DATABASE)
        started = time.monotonic()
        cluster.sql(f"""
            SELECT count(net.http_post('{sim.base}/v1/payment_intents', '{{"amount": 1000}}',
                headers := jsonb_build_object('Authorization', 'Bearer sk_test_bench',
                    'Content-Type', 'application/json', 'Idempotency-Key', 'net-' || i)))
            FROM generate_series(1, {payments}) i""", PG_NET_DATABASE)
        answered = 0
        while answered < payments:
            if time.monotonic() - started > 120:
                raise Failed(f"pg_net has sent {answered} of {payments} requests after 120 s")
            time.sleep(0.02)
            answered = int(cluster.value("SELECT count(*) FROM net._http_response", PG_NET_DATABASE))
        return {"calls/s": payments / (time.monotonic() - started)}
    return measure


def run(bench):
    """Measures, and makes the rows."""
    payments = bench.options.payments
    case = f"queue of {payments}"
    cluster = bench.cluster
    if bench.options.pg_net:
        cluster.restart(shared_preload_libraries="stripe_lifecycle, pg_net")
        cluster.sql("CREATE EXTENSION IF NOT EXISTS pg_net", PG_NET_DATABASE)
    sim = stand_in.StandIn(cluster)
    try:
        stand_in.attach(cluster, DATABASE, sim, stripe_lifecycle__max_requests_per_second=0,
                        stripe_lifecycle__worker_linger="1min")
        contenders = {f"{window} in flight": contender(cluster, sim, window, payments)
                      for window in WINDOWS}
        if bench.options.pg_net:
            contenders[PG_NET] = pg_net_contender(cluster, sim, payments)
        take_turns(bench.figures, NAME, case, contenders, bench.rounds, bench.progress)
        show(bench, case)
    finally:
        sim.stop()
    cluster.reload(stripe_lifecycle__api_base="http://127.0.0.1:9")
    cluster.sql(f"DROP DATABASE {DATABASE} (FORCE)")
    if bench.options.pg_net:
        cluster.sql("DROP EXTENSION pg_net", PG_NET_DATABASE)
        cluster.restart(shared_preload_libraries="stripe_lifecycle")


def show(bench, case):
    """The rows."""
    figures = bench.figures
    if bench.options.pg_net:
        figures.row(NAME, case, PG_NET, "calls/s", "/s")
    else:
        figures.note("pg_net is not available: PG_NET_SRC names no sources of it, or they can't be built")
    for window in WINDOWS:
        against = bench.options.pg_net and window == DEFAULT_WINDOW
        figures.row(NAME, case, f"{window} in flight", "calls/s", "/s",
                    against=PG_NET if against else None, bar=(">=", 3) if against else None)
    for measure, unit in (("CPU/call", "us"), ("commits/call", ""), ("WAL/call", "B"),
                          ("worker busy", "of a CPU"), ("stand-in busy", "of a CPU")):
        for window in WINDOWS:
            bar = ("<=", 0.5) if measure == "commits/call" and window > 1 else None
            figures.row(NAME, case, f"{window} in flight", measure, unit, bar=bar)
