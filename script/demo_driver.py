#!/usr/bin/env python3
"""What happens in script/demo: the payments, and what must come out of them.

    prepare   create the database, the extension and two roles
    receive   stand in for the HTTP layer: hand every webhook to ingest_webhook()
    play      make the payments, show what happened, check every outcome
    explain   print what to try by hand (script/demo --keep)

Only the stand-in for Stripe is not real here.  Payments are created by a role
that grant_application() equipped, the worker inside PostgreSQL calls the API,
webhooks carry real signatures, and the customer's browser is a few HTTP calls
with a publishable key and the payment's client secret.  Standard library only.
"""

import argparse
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

PATIENCE = 20       # seconds until what should happen at once counts as not happening


class Failed(Exception):
    """Something did not come out as it should."""


# ---------------------------------------------------------------------------
# PostgreSQL and HTTP
# ---------------------------------------------------------------------------

class SqlError(Exception):
    """What the server answered instead of a result; `sqlstate` tells the kind."""

    def __init__(self, text):
        super().__init__(text)
        head, _, rest = text.partition(":  ")[2].partition(": ")
        self.sqlstate = head
        self.message = rest.splitlines()[0] if rest else text


def literal(value):
    """A value as SQL text; bytes as bytea."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'::pg_catalog.bytea"
    return "'" + str(value).replace("'", "''") + "'"


def sql(role, text, database=None):
    """Runs one statement as a role; returns its rows, as lists of strings.

    The statement goes through standard input: an argument would be there for
    everybody on the machine to read in the list of processes.
    """
    command = ["psql", "-XqAt", "-F", "\x1f", "-v", "ON_ERROR_STOP=1",
               "-v", "VERBOSITY=verbose", "-U", role]
    if database:
        command += ["-d", database]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    if done.returncode:
        raise SqlError(done.stderr.decode(errors="replace").strip())
    return [line.split("\x1f") for line in done.stdout.decode().splitlines()]


def http(method, url, body=None, headers=None):
    """One request: (status, parsed answer)."""
    request = urllib.request.Request(url, body, headers or {}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


class Stripe:
    """The stand-in, seen from outside the database."""

    def __init__(self, base):
        self.base = base

    def confirm(self, intent, client_secret, payment_method):
        """What Stripe.js does in the browser when the customer clicks on "pay"."""
        form = urllib.parse.urlencode({
            "client_secret": client_secret, "payment_method": payment_method,
            "return_url": "https://shop.example/thanks"})
        return http("POST", f"{self.base}/v1/payment_intents/{intent}/confirm", form.encode(),
                    {"Authorization": "Bearer pk_test_demo",
                     "Content-Type": "application/x-www-form-urlencoded"})

    def control(self, method, path, body=None):
        """The stand-in's control surface."""
        status, answer = http(method, f"{self.base}/_sim/{path}",
                              None if body is None else json.dumps(body).encode(),
                              {"Content-Type": "application/json"})
        if status != 200:
            raise Failed(f"the stand-in answered {status} to {path}: {answer}")
        return answer

    def ledger(self):
        """Everything that ever happened there."""
        return self.control("GET", "ledger")


def eventually(what, look):
    """Calls look() until it returns something true, and returns that."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"{what}: has not happened within {PATIENCE} s")
        time.sleep(0.05)


# ---------------------------------------------------------------------------
# prepare, receive
# ---------------------------------------------------------------------------

def prepare(_args):
    """A database as an administrator would set it up."""
    sql("postgres", "CREATE DATABASE demo", "postgres")
    sql("postgres", """
        CREATE EXTENSION stripe_lifecycle;
        CREATE ROLE shop LOGIN;
        CREATE ROLE auditor LOGIN;
        SELECT stripe_lifecycle.grant_application('shop');
        SELECT stripe_lifecycle.grant_auditor('auditor');
    """)


def ingest(body, header):
    """Hands in one webhook, as the HTTP layer of an application would."""
    return sql("shop", f"SELECT stripe_lifecycle.ingest_webhook("
                       f"{literal(body)}, {literal(header)})")[0][0]


def receive(args):
    """Takes webhooks from the stand-in for ever, and notes what became of each."""
    stripe = Stripe(args.api)
    with open(args.deliveries, "a", encoding="utf-8", buffering=1) as notes:
        while True:
            for delivery in stripe.control("GET", "webhooks?max=16&wait_ms=1000"):
                try:
                    outcome = ingest(delivery["body"].encode(), delivery["header"])
                except SqlError as error:
                    # A real receiver answers 400 now, and Stripe delivers again later.
                    print(f"{delivery['event_id']}: {error}", flush=True)
                    outcome = f"refused: {error.sqlstate}"
                notes.write(json.dumps({"event_id": delivery["event_id"],
                                        "type": delivery["type"], "outcome": outcome}) + "\n")


# ---------------------------------------------------------------------------
# play
# ---------------------------------------------------------------------------

class Payment:
    """One payment, from the application's and the auditor's side."""

    def __init__(self, amount, currency, key, description):
        self.id = sql("shop", f"""
            SELECT stripe_lifecycle.create_payment(
                amount => {amount}, currency => {literal(currency)},
                idempotency_key => {literal(key)}, description => {literal(description)})
        """)[0][0]

    def status(self):
        """(state, PaymentIntent, client secret), as the frontend would poll it."""
        return tuple(sql("shop", f"""
            SELECT state, payment_intent_id, client_secret
              FROM stripe_lifecycle.payment_status({literal(self.id)})
        """)[0])

    def at_stripe(self):
        """(PaymentIntent, client secret), as soon as the worker has created it."""
        return eventually("the worker creates the PaymentIntent",
                          lambda: [s[1:] for s in [self.status()] if s[2]])[0]

    def reach(self, state):
        """Waits for a state."""
        eventually(f"payment {self.id} becomes {state}",
                   lambda: self.status()[0] == state)

    def transitions(self):
        """The audit trail: (state, time, event type or source, event, note)."""
        return sql("auditor", f"""
            SELECT to_state, pg_catalog.to_char(at, 'HH24:MI:SS.MS'),
                   COALESCE(event_type, source), event_id, note
              FROM stripe_lifecycle.payment_transitions
             WHERE payment_id = {literal(self.id)} ORDER BY seq
        """)

    def show(self):
        """Prints the timeline."""
        for state, at, cause, event, note in self.transitions():
            print(f"      {state:<16} {at}  {cause:<32} {event}{'  ' if note else ''}{note}")

    def expect(self, *states):
        """Checks the path the payment took, and prints it."""
        self.show()
        path = [row[0] for row in self.transitions()]
        if path != list(states):
            raise Failed(f"expected the states {', '.join(states)}; got {', '.join(path)}")


class Play:
    """The demo's scenes, in order; each raises Failed if anything is off."""

    def __init__(self, args):
        self.stripe = Stripe(args.api)
        self.deliveries = args.deliveries
        self.run = os.urandom(4).hex()
        self.count = 0

    def scene(self, title):
        """Headline."""
        self.count += 1
        print(f"\n   {self.count}. {title}", flush=True)

    def step(self, text):
        """What is being done right now."""
        print(f"      - {text}", flush=True)

    def new_payment(self, amount, currency, name):
        """A payment that exists on both sides."""
        self.step(f"create_payment({amount}, '{currency}') by the role shop")
        payment = Payment(amount, currency, f"{name}-{self.run}", f"demo: {name}")
        intent, client_secret = payment.at_stripe()
        self.step(f"the worker has created {intent}")
        return payment, intent, client_secret

    def browser(self, intent, client_secret, payment_method, expected):
        """The customer pays; `expected` is what Stripe answers the browser."""
        self.step(f"the browser confirms with {payment_method}")
        status, answer = self.stripe.confirm(intent, client_secret, payment_method)
        got = answer.get("status") or answer.get("error", {}).get("code")
        if got != expected:
            raise Failed(f"the browser got {status} {got}, expected {expected}")

    def received(self, event_id):
        """What became of each delivery of an event, in order."""
        try:
            with open(self.deliveries, encoding="utf-8") as notes:
                rows = [json.loads(line) for line in notes if line.endswith("\n")]
        except FileNotFoundError:
            return []
        return [row["outcome"] for row in rows if row["event_id"] == event_id]

    def intent_at_stripe(self, intent):
        """The PaymentIntent, from the stand-in's books."""
        return next(pi for pi in self.stripe.ledger()["payment_intents"] if pi["id"] == intent)

    # -- the scenes ---------------------------------------------------------

    def card_that_works(self):
        """4242: succeeds at once."""
        self.scene("A card that works (4242 4242 4242 4242)")
        payment, intent, client_secret = self.new_payment(4200, "eur", "works")
        self.browser(intent, client_secret, "pm_card_visa", "succeeded")
        payment.reach("succeeded")
        payment.expect("created", "succeeded")
        if self.intent_at_stripe(intent)["amount_received"] != 4200:
            raise Failed("the stand-in has not received 4200")
        return payment

    def card_with_3d_secure(self):
        """3155: the bank wants to see the customer first."""
        self.scene("A card that asks for 3-D Secure (4000 0025 0000 3155)")
        payment, intent, client_secret = self.new_payment(9900, "usd", "3ds")
        self.browser(intent, client_secret, "pm_card_authenticationRequiredOnSetup",
                     "requires_action")
        payment.reach("requires_action")
        self.step("the database knows that the customer has to act; the customer does")
        self.stripe.control("POST", f"payment_intents/{intent}/authenticate",
                            {"outcome": "succeed"})
        payment.reach("succeeded")
        payment.expect("created", "requires_action", "succeeded")

    def card_that_is_declined(self):
        """0002: declined; with the default policy that is final, at Stripe too."""
        self.scene("A card that is declined (4000 0000 0000 0002)")
        payment, intent, client_secret = self.new_payment(1500, "gbp", "declined")
        self.browser(intent, client_secret, "pm_card_visa_chargeDeclined", "card_declined")
        payment.reach("failed")
        payment.expect("created", "failed")
        self.step("a declined PaymentIntent could still be paid, so the worker cancels it")
        eventually("the worker cancels the PaymentIntent",
                   lambda: self.intent_at_stripe(intent)["status"] == "canceled")
        keys = [request["idempotency_key"] for request in self.stripe.ledger()["requests"]
                if request["path"].endswith(f"{intent}/cancel")]
        if keys != [f"stripe_lifecycle-{payment.id}-cancel-1"]:
            raise Failed(f"expected one cancellation with the worker's key, got {keys}")
        eventually("the cancellation's event arrives", lambda: sql("auditor", f"""
            SELECT 1 FROM stripe_lifecycle.webhook_events
             WHERE payment_id = {literal(payment.id)} AND type = 'payment_intent.canceled'
        """))
        self.step(f"{intent} is canceled at Stripe")
        return payment

    def three_deliveries(self, payment):
        """The same event three times; Stripe promises no less than once."""
        self.scene("One webhook, delivered three times")
        event = payment.transitions()[-1][3]
        for _ in range(2):
            self.stripe.control("POST", "webhooks/resend", {"event_id": event})
        outcomes = eventually("three deliveries",
                              lambda: [o for o in [self.received(event)] if len(o) >= 3])[0]
        self.step(f"{event}: {', '.join(outcomes)}")
        if outcomes != ["applied", "duplicate", "duplicate"]:
            raise Failed("expected it to be applied once, and to be a duplicate twice")
        rows = sql("auditor", f"SELECT count(*) FROM stripe_lifecycle.webhook_events"
                              f" WHERE event_id = {literal(event)}")[0][0]
        if rows != "1":
            raise Failed(f"the event is there {rows} times")
        payment.expect("created", "succeeded")

    def forged_webhook(self, model, victim):
        """Somebody who does not know the secret claims that the declined payment was paid."""
        self.scene("A forged webhook: the declined payment is said to be paid")
        intent = victim.status()[1]
        events = self.stripe.ledger()["events"]
        event = next(e for e in events if e["id"] == model.transitions()[-1][3])
        body = json.dumps({
            "id": "evt_forged_" + self.run, "object": "event", "type": "payment_intent.succeeded",
            "api_version": "2026-10-28.endive", "created": event["created"] + 1,
            "livemode": False, "data": {"object": {
                "id": intent, "object": "payment_intent", "status": "succeeded",
                "amount": 1500, "amount_received": 1500, "currency": "gbp", "livemode": False,
                "metadata": {"stripe_lifecycle_payment_id": victim.id}}}}).encode()
        now = int(time.time())
        forged = hmac.new(b"whsec_a_guess", b"%d." % now + body, hashlib.sha256).hexdigest()
        try:
            outcome = ingest(body, f"t={now},v1={forged}")
        except SqlError as error:
            self.step(f"refused: {error.message} (SQLSTATE {error.sqlstate})")
            if not error.sqlstate.startswith("SL"):
                raise Failed(f"expected an error of the extension's, got: {error}") from error
        else:
            raise Failed(f"the forged webhook was taken: {outcome}")
        if sql("auditor", "SELECT 1 FROM stripe_lifecycle.webhook_events"
                          f" WHERE event_id = {literal('evt_forged_' + self.run)}"):
            raise Failed("the forged webhook left a row")
        victim.expect("created", "failed")

    def books(self):
        """Both sides agree: one PaymentIntent for each payment, the same money."""
        self.scene("The books of both sides")
        counts = self.stripe.ledger()["counts"]
        ours = dict(sql("auditor", """
            SELECT currency, sum(amount_received) FROM stripe_lifecycle.payments
             WHERE state = 'succeeded' GROUP BY currency"""))
        theirs = {currency: str(amount) for currency, amount in counts["amount_received"].items()
                  if amount}
        payments = sql("auditor", "SELECT count(*) FROM stripe_lifecycle.payments")[0][0]
        self.step(f"payments: {payments} here, {counts['payment_intents']} PaymentIntents at Stripe")
        self.step("received: " + ", ".join(f"{amount} {currency}"
                                           for currency, amount in sorted(ours.items())))
        if ours != theirs or payments != str(counts["payment_intents"]):
            raise Failed(f"the stand-in's books say {counts}")

    def all(self):
        """The whole demo."""
        works = self.card_that_works()
        self.card_with_3d_secure()
        declined = self.card_that_is_declined()
        self.three_deliveries(works)
        self.forged_webhook(works, declined)
        self.books()
        print("\n   Everything came out as it should.\n", flush=True)


def play(args):
    """Runs the demo."""
    Play(args).all()


def explain(args):
    """What to try by hand."""
    print(f"""
What to try, in psql:

  SET search_path = stripe_lifecycle, public;
  SELECT id, state, amount, currency, last_error FROM payments;
  SELECT * FROM payment_transitions ORDER BY at;

  -- a payment of your own; a moment later the worker has created it at the stand-in
  SELECT create_payment(2500, 'eur', 'my-first-order');
  SELECT payment_intent_id, client_secret FROM payments WHERE idempotency_key = 'my-first-order';

  -- nobody but Stripe moves a payment: both are refused
  UPDATE payments SET state = 'succeeded';
  SELECT ingest_webhook('{{"id": "evt_1"}}', 't=1,v1=00');

and to pay it, as the customer's browser would (pm_card_visa works, pm_card_visa_chargeDeclined
is declined, pm_card_authenticationRequiredOnSetup asks for 3-D Secure):

  {args.tree}/test/stripe_sim.py confirm --base {args.api} \\
      PAYMENT_INTENT_ID --client-secret CLIENT_SECRET --payment-method pm_card_visa \\
      --return-url https://shop.example/thanks
  {args.tree}/test/stripe_sim.py authenticate --base {args.api} PAYMENT_INTENT_ID""")


def main():
    """Command line; the exit status is 0 only if all went well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", required=True, help="the sources")
    parser.add_argument("--api", required=True, help="where the stand-in listens")
    parser.add_argument("--deliveries", required=True, help="file to note deliveries in")
    parser.add_argument("command", choices=("prepare", "receive", "play", "explain"))
    args = parser.parse_args()
    try:
        globals()[args.command](args)
    except (Failed, SqlError, OSError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
