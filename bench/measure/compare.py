"""Two revisions side by side: what became faster or slower, beyond noise?

Both have a server of their own and take turns, round by round; what counts is
the ratio inside a round.  Something changed if the 99 % interval of the median
ratio leaves out 1 (with ten rounds: if all of them agree) and the change is
worth a word (2 %).  The same load on plain tables, which no revision touches, is
the control: if that "changed", the machine was not quiet enough to believe the
rest.
"""

import argparse
import statistics
import sys

from . import create, growth, ingest, verify
from .cluster import Cluster, Failed
from .figures import Figures, interval, number, take_turns

CONFIDENCE = 0.99        # of a dozen verdicts hardly one should be chance
WORTH_A_WORD = 0.02
DATABASE = "bench_compare"
EVENT_RATE = 12000
HIGHER_IS_BETTER = {"events/s", "payments/s", "looks/s"}


def cases(options):
    """(benchmark, case, set-up of a cluster or None, contender of a cluster), one after the other."""
    events = options.rounds * options.seconds * EVENT_RATE * 2
    seconds = options.seconds

    def prepare_ingest(cluster):
        ingest.prepare(cluster, DATABASE, events, rivals=False)

    def prepare_guard(cluster):
        create.prepare(cluster, DATABASE)
        cluster.sql(growth.GUARD_SETUP, DATABASE)

    yield ("control: bare SQL", "8 clients", prepare_ingest,
           lambda c: ingest.contender(c, DATABASE, ingest.FLOOR, 8, seconds, events))
    for clients in (1, 8):
        yield ("ingest_webhook", f"{clients} clients", None,
               lambda c, n=clients: ingest.contender(c, DATABASE, ingest.OURS, n, seconds, events))
    for clients in (1, 8):
        yield ("create_payment", f"{clients} clients", prepare_guard if clients == 1 else None,
               lambda c, n=clients: create.create_contender(c, DATABASE, create.OURS, n, seconds))
    yield ("payment_status", "8 clients", None,
           lambda c: create.status_contender(c, DATABASE, create.STATUS, 8, seconds))
    yield ("guard", "plain UPDATE", None,
           lambda c: growth.guard_cost(c, DATABASE, "stripe_lifecycle.payments"))
    yield ("verify_webhook_signature", "3 KB event",
           lambda c: verify.prepare(c, DATABASE, rivals=False),
           lambda c: verify.contender(c, DATABASE, verify.CHECKS[verify.OURS]))


def verdict(measure, ratios):
    """What the ratios new/base of a measure say."""
    middle = statistics.median(ratios)
    low, high = interval(ratios, CONFIDENCE)
    if low <= 1 <= high or abs(middle - 1) < WORTH_A_WORD:
        return "no change beyond noise"
    if measure.startswith("WAL"):
        return "more" if middle > 1 else "less"
    return "FASTER" if (middle > 1) == (measure in HIGHER_IS_BETTER) else "SLOWER"


LINE = "  {:<26} {:<14} {:<18} {:>10} {:>10} {:>7} {:>15}  {}"


def show(figures, benchmark, case):
    """A line for each measure; returns the verdicts."""
    verdicts = []
    for name, at, contender, measure in list(figures.values):
        if (name, at, contender) != (benchmark, case, "base"):
            continue
        base = figures.of(benchmark, case, "base", measure)
        new = figures.of(benchmark, case, "new", measure)
        ratios = [n / b for n, b in zip(new, base, strict=True)]
        low, high = interval(ratios, CONFIDENCE)
        verdicts.append(verdict(measure, ratios))
        print(LINE.format(benchmark, case, measure, number(statistics.median(base)),
                          number(statistics.median(new)), f"{statistics.median(ratios):.3f}",
                          f"{low:.3f} to {high:.3f}", verdicts[-1]), flush=True)
    return verdicts


def compare(options, base, new):
    """All cases; returns whether the control held still."""
    figures = Figures()
    quiet = True
    print(LINE.format("", "", "", "base", "new", "ratio", "99 %", ""))
    for benchmark, case, prepare, contender in cases(options):
        for cluster in (base, new):
            if prepare:
                prepare(cluster)
        take_turns(figures, benchmark, case, {"base": contender(base), "new": contender(new)},
                   options.rounds, lambda text: None)
        verdicts = show(figures, benchmark, case)
        if benchmark.startswith("control") and {"FASTER", "SLOWER"} & set(verdicts):
            quiet = False
    return quiet


def main():
    parser = argparse.ArgumentParser(prog="compare")
    parser.add_argument("--bindir", required=True)
    parser.add_argument("--base-bindir", required=True)
    parser.add_argument("--home", required=True)
    parser.add_argument("--base-home", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    options = parser.parse_args()
    if options.rounds < 8:
        parser.error("it takes 8 rounds to tell a change from chance")
    base = Cluster(options.base_bindir, options.base_home, options.base_home + "/tree")
    new = Cluster(options.bindir, options.home, options.home + "/tree")
    try:
        base.start()
        new.start()
        quiet = compare(options, base, new)
    except Failed as error:
        print(f"bench/compare: {error}", file=sys.stderr)
        return 1
    finally:
        base.stop()
        new.stop()
    if not quiet:
        print("The control changed too: this machine was not quiet enough. Take more or longer rounds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
