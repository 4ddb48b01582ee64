"""The stand-in for Stripe (test/stripe_sim.py), as a process beside the server."""

import json
import os
import subprocess
import sys
import time
import urllib.request

from .cluster import Failed


class StandIn:
    """Started on a free port of the loopback interface; ended by stop()."""

    def __init__(self, cluster):
        port_file = os.path.join(cluster.home, "sim.port")
        with open(os.path.join(cluster.home, "sim.log"), "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, os.path.join(cluster.tree, "test", "stripe_sim.py"), "serve",
                 "--port", "0", "--port-file", port_file, "--webhook-secret", "whsec_unused"],
                cwd=cluster.home, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not (os.path.exists(port_file) and os.path.getsize(port_file)):
            if time.monotonic() > deadline:
                raise Failed("the stand-in for Stripe does not start")
            time.sleep(0.05)
        with open(port_file, encoding="utf-8") as file:
            self.base = f"http://127.0.0.1:{file.read().strip()}"
        os.unlink(port_file)

    def arrivals(self):
        """{idempotency key: when its first request arrived, in Unix seconds}."""
        with urllib.request.urlopen(self.base + "/_sim/ledger") as answer:
            requests = json.load(answer)["requests"]
        arrived = {}
        for request in requests:
            arrived.setdefault(request["idempotency_key"], request["at"])
        return arrived

    def forget(self):
        """Empties its books, so that it is as quick as it was."""
        request = urllib.request.Request(self.base + "/_sim/reset", data=b"{}", method="POST")
        urllib.request.urlopen(request).close()

    def stop(self):
        """Ends the process."""
        self.process.terminate()
        self.process.wait()


def cpu_seconds(pid):
    """CPU time of a process so far, in ticks of 10 ms."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def attach(cluster, database, stand_in, **settings):
    """A database whose worker sends to the stand-in, with no cap on its pace."""
    cluster.reload(stripe_lifecycle__api_base=stand_in.base,
                   stripe_lifecycle__api_key_file=os.path.join(cluster.home, "api_key"), **settings)
    cluster.fresh_database(database)
    cluster.sql("CREATE EXTENSION stripe_lifecycle", database)


def wait_drained(cluster, database):
    """Until nothing waits to be sent."""
    cluster.sql("""DO $$ BEGIN
        WHILE EXISTS (SELECT FROM stripe_lifecycle.api_requests
                WHERE status IN ('queued', 'in_flight')) LOOP
            PERFORM pg_sleep(0.005);
        END LOOP;
    END $$""", database)
