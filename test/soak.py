#!/usr/bin/env python3
"""Soak test: hours of trouble in minutes, and then the books.

Starts a cluster and the stand-in for Stripe, and puts load on them: customers
who pay, are declined, try again, cancel or walk away; clients that repeat
calls with the same key; webhooks that are lost, late, doubled, shuffled or
forged.  Meanwhile processes are killed, the server crashes and restarts, and
the network and Stripe's API fail in every way the stand-in knows.  Then all of
it ends, everything may come to rest, and the database is compared with the
stand-in's ledger.

All decisions come from one seed.  They are made before anything starts: the
plan (--plan prints it) says which payment is made when and what its customer
does, when which process is killed, when which fault and which disorder of
webhooks begins.  The same seed is the same plan, though not the same
interleaving, since that is up to the machine.

--memory is another test: does the worker's memory stay what it is?

Standard library only; libpq is called through ctypes, because a hundred psql
processes a second would be most of the load.  script/soak builds
what this needs and calls it.
"""

import argparse
import ctypes
import hashlib
import heapq
import hmac
import http.client
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import Counter, deque
from dataclasses import dataclass, field

from stripe_sim import FAULT_KINDS

HERE = os.path.dirname(os.path.abspath(__file__))
RETURN_URL = "https://shop.example/thanks"
THREADS = 6                 # that carry customers' steps
FORWARDERS = 2              # that hand in webhooks
PATIENCE = 30               # seconds a customer waits for what should take one
RECONCILE_INTERVAL = 20     # seconds; also when payments begin to be watched
REQUEST_TIMEOUT = 5         # seconds
QUIET_DEADLINE = 300        # seconds for everything to come to rest
SHUTDOWN_LIMIT = 15         # seconds a fast shutdown or an orphan may take
FULL_PLAN = 120             # seconds, from which on a plan has everything in it
LOST_SHARE = 0.03           # of all events whose webhooks are withheld for ever
FORGED_SHARE = 0.03         # of all deliveries that are preceded by a forgery


class Failed(Exception):
    """The test itself can't go on."""


# ---------------------------------------------------------------------------
# The plan.  Pure: what it says depends on nothing but the seed, the length and
# the rate.
# ---------------------------------------------------------------------------

@dataclass
class Attempt:
    """One try to pay, and what its customer, bank or merchant does next."""

    via: str                # params (with the creation), worker or browser
    method: str
    then: str               # succeed, fail or leave: of what needs a second step
    think: float            # before it


@dataclass
class Payment:
    """One payment and all that will be done to it."""

    n: int
    at: float
    key: str
    amount: int
    currency: str
    policy: str
    capture: str
    attempts: list
    cancel: str             # early, late or no
    cancel_after: float
    repeats: int            # more calls with the same key
    clash: bool             # and one with another amount


@dataclass
class Span:
    """Something that begins at a time and lasts."""

    at: float
    lasts: float
    name: str
    what: list = field(default_factory=list)


METHODS = (
    [("pm_card_visa", "succeed")] * 8
    + [("pm_card_chargeDeclined", "leave")] * 4
    + [("pm_card_chargeDeclinedInsufficientFunds", "leave")]
    + [("pm_card_authenticationRequired", then)
       for then in ("succeed", "succeed", "fail", "leave")]
    + [("pm_card_authenticationRequiredChargeDeclinedInsufficientFunds", "succeed")]
    + [("pm_usBankAccount_success", then) for then in ("succeed", "fail", "leave")])

CREATE, ANY = "POST /v1/payment_intents", "POST /v1/*"
CONFIRM, CANCEL = "POST /v1/payment_intents/:id/confirm", "POST /v1/payment_intents/:id/cancel"


def rule(kind, probability=1.0, count=-1, route="*", **more):
    """A rule for the stand-in's faults."""
    return dict(kind=kind, probability=probability, count=count, route=route, **more)


FAULTS = {
    "network": [rule(kind, 0.05) for kind in
                ("drop_before", "drop_after", "rst_before", "rst_after", "truncate")],
    "outage": [rule("rst_before", 0.7)],
    "slow": [rule("delay", 0.3, delay_ms=800)],
    "timeouts": [rule("delay", count=3, route=ANY, delay_ms=REQUEST_TIMEOUT * 1000 + 1500)],
    "busy": [rule("429", 0.08, headers={"Retry-After": "1"}), rule("409", 0.05),
             rule("503", 0.08)],
    "errors": [rule("500", 0.15), rule("503", 0.05, headers={"Stripe-Should-Retry": "true"})],
    "refusals": [rule("400", count=2, route=CREATE), rule("404", count=2, route=CONFIRM),
                 rule("402", count=2, route=CANCEL), rule("402", count=2, route=CREATE),
                 rule("400", count=1, route=CANCEL, headers={"Stripe-Should-Retry": "true"})],
    # what follows leaves requests whose outcome only a look-up can tell
    "key": [rule("drop_after", 0.3, count=4, route=ANY), rule("401", 0.5, count=4),
            rule("403", 0.5, count=4)],
    "saved errors": [rule("500", 0.3, count=2, route=CREATE, save=True),
                     rule("500_after", 0.3, count=3, route=CREATE),
                     rule("500_after", 0.5, count=2, route=CONFIRM),
                     rule("500", 0.5, count=2, route=CONFIRM, save=True),
                     rule("500_after", 0.5, count=2, route=CANCEL),
                     rule("500", 0.5, count=2, route=CANCEL, save=True)],
    "doubt": [rule("500", 0.5, count=2, route=CREATE,
                   headers={"Stripe-Should-Retry": "false"})],
}
DOUBTFUL = ("key", "saved errors", "doubt")

CALM = dict(mode="pull", duplicate=0, shuffle=False, clock_skew=0, wrong_secret=False,
            also_v0=False, types=["payment_intent.*", "charge.failed"])
DISORDER = {
    "calm": {}, "shuffled": {"shuffle": True}, "doubled": {"duplicate": 2, "shuffle": True},
    "held": {"mode": "hold", "shuffle": True}, "fast clock": {"clock_skew": 200},
    "slow clock": {"clock_skew": -200, "also_v0": True},
    # the webhooks of these are lost
    "stale": {"clock_skew": -900}, "wrong secret": {"wrong_secret": True}, "withheld": {}}

# how often each kind comes in a bag that is drawn empty before the next
STRIKES = {"kill worker": 5, "kill backend": 4, "kill launcher": 2, "kill postmaster": 2,
           "kill server": 2, "immediate stop": 2, "fast restart": 2, "terminate worker": 2,
           "pause": 1, "reload": 1}


class Plan:
    """Everything that is going to happen."""

    def __init__(self, seed, seconds, rate):
        self.seed, self.seconds, self.rate = seed, seconds, rate
        rng = random.Random(seed)
        self.payments = [self._payment(rng, n) for n in range(1, int(seconds * rate) + 1)]
        self.strikes = []
        at, bag = 4.0, []
        while at < seconds - 3:
            if not bag:
                bag = [name for name, times in STRIKES.items() for _ in range(times)]
                rng.shuffle(bag)
            self.strikes.append(Span(at, 0.0, bag.pop()))
            at += rng.uniform(2.5, 6.5)
        # A request that nobody knows the outcome of takes over a minute to settle:
        # what makes such comes first, and not late.
        doubt_until = seconds - min(60.0, seconds / 2)
        first = sorted(rng.sample(list(FAULTS), len(FAULTS)), key=DOUBTFUL.__contains__)
        self.faults = [Span(at, lasts, name, FAULTS[name]) for at, lasts, name in self._windows(
            rng, list(FAULTS), first,
            lambda name, at: name not in DOUBTFUL or at < doubt_until)]
        self.disorder = [Span(at, lasts, name, [DISORDER[name]]) for at, lasts, name
                         in self._windows(rng, list(DISORDER), [], lambda name, at: True)]

    def _windows(self, rng, names, bag, fits):
        """One thing after the other, each for some seconds, until the end."""
        at = 2.0
        while at < self.seconds - 2:
            if not bag:
                bag = rng.sample(names, len(names))
            name = bag.pop()
            lasts = min(rng.uniform(3, 8), self.seconds - at)
            if fits(name, at):
                yield round(at, 3), round(lasts, 3), name
                at += lasts + rng.uniform(0, 2)

    def _payment(self, rng, n):
        """Draws the same number of times from the generator for every payment
        of a kind; nothing here looks at a clock."""
        first = rng.choices(("params", "worker", "browser", "none"), (40, 15, 40, 5))[0]
        policy = rng.choice(("final", "retry"))
        attempts = []
        for i in range(0 if first == "none" else 3):
            method, then = rng.choice(METHODS)
            # Events have a time in whole seconds: those of a second attempt have
            # to be younger than those of the first for anybody to tell.
            attempts.append(Attempt(first if i == 0 else rng.choice(("browser", "worker")),
                                    method, then, rng.uniform(1.2, 2.5) if i else
                                    rng.uniform(0.0, 1.0)))
            if rng.random() < 0.4:
                break
        return Payment(
            n, (n - rng.random()) / self.rate, f"soak-{self.seed}-{n}",
            rng.randrange(50, 99999), rng.choice(("eur", "usd", "jpy", "gbp")), policy,
            rng.choices(("automatic", "manual"), (85, 15))[0], attempts,
            rng.choices(("no", "early", "late"), (86, 6, 8))[0], rng.uniform(0, 3),
            rng.choices((0, 1, 2), (85, 12, 3))[0], rng.random() < 0.03)

    def show(self):
        """The plan as text."""
        for name, spans in (("kills and restarts", self.strikes), ("faults", self.faults),
                            ("webhooks", self.disorder)):
            print(name)
            for span in spans:
                print(f"  {span.at:8.3f} s  {span.lasts:6.3f} s  {span.name}")
        print("payments")
        for payment in self.payments:
            print(f"  {payment}")

    def digest(self):
        """To see at a glance that two plans are one."""
        return hashlib.sha256(repr((self.payments, self.strikes, self.faults,
                                    self.disorder)).encode()).hexdigest()[:12]


# ---------------------------------------------------------------------------
# PostgreSQL through libpq
# ---------------------------------------------------------------------------

class Lost(Exception):
    """No answer: the server, the session or the connection is gone."""


class SqlError(Exception):
    """The server refused the statement."""

    def __init__(self, sqlstate, message):
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate


NOTICE_PROCESSOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)


@NOTICE_PROCESSOR
def ignore_notice(_argument, _message):
    """What libpq would print: the last words of servers that crash."""


def load_libpq(bindir):
    """The library that this installation's psql uses."""
    listing = subprocess.run(["ldd", f"{bindir}/psql"], capture_output=True, text=True,
                             check=False).stdout
    found = re.search(r"libpq\.so\.5 => (\S+)", listing)
    pq = ctypes.CDLL(found.group(1) if found else "libpq.so.5")
    for name, result, arguments in (
            ("PQconnectdb", ctypes.c_void_p, [ctypes.c_char_p]),
            ("PQstatus", ctypes.c_int, [ctypes.c_void_p]),
            ("PQbackendPID", ctypes.c_int, [ctypes.c_void_p]),
            ("PQfinish", None, [ctypes.c_void_p]),
            ("PQsetNoticeProcessor", ctypes.c_void_p,
             [ctypes.c_void_p, NOTICE_PROCESSOR, ctypes.c_void_p]),
            ("PQexecParams", ctypes.c_void_p,
             [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p,
              ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p, ctypes.c_void_p,
              ctypes.c_int]),
            ("PQresultStatus", ctypes.c_int, [ctypes.c_void_p]),
            ("PQresultErrorField", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int]),
            ("PQntuples", ctypes.c_int, [ctypes.c_void_p]),
            ("PQnfields", ctypes.c_int, [ctypes.c_void_p]),
            ("PQgetisnull", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
            ("PQgetvalue", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
            ("PQclear", None, [ctypes.c_void_p])):
        function = getattr(pq, name)
        function.restype, function.argtypes = result, arguments
    return pq


CONNECTION_OK, TUPLES_OK, COMMAND_OK = 0, 2, 1
# shutdown, crash, starting up, too many clients, connection trouble
PASSING = ("57P01", "57P02", "57P03", "53300", "08000", "08003", "08006")


class Session:
    """A connection that is made when needed, and again after it was lost.
    Parameters travel apart from the statement, as applications send them."""

    def __init__(self, server):
        self.server = server
        self.pq = server.pq
        self.connection = None

    def close(self):
        """Drop the connection."""
        if self.connection:
            self.pq.PQfinish(self.connection)
            self.connection = None

    def pid(self):
        """The backend's process id, 0 without one."""
        connection = self.connection
        return self.pq.PQbackendPID(connection) if connection else 0

    def query(self, sql, *parameters):
        """Runs one statement; returns its rows, lists of strings and None."""
        if self.connection is None:
            connection = self.pq.PQconnectdb(self.server.conninfo.encode())
            if self.pq.PQstatus(connection) != CONNECTION_OK:
                self.pq.PQfinish(connection)
                raise Lost()
            self.pq.PQsetNoticeProcessor(connection, ignore_notice, None)
            self.connection = connection
        values = (ctypes.c_char_p * max(len(parameters), 1))(
            *(None if p is None else str(p).encode() for p in parameters))
        result = self.pq.PQexecParams(self.connection, sql.encode(), len(parameters), None,
                                      values, None, None, 0)
        try:
            status = self.pq.PQresultStatus(result) if result else -1
            if status in (TUPLES_OK, COMMAND_OK):
                return [[None if self.pq.PQgetisnull(result, row, column)
                         else self.pq.PQgetvalue(result, row, column).decode()
                         for column in range(self.pq.PQnfields(result))]
                        for row in range(self.pq.PQntuples(result))]
            sqlstate, message = ((self.pq.PQresultErrorField(result, ord(which)) or b"").decode()
                                 for which in "CM")
        finally:
            self.pq.PQclear(result)
        if not sqlstate or sqlstate in PASSING:
            self.close()
            raise Lost()
        raise SqlError(sqlstate, message)

    def value(self, sql, *parameters):
        """The only column of the only row."""
        return self.query(sql, *parameters)[0][0]

    def rows(self, sql):
        """The rows as dictionaries."""
        return json.loads(self.value(f"SELECT coalesce(json_agg(r), '[]') FROM ({sql}) r"))


def lasting(function, deadline=60):
    """Calls function() until the server is there to answer."""
    give_up = time.monotonic() + deadline
    while True:
        try:
            return function()
        except Lost:
            if time.monotonic() > give_up:
                raise Failed("the server does not come back") from None
            time.sleep(0.05)


# ---------------------------------------------------------------------------
# The stand-in
# ---------------------------------------------------------------------------

class StandIn:
    """The process, and one HTTP connection per thread."""

    def __init__(self, directory, seed, secret, api_key):
        self.secret, self.api_key = secret, api_key
        self.local = threading.local()
        port_file = f"{directory}/port"
        with open(f"{directory}/log/stand_in", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, f"{HERE}/stripe_sim.py", "serve", "--port", "0", "--port-file",
                 port_file, "--seed", str(seed), "--webhook-secret", secret, "--latency-ms",
                 "5"], cwd=directory, stdout=log, stderr=log, start_new_session=True)
        give_up = time.monotonic() + 20
        while not os.path.exists(port_file):
            if time.monotonic() > give_up or self.process.poll() is not None:
                raise Failed("the stand-in did not start")
            time.sleep(0.02)
        with open(port_file, encoding="ascii") as file:
            self.port = int(file.read())

    def call(self, method, path, body="", headers=None, timeout=60):
        """(status, parsed answer), or (None, None) if there was none."""
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = http.client.HTTPConnection("127.0.0.1",
                                                                            self.port)
        try:
            connection.timeout = timeout
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            return None, None

    def control(self, method, path, argument=None):
        """The control surface, which no fault concerns."""
        for _ in range(3):
            status, answer = self.call(method, f"/_sim/{path}",
                                       "" if argument is None else json.dumps(argument))
            if status is not None:
                return status, answer
        raise Failed("the stand-in does not answer")

    def api(self, path, key, **parameters):
        """Stripe's API as a browser (pk_) or the merchant (sk_) calls it."""
        return self.call("POST", f"/v1/{path}", urllib.parse.urlencode(parameters),
                         {"Authorization": f"Bearer {key}",
                          "Content-Type": "application/x-www-form-urlencoded"})

    def intent_status(self, intent):
        """The status of a PaymentIntent as the merchant sees it, or None."""
        status, answer = self.call("GET", f"/v1/payment_intents/{intent}",
                                   headers={"Authorization": f"Bearer {self.api_key}"})
        return answer["status"] if status == 200 else None

    def ledger(self, summary=False):
        """The books."""
        return self.control("GET", "ledger" + ("?summary=1" if summary else ""))[1]

    def stop(self):
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# ---------------------------------------------------------------------------
# The server
# ---------------------------------------------------------------------------

class Server:
    """A private cluster whose postmaster is our child, so that a killed one is
    reaped at once and does not look alive to the next."""

    def __init__(self, directory, bindir, settings):
        self.bindir, self.data = bindir, f"{directory}/data"
        self.log, self.socket = f"{directory}/log/postgresql", f"{directory}/socket"
        self.conninfo = (f"host={self.socket} dbname=postgres user=postgres connect_timeout=10 "
                         "application_name=soak options='-c client_min_messages=error'")
        self.pq = load_libpq(bindir)
        self.process = None
        self.shutdowns, self.orphans = [], []
        os.mkdir(self.socket, 0o700)
        with open(f"{directory}/log/initdb", "ab") as log:
            subprocess.run([f"{bindir}/initdb", "-D", self.data, "-U", "postgres", "-A", "trust",
                            "-N", "-E", "UTF8", "--locale=C"], check=True, stdout=log,
                           stderr=log)
        with open(f"{self.data}/postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write("\n".join((
                "listen_addresses = ''", f"unix_socket_directories = '{self.socket}'",
                "shared_preload_libraries = 'stripe_lifecycle'", "fsync = off",
                "max_connections = 50", "log_line_prefix = '%m [%p] %b '",
                "log_statement = none", "restart_after_crash = on", *settings, "")))

    def start(self):
        """Start, and wait until it takes connections."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [f"{self.bindir}/postgres", "-D", self.data], cwd=self.data, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        session = Session(self)
        try:
            lasting(lambda: session.query("SELECT 1"))
        finally:
            session.close()

    def processes(self):
        """Ids of the server's live processes: they work in its data directory."""
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.readlink(f"/proc/{entry}/cwd") == self.data:
                    found.append(int(entry))
            except OSError:
                pass
        return found

    @staticmethod
    def title(pid):
        """What a process calls itself, such as "postgres: checkpointer "."""
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""

    def pids_of(self, kind):
        """Ids of the processes of one kind."""
        return [pid for pid in self.processes() if f"postgres: {kind}" in self.title(pid)]

    def _gone(self, limit):
        """Wait until no process is left; what is, and by what name, after limit."""
        give_up = time.monotonic() + limit
        while True:
            left = self.processes()
            if not left or time.monotonic() > give_up:
                return left
            time.sleep(0.02)

    def stop(self, number):
        """Signal the postmaster and wait for the end of all processes."""
        started = time.monotonic()
        self.process.send_signal(number)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        left = self._gone(SHUTDOWN_LIMIT)
        self.orphans += [self.title(pid) for pid in left]
        self._kill(left)
        return time.monotonic() - started

    def kill_all(self):
        """kill -9 of every process."""
        self.process.kill()
        self.process.wait()
        while left := self.processes():
            self._kill(left)
            time.sleep(0.01)

    @staticmethod
    def _kill(pids, number=signal.SIGKILL):
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def strike(self, name, rng, sessions):
        """Do one thing of the plan; False if there was nobody to do it to."""
        if name in ("kill server", "kill postmaster", "immediate stop", "fast restart"):
            if name == "kill server":
                self.kill_all()
            elif name == "fast restart":
                self.shutdowns.append(self.stop(signal.SIGINT))
            else:
                self.stop(signal.SIGQUIT if name == "immediate stop" else signal.SIGKILL)
            self.start()
            return True
        if name == "reload":
            self.process.send_signal(signal.SIGHUP)
            return True
        if name == "kill backend":
            pids = [pid for pid in (session.pid() for session in sessions) if pid]
        else:
            pids = self.pids_of("stripe_lifecycle " + name.split()[1])
        if not pids:
            return False
        self._kill([rng.choice(pids)],
                   signal.SIGTERM if name.startswith("terminate") else signal.SIGKILL)
        return True


# ---------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------

class Soak:
    """Threads that make things happen, and what they noticed."""

    def __init__(self, plan, server, stripe):
        self.plan, self.server, self.stripe = plan, server, stripe
        self.started = time.monotonic()
        self.sessions = []
        self.known = {}                     # idempotency key: payment id
        self.counts = Counter()
        self.struck = Counter()
        self.complaints = []
        self.lost = set()                   # events whose webhooks never arrived
        self.stories = []                   # heap of (due, n, generator)
        self.unfinished = 0
        self.changed = threading.Condition()
        self.withholding = False
        self.ending = self.over = False
        self.forwarding = 0
        self.faults = self.disorder = self.last_strike = "none"
        self.threads = []

    def now(self):
        """Seconds since the start."""
        return time.monotonic() - self.started

    def session(self):
        """A new session that may be killed."""
        session = Session(self.server)
        self.sessions.append(session)
        return session

    def complain(self, text):
        """Something was not as it should be."""
        self.complaints.append(f"{self.now():.1f} s: {text}")

    def thread(self, function, *arguments):
        """Starts a thread whose failure is a complaint."""
        def run():
            try:
                function(*arguments)
            except Exception as error:          # whatever it is, it must be seen
                self.complain(f"{function.__name__} ended: {error!r}")
                if not isinstance(error, Failed):
                    sys.excepthook(*sys.exc_info())
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)

    # -- customers ----------------------------------------------------------

    def tell_stories(self):
        """Advances whichever story is due, one step at a time."""
        session = self.session()
        while True:
            with self.changed:
                while not self.over and (not self.stories or self.stories[0][0] > self.now()):
                    self.changed.wait(
                        min(0.5, max(0.0, self.stories[0][0] - self.now()))
                        if self.stories else 0.5)
                if self.over:
                    break
                _, n, story = heapq.heappop(self.stories)
            try:
                pause = story.send(session)
            except StopIteration:
                pause = None
            except SqlError as error:
                self.complain(f"payment {n}: {error}")
                pause = None
            with self.changed:
                if pause is None:
                    self.unfinished -= 1
                else:
                    heapq.heappush(self.stories, (self.now() + pause, n, story))
                self.changed.notify()
        session.close()

    def begin_stories(self):
        """Puts the plan's payments on the heap."""
        for payment in self.plan.payments:
            story = self.story(payment)
            pause = next(story)
            heapq.heappush(self.stories, (payment.at + pause, payment.n, story))
        self.unfinished = len(self.stories)

    def ask(self, session, sql, *parameters, expected=()):
        """A statement that is repeated until it was answered; its only value,
        or the SQLSTATE if that was expected.  Part of a story: yields pauses
        and is sent the session to use next."""
        while True:
            try:
                return session, session.value(sql, *parameters)
            except Lost:
                self.counts["statements repeated"] += 1
            except SqlError as error:
                if error.sqlstate in expected:
                    return session, error.sqlstate
                raise
            session = yield 0.2

    def create(self, session, p, amount, expected=()):
        """create_payment(), until somebody answers."""
        parameters = None
        if p.attempts and p.attempts[0].via == "params":
            parameters = json.dumps({"confirm": True, "payment_method": p.attempts[0].method,
                                     "payment_method_types": ["card", "us_bank_account"],
                                     "return_url": RETURN_URL})
        return (yield from self.ask(
            session, "SELECT stripe_lifecycle.create_payment(amount => $1, currency => $2, "
            "idempotency_key => $3, capture_method => $4, decline_policy => $5, "
            "params => $6::jsonb)", amount, p.currency, p.key, p.capture, p.policy, parameters,
            expected=expected))

    def story(self, p):
        """The life of one payment, as a coroutine: yields how long to wait and
        is sent a session."""
        session = yield 0.0
        session, ident = yield from self.create(session, p, p.amount)
        self.known[p.key] = ident
        self.counts["payments"] += 1
        for _ in range(p.repeats):
            session, again = yield from self.create(session, p, p.amount)
            self.counts["calls repeated with the same key"] += 1
            if again != ident:
                self.complain(f"payment {p.n} was made twice: {ident} and {again}")
        if p.clash:
            session, refusal = yield from self.create(session, p, p.amount + 1, ("SL016",))
            self.counts["calls refused for a key used twice"] += 1
            if refusal != "SL016":
                self.complain(f"payment {p.n}: another amount under its key gave {refusal}")
        if p.cancel == "early":
            session = yield p.cancel_after
            session = yield from self.cancel(session, ident)
        for attempt in p.attempts:
            session = yield attempt.think
            session, going_on = yield from self.attempt(session, ident, attempt)
            if not going_on:
                break
        if p.cancel == "late":
            session = yield p.cancel_after
            yield from self.cancel(session, ident)

    def cancel(self, session, ident):
        """The merchant gives up."""
        session, _ = yield from self.ask(
            session, "SELECT stripe_lifecycle.cancel_payment($1::uuid, $2)", ident,
            "requested_by_customer", expected=("SL018",))
        self.counts["cancellations"] += 1
        return session

    def attempt(self, session, ident, attempt):
        """One try to pay; True if the customer may try again."""
        if attempt.via == "worker":
            session, refusal = yield from self.ask(
                session, "SELECT stripe_lifecycle.confirm_payment($1::uuid, $2::jsonb)", ident,
                json.dumps({"payment_method": attempt.method, "return_url": RETURN_URL}),
                expected=("SL018",))
            if refusal == "SL018":
                return session, False
        session, intent, secret = yield from self.wait_for_intent(
            session, ident, settled=attempt.via != "browser")
        if intent is None:
            return session, False
        if attempt.via == "browser":
            if secret is None:
                return session, False
            self.counts["browser"] += 1
            self.stripe.api(f"payment_intents/{intent}/confirm", "pk_test_soak",
                            client_secret=secret, payment_method=attempt.method,
                            return_url=RETURN_URL)
        status = self.stripe.intent_status(intent)
        if status in ("requires_action", "processing", "requires_capture"):
            session = yield attempt.think
            self.second_step(intent, status, attempt.then)
            status = self.stripe.intent_status(intent)
        return session, status == "requires_payment_method"

    def wait_for_intent(self, session, ident, settled):
        """Until the PaymentIntent is known and, if it is the worker that
        confirms, until the outcome of its call is known, too."""
        give_up = self.now() + PATIENCE
        while self.now() < give_up:
            session, row = yield from self.ask(
                session, "SELECT json_build_array(payment_intent_id, client_secret, "
                "request_status, state) FROM stripe_lifecycle.payment_status($1::uuid, '50 ms')",
                ident)
            intent, secret, request, state = json.loads(row)
            if state in ("succeeded", "failed") or request == "unknown":
                break
            if intent and (not settled or request in ("succeeded", "rejected")):
                return session, intent, secret
            if request == "rejected":
                break
            session = yield 0.3
        return session, None, None

    def second_step(self, intent, status, then):
        """Bank, customer or merchant decide; some never do."""
        if then == "leave":
            return
        if status == "requires_capture":
            if then == "fail":
                self.stripe.control("POST", f"payment_intents/{intent}/expire")
            else:
                self.stripe.api(f"payment_intents/{intent}/capture", self.stripe.api_key)
        else:
            self.stripe.control(
                "POST", f"payment_intents/{intent}/"
                + ("authenticate" if status == "requires_action" else "settle"),
                {"outcome": then})

    # -- webhooks -----------------------------------------------------------

    def is_lost(self, event_id):
        """Is this event's webhook withheld for ever?"""
        digest = hashlib.sha256(f"{self.plan.seed}/{event_id}".encode()).digest()
        return int.from_bytes(digest[:4], "big") < LOST_SHARE * 2 ** 32

    def forward(self, number):
        """Hands webhooks in, and again those that may have been lost on the way."""
        session = self.session()
        rng = random.Random(f"{self.plan.seed}/forwarder/{number}")
        while not self.over:
            _, batch = self.stripe.control("GET", "webhooks?max=20&wait_ms=200")
            self.forwarding += len(batch)
            for delivery in batch:
                if self.withholding or self.is_lost(delivery["event_id"]):
                    self.lost.add(delivery["event_id"])
                    self.counts["withheld"] += 1
                else:
                    if rng.random() < FORGED_SHARE:
                        self.forge(session, rng, delivery)
                    self.hand_in(session, delivery)
                self.forwarding -= 1
        session.close()

    def ingest(self, session, body, header):
        """What ingest_webhook() says, or the SQLSTATE of its refusal."""
        def once():
            try:
                return session.value("SELECT stripe_lifecycle.ingest_webhook($1::bytea, $2)",
                                     "\\x" + body.encode().hex(), header)
            except SqlError as error:
                return error.sqlstate
        return lasting(once)

    def hand_in(self, session, delivery):
        """A genuine delivery, though perhaps with the wrong time or secret."""
        outcome = self.ingest(session, delivery["body"], delivery["header"])
        self.counts[f"webhook {outcome}"] += 1
        if outcome in ("SL021", "SL022"):
            self.lost.add(delivery["event_id"])
        elif outcome not in ("applied", "recorded", "stale", "unmatched", "ignored",
                             "duplicate"):
            self.complain(f"event {delivery['event_id']} ({delivery['type']}): {outcome}")

    def forge(self, session, rng, delivery):
        """A delivery that has to be refused."""
        body, header = delivery["body"], delivery["header"]
        new = body.replace(delivery["event_id"], "evt_forged" + "%016x" % rng.getrandbits(64))
        kind = rng.choice(("body", "secret", "replayed", "header"))
        at = int(time.time())
        if kind == "secret":
            header = self.sign(at, new, "whsec_not_ours")
        elif kind == "replayed":
            header = self.sign(at - 86400, new, self.stripe.secret)
        elif kind == "header":
            header = header.replace("v1=", "v0=")
        outcome = self.ingest(session, new, header)
        self.counts["forgeries"] += 1
        if not outcome.startswith("SL02"):
            self.complain(f"a forgery ({kind}) was not refused: {outcome}")

    @staticmethod
    def sign(at, body, secret):
        """A signature header."""
        return f"t={at},v1=" + hmac.new(secret.encode(), f"{at}.{body}".encode(),
                                        hashlib.sha256).hexdigest()

    # -- trouble ------------------------------------------------------------

    def sleep_until(self, at):
        """False if the run ends before."""
        while self.now() < at and not self.ending:
            time.sleep(min(0.1, max(0.0, at - self.now())))
        return not self.ending

    def strike(self):
        """Kills and restarts."""
        rng = random.Random(f"{self.plan.seed}/strikes")
        session = self.session()
        for span in self.plan.strikes:
            if not self.sleep_until(span.at):
                return
            for _ in range(100):        # a worker may just be on its way
                if span.name == "pause":
                    done = self.pause_and_resume(session)
                else:
                    done = self.server.strike(span.name, rng, self.sessions)
                if done or self.ending:
                    break
                time.sleep(0.05)
            if done:
                self.struck[span.name] += 1
                self.last_strike = span.name
            else:
                self.complain(f"{span.name}: there was none within 5 s")

    def pause_and_resume(self, session):
        """An operator pauses the worker for a moment."""
        lasting(lambda: session.query("SELECT stripe_lifecycle.pause_worker('soak')"))
        time.sleep(1)
        lasting(lambda: session.query("SELECT stripe_lifecycle.resume_worker()"))
        return True

    def misbehave(self):
        """Faults of the stand-in, one kind after the other."""
        for span in self.plan.faults:
            if not self.sleep_until(span.at):
                break
            self.stripe.control("POST", "faults", span.what)
            self.faults = span.name
            self.counts["fault windows"] += 1
            self.sleep_until(span.at + span.lasts)
            self.stripe.control("DELETE", "faults")
            self.faults = "none"

    def disturb(self):
        """Disorder of the webhooks, one kind after the other."""
        for span in self.plan.disorder:
            if not self.sleep_until(span.at):
                break
            self.stripe.control("POST", "webhooks/config", {**CALM, **span.what[0]})
            self.withholding = span.name == "withheld"
            self.disorder = span.name
            self.sleep_until(span.at + span.lasts)
            self.stripe.control("POST", "webhooks/config", CALM)
            self.withholding = False
            self.disorder = "calm"

    # -- the whole ----------------------------------------------------------

    def progress(self, session, what):
        """One line for those who wait."""
        try:
            queue = Counter(dict((status, int(n)) for status, n in session.query(
                "SELECT status, count(*) FROM stripe_lifecycle.api_requests "
                "WHERE status NOT IN ('succeeded', 'rejected') GROUP BY 1")))
            queue = (f"requests: {queue['queued']} queued, {queue['in_flight']} in flight, "
                     f"{queue['unknown']} unknown")
        except Lost:
            queue = "server down"
        books = self.stripe.ledger(summary=True)["counts"]
        print(f"[{self.now():5.0f} s] {what}: {self.counts['payments']} payments, "
              f"{books['payment_intents']} PaymentIntents, {books['events']} events "
              f"({books['pending_deliveries']} to deliver), {books['requests']} calls "
              f"({books['faults']} faults); {queue}; {self.struck.total()} strikes "
              f"(last: {self.last_strike}); faults: {self.faults}; webhooks: {self.disorder}",
              flush=True)

    def run(self):
        """The load and the trouble."""
        session = Session(self.server)
        self.stripe.control("POST", "webhooks/config", CALM)
        self.started = time.monotonic()
        self.begin_stories()
        for _ in range(THREADS):
            self.thread(self.tell_stories)
        for number in range(FORWARDERS):
            self.thread(self.forward, number)
        for trouble in (self.strike, self.misbehave, self.disturb):
            self.thread(trouble)
        next_line = 10
        while self.now() < self.plan.seconds:
            time.sleep(min(0.5, max(0.0, self.plan.seconds - self.now())))
            if self.now() >= next_line:
                self.progress(session, "load")
                next_line += 10
        self.ending = True
        for thread in self.threads[-3:]:
            thread.join(120)
        self.stripe.control("DELETE", "faults")
        self.stripe.control("POST", "webhooks/config", {**CALM, "shuffle": True})
        session.close()

    def come_to_rest(self):
        """Wait until nothing is under way any more; what still is, if something is."""
        session = Session(self.server)
        books = Books(self)
        give_up, next_line = self.now() + QUIET_DEADLINE, self.now()
        next_books = 0.0
        while True:
            waiting = []
            try:
                waiting = books.waiting(session)
                if not waiting and self.now() >= next_books:
                    waiting = books.differences(session)
                    next_books = self.now() + 3
                    if not waiting:
                        break
            except Lost:
                waiting = ["the server"]
            if self.now() > give_up:
                break
            if self.now() >= next_line:
                self.progress(session, "coming to rest")
                next_line = self.now() + 10
            time.sleep(0.3)
        session.close()
        return waiting

    def finish(self):
        """End the threads."""
        with self.changed:
            self.over = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join(30)


# ---------------------------------------------------------------------------
# The books
# ---------------------------------------------------------------------------

MIRROR = {"requires_payment_method": "created", "requires_confirmation": "created",
          "requires_action": "requires_action", "processing": "processing",
          "requires_capture": "processing", "succeeded": "succeeded", "canceled": "failed"}

AUDIT = """
    WITH replay AS MATERIALIZED (
        SELECT t.*, lag(to_state) OVER w AS before, row_number() OVER w AS n
          FROM stripe_lifecycle.payment_transitions t
        WINDOW w AS (PARTITION BY payment_id ORDER BY seq)),
    ends AS (SELECT DISTINCT ON (payment_id) payment_id, seq, to_state FROM replay
              ORDER BY payment_id, seq DESC)
    SELECT payment_id, seq, 'broken chain' AS what FROM replay
     WHERE seq <> n OR from_state IS DISTINCT FROM before
    UNION ALL
    SELECT payment_id, seq, 'illegal edge' FROM replay r
     WHERE NOT EXISTS (SELECT FROM stripe_lifecycle.legal_transitions() l
        WHERE l.from_state IS NOT DISTINCT FROM r.from_state AND l.to_state = r.to_state)
    UNION ALL
    SELECT p.id, p.transitions, 'replay differs from payment'
      FROM stripe_lifecycle.payments p LEFT JOIN ends e ON e.payment_id = p.id
     WHERE (p.transitions, p.state) IS DISTINCT FROM (e.seq, e.to_state)
    UNION ALL
    SELECT r.payment_id, r.seq, 'no event for it'
      FROM replay r LEFT JOIN stripe_lifecycle.webhook_events e
        ON e.event_id = r.event_id AND e.outcome = 'applied' AND e.payment_id = r.payment_id
     WHERE r.seq > 1 AND e.event_id IS NULL"""

APPLIED = """
    SELECT CASE n WHEN 0 THEN 'not applied' WHEN 1 THEN 'applied once' ELSE 'applied again' END,
           count(*)
      FROM (SELECT e.event_id, count(t.event_id) AS n
              FROM stripe_lifecycle.webhook_events e
              LEFT JOIN stripe_lifecycle.payment_transitions t ON t.event_id = e.event_id
             WHERE e.outcome = 'applied' OR t.event_id IS NOT NULL GROUP BY 1) x
     GROUP BY 1"""


class Books:
    """Compares the database with the stand-in's ledger."""

    def __init__(self, soak):
        self.soak = soak
        self.failed = 0

    def waiting(self, session):
        """What is still under way, in words; cheap."""
        soak = self.soak
        found = []
        if soak.unfinished:
            found.append(f"{soak.unfinished} customers")
        pending = soak.stripe.ledger(summary=True)["counts"]["pending_deliveries"]
        if pending or soak.forwarding:
            found.append(f"{pending + soak.forwarding} webhooks")
        found += [f"{n} requests {status}" for status, n in session.query(
            "SELECT status, count(*) FROM stripe_lifecycle.api_requests "
            "WHERE status IN ('queued', 'in_flight', 'unknown') GROUP BY 1 ORDER BY 1")]
        return found

    def expected_states(self, ledger, payments):
        """What state each payment with a PaymentIntent has to be in."""
        declined = {event["payment_intent"] for event in ledger["events"]
                    if event["type"] == "payment_intent.payment_failed"}
        expected = {}
        for intent in ledger["payment_intents"]:
            payment = payments.get(intent["metadata"].get("stripe_lifecycle_payment_id"))
            if payment is None:
                continue
            state = MIRROR[intent["status"]]
            if (state != "succeeded" and payment["decline_policy"] == "final"
                    and intent["id"] in declined):
                state = "failed"
            expected[payment["id"]] = (state, intent["status"])
        return expected

    def read(self, session):
        """Both sides."""
        ledger = self.soak.stripe.ledger()
        payments = {row["id"]: row for row in session.rows(
            "SELECT p.id, p.idempotency_key, p.state, p.decline_policy, p.payment_intent_id, "
            "p.amount, p.currency, (SELECT r.status FROM stripe_lifecycle.api_requests r "
            "WHERE r.payment_id = p.id AND r.operation = 'create' ORDER BY r.id LIMIT 1) "
            "AS creation FROM stripe_lifecycle.payments p")}
        events = Counter(row["event_id"] for row in session.rows(
            "SELECT event_id FROM stripe_lifecycle.webhook_events"))
        return ledger, payments, events

    @staticmethod
    def wrong_states(expected, payments):
        """Payments that are not in the state that Stripe's side shows."""
        return [f"{payment['id']} is {payment['state']}, its PaymentIntent {expected[ident][1]}"
                for ident, payment in payments.items()
                if payment["state"] != expected.get(ident, ("created",))[0]
                and ident in expected] + [
                    f"{ident} is {payment['state']} without a PaymentIntent"
                    for ident, payment in payments.items()
                    if ident not in expected and payment["state"] != "created"]

    @staticmethod
    def missing_events(ledger, events):
        """Events that the database should have and has not."""
        return [event["id"] for event in ledger["events"]
                if event["type"].startswith("payment_intent.") and not events[event["id"]]]

    def differences(self, session):
        """What reconciliation may still have to bring, in words."""
        ledger, payments, events = self.read(session)
        wrong = self.wrong_states(self.expected_states(ledger, payments), payments)
        missing = self.missing_events(ledger, events)
        return ([f"{len(wrong)} payments whose state differs"] if wrong else []) + (
            [f"{len(missing)} events"] if missing else [])

    def line(self, name, bad, detail):
        """One invariant."""
        print(f"{'FAIL' if bad else 'ok  '} {name}: {detail}", flush=True)
        for item in bad[:5]:
            print(f"       {item}")
        if len(bad) > 5:
            print(f"       and {len(bad) - 5} more")
        self.failed += bool(bad)

    def check(self, waiting):
        """Every invariant, one line each."""
        soak, session = self.soak, Session(self.soak.server)
        ledger, payments, events = lasting(lambda: self.read(session))
        self.line("everything came to rest", waiting, f"{len(waiting)} things still under way")
        self.check_payments(ledger, payments)
        self.check_events(session, ledger, payments, events)
        self.check_rows(session)
        self.check_outcomes(session, ledger)
        self.check_repetition(session, ledger)
        self.check_server()
        self.check_trouble(ledger)
        self.line("clients saw only what they should", soak.complaints,
                  f"{len(soak.complaints)} complaints, {soak.counts['statements repeated']} "
                  "statements repeated after a crash")
        session.close()

    def check_payments(self, ledger, payments):
        """Payments and PaymentIntents."""
        soak = self.soak
        known = {row["idempotency_key"]: row["id"] for row in payments.values()}
        self.line("payments are those that clients were told of",
                  [f"{key}: {known.get(key)} instead of {soak.known.get(key)}"
                   for key in {*known, *soak.known} if known.get(key) != soak.known.get(key)],
                  f"{len(payments)} payments, {soak.counts['calls repeated with the same key']} "
                  f"calls repeated, {soak.counts['calls refused for a key used twice']} refused")
        by_payment = ledger["payment_intents_by_payment"]
        bad, refused = [], 0
        for ident, payment in payments.items():
            intents = by_payment.get(ident, [])
            stored = payment["payment_intent_id"]
            refused += stored is None and payment["creation"] == "rejected"
            if intents != ([stored] if stored else []) or (
                    stored is None and payment["creation"] != "rejected"):
                bad.append(f"{ident} has {stored}, its creation is {payment['creation']}, the "
                           f"stand-in has {intents}")
        self.line("exactly one PaymentIntent per payment", bad,
                  f"{len(payments) - refused} with one, {refused} whose creation was refused")
        amounts = {row["id"]: (row["amount"], row["currency"]) for row in payments.values()}
        self.line("no orphan PaymentIntents",
                  [intent["id"] for intent in ledger["payment_intents"]
                   if amounts.get(intent["metadata"].get("stripe_lifecycle_payment_id"))
                   != (intent["amount"], intent["currency"])],
                  f"{len(ledger['payment_intents'])} PaymentIntents, each with a payment's "
                  "amount and currency")
        states = Counter(payment["state"] for payment in payments.values())
        self.line("every payment is in the state that Stripe has it in",
                  self.wrong_states(self.expected_states(ledger, payments), payments),
                  ", ".join(f"{n} {state}" for state, n in sorted(states.items())))

    def check_events(self, session, ledger, payments, events):
        """Events."""
        soak = self.soak
        real = {event["id"]: event for event in ledger["events"]}
        sources = dict(session.query("SELECT source, count(*) FROM "
                                     "stripe_lifecycle.webhook_events GROUP BY 1"))
        self.line("every event is there, once",
                  [f"missing: {ident}" for ident in self.missing_events(ledger, events)]
                  + [f"twice: {ident}" for ident, n in events.items() if n > 1]
                  + [f"made up: {ident}" for ident in events if ident not in real],
                  f"{len(events)} events, " + ", ".join(
                      f"{n} from {source}" for source, n in sorted(sources.items()))
                  + f"; webhooks of {len(soak.lost)} were lost, "
                  + f"{soak.counts['webhook duplicate']} deliveries were duplicates")
        self.line("every event was matched", session.query(
            "SELECT event_id, type, outcome, reason FROM stripe_lifecycle.webhook_events "
            "WHERE outcome IN ('unmatched', 'conflict')"), ", ".join(
                f"{n} {outcome}" for outcome, n in session.query(
                    "SELECT outcome, count(*) FROM stripe_lifecycle.webhook_events "
                    "GROUP BY 1 ORDER BY 1")))
        self.line("forged webhooks are refused",
                  [ident for ident in events if ident.startswith("evt_forged")],
                  f"{soak.counts['forgeries']} tried, {soak.counts['webhook SL021']} genuine ones "
                  f"with a wrong secret and {soak.counts['webhook SL022']} stale ones refused")
        self.line("no card was charged twice", [
            f"{intent}: {n} charges" for intent, n in Counter(
                charge["payment_intent"] for charge in ledger["charges"]
                if charge["status"] == "succeeded").items() if n > 1],
            f"{ledger['counts']['succeeded_charges']} charges succeeded")
        applied = Counter(dict((what, int(n)) for what, n in session.query(APPLIED)))
        self.line("each event was applied once",
                  [f"{n} were {what}" for what, n in applied.items() if what != "applied once"],
                  f"{applied['applied once']} events, each the cause of one transition")
        self.line("the audit replays to the state", session.query(AUDIT)
                  + session.query("SELECT * FROM stripe_lifecycle.verify_audit()"),
                  session.value("SELECT count(*) FROM stripe_lifecycle.payment_transitions")
                  + " transitions without a gap, by legal edges, each with its event; "
                  "verify_audit() has nothing to add")

    def check_rows(self, session):
        """What the tables must not hold at the end."""
        requests = dict(session.query("SELECT status, count(*) FROM "
                                      "stripe_lifecycle.api_requests GROUP BY 1 ORDER BY 1"))
        self.line("no request is left", session.query(
            "SELECT id, operation, status, attempts, next_attempt_at, last_error FROM "
            "stripe_lifecycle.api_requests WHERE status IN ('queued', 'in_flight')"),
            ", ".join(f"{n} {status}" for status, n in requests.items()))
        was = session.value("SELECT count(DISTINCT request_id) FROM "
                            "stripe_lifecycle.api_attempts WHERE result = 'unknown'")
        self.line("every unknown outcome was found out", session.query(
            "SELECT id, operation, attempts, lookup_at, last_error FROM "
            "stripe_lifecycle.api_requests WHERE status = 'unknown'"),
            f"{was} requests were unknown for a while")
        attempts = dict(session.query(
            "SELECT coalesce(result, 'open'), count(*) FROM stripe_lifecycle.api_attempts "
            "GROUP BY 1 ORDER BY 1"))
        # A look at a payment that has not ended may be under way at any time.
        self.line("every attempt is on record, with its end", session.query(
            "SELECT r.id, r.operation, r.status, r.attempts, count(a.attempt), "
            "max(a.started_at) FILTER (WHERE a.finished_at IS NULL) "
            "FROM stripe_lifecycle.api_requests r "
            "LEFT JOIN stripe_lifecycle.api_attempts a ON a.request_id = r.id "
            "GROUP BY r.id HAVING r.attempts <> count(a.attempt) OR bool_or("
            "a.attempt IS NOT NULL AND (a.finished_at IS NULL OR a.result IS NULL) "
            f"AND (a.method = 'POST' OR a.started_at < now() - interval '{2 * REQUEST_TIMEOUT} s'))"),
            ", ".join(f"{n} {result}" for result, n in attempts.items()))
        ended = session.value("SELECT count(*) FROM stripe_lifecycle.payments "
                              "WHERE state IN ('succeeded', 'failed')")
        self.line("ended payments have no client secret", session.query(
            "SELECT id, state FROM stripe_lifecycle.payments "
            "WHERE state IN ('succeeded', 'failed') AND client_secret IS NOT NULL"),
            f"{ended} ended payments")

    def check_outcomes(self, session, ledger):
        """Each request ended as Stripe's side of it says, or as a look-up found."""
        answers = {request["request_id"]: request["status"] for request in ledger["requests"]}
        done = {request["idempotency_key"] for request in ledger["requests"]
                if request["status"] == 200}
        bad, reasons = [], Counter()
        for ident, operation, status, key, request_id, http_status, source, looked_at in (
                session.query(
                    "SELECT r.id, r.operation, r.status, r.idempotency_key, r.stripe_request_id, "
                    "r.http_status, r.last_error ->> 'source', EXISTS (SELECT FROM "
                    "stripe_lifecycle.api_attempts a WHERE a.request_id = r.id "
                    "AND a.method = 'GET' AND a.result = 'succeeded') "
                    "FROM stripe_lifecycle.api_requests r "
                    "WHERE r.status IN ('succeeded', 'rejected') ORDER BY r.id")):
            if status == "succeeded":
                # what is canceled already refuses to be canceled: that is success
                sound = key in done or looked_at == "t" or operation == "cancel"
                reasons[status] += 1
            elif source == "api" and looked_at == "f":
                sound = (answers.get(request_id) == int(http_status)
                         and http_status[0] == "4" and http_status not in ("409", "429"))
                reasons[f"refused with {http_status}"] += 1
            else:
                # the worker itself refuses what waited for a PaymentIntent in vain
                sound = looked_at == "t" or source == "worker"
                reasons[f"rejected by {'look-up' if looked_at == 't' else source}"] += 1
            if not sound:
                bad.append(f"{ident} {operation}: {status}, {source} {http_status} {request_id}, "
                           f"which Stripe answered with {answers.get(request_id)}")
        self.line("each request ended as Stripe's books have it", bad,
                  ", ".join(f"{n} {what}" for what, n in sorted(reasons.items())))

    def check_repetition(self, session, ledger):
        """All events once more, also those that were lost: nothing changes."""
        soak = self.soak
        events = [event["id"] for event in ledger["events"]
                  if event["type"].startswith("payment_intent.")]
        events = random.Random(soak.plan.seed).sample(events, min(len(events), 5000))
        checksum = ("SELECT md5(string_agg(md5(p::text), '' ORDER BY id)) "
                    "FROM stripe_lifecycle.payments p")
        before = session.value(checksum)
        for event in events:
            soak.stripe.control("POST", "webhooks/resend", {"event_id": event})
        outcomes = Counter()
        while True:
            _, batch = soak.stripe.control("GET", "webhooks?max=100")
            if not batch:
                break
            for delivery in batch:
                outcomes[soak.ingest(session, delivery["body"], delivery["header"])] += 1
        bad = [f"{n} {outcome}" for outcome, n in outcomes.items() if outcome != "duplicate"]
        if session.value(checksum) != before:
            bad.append("payments have changed")
        self.line("events sent again change nothing", bad, f"{outcomes.total()} sent again")

    def check_server(self):
        """The server's log and processes."""
        soak, server = self.soak, self.soak.server
        with open(server.log, encoding="utf-8", errors="replace") as log:
            text = log.read()
        leaks = {"API key": re.escape(soak.stripe.api_key),
                 "webhook secret": re.escape(soak.stripe.secret),
                 "client secret": r"_secret_[0-9a-f]{8}", "payload": r'"object" ?: ?"event"'}
        self.line("no secrets in the server's log",
                  [f"{name}: {len(found)} times" for name, pattern in leaks.items()
                   if (found := re.findall(pattern, text))],
                  f"{len(text.splitlines())} lines")
        self.line("no process crashed by itself", [
            line for line in text.splitlines()
            if re.search(r"PANIC|TRAP:|terminated by signal (?!9\b)\d+", line)],
            ", ".join(f"{n} x {name}" for name, n in sorted(soak.struck.items())))
        self.line("nothing stands in the way of a shutdown",
                  [f"a fast shutdown took {took:.1f} s" for took in server.shutdowns
                   if took > SHUTDOWN_LIMIT]
                  + [f"left behind by its postmaster: {name}" for name in server.orphans],
                  f"{len(server.shutdowns)} fast shutdowns, the slowest took "
                  f"{max(server.shutdowns, default=0):.1f} s")


    def check_trouble(self, ledger):
        """Was there any of each kind?  A test that is spared proves nothing."""
        soak = self.soak
        met = Counter(request["fault"] for request in ledger["requests"] if request["fault"])
        spared = [kind for kind in FAULT_KINDS if not met[kind]] + [
            name for name in DISORDER if name not in {span.name for span in soak.plan.disorder}]
        self.line("there was trouble of every kind",
                  spared if soak.plan.seconds >= FULL_PLAN else [],
                  ", ".join(f"{n} x {kind}" for kind, n in sorted(met.items())))


# ---------------------------------------------------------------------------
# Memory
# ---------------------------------------------------------------------------

MEMORY_REQUESTS = (10_000, 100_000)
MEMORY_WINDOW = 5_000       # requests before each of these, whose readings are averaged
MEMORY_BATCH = 2_500
MEMORY_FAULTS = ("drop_before", "drop_after", "rst_after", "truncate", "503", "409", "402", "500")


def memory_of(pid):
    """kB by name.  Anonymous is what the process has allocated for itself: RSS
    and Pss count pages of shared buffers too, the more of them the longer it
    has run."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return {name: int(kb) for name, kb in re.findall(r"^(\w+): +(\d+) kB", file.read(), re.M)}


def soak_memory(server, stripe, seed):
    """One worker makes 100,000 requests: is it as small as after 10,000?

    A single reading depends on what is under way at that moment, so the median
    of many is compared."""
    session = Session(server)
    readings, made, started, pids = [], 0, time.monotonic(), set()
    while made < MEMORY_REQUESTS[-1]:
        # The stand-in keeps everything; without this it would need a gigabyte.
        stripe.control("POST", "reset")
        stripe.control("POST", "webhooks/config", {"types": ["none"]})
        stripe.control("POST", "faults", [rule(kind, 0.01, route=ANY) for kind in MEMORY_FAULTS])
        session.query(
            "SELECT stripe_lifecycle.create_payment(amount => 2000, currency => 'eur', "
            "idempotency_key => format('memory-%s-%s-%s', $1::text, $2::text, n), "
            "description => repeat('x', n % 200), params => CASE WHEN n % 3 = 0 THEN "
            "'{\"confirm\": true, \"payment_method\": \"pm_card_chargeDeclined\"}'::jsonb END) "
            "FROM generate_series(1, $3::int) n", seed, made, MEMORY_BATCH)
        while int(session.value("SELECT count(*) FROM stripe_lifecycle.api_requests "
                                "WHERE status IN ('queued', 'in_flight')")):
            if time.monotonic() - started > 3600:
                raise Failed("the queue does not get empty")
            workers = server.pids_of("stripe_lifecycle worker")
            pids.update(workers)
            if len(pids) > 1:
                raise Failed(f"one worker should have done it all, not {sorted(pids)}")
            if workers:
                made = int(session.value("SELECT count(*) FROM stripe_lifecycle.api_attempts"))
                readings.append((made, memory_of(workers[0])))
            time.sleep(0.1)
        if readings:
            print(f"[{time.monotonic() - started:5.0f} s] {made} requests: " + ", ".join(
                f"{name} {readings[-1][1][name]} kB" for name in ("Anonymous", "Rss", "Pss")),
                flush=True)
    session.close()
    first, last = (statistics.median(
        memory["Anonymous"] for made, memory in readings
        if wanted - MEMORY_WINDOW <= made <= wanted)
        for wanted in MEMORY_REQUESTS)
    growth = (last - first) / first
    good = abs(growth) <= 0.10
    print(f"{'ok  ' if good else 'FAIL'} the worker's memory stays what it is: {first:.0f} kB "
          f"after {MEMORY_REQUESTS[0]} requests, {last:.0f} kB after {MEMORY_REQUESTS[-1]} "
          f"({growth:+.1%}; never more than "
          f"{max(memory['Anonymous'] for _, memory in readings)} kB)")
    return 0 if good else 1


# ---------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------

def secret_file(path, content):
    """A file as the server wants it."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w",
              encoding="ascii") as file:
        file.write(content + "\n")


def prepare(args, settings):
    """The stand-in and the server, not yet started."""
    os.makedirs(f"{args.dir}/log", exist_ok=True)
    rng = random.Random(f"{args.seed}/secrets")
    api_key = "sk_test_soak%016x" % rng.getrandbits(64)
    secret = "whsec_soak%016x" % rng.getrandbits(64)
    secret_file(f"{args.dir}/api_key", api_key)
    secret_file(f"{args.dir}/webhook_secret", f"soak {secret}")
    stripe = StandIn(args.dir, args.seed, secret, api_key)
    try:
        server = Server(args.dir, args.bindir, (
            f"stripe_lifecycle.api_base = 'http://127.0.0.1:{stripe.port}'",
            f"stripe_lifecycle.api_key_file = '{args.dir}/api_key'",
            f"stripe_lifecycle.webhook_secret_file = '{args.dir}/webhook_secret'",
            f"stripe_lifecycle.request_timeout = {REQUEST_TIMEOUT}s",
            "stripe_lifecycle.retry_base_delay = 100ms",
            "stripe_lifecycle.retry_max_delay = 2s", *settings))
    except BaseException:
        stripe.stop()
        raise
    return stripe, server


def show_logs(directory):
    """After an error of the test itself."""
    for name in sorted(os.listdir(f"{directory}/log")):
        with open(f"{directory}/log/{name}", encoding="utf-8", errors="replace") as log:
            last = deque(log, 20)
        if last:
            print(f"---- end of {name}\n{''.join(last)}----", file=sys.stderr)


def run(args):
    """Everything, and the exit status."""
    if args.memory:
        settings = ("stripe_lifecycle.max_requests_per_second = 0",
                    "stripe_lifecycle.worker_linger = 60s", "stripe_lifecycle.max_in_flight = 64",
                    "log_min_messages = error")
    else:
        plan = Plan(args.seed, args.minutes * 60, args.rate)
        again = f"{args.minutes:g} --rate {args.rate:g} --seed {args.seed}"
        print(f"seed {args.seed}: {len(plan.payments)} payments, {len(plan.strikes)} kills and "
              f"restarts, {len(plan.faults)} times of faults, {len(plan.disorder)} of disorder "
              f"of webhooks in {plan.seconds:g} s; plan {plan.digest()}; the same again: "
              f"script/soak {again}", flush=True)
        if args.plan:
            plan.show()
            return 0
        settings = ("stripe_lifecycle.max_requests_per_second = 200",
                    f"stripe_lifecycle.reconcile_interval = {RECONCILE_INTERVAL}s",
                    f"stripe_lifecycle.watch_after = {RECONCILE_INTERVAL}s")
    stripe, server = prepare(args, settings)
    try:
        server.start()
        session = Session(server)
        session.query("CREATE EXTENSION stripe_lifecycle")
        session.close()
        if args.memory:
            return soak_memory(server, stripe, args.seed)
        soak = Soak(plan, server, stripe)
        soak.run()
        waiting = soak.come_to_rest()
        soak.finish()
        books = Books(soak)
        books.check(waiting)
        print(f"{'FAILED' if books.failed else 'passed'} after {soak.now():.0f} s, seed "
              f"{args.seed}", flush=True)
        return 1 if books.failed else 0
    except (Failed, SqlError) as error:
        print(f"soak: {error}", file=sys.stderr)
        show_logs(args.dir)
        return 2
    finally:
        if server.process and server.process.poll() is None:
            server.stop(signal.SIGINT)
        stripe.stop()


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("minutes", nargs="?", type=float, default=10,
                        help="length of the load (default 10)")
    parser.add_argument("--seed", type=int, help="repeat a plan (default: a new one)")
    parser.add_argument("--rate", type=float, default=15, help="payments per second (default 15)")
    parser.add_argument("--plan", action="store_true", help="print the plan and do nothing")
    parser.add_argument("--memory", action="store_true", help="measure the worker's memory instead")
    parser.add_argument("--bindir", help="programs of an installation that has the extension")
    parser.add_argument("--dir", help="an empty folder to work in; its path has to be short")
    args = parser.parse_args()
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(10 ** 6)
    if not args.plan and not (args.bindir and args.dir and shutil.which(f"{args.bindir}/initdb")):
        parser.error("--bindir and --dir are needed")
    if args.minutes <= 0 or args.rate <= 0:
        parser.error("minutes and rate are above 0")
    # as for Ctrl-C: what was started has to be stopped
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(args)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
