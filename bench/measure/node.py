"""The contender in Node: installs Stripe's and PostgreSQL's libraries, if npm can be had, and runs it."""

import json
import os
import shutil
import subprocess

from .cluster import Failed


class Node:
    """bench/node/rival.mjs in a folder of its own; `missing` says why there is none."""

    def __init__(self, source, home, secret):
        self.home = home
        self.secret = secret
        self.missing = None
        self.versions = ""
        shutil.copytree(source, home)
        try:
            done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"],
                                  cwd=home, text=True, capture_output=True, timeout=300, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            self.missing = f"npm: {error}"
            return
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()
            self.missing = f"npm install: {lines[-1] if lines else done.returncode}"
            return
        self.versions = self._versions()

    def run(self, cluster, *arguments, database="postgres"):
        """Runs it in a mode; returns what it says."""
        environment = dict(os.environ, PGHOST=cluster.socket, PGUSER="postgres",
                           PGDATABASE=database, BENCH_SECRET=self.secret)
        done = subprocess.run(["node", "rival.mjs", *map(str, arguments)], cwd=self.home,
                              env=environment, text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise Failed(f"rival.mjs: {done.stderr.strip()[-1000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def _versions(self):
        node = subprocess.run(["node", "--version"], text=True, capture_output=True, check=True)
        with open(os.path.join(self.home, "package.json"), encoding="utf-8") as file:
            wanted = json.load(file)["dependencies"]
        return "Node " + node.stdout.strip().lstrip("v") + "".join(
            f", {name} {version}" for name, version in sorted(wanted.items()))
