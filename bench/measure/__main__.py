"""Runs the benchmarks of bench/run against a server that it has built."""

import argparse
import os
import platform
import re
import sys
import time
from functools import lru_cache

from . import audit, create, growth, ingest, latency, plot, restore, verify, worker
from .cluster import Cluster, Failed
from .figures import Figures, write_csv, write_markdown
from .node import Node

BENCHMARKS = {module.NAME: module
              for module in (ingest, verify, create, growth, worker, latency, audit, restore)}


class Bench:
    """What every benchmark is given."""

    def __init__(self, options):
        self.options = options
        self.rounds = options.rounds
        self.seconds = options.seconds
        self.cluster = Cluster(options.bindir, options.home, options.tree)
        self.figures = Figures(self.show)
        self._started = time.monotonic()

    @lru_cache(maxsize=None)
    def node(self):
        """The contender in Node, installed when it is first asked for."""
        self.say("installing the contender in Node")
        return Node(os.path.join(self.options.tree, "bench", "node"),
                    os.path.join(self.options.home, "node"), self.cluster.secret)

    def show(self, text):
        """A line of the table."""
        self._clear()
        print(text, flush=True)

    def say(self, text):
        """What is going on, with the time."""
        self._clear()
        print(f"[{time.monotonic() - self._started:6.1f} s] {text}", flush=True)

    def progress(self, text):
        """What is going on right now, for whoever watches; not for files."""
        if sys.stdout.isatty():
            self._clear()
            print(f"\r{text}", end="", flush=True)

    @staticmethod
    def _clear():
        if sys.stdout.isatty():
            print("\r\x1b[K", end="")


def machine(cluster):
    """What the figures were measured on, and when."""
    model = "unknown processor"
    memory = 0
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file
                      if line.startswith("model name")), model)
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) / 1048576
    version = cluster.value("SELECT current_setting('server_version')").split()[0]
    return (f"{time.strftime('%Y-%m-%d')}, PostgreSQL {version}, {os.cpu_count()} x {model}, "
            f"{memory:.0f} GB, Linux {platform.release().split('-')[0]}")


def write(bench, about):
    """The table, the rounds, the plots."""
    out = bench.options.out
    os.makedirs(out, exist_ok=True)
    write_csv(bench.figures, os.path.join(out, "table.csv"), os.path.join(out, "rounds.csv"))
    write_markdown(bench.figures, os.path.join(out, "table.md"), about)
    for (benchmark, measure), svg in plot.plots(bench.figures.rows).items():
        name = re.sub("[^a-z0-9]+", "-", f"{benchmark} {measure.split('/')[0]}".lower())
        with open(os.path.join(out, f"{name}.svg"), "w", encoding="utf-8") as file:
            file.write(svg)


def arguments():
    parser = argparse.ArgumentParser(prog="measure")
    parser.add_argument("--bindir", required=True)
    parser.add_argument("--home", required=True)
    parser.add_argument("--tree", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--growth-rows", type=int, required=True)
    parser.add_argument("--payments", type=int, required=True)
    parser.add_argument("--pg-net", default="")
    parser.add_argument("benchmarks", nargs="+", choices=list(BENCHMARKS))
    return parser.parse_args()


def main():
    bench = Bench(arguments())
    status = 0
    bench.cluster.start()
    about = machine(bench.cluster)
    bench.say(about)
    try:
        for name in bench.options.benchmarks:
            BENCHMARKS[name].run(bench)
    except Failed as error:
        print(f"bench/run: {error}", file=sys.stderr)
        status = 1
    finally:
        bench.cluster.stop()
    if bench.figures.rows:
        write(bench, about)
    return status


if __name__ == "__main__":
    sys.exit(main())
