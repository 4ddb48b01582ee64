"""A dump, restored: is the time in proportion to the payments?

Each payment has three rows of the trail, two events, a request and an attempt,
dumped with pg_dump and restored by psql and by pg_restore -j4; every hash and
every payment is proven on the way.
"""

import os
import subprocess
import time

from . import audit
from .cluster import Failed
from .figures import take_turns

NAME = "restore"
SHARES = (10, 1)            # a tenth of the payments, and all of them


def dump(cluster, payments):
    """Makes a database, dumps it in both formats, drops it."""
    source = f"bench_source_{payments}"
    audit.make_trail(cluster, source, payments)
    for name, options in (("plain", []), ("custom", ["-Fc", "-Z1"])):
        program(cluster, "pg_dump", "-N", "t", *options, "-f", path(cluster, name, payments), source)
    cluster.sql(f"DROP DATABASE {source}")


def path(cluster, name, payments):
    """Where a dump is."""
    return os.path.join(cluster.home, f"{name}.{payments}")


def program(cluster, name, *arguments):
    """Runs one of PostgreSQL's programs against the cluster."""
    done = subprocess.run([os.path.join(cluster.bindir, name), "-h", cluster.socket, "-U", "postgres",
                           *arguments], text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{name}: {done.stderr.strip()[-500:]}")


def restore(cluster, payments, how):
    """A function that measures one round: microseconds for each payment."""
    def measure():
        cluster.fresh_database("bench_restored")
        cluster.sql("CHECKPOINT")
        started = time.monotonic()
        if how == "psql":
            program(cluster, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", os.devnull,
                    "-d", "bench_restored", "-f", path(cluster, "plain", payments))
        else:
            program(cluster, "pg_restore", "-j4", "-d", "bench_restored",
                    path(cluster, "custom", payments))
        seconds = time.monotonic() - started
        restored = int(cluster.value("SELECT count(*) FROM stripe_lifecycle.payments", "bench_restored"))
        if restored != payments:
            raise Failed(f"{restored} of {payments} payments were restored by {how}")
        return {"time per payment": seconds * 1e6 / payments}
    return measure


def run(bench):
    """Measures, and makes the rows."""
    most = max(1000, bench.options.growth_rows // 100)
    sizes = [most // share for share in SHARES]
    for payments in sizes:
        bench.say(f"restore: making and dumping {payments} payments")
        dump(bench.cluster, payments)
    for how in ("psql", "pg_restore -j4"):
        names = {payments: f"{payments} payments" for payments in sizes}
        take_turns(bench.figures, NAME, how,
                   {name: restore(bench.cluster, payments, how) for payments, name in names.items()},
                   bench.rounds, bench.progress)
        few, many = names.values()
        bench.figures.row(NAME, how, few, "time per payment", "us")
        bench.figures.row(NAME, how, many, "time per payment", "us", against=few, bar=("<=", 1.25))
    bench.cluster.sql("DROP DATABASE bench_restored")
    for payments in sizes:
        for name in ("plain", "custom"):
            os.unlink(path(bench.cluster, name, payments))
