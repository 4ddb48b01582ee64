"""A private PostgreSQL server, which bench/run has built and made ready."""

import os
import re
import subprocess
import time
from dataclasses import dataclass


class Failed(Exception):
    """A measurement that can't go on; the message says why."""


@dataclass
class Load:
    """What one run of pgbench came to."""

    tps: float
    transactions: int
    wal: int                    # bytes written meanwhile, by whomever

    @property
    def wal_each(self):
        """WAL for each transaction, in bytes."""
        return self.wal / self.transactions


class Session:
    """A psql that stays, for what depends on being the same session."""

    END = "\x1e"

    def __init__(self, command):
        self._process = subprocess.Popen([*command, "-At"], text=True, bufsize=1,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, statement):
        """Runs one statement; returns its lines."""
        self._process.stdin.write(f"{statement};\n\\echo {self.END}\n")
        self._process.stdin.flush()
        lines = []
        for line in self._process.stdout:
            if line.rstrip("\n") == self.END:
                return lines
            lines.append(line.rstrip("\n"))
        raise Failed(f"session ended at: {statement}")

    def close(self):
        """Ends it."""
        self._process.stdin.close()
        self._process.wait()


class Cluster:
    """The server below `home`: its settings, its SQL, and load on it."""

    def __init__(self, bindir, home, tree):
        self.bindir = bindir
        self.home = home
        self.tree = tree                    # the sources it was built from
        self.socket = os.path.join(home, "socket")
        self.data = os.path.join(home, "data")
        self.running = False
        with open(os.path.join(home, "webhook_secret"), encoding="utf-8") as file:
            self.secret = file.read().strip()

    # ---------- the server ----------

    def start(self):
        """Starts it, with the settings as they are by now."""
        self._program("pg_ctl", "-D", self.data, "-l", os.path.join(self.home, "log"),
                      "-w", "-t", "120", "start")
        self.running = True

    def stop(self):
        """A fast shutdown."""
        if self.running:
            self._program("pg_ctl", "-D", self.data, "-m", "fast", "-w", "-t", "300", "stop")
            self.running = False

    def configure(self, **settings):
        """Appends settings; a dot in a name is written as two underscores."""
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf-8") as file:
            for name, value in settings.items():
                file.write(f"{name.replace('__', '.')} = '{value}'\n")

    def restart(self, **settings):
        """Stops it, changes settings, starts it."""
        self.stop()
        self.configure(**settings)
        self.start()

    def reload(self, **settings):
        """Changes settings that need no restart, and waits until they are seen."""
        self.configure(**settings)
        self.sql("SELECT pg_reload_conf()")
        time.sleep(0.2)

    # ---------- SQL ----------

    def sql(self, text, database="postgres", **variables):
        """Runs statements, each in a transaction of its own; returns rows as lists of text."""
        command = [*self._psql(database, variables), "-At", "-F", "\x1f", "-f", "-"]
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise Failed(f"{text.strip()[:200]}\n{done.stderr.strip()}")
        return [line.split("\x1f") for line in done.stdout.splitlines()]

    def value(self, text, database="postgres", **variables):
        """The one value of a query."""
        return self.sql(text, database, **variables)[-1][0]

    def session(self, database="postgres"):
        """A connection that lasts; see Session."""
        return Session(self._psql(database, {}))

    def script(self, name, database="postgres", **variables):
        """Runs a file of bench/sql."""
        path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "sql", name)
        done = subprocess.run([*self._psql(database, variables), "-f", path],
                              text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise Failed(f"{name}: {done.stderr.strip()}")
        return done.stdout.strip()

    def fresh_database(self, name):
        """An empty database of that name."""
        self.sql(f"DROP DATABASE IF EXISTS {name} (FORCE)")
        self.sql(f"CREATE DATABASE {name}")

    # ---------- load ----------

    def pgbench(self, script, clients, seconds, database="postgres", protocol="prepared"):
        """Runs a script's text for some seconds."""
        path = os.path.join(self.home, "script.pgbench")
        with open(path, "w", encoding="utf-8") as file:
            file.write(script)
        before = self.wal_position(database)
        done = subprocess.run(
            [os.path.join(self.bindir, "pgbench"), "-h", self.socket, "-U", "postgres", "-n",
             "-M", protocol, "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(seconds),
             "-f", path, database],
            text=True, capture_output=True, check=False)
        after = self.wal_position(database)
        tps = re.search(r"^tps = ([0-9.]+)", done.stdout, re.M)
        count = re.search(r"actually processed: (\d+)", done.stdout)
        if done.returncode != 0 or not tps or "aborted" in done.stderr:
            raise Failed(f"pgbench: {done.stderr.strip()[-500:]}")
        return Load(float(tps[1]), int(count[1]), after - before)

    def wal_position(self, database="postgres"):
        """How much WAL there has been, in bytes."""
        return int(self.value("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint", database))

    def _psql(self, database, variables):
        command = [os.path.join(self.bindir, "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1",
                   "-h", self.socket, "-U", "postgres", "-d", database]
        for name, value in variables.items():
            command += ["-v", f"{name}={value}"]
        return command

    def _program(self, name, *arguments):
        # a server keeps what it inherits, so its output must not go to a pipe of ours
        log = os.path.join(self.home, f"{name}.log")
        with open(log, "w", encoding="utf-8") as out:
            done = subprocess.run([os.path.join(self.bindir, name), *arguments],
                                  stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            with open(log, encoding="utf-8") as file:
                raise Failed(f"{name} {arguments[-1]}: {file.read()[-1000:]}")
