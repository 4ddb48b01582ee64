"""From COMMIT to Stripe, and to the stored PaymentIntent, on an idle server.

The server itself notes when a transaction was committed
(track_commit_timestamp), the stand-in when a request arrived; both by the same
clock.  Once with the worker waiting for work, and once with one that has gone
home (worker_linger) and has to be started anew.
"""

from . import stand_in

NAME = "latency"
DATABASE = "bench_latency"
SERIES = {"worker at hand": ("1min", 0.02), "worker started anew": ("0", 0.3)}
MOST_ANEW = 30          # payments in a round: a third of a second each


def percentile(values, share):
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def one_round(cluster, sim, series, n):
    """Creates payments slowly; returns the measures of their latencies in ms."""
    linger, pause = SERIES[series]
    cluster.reload(stripe_lifecycle__worker_linger=linger)
    key = f"{series} {sim.base} {cluster.wal_position()}"
    cluster.script("latency.sql", DATABASE, series=key, n=n, pause=pause)
    stand_in.wait_drained(cluster, DATABASE)
    arrived = sim.arrivals()
    rows = cluster.sql(f"""
        SELECT r.idempotency_key,
            extract(epoch FROM pg_xact_commit_timestamp(t.xmin)),
            extract(epoch FROM pg_xact_commit_timestamp(p.xmin))
        FROM stripe_lifecycle.payments p
        JOIN stripe_lifecycle.payment_transitions t ON t.payment_id = p.id
        JOIN stripe_lifecycle.api_requests r ON r.payment_id = p.id
        WHERE p.idempotency_key LIKE '{key}-%' AND p.payment_intent_id IS NOT NULL""", DATABASE)
    assert len(rows) == n, (len(rows), n)
    sent = [(arrived[request] - float(committed)) * 1000 for request, committed, _ in rows]
    stored = [(float(stored) - float(committed)) * 1000 for _, committed, stored in rows]
    return {"commit to sent, p50": percentile(sent, 0.5), "commit to sent, p99": percentile(sent, 0.99),
            "commit to stored, p50": percentile(stored, 0.5),
            "commit to stored, p99": percentile(stored, 0.99)}


def run(bench):
    """Measures, and makes the rows."""
    bench.cluster.restart(track_commit_timestamp="on")
    sim = stand_in.StandIn(bench.cluster)
    try:
        stand_in.attach(bench.cluster, DATABASE, sim, stripe_lifecycle__max_requests_per_second=0)
        n = max(20, bench.options.payments // 2 // bench.rounds)
        for series in SERIES:
            few = min(n, MOST_ANEW) if series == "worker started anew" else n
            for number in range(bench.rounds):
                bench.progress(f"latency, {series}: round {number + 1}")
                bench.figures.add(NAME, "idle server", series,
                                  one_round(bench.cluster, sim, series, few))
        for measure in ("commit to sent, p50", "commit to sent, p99",
                        "commit to stored, p50", "commit to stored, p99"):
            for series in SERIES:
                bench.figures.row(NAME, "idle server", series, measure, "ms")
    finally:
        sim.stop()
    bench.cluster.reload(stripe_lifecycle__api_base="http://127.0.0.1:9")
    bench.cluster.sql(f"DROP DATABASE {DATABASE} (FORCE)")
    bench.cluster.restart(track_commit_timestamp="off")
