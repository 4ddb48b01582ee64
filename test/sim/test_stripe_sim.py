"""Tests of the Stripe stand-in, test/stripe_sim.py.

    python3 -m unittest discover -s test/sim

Everything goes over real sockets to a real process on a free port, because
what the stand-in is for (closed connections, pipelining, signals) cannot be
seen from inside.  One process serves all tests and is reset between them.
"""

import hashlib
import hmac
import http.client
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "stripe_sim.py"
SECRET = "whsec_unit_test"
PAYMENT_ID = "stripe_lifecycle_payment_id"

try:
    import stripe as stripe_sdk
except ImportError:
    stripe_sdk = None


class Sim:
    """A running stand-in and the means to talk to it."""

    def __init__(self, *options):
        self.directory = tempfile.TemporaryDirectory()
        port_file = os.path.join(self.directory.name, "port")
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "serve", "--port", "0", "--port-file", port_file,
             "--webhook-secret", SECRET, *options], stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 10
        while not os.path.exists(port_file):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("the stand-in did not start")
            time.sleep(0.01)
        with open(port_file, encoding="ascii") as handle:
            self.port = int(handle.read())
        self.base = f"http://127.0.0.1:{self.port}"

    def stop(self):
        """Stop it as an operator would; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(10)
        self.process.stdout.close()
        self.directory.cleanup()
        return status

    def connect(self, timeout=10):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def raw(self, method, path, body=b"", headers=None, timeout=10):
        """One request on a connection of its own: (status, headers, body)."""
        connection = self.connect(timeout)
        try:
            connection.request(method, path, body or None, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def call(self, method, path, params=None, key=None, auth="sk_test_unit", **headers):
        """An API call: (status, answer, headers).  `params` is a flat dictionary."""
        form = urllib.parse.urlencode(params or {})
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if auth:
            sent["Authorization"] = f"Bearer {auth}"
        if key:
            sent["Idempotency-Key"] = key
        if method == "GET":
            path, form = path + ("?" + form if form else ""), ""
        else:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        status, head, body = self.raw(method, path, form.encode(), sent)
        return status, json.loads(body), head

    def control(self, method, path, body=None, timeout=10):
        """A control request that has to work; returns the answer."""
        status, _, answer = self.raw(method, "/_sim/" + path,
                                     json.dumps(body).encode() if body is not None else b"",
                                     timeout=timeout)
        if status != 200:
            raise AssertionError(f"{status}: {answer!r}")
        return json.loads(answer)


class SimTest(unittest.TestCase):
    """Common ground: the module's process, reset before each test."""

    sim = None

    def setUp(self):
        self.sim.control("POST", "reset", {"seed": 7})

    def ok(self, method, path, params=None, **more):
        status, answer, _ = self.sim.call(method, path, params, **more)
        self.assertEqual(status, 200, answer)
        return answer

    def fails(self, expected, method, path, params=None, **more):
        status, answer, _ = self.sim.call(method, path, params, **more)
        self.assertEqual(status, expected, answer)
        return answer["error"]

    def create(self, **params):
        more = {name: params.pop(name) for name in ("key", "auth") if name in params}
        return self.ok("POST", "/v1/payment_intents",
                       {"amount": 2000, "currency": "eur", **params}, **more)

    def pay(self, method="pm_card_visa", **params):
        return self.create(confirm="true", payment_method=method, **params)

    def confirm(self, intent, method, **more):
        return self.sim.call("POST", f"/v1/payment_intents/{intent['id']}/confirm",
                             {"payment_method": method, **more})

    def ledger(self, summary=False):
        return self.sim.control("GET", "ledger" + ("?summary=1" if summary else ""))

    def event_types(self):
        return [event["type"] for event in self.ledger()["events"]]

    def pull(self, **query):
        return self.sim.control("GET", "webhooks?" + urllib.parse.urlencode(query))


def setUpModule():
    """Start the one stand-in that all tests share."""
    SimTest.sim = Sim("--seed", "7")
    unittest.addModuleCleanup(SimTest.sim.stop)


class PaymentIntents(SimTest):

    def test_create(self):
        intent = self.create(description="Größe 1 & 2", **{"metadata[a]": "ü=1"})
        self.assertEqual(intent["status"], "requires_payment_method")
        self.assertEqual((intent["amount"], intent["currency"]), (2000, "eur"))
        self.assertEqual(intent["description"], "Größe 1 & 2")
        self.assertEqual(intent["metadata"], {"a": "ü=1"})
        self.assertRegex(intent["id"], r"\Api_3Sim\w{20}\Z")
        self.assertRegex(intent["client_secret"], rf"\A{intent['id']}_secret_\w{{24}}\Z")
        self.assertIs(intent["livemode"], False)
        self.assertEqual(self.event_types(), ["payment_intent.created"])
        self.assertEqual(self.ok("GET", f"/v1/payment_intents/{intent['id']}"), intent)

    def test_card_succeeds(self):
        intent = self.create()
        status, paid, _ = self.confirm(intent, "pm_card_visa")
        self.assertEqual((status, paid["status"], paid["amount_received"]),
                         (200, "succeeded", 2000))
        self.assertEqual(self.event_types(), ["payment_intent.created", "charge.succeeded",
                                              "payment_intent.succeeded"])
        charge = self.ok("GET", f"/v1/charges/{paid['latest_charge']}")
        self.assertEqual((charge["status"], charge["captured"], charge["payment_intent"]),
                         ("succeeded", True, intent["id"]))
        self.assertEqual(self.pay()["status"], "succeeded")

    def test_declines(self):
        for method, code, decline in (
                ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
                ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined",
                 "insufficient_funds"),
                ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
                ("pm_card_radarBlock", "card_declined", "fraudulent")):
            with self.subTest(method):
                intent = self.create()
                status, answer, _ = self.confirm(intent, method)
                error = answer["error"]
                self.assertEqual((status, error["type"], error["code"],
                                  error.get("decline_code")),
                                 (402, "card_error", code, decline))
                inner = error["payment_intent"]
                self.assertEqual(inner["status"], "requires_payment_method")
                self.assertEqual(inner["client_secret"], intent["client_secret"])
                self.assertIsNone(inner["payment_method"])
                self.assertEqual(inner["last_payment_error"]["code"], code)
                self.assertEqual(error["charge"], inner["latest_charge"])
        self.assertEqual(self.event_types()[:3], ["payment_intent.created", "charge.failed",
                                                  "payment_intent.payment_failed"])

    def test_a_declined_intent_can_still_be_paid(self):
        error = self.fails(402, "POST", "/v1/payment_intents", {
            "amount": 100, "currency": "usd", "confirm": "True",
            "payment_method": "pm_card_chargeDeclined"})
        status, paid, _ = self.confirm(error["payment_intent"], "pm_card_visa")
        self.assertEqual((status, paid["status"], paid["last_payment_error"]),
                         (200, "succeeded", None))

    def test_three_d_secure(self):
        intent = self.pay("pm_card_authenticationRequired", return_url="https://shop.test/")
        self.assertEqual(intent["status"], "requires_action")
        self.assertEqual(intent["next_action"]["type"], "redirect_to_url")
        path = f"payment_intents/{intent['id']}/authenticate"
        self.assertEqual(self.sim.control("POST", path, {"outcome": "succeed"})["status"],
                         "succeeded")
        self.assertEqual(self.event_types(), [
            "payment_intent.created", "payment_intent.requires_action",
            "payment_intent.succeeded", "charge.succeeded"])
        with self.assertRaises(AssertionError):
            self.sim.control("POST", path, {})

    def test_three_d_secure_failed_then_paid(self):
        intent = self.pay("pm_card_authenticationRequired")
        self.assertEqual(intent["next_action"]["type"], "use_stripe_sdk")
        self.sim.control("POST", f"payment_intents/{intent['id']}/authenticate",
                         {"outcome": "fail"})
        now = self.ok("GET", f"/v1/payment_intents/{intent['id']}")
        self.assertEqual(now["status"], "requires_payment_method")
        self.assertEqual(now["last_payment_error"]["code"],
                         "payment_intent_authentication_failure")
        self.assertEqual(self.event_types()[-1], "payment_intent.payment_failed")
        self.assertEqual(self.ledger()["charges"], [])
        self.assertEqual(self.confirm(intent, "pm_card_visa")[1]["status"], "succeeded")

    def test_three_d_secure_then_declined(self):
        intent = self.pay("pm_card_threeDSecureRequiredChargeDeclined")
        self.sim.control("POST", f"payment_intents/{intent['id']}/authenticate")
        self.assertEqual(self.event_types()[-2:],
                         ["charge.failed", "payment_intent.payment_failed"])

    def test_off_session_does_not_ask(self):
        error = self.fails(402, "POST", "/v1/payment_intents", {
            "amount": 100, "currency": "usd", "confirm": "true", "off_session": "true",
            "payment_method": "pm_card_authenticationRequired"})
        self.assertEqual(error["code"], "authentication_required")
        self.assertEqual(self.pay("pm_card_authenticationRequiredSetupForOffSession",
                                  off_session="true")["status"], "succeeded")

    def test_manual_confirmation(self):
        intent = self.pay("pm_card_authenticationRequired", confirmation_method="manual")
        path = f"payment_intents/{intent['id']}"
        self.assertEqual(self.sim.control("POST", path + "/authenticate")["status"],
                         "requires_confirmation")
        self.assertEqual(self.ok("POST", f"/v1/{path}/confirm")["status"], "succeeded")

    def test_bank_debit(self):
        for outcome, status, last in (("succeed", "succeeded", "payment_intent.succeeded"),
                                      ("fail", "requires_payment_method",
                                       "payment_intent.payment_failed")):
            intent = self.pay("pm_usBankAccount_success")
            self.assertEqual(intent["status"], "processing")
            self.assertEqual(self.event_types()[-2:],
                             ["charge.pending", "payment_intent.processing"])
            self.fails(400, "POST", f"/v1/payment_intents/{intent['id']}/cancel")
            self.assertEqual(self.sim.control(
                "POST", f"payment_intents/{intent['id']}/settle",
                {"outcome": outcome})["status"], status)
            self.assertEqual(self.event_types()[-1], last)

    def test_manual_capture(self):
        intent = self.pay(capture_method="manual")
        self.assertEqual((intent["status"], intent["amount_capturable"]),
                         ("requires_capture", 2000))
        path = f"/v1/payment_intents/{intent['id']}/capture"
        self.assertEqual(self.fails(400, "POST", path, {"amount_to_capture": 2001})["code"],
                         "amount_too_large")
        done = self.ok("POST", path, {"amount_to_capture": 1500})
        self.assertEqual((done["status"], done["amount_received"], done["amount_capturable"]),
                         ("succeeded", 1500, 0))
        self.assertEqual(self.event_types(), [
            "payment_intent.created", "charge.succeeded",
            "payment_intent.amount_capturable_updated", "charge.captured",
            "payment_intent.succeeded"])
        self.assertEqual(self.fails(400, "POST", path)["code"],
                         "payment_intent_unexpected_state")

    def test_cancel(self):
        intent = self.create()
        gone = self.ok("POST", f"/v1/payment_intents/{intent['id']}/cancel",
                       {"cancellation_reason": "abandoned"})
        self.assertEqual((gone["status"], gone["cancellation_reason"]),
                         ("canceled", "abandoned"))
        self.assertIsInstance(gone["canceled_at"], int)
        status, answer, _ = self.confirm(intent, "pm_card_visa")
        self.assertEqual((status, answer["error"]["code"]),
                         (400, "payment_intent_unexpected_state"))

    def test_cancel_after_success_is_refused(self):
        intent = self.pay()
        error = self.fails(400, "POST", f"/v1/payment_intents/{intent['id']}/cancel")
        self.assertEqual((error["code"], error["payment_intent"]["status"]),
                         ("payment_intent_unexpected_state", "succeeded"))

    def test_cancel_and_expire_release_the_hold(self):
        held = self.pay(capture_method="manual")
        self.ok("POST", f"/v1/payment_intents/{held['id']}/cancel")
        self.assertEqual(self.event_types()[-2:],
                         ["charge.refunded", "payment_intent.canceled"])
        held = self.pay(capture_method="manual")
        self.sim.control("POST", f"payment_intents/{held['id']}/expire")
        self.assertEqual(self.event_types()[-2:],
                         ["charge.expired", "payment_intent.canceled"])
        self.assertEqual(self.ok("GET", f"/v1/payment_intents/{held['id']}")
                         ["cancellation_reason"], "automatic")

    def test_update(self):
        intent = self.create(**{"metadata[a]": "1", "metadata[b]": "2"})
        path = f"/v1/payment_intents/{intent['id']}"
        changed = self.ok("POST", path, {"amount": 300, "metadata[a]": "", "metadata[c]": "3",
                                         "description": "new"})
        self.assertEqual((changed["amount"], changed["metadata"], changed["description"]),
                         (300, {"b": "2", "c": "3"}, "new"))
        self.assertEqual(self.ok("POST", path, {"metadata": ""})["metadata"], {})
        self.assertEqual(self.ok("POST", path, {"payment_method": "pm_card_visa"})["status"],
                         "requires_confirmation")
        self.assertEqual(self.ok("POST", path + "/confirm")["status"], "succeeded")
        self.fails(400, "POST", path, {"amount": 400})
        self.ok("POST", path, {"description": "still allowed"})

    def test_expand(self):
        intent = self.pay()
        found = self.ok("GET", f"/v1/payment_intents/{intent['id']}", {
            "expand[]": "latest_charge", "expand[1]": "payment_method"})
        self.assertEqual(found["latest_charge"]["object"], "charge")
        self.assertEqual(found["payment_method"]["card"]["last4"], "4242")
        self.fails(400, "GET", f"/v1/payment_intents/{intent['id']}", {"expand[]": "amount"})

    def test_list(self):
        ids = [self.create(customer=f"cus_{n % 2}")["id"] for n in range(5)]
        first = self.ok("GET", "/v1/payment_intents", {"limit": 2})
        self.assertEqual([row["id"] for row in first["data"]], [ids[4], ids[3]])
        self.assertTrue(first["has_more"])
        rest = self.ok("GET", "/v1/payment_intents", {"limit": 3, "starting_after": ids[3]})
        self.assertEqual([row["id"] for row in rest["data"]], ids[2::-1])
        self.assertFalse(rest["has_more"])
        self.assertEqual(len(self.ok("GET", "/v1/payment_intents",
                                     {"customer": "cus_1"})["data"]), 2)
        self.fails(400, "GET", "/v1/payment_intents", {"starting_after": "pi_none"})

    def test_bank_debit_by_created_method(self):
        method = self.ok("POST", "/v1/payment_methods", {
            "type": "sepa_debit", "sepa_debit[iban]": "AT321904300235473204"})
        intent = self.pay(method["id"], **{"payment_method_types[]": "sepa_debit"})
        self.assertEqual((intent["status"], intent["payment_method"]),
                         ("processing", method["id"]))
        self.assertEqual(self.fails(400, "POST", "/v1/payment_intents", {
            "amount": 100, "currency": "eur", "confirm": "true", "payment_method": method["id"],
            "payment_method_types[0]": "card"})["param"], "payment_method")


class Refusals(SimTest):

    def test_parameters(self):
        good = {"amount": "100", "currency": "usd"}
        for change, param, code in (
                ({"amount": None}, "amount", "parameter_missing"),
                ({"currency": None}, "currency", "parameter_missing"),
                ({"amount": ""}, "amount", "parameter_invalid_empty"),
                ({"amount": "1.5"}, "amount", "parameter_invalid_integer"),
                ({"amount": "0"}, "amount", "parameter_invalid_integer"),
                ({"amount": "-5"}, "amount", "parameter_invalid_integer"),
                ({"amount": "100000000"}, "amount", "amount_too_large"),
                ({"amount": "101", "currency": "isk"}, "amount", "parameter_invalid_integer"),
                ({"amount": "101", "currency": "kwd"}, "amount", "parameter_invalid_integer"),
                ({"currency": "xyz"}, "currency", None),
                ({"amuont": "1"}, "amuont", "parameter_unknown"),
                ({"automatic_payment_methods[enable]": "true"},
                 "automatic_payment_methods[enable]", "parameter_unknown"),
                ({"confirm": "yes"}, "confirm", None),
                ({"confirm": "true"}, "payment_method", "parameter_missing"),
                ({"capture_method": "later"}, "capture_method", None),
                ({"receipt_email": "nobody"}, "receipt_email", "email_invalid"),
                ({"payment_method": "pm_nope"}, "payment_method", "resource_missing"),
                ({"off_session": "true"}, "off_session", None),
                ({"statement_descriptor": "SHOP"}, "statement_descriptor", None),
                ({"metadata": "x"}, "metadata", None),
                ({"metadata[a][b]": "x"}, "metadata[a]", None),
                ({"metadata[x[y]]": "x"}, "metadata[x[y]]", None),
                ({"metadata[%s]" % ("k" * 41): "x"}, "metadata[%s]" % ("k" * 41), None),
                ({"metadata[a]": "x" * 501}, "metadata[a]", None),
                ({f"metadata[k{n}]": "x" for n in range(51)}, "metadata", None)):
            params = {k: v for k, v in {**good, **change}.items() if v is not None}
            with self.subTest(change=str(change)[:60]):
                error = self.fails(400, "POST", "/v1/payment_intents", params, key="k")
                self.assertEqual((error["type"], error.get("param"), error.get("code")),
                                 ("invalid_request_error", param, code))
        self.assertEqual(self.ledger(True)["counts"]["payment_intents"], 0)
        # None of it was saved: the key is still free.
        self.ok("POST", "/v1/payment_intents", good, key="k")

    def test_limits_are_inclusive(self):
        self.create(amount=99999999)
        self.create(amount=999999999999, currency="IDR")
        many = {f"metadata[{'k' * 37}{n:03}]": "v" * 500 for n in range(50)}
        self.assertEqual(len(self.create(**many)["metadata"]), 50)

    def test_keys(self):
        self.assertEqual(self.sim.call("GET", "/v1/events", auth=None)[0], 401)
        for wrong in ("sk_test_", "whsec_x", "sk_prod_x", "nonsense"):
            self.assertEqual(self.sim.call("GET", "/v1/events", auth=wrong)[0], 401)
        self.assertIs(self.create(auth="rk_live_x")["livemode"], True)
        self.assertEqual(self.fails(403, "POST", "/v1/payment_intents",
                                    {"amount": 1, "currency": "eur"},
                                    auth="pk_test_x")["code"], "secret_key_required")

    def test_modes_and_accounts_are_separate(self):
        intent = self.create(auth="sk_live_x")
        path = f"/v1/payment_intents/{intent['id']}"
        self.assertEqual(self.fails(404, "GET", path)["code"], "resource_missing")
        self.fails(404, "GET", path, auth="sk_live_x", Stripe_Account="acct_1")
        self.ok("POST", "/v1/payment_intents", {"amount": 1, "currency": "eur"},
                Stripe_Account="acct_1", key="k")
        self.create(key="k")
        self.assertEqual(self.ledger(True)["counts"]["payment_intents"], 3)
        accounts = [json.loads(row["body"]).get("account") for row in self.pull()]
        self.assertEqual(accounts, [None, "acct_1", None])

    def test_browser(self):
        intent = self.create()
        path, secret = f"/v1/payment_intents/{intent['id']}", intent["client_secret"]
        self.fails(400, "GET", path, auth="pk_test_x")
        self.fails(400, "GET", path, {"client_secret": secret + "x"}, auth="pk_test_x")
        self.assertEqual(self.ok("GET", path, {"client_secret": secret},
                                 auth="pk_test_x")["id"], intent["id"])
        paid = self.ok("POST", path + "/confirm", {
            "client_secret": secret, "payment_method_data[type]": "card",
            "payment_method_data[card][token]": "tok_visa", "key": "pk_test_x"}, auth=None)
        self.assertEqual(paid["status"], "succeeded")

    def test_card_numbers_are_refused(self):
        error = self.fails(402, "POST", "/v1/payment_intents", {
            "amount": 1, "currency": "eur", "payment_method_data[type]": "card",
            "payment_method_data[card][number]": "4242424242424242"})
        self.assertEqual(error["type"], "invalid_request_error")

    def test_return_url(self):
        params = {"amount": 1, "currency": "eur", "confirm": "true",
                  "payment_method": "pm_card_visa", "automatic_payment_methods[enabled]": "true"}
        self.assertEqual(self.fails(400, "POST", "/v1/payment_intents", params)["param"],
                         "return_url")
        self.ok("POST", "/v1/payment_intents",
                {**params, "automatic_payment_methods[allow_redirects]": "never"})
        self.ok("POST", "/v1/payment_intents", {**params, "return_url": "https://shop.test"})

    def test_confirm_without_method(self):
        intent = self.create()
        self.assertEqual(self.fails(400, "POST", f"/v1/payment_intents/{intent['id']}/confirm")
                         ["code"], "payment_intent_unexpected_state")

    def test_unknown_paths_and_bodies(self):
        self.fails(404, "GET", "/v1/nothing")
        self.fails(404, "POST", "/v1/payment_intents/pi_none/confirm")
        status, _, _ = self.sim.raw("POST", "/v1/payment_intents", b'{"amount":1}', {
            "Authorization": "Bearer sk_test_x", "Content-Type": "application/json"})
        self.assertEqual(status, 400)
        status, _, _ = self.sim.raw("POST", "/v1/payment_intents", b"amount=1&currency=%ff", {
            "Authorization": "Bearer sk_test_x"})
        self.assertEqual(status, 400)


class Idempotency(SimTest):

    PATH = "/v1/payment_intents"
    GOOD = {"amount": 500, "currency": "usd"}
    DECLINED = {**GOOD, "confirm": "true", "payment_method": "pm_card_chargeDeclined"}

    def twice(self, params):
        first = self.sim.call("POST", self.PATH, params, key="k1")
        second = self.sim.call("POST", self.PATH, params, key="k1")
        self.assertNotIn("Idempotent-Replayed", first[2])
        self.assertEqual(first[2]["Idempotency-Key"], "k1")
        return first, second

    def test_replay(self):
        for params, status in ((self.GOOD, 200), (self.DECLINED, 402)):
            self.sim.control("POST", "reset", {})
            first, second = self.twice(params)
            self.assertEqual((first[0], second[0]), (status, status))
            self.assertEqual(second[1], first[1])
            self.assertEqual(second[2]["Idempotent-Replayed"], "true")
            self.assertEqual(second[2]["Original-Request"], first[2]["Request-Id"])
            self.assertNotEqual(second[2]["Request-Id"], first[2]["Request-Id"])
            self.assertEqual(self.ledger(True)["counts"]["payment_intents"], 1)

    def test_saved_500_is_replayed(self):
        for kind, objects in (("500", 0), ("500_after", 1)):
            self.sim.control("POST", "reset", {})
            self.sim.control("POST", "faults", {"kind": kind, "save": True})
            first, second = self.twice(self.GOOD)
            self.assertEqual((first[0], second[0]), (500, 500))
            self.assertEqual(first[1]["error"]["type"], "api_error")
            self.assertEqual(second[2]["Idempotent-Replayed"], "true")
            self.assertEqual(self.ledger(True)["counts"]["payment_intents"], objects)

    def test_500_after_also_covers_a_decline(self):
        self.sim.control("POST", "faults", {"kind": "500_after"})
        self.assertEqual(self.sim.call("POST", self.PATH, self.DECLINED)[0], 500)
        self.assertEqual(self.event_types()[-1], "payment_intent.payment_failed")

    def test_changed_parameters(self):
        self.twice(self.GOOD)
        error = self.fails(400, "POST", self.PATH, {**self.GOOD, "amount": 501}, key="k1")
        self.assertEqual(error["type"], "idempotency_error")
        error = self.fails(400, "POST", "/v1/refunds", self.GOOD, key="k1")
        self.assertEqual(error["type"], "idempotency_error")
        self.ok("POST", self.PATH, dict(reversed(self.GOOD.items())), key="k1")

    def test_not_saved(self):
        for fault, status in (("429", 429), ("409", 409), ("401", 401), ("503", 503),
                              ("403", 403)):
            self.sim.control("POST", "faults", {"kind": fault})
            self.assertEqual(self.sim.call("POST", self.PATH, self.GOOD, key="n")[0], status)
        answer = self.sim.call("POST", self.PATH, self.GOOD, key="n")
        self.assertEqual(answer[0], 200)
        self.assertNotIn("Idempotent-Replayed", answer[2])

    def test_wrong_state_is_saved(self):
        path = f"{self.PATH}/{self.pay()['id']}/cancel"
        self.fails(400, "POST", path, key="c")
        self.assertEqual(self.sim.call("POST", path, key="c")[2]["Idempotent-Replayed"], "true")

    def test_in_flight(self):
        self.sim.control("POST", "faults", {"kind": "delay", "delay_ms": 400})
        answers = []
        slow = threading.Thread(target=lambda: answers.append(
            self.sim.call("POST", self.PATH, self.GOOD, key="k")))
        slow.start()
        self.wait_for(lambda: self.ledger(True)["counts"]["requests"] == 1)
        error = self.fails(409, "POST", self.PATH, self.GOOD, key="k")
        self.assertEqual(error["code"], "idempotency_key_in_use")
        slow.join()
        again = self.sim.call("POST", self.PATH, self.GOOD, key="k")
        self.assertEqual((answers[0][0], again[0]), (200, 200))
        self.assertEqual(again[1], answers[0][1])

    def wait_for(self, condition):
        deadline = time.monotonic() + 5
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)

    def test_keys_expire(self):
        first = self.create(key="k")
        self.sim.control("POST", "clock", {"advance": 24 * 3600 - 5})
        self.assertEqual(self.create(key="k")["id"], first["id"])
        self.sim.control("POST", "clock", {"advance": 10})
        second = self.create(key="k")
        self.assertNotEqual(second["id"], first["id"])
        self.assertGreaterEqual(second["created"], first["created"] + 24 * 3600)

    def test_long_key(self):
        self.fails(400, "POST", self.PATH, self.GOOD, key="k" * 256)
        self.ok("POST", self.PATH, self.GOOD, key="k" * 255)


class Faults(SimTest):

    PATH = "/v1/payment_intents"
    FORM = b"amount=500&currency=usd"
    HEADERS = {"Authorization": "Bearer sk_test_x", "Idempotency-Key": "k"}

    def arm(self, kind, **more):
        return self.sim.control("POST", "faults", {"route": "POST " + self.PATH, "kind": kind,
                                                   **more})

    def post(self):
        return self.sim.raw("POST", self.PATH, self.FORM, self.HEADERS)

    def intents(self):
        return self.ledger(True)["counts"]["payment_intents"]

    def test_closed_and_reset(self):
        for kind, exception, processed in (
                ("drop_before", http.client.RemoteDisconnected, 0),
                ("drop_after", http.client.RemoteDisconnected, 1),
                ("rst_before", ConnectionResetError, 0),
                ("rst_after", ConnectionResetError, 1)):
            with self.subTest(kind):
                self.sim.control("POST", "reset", {})
                self.arm(kind)
                with self.assertRaises(exception) as caught:
                    self.post()
                self.assertIs(type(caught.exception), exception)
                self.assertEqual(self.intents(), processed)
                status, headers, _ = self.post()
                self.assertEqual((status, headers["Idempotent-Replayed"]),
                                 (200, "true" if processed else None))
                self.assertEqual(self.intents(), 1)
                rows = self.ledger()["requests"]
                self.assertEqual([row["fault"] for row in rows], [kind, None])
                self.assertEqual(rows[0]["status"], 200 if processed else None)

    def test_truncated(self):
        self.arm("truncate")
        with self.assertRaises(http.client.IncompleteRead):
            self.post()
        self.assertEqual(self.post()[1]["Idempotent-Replayed"], "true")

    def test_statuses(self):
        for status in (400, 401, 402, 403, 404, 409, 429, 500, 503):
            with self.subTest(status):
                self.sim.control("POST", "reset", {})
                self.arm(status, headers={"Stripe-Should-Retry": "true", "Retry-After": "3"},
                         code="lock_timeout")
                got, headers, body = self.post()
                self.assertEqual(got, status)
                self.assertEqual((headers["Stripe-Should-Retry"], headers["Retry-After"]),
                                 ("true", "3"))
                self.assertEqual(json.loads(body)["error"]["code"], "lock_timeout")
                self.assertEqual(headers.get_all("Retry-After"), ["3"])
                self.assertTrue(headers["Request-Id"].startswith("req_"))
                self.assertEqual(self.intents(), 0)

    def test_plain_500_passes(self):
        self.arm("500")
        self.assertEqual([self.post()[0], self.post()[0]], [500, 200])

    def test_save_can_be_overridden(self):
        self.arm("500", save=True)
        self.assertEqual([self.post()[0], self.post()[0]], [500, 500])
        self.arm("402", save=False)
        self.HEADERS["Idempotency-Key"] = "another"
        self.addCleanup(self.HEADERS.__setitem__, "Idempotency-Key", "k")
        self.assertEqual([self.post()[0], self.post()[0]], [402, 200])

    def test_endpoint_faults_do_not_touch_replays(self):
        self.post()
        self.arm("500", save=True)
        self.assertEqual(self.post()[0], 200)
        self.assertEqual(self.sim.control("GET", "faults")[0]["hits"], 0)

    def test_skip_count_and_order(self):
        self.arm(429, skip=1, count=2)
        self.arm(503, count=-1)
        del self.HEADERS["Idempotency-Key"]
        self.addCleanup(self.HEADERS.setdefault, "Idempotency-Key", "k")
        self.assertEqual([self.post()[0] for _ in range(5)], [503, 429, 429, 503, 503])
        self.assertEqual(self.sim.control("DELETE", "faults"), [])
        self.assertEqual(self.post()[0], 200)

    def test_routes(self):
        intent = self.create()
        item = f"{self.PATH}/{intent['id']}"
        for route, create, cancel in (("POST /v1/payment_intents", 503, 200),
                                      ("POST /v1/payment_intents/:id/cancel", 200, 503),
                                      ("POST /v1/payment_intents/", 200, 503),
                                      ("POST /v1/payment_intents*", 503, 503),
                                      ("/v1/payment_intents", 503, 200),
                                      ("GET *", 200, 200), ("*", 503, 503)):
            with self.subTest(route):
                self.sim.control("DELETE", "faults")
                self.sim.control("POST", "faults", {"kind": 503, "route": route, "count": -1})
                self.assertEqual(self.post()[0], create)
                intent = self.ledger()["payment_intents"][0]
                got = self.sim.call("POST", item + "/cancel", {"cancellation_reason": "x"})[0]
                self.assertEqual(got, 503 if cancel == 503 else 400)

    def test_probability_is_seeded(self):
        def run():
            self.sim.control("POST", "reset", {"seed": 42})
            self.arm(503, count=-1, probability=0.5)
            return [self.post()[0] for _ in range(30)]
        first = run()
        self.assertEqual(first, run())
        self.assertTrue(5 < first.count(503) < 25)

    def test_bad_rules(self):
        for rule in ({}, {"kind": "fire"}, {"kind": 503, "often": 1}, [1]):
            status, _, _ = self.sim.raw("POST", "/_sim/faults", json.dumps(rule).encode())
            self.assertEqual(status, 400)


class Webhooks(SimTest):

    def check(self, delivery, secret=SECRET):
        """Whether one of the v1 signatures is right, computed independently."""
        items = [item.split("=", 1) for item in delivery["header"].split(",")]
        times = [value for name, value in items if name == "t"]
        good = hmac.new(secret.encode(), f"{times[0]}.{delivery['body']}".encode(),
                        hashlib.sha256).hexdigest()
        return [name for name, value in items if value == good] == ["v1"]

    def configure(self, **changes):
        return self.sim.control("POST", "webhooks/config", changes)

    def test_signed_and_taken_once(self):
        intent = self.pay(description="ünï", key="order-1")
        rows = self.pull()
        self.assertEqual([row["type"] for row in rows], [
            "payment_intent.created", "charge.succeeded", "payment_intent.succeeded"])
        self.assertTrue(all(self.check(row) for row in rows))
        body = json.loads(rows[2]["body"])
        self.assertEqual((body["id"], body["object"], body["data"]["object"]),
                         (rows[2]["event_id"], "event", intent))
        self.assertEqual(body["request"]["idempotency_key"], "order-1")
        self.assertRegex(body["request"]["id"], "^req_")
        self.assertEqual(json.loads(rows[0]["body"])["data"]["object"]["status"],
                         "requires_payment_method")
        self.assertAlmostEqual(int(rows[0]["header"][2:].split(",")[0]), time.time(), delta=5)
        self.assertEqual(self.pull(), [])
        self.assertEqual({row["deliveries"] for row in self.ledger()["events"]}, {1})

    def test_snapshots_do_not_change(self):
        intent = self.create()
        self.ok("POST", f"/v1/payment_intents/{intent['id']}/cancel")
        states = [json.loads(row["body"])["data"]["object"]["status"] for row in self.pull()]
        self.assertEqual(states, ["requires_payment_method", "canceled"])

    def test_max_and_duplicates(self):
        self.configure(duplicate=2)
        self.pay()
        self.assertEqual(len(self.pull(max=4)), 4)
        rows = self.pull(max=100)
        self.assertEqual(len(rows), 5)
        self.assertEqual(len({row["delivery"] for row in rows}), 5)
        self.assertEqual({row["deliveries"] for row in self.ledger()["events"]}, {3})

    def test_shuffle_loses_nothing(self):
        self.configure(shuffle=True)
        for _ in range(20):
            self.pay()
        got = []
        while rows := self.pull(max=7):
            got += [row["event_id"] for row in rows]
        made = [row["id"] for row in self.ledger()["events"]]
        self.assertNotEqual(got, made)
        self.assertEqual(sorted(got), sorted(made))

    def test_hold_and_release(self):
        self.configure(mode="hold")
        self.pay()
        self.assertEqual(self.pull(), [])
        self.assertEqual(self.sim.control("POST", "webhooks/release", {})["pending"], 3)
        self.assertEqual(len(self.pull()), 3)

    def test_secrets(self):
        self.configure(secrets=["whsec_new", "whsec_old"], also_v0=True)
        self.create()
        row = self.pull()[0]
        self.assertTrue(self.check(row, "whsec_new") and self.check(row, "whsec_old"))
        self.assertRegex(row["header"], r"\At=\d+,v1=[0-9a-f]{64},v1=[0-9a-f]{64},"
                                        r"v0=[0-9a-f]{64}\Z")
        self.configure(secret=SECRET, wrong_secret=True, also_v0=False)
        self.create()
        self.assertFalse(self.check(self.pull()[0]))

    def test_clock_skew(self):
        self.configure(clock_skew=-1000)
        self.create()
        row = self.pull()[0]
        self.assertTrue(self.check(row))
        self.assertAlmostEqual(int(row["header"][2:].split(",")[0]), time.time() - 1000, delta=5)

    def test_types_and_resend(self):
        self.configure(types=["payment_intent.*"])
        self.pay()
        rows = self.pull()
        self.assertEqual(len(rows), 2)
        self.sim.control("POST", "webhooks/resend", {"event_id": rows[0]["event_id"]})
        again = self.pull()
        self.assertEqual([row["body"] for row in again], [rows[0]["body"]])
        self.assertEqual(self.sim.control("POST", "webhooks/resend", {"all": True}),
                         {"queued": 3})
        self.assertEqual(self.sim.raw("POST", "/_sim/webhooks/resend", b"{}")[0], 400)

    def test_long_poll(self):
        start = time.monotonic()
        self.assertEqual(self.pull(wait_ms=100), [])
        self.assertGreaterEqual(time.monotonic() - start, 0.09)
        timer = threading.Timer(0.1, self.pay)
        timer.start()
        rows = self.pull(wait_ms=5000)
        timer.join()
        self.assertEqual(len(rows), 3)

    def test_abandoned_poll_swallows_nothing(self):
        with self.assertRaises(TimeoutError):
            self.sim.raw("GET", "/_sim/webhooks?wait_ms=5000", timeout=0.05)
        time.sleep(0.05)
        self.create()
        self.assertEqual(len(self.pull()), 1)

    def test_bad_settings(self):
        for wrong in ({"mode": "pigeon"}, {"mode": "push"}, {"colour": 1}, {"secrets": []},
                      {"secret": "  "}, {"duplicate": "2"},
                      {"mode": "push", "url": "http://192.0.2.1/hook"},
                      {"mode": "push", "url": "https://127.0.0.1/hook"}):
            status, _, _ = self.sim.raw("POST", "/_sim/webhooks/config",
                                        json.dumps(wrong).encode())
            self.assertEqual(status, 400, wrong)

    def test_push(self):
        with Receiver([500, 302]) as receiver:
            self.configure(mode="push", url=receiver.url, retry_delay_ms=10,
                           headers={"X-Extra": "1"})
            for _ in range(5):
                self.pay()
            self.assertTrue(receiver.wait(17))
            self.assertTrue(all(self.check(row) for row in receiver.rows))
            self.assertEqual({row["extra"] for row in receiver.rows}, {"1"})
            distinct = {json.loads(row["body"])["id"] for row in receiver.rows}
            self.assertEqual(distinct, {row["id"] for row in self.ledger()["events"]})
        self.assertEqual(self.ledger(True)["counts"]["failed_pushes"], 0)

    def test_push_gives_up(self):
        with Receiver([500] * 4) as receiver:
            self.configure(mode="push", url=receiver.url, retry_delay_ms=5)
            self.create()
            self.assertTrue(receiver.wait(4))
            deadline = time.monotonic() + 5
            while self.ledger(True)["counts"]["failed_pushes"] != 1:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.005)


class Receiver:
    """A webhook endpoint that answers with given statuses, then with 200."""

    def __init__(self, statuses):
        receiver = self
        self.statuses = list(statuses)
        self.rows = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.rows.append({"header": self.headers["Stripe-Signature"],
                                      "extra": self.headers["X-Extra"],
                                      "body": body.decode()})
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"2\r\nok\r\n0\r\n\r\n")

            def log_message(self, *_args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exc):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def wait(self, count):
        deadline = time.monotonic() + 5
        while len(self.rows) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.02)
        return len(self.rows) == count


class Events(SimTest):

    def listed(self, **params):
        params = {name.replace("__", "[") + ("]" if "__" in name else ""): value
                  for name, value in params.items()}
        return self.ok("GET", "/v1/events", params)

    def test_paging(self):
        for _ in range(4):
            self.pay()
        ids = [row["id"] for row in self.ledger()["events"]]
        self.assertEqual(len(self.listed()["data"]), 10)
        first = self.listed(limit=5)
        self.assertEqual([row["id"] for row in first["data"]], ids[:6:-1])
        self.assertTrue(first["has_more"])
        second = self.listed(limit=100, starting_after=ids[7])
        self.assertEqual([row["id"] for row in second["data"]], ids[6::-1])
        self.assertFalse(second["has_more"])
        newer = self.listed(limit=3, ending_before=ids[4])
        self.assertEqual([row["id"] for row in newer["data"]], [ids[7], ids[6], ids[5]])
        self.assertTrue(newer["has_more"])
        self.assertEqual(self.listed(ending_before=ids[-1])["data"], [])
        for wrong in ({"limit": 0}, {"limit": 101}, {"starting_after": "evt_none"},
                      {"starting_after": ids[0], "ending_before": ids[1]}):
            self.fails(400, "GET", "/v1/events", wrong)

    def test_types(self):
        self.pay()
        for query, types in (({"type": "payment_intent.succeeded"},
                              ["payment_intent.succeeded"]),
                             ({"type": "charge.*"}, ["charge.succeeded"]),
                             ({"types[]": "payment_intent.created"},
                              ["payment_intent.created"]),
                             ({"types[0]": "payment_intent.created",
                               "types[1]": "charge.succeeded"},
                              ["charge.succeeded", "payment_intent.created"])):
            rows = self.ok("GET", "/v1/events", query)["data"]
            self.assertEqual([row["type"] for row in rows], types)
        self.fails(400, "GET", "/v1/events", {"type": "a", "types[]": "b"})
        self.fails(400, "GET", "/v1/events", {f"types[{n}]": "b" for n in range(21)})

    def test_created_and_retention(self):
        self.create()
        old = self.ledger()["events"][0]
        self.sim.control("POST", "clock", {"advance": 100})
        self.create()
        new = self.ledger()["events"][1]
        self.assertGreaterEqual(new["created"], old["created"] + 100)
        for query, expected in (({"created__gte": new["created"]}, [new]),
                                ({"created__gt": old["created"]}, [new]),
                                ({"created__gt": new["created"]}, []),
                                ({"created__lt": new["created"]}, [old]),
                                ({"created__lte": old["created"]}, [old]),
                                ({"created": old["created"]}, [old])):
            self.assertEqual([row["id"] for row in self.listed(**query)["data"]],
                             [row["id"] for row in expected])
        self.sim.control("POST", "clock", {"advance": 30 * 24 * 3600 - 50})
        self.assertEqual([row["id"] for row in self.listed()["data"]], [new["id"]])
        self.fails(404, "GET", f"/v1/events/{old['id']}")
        self.fails(400, "GET", "/v1/events", {"ending_before": old["id"]})
        self.assertEqual(self.sim.raw("POST", "/_sim/clock", b'{"advance": -1}')[0], 400)

    def test_same_body_as_the_webhook(self):
        self.create()
        listed = self.listed(delivery_success="false")["data"][0]
        self.assertEqual(listed["pending_webhooks"], 1)
        pulled = json.loads(self.pull()[0]["body"])
        self.assertEqual(pulled, listed)
        self.assertEqual(self.ok("GET", f"/v1/events/{listed['id']}"),
                         {**listed, "pending_webhooks": 0})
        self.assertEqual(self.listed(delivery_success="false")["data"], [])


class Refunds(SimTest):

    def test_ceiling(self):
        intent = self.pay()
        ask = {"payment_intent": intent["id"]}
        first = self.ok("POST", "/v1/refunds", {**ask, "amount": 1500, "metadata[a]": "b"})
        self.assertEqual((first["status"], first["amount"], first["charge"]),
                         ("succeeded", 1500, intent["latest_charge"]))
        self.assertEqual(self.fails(400, "POST", "/v1/refunds", {**ask, "amount": 501})["param"],
                         "amount")
        rest = self.ok("POST", "/v1/refunds", {"charge": intent["latest_charge"],
                                               "reason": "duplicate"})
        self.assertEqual(rest["amount"], 500)
        self.assertEqual(self.fails(400, "POST", "/v1/refunds", ask)["code"],
                         "charge_already_refunded")
        charge = self.ok("GET", f"/v1/charges/{intent['latest_charge']}")
        self.assertEqual((charge["amount_refunded"], charge["refunded"]), (2000, True))
        self.assertEqual(self.event_types()[3:6],
                         ["refund.created", "charge.refunded", "refund.updated"])
        listed = self.ok("GET", "/v1/refunds", ask)
        self.assertEqual([row["id"] for row in listed["data"]], [rest["id"], first["id"]])

    def test_needs_a_paid_charge(self):
        self.fails(400, "POST", "/v1/refunds", {"payment_intent": self.create()["id"]})
        held = self.pay(capture_method="manual")
        self.fails(400, "POST", "/v1/refunds", {"charge": held["latest_charge"]})
        self.fails(400, "POST", "/v1/refunds", {})
        self.fails(404, "POST", "/v1/refunds", {"charge": "ch_none"})

    def test_pending_and_failing(self):
        slow = self.ok("POST", "/v1/refunds",
                       {"payment_intent": self.pay("pm_card_pendingRefund")["id"]})
        self.assertEqual(slow["status"], "pending")
        done = self.sim.control("POST", f"refunds/{slow['id']}/settle", {})
        self.assertEqual(done["status"], "succeeded")
        intent = self.pay("pm_card_refundFail")
        bad = self.ok("POST", "/v1/refunds", {"payment_intent": intent["id"]})
        now = self.ok("GET", f"/v1/refunds/{bad['id']}")
        self.assertEqual((now["status"], now["failure_reason"]),
                         ("failed", "expired_or_canceled_card"))
        self.assertEqual(self.ok("GET", f"/v1/charges/{intent['latest_charge']}")
                         ["amount_refunded"], 0)
        self.assertIn("refund.failed", self.event_types())

    def test_metadata(self):
        refund = self.ok("POST", "/v1/refunds", {"payment_intent": self.pay()["id"]})
        self.ok("POST", f"/v1/refunds/{refund['id']}", {"metadata[a]": "b"})
        self.assertEqual(self.event_types()[-2:], ["refund.updated", "charge.refund.updated"])


class Ledger(SimTest):

    def test_books(self):
        intent = self.pay(key="k", **{f"metadata[{PAYMENT_ID}]": "p1"})
        self.sim.call("POST", "/v1/payment_intents", {
            "amount": 2000, "currency": "eur", "confirm": "true",
            "payment_method": "pm_card_visa", f"metadata[{PAYMENT_ID}]": "p1"}, key="k")
        books = self.ledger()
        row, = books["payment_intents"]
        self.assertEqual((row["id"], row["status"], row["amount"], row["currency"],
                          row["livemode"], row["metadata"], row["idempotency_key"],
                          row["client_secret"], row["amount_received"]),
                         (intent["id"], "succeeded", 2000, "eur", False, {PAYMENT_ID: "p1"},
                          "k", intent["client_secret"], 2000))
        first, second = books["requests"]
        self.assertEqual((first["n"], first["method"], first["path"], first["status"],
                          first["replayed"], len(first["events"])),
                         (1, "POST", "/v1/payment_intents", 200, False, 3))
        self.assertEqual((second["n"], second["replayed"], second["events"]), (2, True, []))
        self.assertIn("amount=2000", first["body"])
        self.assertEqual(books["charges"][0]["payment_intent"], intent["id"])
        self.assertEqual(books["events"][0]["payment_intent"], intent["id"])
        summary = self.ledger(summary=True)
        self.assertEqual(set(summary), {"counts", "payment_intents_by_payment"})
        self.assertEqual(summary["payment_intents_by_payment"], {"p1": [intent["id"]]})
        counts = summary["counts"]
        self.assertEqual((counts["requests"], counts["replayed"], counts["succeeded_charges"],
                          counts["amount_received"], counts["duplicated_payments"]),
                         (2, 1, 1, {"eur": 2000}, 0))

    def test_a_duplicate_shows(self):
        for key in "ab":
            self.create(key=key, **{f"metadata[{PAYMENT_ID}]": "p1"})
        self.assertEqual(self.ledger(True)["counts"]["duplicated_payments"], 1)

    def test_web_pages_have_no_control(self):
        status, _, _ = self.sim.raw("POST", "/_sim/reset", b"{}", {"Origin": "http://x.test"})
        self.assertEqual(status, 403)
        status, headers, _ = self.sim.raw("OPTIONS", "/v1/payment_intents/pi_x/confirm")
        self.assertEqual((status, headers["Access-Control-Allow-Origin"]), (200, "*"))

    def test_reset_and_seed(self):
        first = self.create()["id"]
        self.sim.control("POST", "reset", {})
        self.assertEqual(self.ledger(True)["counts"]["requests"], 0)
        self.assertNotEqual(self.create()["id"], first)
        self.sim.control("POST", "reset", {"seed": 7})
        self.assertEqual(self.create()["id"], first)

    def test_health_and_unknown_controls(self):
        health = self.sim.control("GET", "health")
        self.assertEqual((health["status"], health["base_url"]), ("ok", self.sim.base))
        for method, path, body in (("GET", "nothing", b""), ("POST", "clock", b"{"),
                                   ("POST", "clock", b"[]"), ("POST", "webhooks/config", b"1"),
                                   ("POST", "payment_intents/pi_x/authenticate", b"{}")):
            self.assertIn(self.sim.raw(method, "/_sim/" + path, body)[0], (400, 404))


class Http(SimTest):

    HEAD = (b"POST /v1/payment_intents HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: Bearer sk_test_x\r\n%sContent-Length: %d\r\n\r\n%s")

    def request(self, amount, extra=b""):
        body = b"amount=%d&currency=usd" % amount
        return self.HEAD % (extra, len(body), body)

    def open(self):
        link = socket.create_connection(("127.0.0.1", self.sim.port), 5)
        self.addCleanup(link.close)
        return link

    @staticmethod
    def read_answers(link, count):
        """Read `count` answers: [(status, parsed body)]."""
        reader, out = link.makefile("rb"), []
        for _ in range(count):
            status, length = int(reader.readline().split()[1]), 0
            while (line := reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            out.append((status, json.loads(reader.read(length))))
        return out

    def test_pipelining_keeps_order(self):
        self.sim.control("POST", "faults", {"kind": "delay", "delay_ms": 100, "skip": 1})
        link = self.open()
        link.sendall(b"".join(self.request(n) for n in range(1, 6)))
        answers = self.read_answers(link, 5)
        self.assertEqual([body["amount"] for _, body in answers], [1, 2, 3, 4, 5])

    def test_byte_by_byte(self):
        link = self.open()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in self.request(77):
            link.send(bytes([byte]))
        self.assertEqual(self.read_answers(link, 1)[0][1]["amount"], 77)

    def test_expect_continue(self):
        link = self.open()
        head, body = self.request(5, b"Expect: 100-continue\r\n").split(b"\r\n\r\n")
        link.sendall(head + b"\r\n\r\n")
        self.assertEqual(link.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
        link.sendall(body)
        self.assertEqual(self.read_answers(link, 1)[0][0], 200)

    def test_connection_close(self):
        link = self.open()
        link.sendall(self.request(5, b"Connection: close\r\n"))
        self.read_answers(link, 1)
        self.assertEqual(link.recv(1), b"")

    def test_answer_after_half_close(self):
        self.sim.control("POST", "faults", {"kind": "delay", "delay_ms": 50})
        link = self.open()
        link.sendall(self.request(5))
        link.shutdown(socket.SHUT_WR)
        self.assertEqual(self.read_answers(link, 1)[0][0], 200)

    def test_malformed(self):
        for sent, status in ((b"nonsense\r\n\r\n", 405), (b"GET /\r\n\r\n", 400),
                             (b"GET / HTTP/1.1\r\nbroken\r\n\r\n", 400),
                             (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
                             (b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", 413),
                             (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
                             (b"GET / HTTP/1.1\r\nX: " + b"x" * 70000, 431)):
            link = self.open()
            link.sendall(sent)
            self.assertEqual(self.read_answers(link, 1)[0][0], status, sent[:40])

    def test_only_on_loopback(self):
        with open("/proc/net/tcp", encoding="ascii") as table:
            listening = [line.split()[1] for line in table if f":{self.sim.port:04X} " in line
                         and line.split()[3] == "0A"]
        self.assertEqual(listening, [f"0100007F:{self.sim.port:04X}"])


class CommandLine(SimTest):

    def run_script(self, *words, **more):
        return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True,
                              timeout=20, check=False, **more)

    def test_help(self):
        for words in ((), ("serve",), ("sign",), ("confirm",), ("authenticate",)):
            done = self.run_script(*words, "--help")
            self.assertEqual(done.returncode, 0)
            self.assertIn(b"usage:", done.stdout)

    def test_sign(self):
        done = self.run_script("sign", "--secret", SECRET, "--time", "1700000000",
                               input="{\"ü\": 1}\n".encode())
        good = hmac.new(SECRET.encode(), b"1700000000." + "{\"ü\": 1}\n".encode(),
                        hashlib.sha256).hexdigest()
        self.assertEqual(done.stdout.decode(), f"t=1700000000,v1={good}\n")

    def test_confirm_and_authenticate(self):
        intent = self.create()
        words = ("confirm", "--base", self.sim.base, intent["id"], "--client-secret",
                 intent["client_secret"], "--payment-method")
        declined = self.run_script(*words, "pm_card_chargeDeclined")
        self.assertEqual(declined.returncode, 1)
        self.assertIn(b"generic_decline", declined.stdout)
        asked = self.run_script(*words, "pm_card_authenticationRequired")
        self.assertIn(b"requires_action", asked.stdout)
        done = self.run_script("authenticate", "--base", self.sim.base, intent["id"])
        self.assertEqual(json.loads(done.stdout)["status"], "succeeded")

    def test_nobody_there(self):
        done = self.run_script("authenticate", "--base", "http://127.0.0.1:1", "pi_x")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"refused", done.stderr)

    def test_start_and_stop(self):
        sim = Sim("--latency-ms", "60", "--api-version", "2020-01-01")
        connection = sim.connect()
        connection.request("GET", "/_sim/health")
        self.assertEqual(json.loads(connection.getresponse().read())["api_version"],
                         "2020-01-01")
        start = time.monotonic()
        sim.call("POST", "/v1/payment_intents", {"amount": 1, "currency": "eur"})
        self.assertGreaterEqual(time.monotonic() - start, 0.06)
        busy = self.run_script("serve", "--port", str(sim.port))
        self.assertEqual(busy.returncode, 1)
        self.assertEqual(sim.stop(), 0)
        connection.close()


@unittest.skipIf(stripe_sdk is None, "the stripe module is not installed")
class OfficialSdk(SimTest):
    """The point of it all: Stripe's own client must not notice."""

    def setUp(self):
        super().setUp()
        stripe_sdk.api_base = self.sim.base
        stripe_sdk.api_key = "sk_test_sdk"
        stripe_sdk.max_network_retries = 2

    def test_payment(self):
        intent = stripe_sdk.PaymentIntent.create(
            amount=1234, currency="eur", payment_method_types=["card"],
            metadata={"größe": "a&b=c"}, idempotency_key="sdk-1")
        paid = stripe_sdk.PaymentIntent.confirm(intent.id, payment_method="pm_card_visa")
        self.assertEqual((paid.status, paid.metadata["größe"]), ("succeeded", "a&b=c"))
        refund = stripe_sdk.Refund.create(payment_intent=intent.id, amount=34)
        self.assertEqual(refund.status, "succeeded")
        events = stripe_sdk.Event.list(limit=3).auto_paging_iter()
        self.assertEqual(len(list(events)), 6)

    def test_errors(self):
        with self.assertRaises(stripe_sdk.error.CardError) as caught:
            stripe_sdk.PaymentIntent.create(amount=1, currency="eur", confirm=True,
                                            payment_method="pm_card_chargeDeclined")
        self.assertEqual((caught.exception.code, caught.exception.error.decline_code),
                         ("card_declined", "generic_decline"))
        with self.assertRaises(stripe_sdk.error.InvalidRequestError):
            stripe_sdk.PaymentIntent.create(amount=1, currency="eur", bogus=1)
        stripe_sdk.PaymentIntent.create(amount=1, currency="eur", idempotency_key="i")
        with self.assertRaises(stripe_sdk.error.IdempotencyError):
            stripe_sdk.PaymentIntent.create(amount=2, currency="eur", idempotency_key="i")
        self.assertRaises(stripe_sdk.error.AuthenticationError,
                          stripe_sdk.PaymentIntent.list, api_key="wrong")

    def test_retries_survive_a_lost_answer(self):
        self.sim.control("POST", "faults", {"kind": "rst_after"})
        self.assertEqual(stripe_sdk.PaymentIntent.create(
            amount=1, currency="eur", confirm=True, payment_method="pm_card_visa").status,
            "succeeded")
        counts = self.ledger(True)["counts"]
        self.assertEqual((counts["requests"], counts["charges"]), (2, 1))

    def test_signatures(self):
        self.create(description="ü")
        row = self.pull()[0]
        event = stripe_sdk.Webhook.construct_event(row["body"], row["header"], SECRET)
        self.assertEqual(event.type, "payment_intent.created")
        with self.assertRaises(stripe_sdk.error.SignatureVerificationError):
            stripe_sdk.Webhook.construct_event(row["body"], row["header"], "whsec_other")


if __name__ == "__main__":
    unittest.main()
