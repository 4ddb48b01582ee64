#!/usr/bin/env python3
"""A stand-in for Stripe's payment API, for tests, benchmarks and trying things by hand.

Payments cannot be tested against the real Stripe: it is rate-limited, it moves
on its own clock, it never drops a connection on demand, and it keeps no books
that a test could audit.  This one file speaks enough of its HTTP API for a
client not to notice the difference, and adds a control surface under /_sim/
for everything the real one refuses to do:

* PaymentIntents (create, retrieve, list, update, confirm, capture, cancel),
  refunds, charges and the events list, with Stripe's parameter checks, error
  bodies, status machine and test payment methods (pm_card_...);
* idempotency keys as Stripe keeps them: replay, conflict, in flight, expiry;
* signed webhooks, pulled by a test or pushed to a URL, and on demand
  duplicated, shuffled, held back, signed wrongly or at the wrong time;
* faults by route, count and probability: connections closed or reset before
  or after the work was done, half an answer, a slow one, any error status;
* a ledger of every request, object, event and delivery, so that "exactly
  once" is something to count rather than to hope for.

Design: a single asyncio.Protocol and one thread, so every request is handled
at one instant and the ledger has one order.  Objects are small slotted classes;
JSON is rendered once per change and the same bytes serve as answer, saved
replay and event snapshot, which keeps a payment near 9 kB and creation above
5,000 per second.  All randomness comes from one seeded generator.

It listens on 127.0.0.1 only, checks no key beyond its shape, stores nothing
on disk and must never be given a real key or card.  Disputes, customers,
Checkout and Connect transfers are out of scope.
"""

import argparse
import asyncio
import fnmatch
import functools
import gc
import hashlib
import hmac
import http.client
import json
import operator
import os
import random
import re
import signal
import socket
import struct
import sys
import tempfile
import time
import urllib.parse
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from json.encoder import encode_basestring
from typing import Any, Awaitable, Callable, Iterable, NamedTuple, Optional, Union

HOST = "127.0.0.1"
DEFAULT_PORT = 12111
DEFAULT_SECRET = "whsec_stand_in_not_a_real_secret"
DEFAULT_API_VERSION = "2026-10-28.endive"
PAYMENT_ID_KEY = "stripe_lifecycle_payment_id"

KEY_RETENTION = 24 * 3600           # Stripe may forget an idempotency key after this
EVENT_RETENTION = 30 * 24 * 3600    # and an event after this
MAX_HEADER = 64 * 1024
MAX_BODY = 1024 * 1024

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def to_json(value: Any) -> bytes:
    """Compact UTF-8 JSON.  Not ASCII-escaped: Stripe sends raw UTF-8 too, and
    a receiver that re-encodes before checking the signature should fail here."""
    return _encode(value).encode()


# ---------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------

class ApiError(Exception):
    """An error answer of the API.

    `saved` tells whether Stripe would keep it under the idempotency key: it
    does once the endpoint has begun to work (a decline, a wrong state), and
    does not for what is refused before that (a bad parameter, a bad key).
    """

    def __init__(self, status: int, type_: str, message: str, *, saved: bool = False,
                 headers: Optional[dict] = None, **fields: Any):
        super().__init__(message)
        self.status = status
        self.saved = saved
        self.headers = headers or {}
        self.fields = {"type": type_, "message": message}
        code = fields.get("code")
        if code:
            self.fields["doc_url"] = ("https://docs.stripe.com/error-codes#"
                                      + code.replace("_", "-"))
        self.fields.update((k, v) for k, v in fields.items() if v is not None)

    def body(self) -> bytes:
        """The JSON envelope as it goes over the wire."""
        return to_json({"error": self.fields})


def invalid(message: str, param: Optional[str] = None, code: Optional[str] = None,
            status: int = 400, saved: bool = False, **fields: Any) -> ApiError:
    """An invalid_request_error, the kind nearly every refusal has."""
    return ApiError(status, "invalid_request_error", message, param=param, code=code,
                    saved=saved, **fields)


def missing_resource(kind: str, ident: str, param: str) -> ApiError:
    """404 for an id nobody knows (or that belongs to the other mode)."""
    return invalid(f"No such {kind}: '{ident}'", param=param, code="resource_missing",
                   status=404, saved=True)


# ---------------------------------------------------------------------------
# Parameters: form decoding and checking
# ---------------------------------------------------------------------------

_PARAM_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)\Z")


def _unquote(text_: str) -> str:
    """Percent-decoding that refuses bytes which are not UTF-8."""
    return urllib.parse.unquote_to_bytes(text_.replace("+", " ")).decode()


def decode_form(data: str) -> dict:
    """Decode `a=1&b[c]=2&d[]=3&e[0]=4` into nested dictionaries.

    Arrays become dictionaries with the keys "0", "1", ...; `array()` turns
    them into lists where a list is expected, because only the parameter's
    specification can tell `x[0]` the element from `x[0]` the map key.
    """
    out: dict = {}
    for pair in data.split("&"):
        if not pair:
            continue
        name, _, value = pair.partition("=")
        try:
            if "%" in name or "+" in name:
                name = _unquote(name)
            if "%" in value or "+" in value:
                value = _unquote(value)
        except UnicodeDecodeError:
            raise invalid("A parameter is not valid UTF-8.") from None
        if "[" not in name and "]" not in name:
            out[name] = value
        else:
            _store_nested(out, name, value)
    return out


def _store_nested(out: dict, name: str, value: str) -> None:
    """Put one bracketed parameter into its place in the nested dictionary."""
    match = _PARAM_NAME.match(name)
    if not match:
        raise invalid(f"Invalid parameter name: {name}", param=name)
    path = [match.group(1), *match.group(2)[1:-1].split("][")]
    place = out
    for depth, segment in enumerate(path):
        if segment == "":
            segment = str(len(place))           # `a[]=`: the next free index
        if depth == len(path) - 1:
            if isinstance(place.get(segment), dict):
                raise invalid(f"Invalid object: {name}", param=name)
            place[segment] = value
            return
        place = place.setdefault(segment, {})
        if not isinstance(place, dict):
            raise invalid(f"Invalid object: {name}", param=name)


Checker = Callable[[str, Any], Any]


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise invalid(f"Invalid string: {name} was given a nested value", param=name)


def text(limit: int = 5000) -> Checker:
    """A string of at most `limit` characters."""
    def check(name: str, value: Any) -> str:
        value = _scalar(name, value)
        if len(value) > limit:
            raise invalid(f"Invalid string: {name} must be at most {limit} characters",
                          param=name, code="parameter_invalid_string_length")
        return value
    return check


def integer(minimum: Optional[int] = None) -> Checker:
    """A whole number, as Stripe writes them: no blanks, no exponent."""
    def check(name: str, value: Any) -> int:
        value = _scalar(name, value)
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise invalid(f"Invalid integer: {value}", param=name,
                          code="parameter_invalid_integer")
        number = int(value)
        if minimum is not None and number < minimum:
            raise invalid("This value must be greater than or equal to %d." % minimum,
                          param=name, code="parameter_invalid_integer")
        return number
    return check


def boolean(name: str, value: Any) -> bool:
    """true or false in any letter case: the Python SDK sends `True`."""
    lowered = _scalar(name, value).lower()
    if lowered not in ("true", "false"):
        raise invalid(f"Invalid boolean: {value}", param=name)
    return lowered == "true"


def choice(*allowed: str) -> Checker:
    """One of a fixed set of words."""
    def check(name: str, value: Any) -> str:
        if _scalar(name, value) not in allowed:
            raise invalid(f"Invalid {name}: must be one of {', '.join(allowed)}", param=name)
        return value
    return check


def mapping(**fields: Checker) -> Checker:
    """A nested object with known members."""
    def check(name: str, value: Any) -> dict:
        if not isinstance(value, dict):
            raise invalid("Invalid object", param=name)
        return validate(value, fields, prefix=name)
    return check


def array(name: str, value: Any) -> list:
    """A list of strings, in index order."""
    if not isinstance(value, dict) or not all(key.isdigit() for key in value):
        raise invalid("Invalid array", param=name)
    return [_scalar(name, value[key]) for key in sorted(value, key=int)]


def metadata(name: str, value: Any) -> dict:
    """Metadata with Stripe's limits; an empty value stands for "delete"."""
    if not isinstance(value, dict):
        raise invalid("Invalid metadata: a map is expected", param=name)
    for key, item in value.items():
        param = f"{name}[{key}]"
        if not isinstance(item, str):
            raise invalid("Metadata values must be strings", param=param)
        if len(key) > 40:
            raise invalid("Metadata keys must be 40 characters or less", param=param)
        if len(item) > 500:
            raise invalid("Metadata values must be 500 characters or less", param=param)
    return value


def anything(_name: str, value: Any) -> Any:
    """Accepted as it stands: a parameter with no effect on the stand-in."""
    return value


def email(name: str, value: Any) -> str:
    """Just enough of a check that an obvious mistake is refused."""
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", _scalar(name, value)):
        raise invalid(f"Invalid email address: {value}", param=name, code="email_invalid")
    return value


def created_filter(name: str, value: Any) -> dict:
    """`created=N` or `created[gte]=N` and its siblings."""
    if isinstance(value, str):
        exact = integer()(name, value)
        return {"gte": exact, "lte": exact}
    return mapping(gt=integer(), gte=integer(), lt=integer(), lte=integer())(name, value)


def validate(params: dict, spec: dict, required: Iterable[str] = (), prefix: str = "") -> dict:
    """Check `params` against `spec` and return them converted.

    An empty string means "unset" at Stripe and comes back as None.
    """
    out = {}
    for name, value in params.items():
        full = f"{prefix}[{name}]" if prefix else name
        checker = spec.get(name)
        if checker is None:
            raise invalid(f"Received unknown parameter: {full}", param=full,
                          code="parameter_unknown")
        if value == "":
            if name in required:
                raise invalid(f"You passed an empty string for '{full}'.", param=full,
                              code="parameter_invalid_empty")
            out[name] = None
        else:
            out[name] = checker(full, value)
    for name in required:
        if name not in out:
            raise invalid(f"Missing required param: {name}.", param=name,
                          code="parameter_missing")
    return out


AUTOMATIC_METHODS = mapping(enabled=boolean, allow_redirects=choice("always", "never"))
CAPTURE_METHOD = choice("automatic", "automatic_async", "manual")
METHOD_DATA = mapping(type=text(), card=anything, sepa_debit=anything, us_bank_account=anything,
                      billing_details=anything, metadata=metadata, allow_redisplay=anything,
                      radar_options=anything)
ADDRESS = mapping(**dict.fromkeys(
    ("city", "country", "line1", "line2", "postal_code", "state"), text()))
SHIPPING = mapping(address=ADDRESS, name=text(), phone=text(), carrier=text(),
                   tracking_number=text())

# Parameters that several calls take, split by whether they change anything here.
_INERT = dict.fromkeys(
    ("allowed_payment_method_types", "amount_details", "application_fee_amount",
     "customer_account", "excluded_payment_method_types", "hooks", "payment_details",
     "payment_method_configuration", "transfer_data", "radar_options", "mandate",
     "mandate_data", "use_stripe_sdk"), anything)
_COMMON = dict(
    _INERT, capture_method=CAPTURE_METHOD, expand=array, payment_method=text(),
    payment_method_data=METHOD_DATA, payment_method_options=anything,
    payment_method_types=array, receipt_email=email,
    setup_future_usage=choice("off_session", "on_session"), shipping=SHIPPING)
_DESCRIBED = dict(
    customer=text(), description=text(1000), metadata=metadata, statement_descriptor=text(22),
    statement_descriptor_suffix=text(22), transfer_group=text())
_CONFIRMING = dict(
    error_on_requires_action=boolean, off_session=anything, return_url=text(),
    confirmation_token=anything)
_PAGE = dict(limit=integer(1), starting_after=text(), ending_before=text(), expand=array)

INTENT_CREATE = dict(
    _COMMON, **_DESCRIBED, **_CONFIRMING, amount=integer(1), currency=text(),
    automatic_payment_methods=AUTOMATIC_METHODS, confirm=boolean,
    confirmation_method=choice("automatic", "manual"), on_behalf_of=text())
INTENT_UPDATE = dict(_COMMON, **_DESCRIBED, amount=integer(1), currency=text())
INTENT_CONFIRM = dict(_COMMON, **_CONFIRMING, amount_to_confirm=integer(1), client_secret=text(),
                      key=anything)
INTENT_CAPTURE = dict(
    amount_to_capture=integer(1), final_capture=boolean, metadata=metadata, expand=array,
    statement_descriptor=text(22), statement_descriptor_suffix=text(22),
    **{k: anything for k in ("amount_details", "application_fee_amount", "hooks",
                             "payment_details", "transfer_data")})
INTENT_CANCEL = dict(expand=array, cancellation_reason=choice(
    "duplicate", "fraudulent", "requested_by_customer", "abandoned"))
INTENT_RETRIEVE = dict(client_secret=text(), expand=array, key=anything)
INTENT_LIST = dict(_PAGE, created=created_filter, customer=text(), customer_account=text())
REFUND_CREATE = dict(
    amount=integer(1), charge=text(), payment_intent=text(), metadata=metadata, expand=array,
    reason=choice("duplicate", "fraudulent", "requested_by_customer"), currency=anything,
    customer=anything, instructions_email=anything, origin=anything,
    refund_application_fee=boolean, reverse_transfer=boolean)
REFUND_UPDATE = dict(metadata=metadata, expand=array)
REFUND_LIST = dict(_PAGE, charge=text(), payment_intent=text(), created=created_filter)
CHARGE_LIST = dict(_PAGE, customer=text(), payment_intent=text(), created=created_filter)
METHOD_CREATE = dict(
    type=text(), card=anything, sepa_debit=anything, us_bank_account=anything,
    billing_details=anything, allow_redisplay=anything, metadata=metadata, expand=array,
    key=anything)
EVENT_LIST = dict(_PAGE, type=text(), types=array, created=created_filter,
                  delivery_success=boolean)
RETRIEVE = dict(expand=array)

CURRENCIES = frozenset("""
    aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd btn bwp
    byn bzd cad cdf chf clp cny cop crc cup cve czk djf dkk dop dzd egp ern etb eur fjd fkp gbp
    gel ghs gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr iqd irr isk jmd jod jpy kes kgs khr
    kmf kpw krw kwd kyd kzt lak lbp lkr lrd lsl lyd mad mdl mga mkd mmk mnt mop mru mur mvr mwk
    mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar
    sbd scr sdg sek sgd shp sle sos srd ssp stn svc syp szl thb tjs tmt tnd top try ttd twd tzs
    uah ugx usd uyu uzs ves vnd vuv wst xaf xcd xcg xof xpf yer zar zmw""".split())
MAX_AMOUNT = {"idr": 999999999999, "inr": 999999999, "cop": 9999999999999,
              "huf": 9999999999999, "jpy": 9999999999999, "lbp": 99999999999999}
# Sent with decimals that must be zero: whole krónur and shillings, and the
# last digit of the currencies with three decimals.
AMOUNT_STEP = {"isk": 100, "ugx": 100, "bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10}


def check_money(amount: int, currency: Any) -> str:
    """Refuse an unknown currency or an amount it cannot have; returns the code."""
    code = str(currency).lower()
    if code not in CURRENCIES:
        raise invalid(f"Invalid currency: {code}.", param="currency")
    limit = MAX_AMOUNT.get(code, 99999999)
    if amount > limit:
        raise invalid(f"Amount must be no more than {limit} in the smallest unit of {code}.",
                      param="amount", code="amount_too_large")
    step = AMOUNT_STEP.get(code, 1)
    if amount % step:
        raise invalid(f"Amount in {code} must be divisible by {step}.", param="amount",
                      code="parameter_invalid_integer")
    return code


# ---------------------------------------------------------------------------
# Test payment methods
# ---------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Behaviour:
    """What happens when a payment method of this kind is charged."""

    last4: str = "4242"
    brand: str = "visa"
    type: str = "card"
    challenge: str = "never"        # never | always | on_session
    code: Optional[str] = None      # set: the charge is declined with this code
    decline_code: Optional[str] = None
    message: str = ""
    refund: str = "succeeded"       # how a refund goes: succeeded | pending | failed
    blocked: bool = False           # refused by Stripe's own risk check


def _declined(last4: str, decline_code: str, message: str = "Your card was declined.",
              **more: Any) -> Behaviour:
    return Behaviour(last4, code="card_declined", decline_code=decline_code, message=message,
                     **more)


_NO_FUNDS = "Your card has insufficient funds."
BEHAVIOURS = {
    "pm_card_visa": Behaviour(),
    "pm_card_visa_debit": Behaviour("5556"),
    "pm_card_mastercard": Behaviour("4444", "mastercard"),
    "pm_card_amex": Behaviour("8431", "amex"),
    "pm_card_discover": Behaviour("9424", "discover"),
    "pm_card_us": Behaviour(),
    "pm_card_bypassPending": Behaviour("0077"),
    "pm_card_createDispute": Behaviour("0259"),
    "pm_card_createDisputeProductNotReceived": Behaviour("2685"),
    "pm_card_createDisputeInquiry": Behaviour("1976"),
    "pm_card_pendingRefund": Behaviour("7726", refund="pending"),
    "pm_card_refundFail": Behaviour("5126", refund="failed"),
    "pm_card_visa_chargeDeclined": _declined("0002", "generic_decline"),
    "pm_card_chargeDeclined": _declined("0002", "generic_decline"),
    "pm_card_visa_chargeDeclinedInsufficientFunds": _declined(
        "9995", "insufficient_funds", _NO_FUNDS),
    "pm_card_chargeDeclinedInsufficientFunds": _declined(
        "9995", "insufficient_funds", _NO_FUNDS),
    "pm_card_visa_chargeDeclinedLostCard": _declined("9987", "lost_card"),
    "pm_card_visa_chargeDeclinedStolenCard": _declined("9979", "stolen_card"),
    "pm_card_visa_chargeDeclinedVelocityLimitExceeded": _declined(
        "6975", "card_velocity_exceeded"),
    "pm_card_chargeDeclinedExpiredCard": Behaviour(
        "0069", code="expired_card", message="Your card has expired."),
    "pm_card_chargeDeclinedIncorrectCvc": Behaviour(
        "0127", code="incorrect_cvc", message="Your card's security code is incorrect."),
    "pm_card_chargeDeclinedProcessingError": Behaviour(
        "0119", code="processing_error",
        message="An error occurred while processing your card. Try again in a little bit."),
    "pm_card_chargeCustomerFail": _declined("0341", "generic_decline"),
    "pm_card_radarBlock": _declined("0019", "fraudulent", blocked=True),
    "pm_card_authenticationRequired": Behaviour("3184", challenge="always"),
    "pm_card_authenticationRequiredOnSetup": Behaviour("3155", challenge="always"),
    "pm_card_authenticationRequiredSetupForOffSession": Behaviour(
        "0446", challenge="on_session"),
    "pm_card_threeDSecure2Required": Behaviour("3220", challenge="always"),
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds": _declined(
        "3178", "insufficient_funds", _NO_FUNDS, challenge="always"),
    "pm_card_threeDSecureRequiredChargeDeclined": _declined(
        "1629", "generic_decline", challenge="always"),
}
BANK_DETAILS = {
    "us_bank_account": {"account_holder_type": "individual", "account_type": "checking",
                        "bank_name": "STAND-IN BANK", "fingerprint": "Sim0000000006789",
                        "last4": "6789", "mandate": None, "routing_number": "110000000"},
    "sepa_debit": {"bank_code": "19043", "branch_code": "", "country": "AT",
                   "expected_debit_date": None, "fingerprint": "Sim0000000003204",
                   "last4": "3204", "mandate": None}}
BANK_DEBITS = {"us_bank_account": Behaviour("6789", "", "us_bank_account"),
               "sepa_debit": Behaviour("3204", "", "sepa_debit")}
BANK_DEBIT_IDS = {"pm_usBankAccount": "us_bank_account", "pm_sepa": "sepa_debit"}


def known_behaviour(ident: str) -> Optional[Behaviour]:
    """The behaviour behind one of Stripe's test ids, or None."""
    found = BEHAVIOURS.get(ident)
    if found is None:
        for start, kind in BANK_DEBIT_IDS.items():
            if ident.startswith(start):
                return BANK_DEBITS[kind]
    return found


# ---------------------------------------------------------------------------
# Objects
# ---------------------------------------------------------------------------

class Scope(NamedTuple):
    """Objects of one mode and one account are invisible to the others."""

    livemode: bool
    account: Optional[str]


_scope = functools.lru_cache(maxsize=1024)(Scope)     # one object each: cheap to keep


class Raw(str):
    """A string that is JSON already."""

    __slots__ = ()


def attr(path: str) -> str:
    """A place in a Layout to be filled with an attribute of the object."""
    return "\0" + path


def _literal(value: Any) -> str:
    """JSON for one value, quickly for the kinds that are common."""
    if value is None:
        return "null"
    kind = type(value)
    if kind is str:
        return encode_basestring(value)
    if kind is Raw:
        return value
    if kind is int:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    return _encode(value)


class Layout:
    """The JSON shape of one kind of object, most of it constant.

    Encoding the constant parts once makes rendering several times faster than
    a general encoder, and rendering is what the stand-in does most.
    """

    def __init__(self, shape: dict):
        pieces = re.split(r'"\\u0000([a-z_.]+)"', _encode(shape))
        self.format = "%s".join(piece.replace("%", "%%") for piece in pieces[::2])
        self.values = operator.attrgetter(*pieces[1::2])

    def render(self, obj: Any) -> bytes:
        """The JSON of one object."""
        return (self.format % tuple(map(_literal, self.values(obj)))).encode()


@dataclass(slots=True)
class PaymentMethod:
    """A payment method made from a test id."""

    id: str
    scope: Scope
    created: int
    behaviour: Behaviour

    def as_dict(self) -> dict:
        """The API's rendering."""
        how = self.behaviour
        if how.type == "card":
            details: dict = {
                "brand": how.brand,
                "checks": {"address_line1_check": None, "address_postal_code_check": None,
                           "cvc_check": "pass"},
                "country": "US", "display_brand": how.brand, "exp_month": 8, "exp_year": 2034,
                "fingerprint": "Sim000000000" + how.last4, "funding": "credit",
                "generated_from": None, "last4": how.last4,
                "networks": {"available": [how.brand], "preferred": None},
                "three_d_secure_usage": {"supported": True}, "wallet": None}
        else:
            details = BANK_DETAILS[how.type]
        return {"id": self.id, "object": "payment_method", "allow_redisplay": "unspecified",
                "billing_details": BILLING, how.type: details, "created": self.created,
                "customer": None, "livemode": self.scope.livemode, "metadata": {},
                "type": how.type}

    def render(self) -> bytes:
        """The same as bytes."""
        return to_json(self.as_dict())


BILLING = {"address": {"city": None, "country": None, "line1": None, "line2": None,
                       "postal_code": None, "state": None},
           "email": None, "name": None, "phone": None, "tax_id": None}
CARD_OPTIONS = {"installments": None, "mandate_options": None, "network": None,
                "request_three_d_secure": "automatic"}


@functools.lru_cache(maxsize=256)
def _options_json(types: tuple) -> Raw:
    return Raw(_encode({kind: CARD_OPTIONS if kind == "card" else {} for kind in types}))


@functools.lru_cache(maxsize=256)
def _types_json(types: tuple) -> Raw:
    return Raw(_encode(types))


@dataclass(slots=True)
class PaymentIntent:
    """A PaymentIntent.  Change it only through Store.touch(), which drops `rendered`."""

    id: str
    n: int
    scope: Scope
    created: int
    client_secret: str
    amount: int
    currency: str
    status: str = "requires_payment_method"
    metadata: dict = field(default_factory=dict)
    creation_key: Optional[str] = None
    capture_method: str = "automatic_async"
    confirmation_method: str = "automatic"
    method_types: tuple = ("card",)
    explicit_types: bool = False
    automatic: Optional[dict] = None
    description: Optional[str] = None
    customer: Optional[str] = None
    receipt_email: Optional[str] = None
    statement_descriptor: Optional[str] = None
    statement_descriptor_suffix: Optional[str] = None
    transfer_group: Optional[str] = None
    on_behalf_of: Optional[str] = None
    setup_future_usage: Optional[str] = None
    shipping: Optional[dict] = None
    return_url: Optional[str] = None
    method: Optional[PaymentMethod] = None
    authenticated: bool = False
    next_action: Optional[dict] = None
    last_error: Optional[dict] = None
    latest_charge: Optional[str] = None
    amount_capturable: int = 0
    amount_received: int = 0
    canceled_at: Optional[int] = None
    cancellation_reason: Optional[str] = None
    rendered: Optional[bytes] = None

    @property
    def payment_method(self) -> Optional[str]:
        """The attached payment method's id."""
        return self.method.id if self.method else None

    @property
    def method_options(self) -> Raw:
        """An entry for each kind of payment method that may be used."""
        return _options_json(self.method_types)

    @property
    def types_json(self) -> Raw:
        """The kinds of payment method that may be used."""
        return _types_json(self.method_types)

    def render(self) -> bytes:
        """The API's JSON, kept until the next change."""
        if self.rendered is None:
            self.rendered = INTENT_LAYOUT.render(self)
        return self.rendered

    def as_dict(self) -> dict:
        """The same as a dictionary, for embedding."""
        return json.loads(self.render())


INTENT_LAYOUT = Layout({
    "id": attr("id"), "object": "payment_intent",
    "amount": attr("amount"), "amount_capturable": attr("amount_capturable"),
    "amount_details": {"tip": {}}, "amount_received": attr("amount_received"),
    "application": None, "application_fee_amount": None,
    "automatic_payment_methods": attr("automatic"),
    "canceled_at": attr("canceled_at"), "cancellation_reason": attr("cancellation_reason"),
    "capture_method": attr("capture_method"), "client_secret": attr("client_secret"),
    "confirmation_method": attr("confirmation_method"), "created": attr("created"),
    "currency": attr("currency"), "customer": attr("customer"), "customer_account": None,
    "description": attr("description"), "excluded_payment_method_types": None,
    "last_payment_error": attr("last_error"), "latest_charge": attr("latest_charge"),
    "livemode": attr("scope.livemode"), "managed_payments": None,
    "metadata": attr("metadata"), "next_action": attr("next_action"),
    "on_behalf_of": attr("on_behalf_of"), "payment_method": attr("payment_method"),
    "payment_method_configuration_details": None,
    "payment_method_options": attr("method_options"),
    "payment_method_types": attr("types_json"), "processing": None,
    "receipt_email": attr("receipt_email"), "review": None,
    "setup_future_usage": attr("setup_future_usage"), "shipping": attr("shipping"),
    "source": None, "statement_descriptor": attr("statement_descriptor"),
    "statement_descriptor_suffix": attr("statement_descriptor_suffix"),
    "status": attr("status"), "transfer_data": None, "transfer_group": attr("transfer_group"),
})


@dataclass(slots=True)
class Charge:
    """One attempt to move the money of a PaymentIntent."""

    id: str
    n: int
    scope: Scope
    created: int
    intent: PaymentIntent
    method: PaymentMethod
    amount: int
    status: str                       # succeeded | pending | failed
    captured: bool
    authenticated: bool = False
    amount_captured: int = 0
    amount_refunded: int = 0
    released: bool = False            # an uncaptured authorisation was given back
    balance_transaction: Optional[str] = None
    failure: Optional[dict] = None

    def refundable(self) -> int:
        """How much of it can still be given back."""
        return self.amount_captured - self.amount_refunded

    @property
    def returned(self) -> int:
        """amount_refunded, where a released authorisation counts as well."""
        return self.amount if self.released else self.amount_refunded

    @property
    def refunded(self) -> bool:
        """Whether all of it went back."""
        return self.released or 0 < self.amount_captured <= self.amount_refunded

    @property
    def paid(self) -> bool:
        """Whether the attempt worked (an authorisation counts)."""
        return self.status == "succeeded"

    @property
    def failure_code(self) -> Optional[str]:
        """Why it failed, in a word."""
        return self.failure["code"] if self.failure else None

    @property
    def failure_message(self) -> Optional[str]:
        """Why it failed, in a sentence."""
        return self.failure["message"] if self.failure else None

    @property
    def outcome(self) -> Any:
        """What the network and the risk check said."""
        if self.failure is None:
            return APPROVED
        blocked = self.method.behaviour.blocked
        return {"advice_code": self.failure.get("advice_code"), "network_advice_code": None,
                "network_decline_code": self.failure.get("network_decline_code"),
                "network_status": "not_sent_to_network" if blocked else "declined_by_network",
                "reason": self.failure.get("decline_code") or self.failure["code"],
                "risk_level": "highest" if blocked else "normal",
                "risk_score": 90 if blocked else 3,
                "seller_message": "The payment was refused.",
                "type": "blocked" if blocked else "issuer_declined"}

    @property
    def method_details(self) -> dict:
        """A snapshot of the card or account that was charged."""
        how = self.method.behaviour
        if how.type != "card":
            return {how.type: BANK_DETAILS[how.type], "type": how.type}
        secure = ({"authentication_flow": "challenge", "result": "authenticated",
                   "version": "2.2.0"} if self.authenticated else None)
        return {"card": {"amount_authorized": self.amount, "brand": how.brand,
                         "checks": {"address_line1_check": None,
                                    "address_postal_code_check": None, "cvc_check": "pass"},
                         "country": "US", "exp_month": 8, "exp_year": 2034,
                         "fingerprint": "Sim000000000" + how.last4, "funding": "credit",
                         "last4": how.last4, "network": how.brand, "three_d_secure": secure,
                         "wallet": None},
                "type": "card"}

    def render(self) -> bytes:
        """The API's JSON."""
        return CHARGE_LAYOUT.render(self)

    def as_dict(self) -> dict:
        """The same as a dictionary, for embedding."""
        return json.loads(self.render())


APPROVED = Raw(_encode({
    "advice_code": None, "network_advice_code": None, "network_decline_code": None,
    "network_status": "approved_by_network", "reason": None, "risk_level": "normal",
    "risk_score": 12, "seller_message": "Payment complete.", "type": "authorized"}))

CHARGE_LAYOUT = Layout({
    "id": attr("id"), "object": "charge", "amount": attr("amount"),
    "amount_captured": attr("amount_captured"), "amount_refunded": attr("returned"),
    "application": None, "application_fee": None, "application_fee_amount": None,
    "balance_transaction": attr("balance_transaction"), "billing_details": BILLING,
    "calculated_statement_descriptor": None, "captured": attr("captured"),
    "created": attr("created"), "currency": attr("intent.currency"),
    "customer": attr("intent.customer"), "description": attr("intent.description"),
    "disputed": False, "failure_balance_transaction": None,
    "failure_code": attr("failure_code"), "failure_message": attr("failure_message"),
    "fraud_details": {}, "livemode": attr("scope.livemode"),
    "metadata": attr("intent.metadata"), "on_behalf_of": attr("intent.on_behalf_of"),
    "outcome": attr("outcome"), "paid": attr("paid"), "payment_intent": attr("intent.id"),
    "payment_method": attr("method.id"), "payment_method_details": attr("method_details"),
    "receipt_email": attr("intent.receipt_email"), "receipt_number": None,
    "receipt_url": None, "refunded": attr("refunded"), "review": None,
    "shipping": attr("intent.shipping"), "source": None, "source_transfer": None,
    "statement_descriptor": attr("intent.statement_descriptor"),
    "statement_descriptor_suffix": attr("intent.statement_descriptor_suffix"),
    "status": attr("status"), "transfer_data": None,
    "transfer_group": attr("intent.transfer_group"),
})


@dataclass(slots=True)
class Refund:
    """Money going back for a charge."""

    id: str
    n: int
    scope: Scope
    created: int
    charge: Charge
    amount: int
    status: str
    reason: Optional[str]
    metadata: dict
    balance_transaction: str
    reference: Optional[str] = None
    failure_reason: Optional[str] = None
    failure_transaction: Optional[str] = None

    def as_dict(self) -> dict:
        """The API's rendering; the two failure fields exist only after a failure."""
        card: dict = {"reference_status": "available" if self.reference else "pending",
                      "reference_type": "acquirer_reference_number", "type": "refund"}
        if self.reference:
            card["reference"] = self.reference
        out = {"id": self.id, "object": "refund", "amount": self.amount,
               "balance_transaction": self.balance_transaction, "charge": self.charge.id,
               "created": self.created, "currency": self.charge.intent.currency,
               "customer": None, "customer_account": None,
               "destination_details": {"card": card, "type": "card"},
               "metadata": self.metadata, "payment_intent": self.charge.intent.id,
               "payment_method": None, "reason": self.reason, "receipt_number": None,
               "source_transfer_reversal": None, "status": self.status,
               "transfer_reversal": None}
        if self.failure_reason:
            out["failure_reason"] = self.failure_reason
            out["failure_balance_transaction"] = self.failure_transaction
        return out

    def render(self) -> bytes:
        """The same as bytes."""
        return to_json(self.as_dict())


@dataclass(slots=True)
class Event:
    """A snapshot of an object at the moment something happened to it."""

    id: str
    n: int
    scope: Scope
    created: int
    type: str
    intent_id: Optional[str]
    snapshot: bytes
    previous: Optional[bytes]
    request: bytes
    api_version: str
    deliveries: int = 0

    def render(self, pending: int) -> bytes:
        """The event's JSON; `pending` is pending_webhooks, its only changing member."""
        previous = b',"previous_attributes":' + self.previous if self.previous else b""
        account = b'"account":%s,' % to_json(self.scope.account) if self.scope.account else b""
        return (b'{"id":"%s","object":"event",%s"api_version":"%s","created":%d,'
                b'"data":{"object":%s%s},"livemode":%s,"pending_webhooks":%d,'
                b'"request":%s,"type":"%s"}'
                % (self.id.encode(), account, self.api_version.encode(), self.created,
                   self.snapshot, previous, b"true" if self.scope.livemode else b"false",
                   pending, self.request, self.type.encode()))


@dataclass(slots=True)
class RequestRecord:
    """One arrival at the API, in the ledger; also the saved answer of its key."""

    n: int
    at: float
    method: str
    path: str
    key: Optional[str]
    body: str
    request_id: str
    sim_time: int
    status: Optional[int] = None      # None: never processed, never answered
    replayed: bool = False
    fault: Optional[str] = None
    events: list = field(default_factory=list)
    answer: Optional[bytes] = None    # set: saved under `key`
    busy_until: float = 0.0           # monotonic; before that the key is in flight
    authorization: str = ""           # as sent: keys here are made up

    def as_dict(self) -> dict:
        """The ledger's rendering."""
        return {"n": self.n, "at": round(self.at, 6), "method": self.method,
                "path": self.path, "idempotency_key": self.key, "body": self.body,
                "request_id": self.request_id, "status": self.status,
                "replayed": self.replayed, "fault": self.fault, "events": self.events,
                "authorization": self.authorization}


# ---------------------------------------------------------------------------
# The store: every object, and the only source of ids, time and chance
# ---------------------------------------------------------------------------

class Table:
    """Objects of one kind: by id, and in order of creation (`n` is the index)."""

    def __init__(self) -> None:
        self.rows: list = []
        self.by_id: dict = {}

    def add(self, row: Any) -> Any:
        """Append a row whose `n` the caller took from len(self)."""
        self.rows.append(row)
        self.by_id[row.id] = row
        return row

    def __len__(self) -> int:
        return len(self.rows)


class Store:
    """All state of the pretended Stripe account."""

    def __init__(self, seed: int, api_version: str):
        self.seed = seed
        self.random = random.Random(seed)
        self.api_version = api_version
        self.base_url = ""              # set once the port is known
        self.connections = 0            # accepted since the start
        self.on_event: Callable[[Event], None] = lambda event: None
        self.reset()

    def reset(self, seed: Optional[int] = None) -> None:
        """Forget everything.  Without a seed the random sequence goes on, so
        that ids never repeat for a receiver that did not forget them too."""
        if seed is not None:
            self.seed = seed
            self.random = random.Random(seed)
        self.clock_offset = 0
        self.intents = Table()
        self.charges = Table()
        self.refunds = Table()
        self.events = Table()
        self.methods: dict = {}
        self.requests: list = []
        self.keys: dict = {}
        self.current: Optional[RequestRecord] = None

    def now(self) -> int:
        """The stand-in's clock: real time plus what /_sim/clock added."""
        return int(time.time()) + self.clock_offset

    def token(self, digits: int) -> str:
        """Random hexadecimal digits: one cheap draw, unlike Stripe's letters."""
        return "%0*x" % (digits, self.random.getrandbits(4 * digits))

    def new_id(self, prefix: str) -> str:
        """An id in Stripe's form that cannot be mistaken for a real one."""
        return f"{prefix}_3Sim{self.token(20)}"

    def touch(self, intent: PaymentIntent, **changes: Any) -> None:
        """Change a PaymentIntent; the next render() sees it."""
        for name, value in changes.items():
            setattr(intent, name, value)
        intent.rendered = None

    def find(self, table: Table, scope: Scope, ident: str, kind: str, param: str) -> Any:
        """An object by id, within the caller's mode and account."""
        row = table.by_id.get(ident)
        if row is None or row.scope != scope:
            raise missing_resource(kind, ident, param)
        return row

    def emit(self, type_: str, obj: Any, previous: Optional[dict] = None) -> Event:
        """Record that something happened to `obj` and hand it to the webhooks."""
        if isinstance(obj, PaymentIntent):
            intent_id = obj.id
        else:
            intent_id = (obj.charge if isinstance(obj, Refund) else obj).intent.id
        cause = self.current
        if cause is None:
            request = b'{"id":null,"idempotency_key":null}'
        else:
            request = b'{"id":"%s","idempotency_key":%s}' % (
                cause.request_id.encode(), to_json(cause.key))
        event = Event(self.new_id("evt"), len(self.events), obj.scope, self.now(), type_,
                      intent_id, obj.render(), to_json(previous) if previous else None, request,
                      self.api_version)
        self.events.add(event)
        if cause is not None:
            cause.events.append(event.id)
        self.on_event(event)
        return event


def page(table: Table, scope: Scope, params: dict, kind: str,
         keep: Callable[[Any], bool] = lambda row: True, floor: int = 0) -> tuple:
    """One page of a listing, newest first: (rows, has_more).

    `floor` is the oldest creation time still listed.  A cursor that is gone
    is an error, as at Stripe: silently starting over would skip or repeat.
    """
    limit = params.get("limit") or 10
    if limit > 100:
        raise invalid("Invalid limit: must be at most 100", param="limit",
                      code="parameter_invalid_integer")
    after, before = params.get("starting_after"), params.get("ending_before")
    if after and before:
        raise invalid("You may only specify one of starting_after and ending_before.")
    created = params.get("created") or {}
    low = max(created.get("gte") or floor, (created.get("gt") or floor - 1) + 1, floor)

    def anchor(ident: str, param: str) -> int:
        row = table.by_id.get(ident)
        if row is None or row.scope != scope or row.created < floor:
            raise invalid(f"No such {kind}: '{ident}'", param=param, code="resource_missing")
        return row.n

    if before:
        candidates: Iterable = range(anchor(before, "ending_before") + 1, len(table))
    else:
        start = anchor(after, "starting_after") if after else len(table)
        candidates = range(start - 1, -1, -1)
    found = []
    for n in candidates:
        row = table.rows[n]
        if row.created < low:
            if before:
                continue
            break                       # older still from here on: time never runs back
        if row.scope == scope and _created_before(row.created, created) and keep(row):
            found.append(row)
            if len(found) > limit:
                break
    rows = found[:limit]
    if before:
        rows.reverse()
    return rows, len(found) > limit


def _created_before(created: int, bounds: dict) -> bool:
    """The upper half of a created filter (page() takes care of the lower)."""
    return ((bounds.get("lte") is None or created <= bounds["lte"])
            and (bounds.get("lt") is None or created < bounds["lt"]))


# ---------------------------------------------------------------------------
# The payment engine: what confirming, capturing, canceling and refunding do
# ---------------------------------------------------------------------------

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
CANCELABLE = (*CONFIRMABLE, "requires_capture")


def unexpected_state(intent: PaymentIntent, verb: str, allowed: Iterable[str]) -> ApiError:
    """The refusal of a call that the PaymentIntent's status does not permit."""
    return invalid(
        f"This PaymentIntent could not be {verb} because it has a status of {intent.status}. "
        f"Statuses that allow it: {', '.join(allowed)}.",
        code="payment_intent_unexpected_state", saved=True, payment_intent=intent.as_dict())


class Engine:
    """Moves PaymentIntents through their status machine and emits the events.

    Every method changes objects first and emits afterwards, in the order in
    which Stripe was seen to emit.
    """

    def __init__(self, store: Store):
        self.store = store

    def attempt(self, intent: PaymentIntent, off_session: bool, no_action: bool) -> None:
        """Try to collect the money with the attached payment method."""
        how = intent.method.behaviour
        self.store.touch(intent, last_error=None, next_action=None)
        if how.type != "card":
            self._start_debit(intent)
            return
        challenge = how.challenge == "always" or (how.challenge == "on_session"
                                                  and not off_session)
        if not challenge or intent.authenticated:
            self.charge(intent)
        elif off_session or no_action:
            self.decline(intent, "authentication_required",
                         "Your card was declined. This transaction requires authentication.",
                         "authentication_required")
        else:
            self.store.touch(intent, status="requires_action",
                             next_action=self._challenge(intent))
            self.store.emit("payment_intent.requires_action", intent)

    def _challenge(self, intent: PaymentIntent) -> dict:
        """next_action: a redirect if the caller said where to return, else for Stripe.js."""
        if intent.return_url:
            return {"type": "redirect_to_url",
                    "redirect_to_url": {
                        "return_url": intent.return_url,
                        "url": f"{self.store.base_url}/_sim/payment_intents/{intent.id}"
                               "/authenticate"}}
        return {"type": "use_stripe_sdk",
                "use_stripe_sdk": {"type": "three_d_secure_redirect",
                                   "source": "src_" + self.store.token(16)}}

    def _new_charge(self, intent: PaymentIntent, status: str, captured: bool,
                    prefix: str = "ch", failure: Optional[dict] = None) -> Charge:
        charge = Charge(self.store.new_id(prefix), len(self.store.charges), intent.scope,
                        self.store.now(), intent, intent.method, intent.amount, status,
                        captured, authenticated=intent.authenticated, failure=failure)
        if status == "succeeded" and captured:
            charge.amount_captured = intent.amount
            charge.balance_transaction = self.store.new_id("txn")
        elif status == "pending":
            charge.amount_captured = intent.amount
        self.store.charges.add(charge)
        self.store.touch(intent, latest_charge=charge.id)
        return charge

    def charge(self, intent: PaymentIntent, after_challenge: bool = False) -> None:
        """Charge a card whose holder needs no further challenge."""
        how = intent.method.behaviour
        if how.code:
            self.decline(intent, how.code, how.message, how.decline_code)
            return
        manual = intent.capture_method == "manual"
        charge = self._new_charge(intent, "succeeded", captured=not manual)
        if manual:
            self.store.touch(intent, status="requires_capture",
                             amount_capturable=intent.amount)
            self.store.emit("charge.succeeded", charge)
            self.store.emit("payment_intent.amount_capturable_updated", intent)
            return
        self.store.touch(intent, status="succeeded", amount_received=intent.amount)
        if after_challenge:             # seen in this order at the real one
            self.store.emit("payment_intent.succeeded", intent)
            self.store.emit("charge.succeeded", charge)
        else:
            self.store.emit("charge.succeeded", charge)
            self.store.emit("payment_intent.succeeded", intent)

    def decline(self, intent: PaymentIntent, code: str, message: str,
                decline_code: Optional[str] = None) -> None:
        """A failed charge: back to requires_payment_method, with the reason."""
        error = {"type": "card_error", "code": code, "message": message,
                 "doc_url": "https://docs.stripe.com/error-codes#" + code.replace("_", "-"),
                 "advice_code": "try_again_later", "network_decline_code": "01"}
        if decline_code:
            error["decline_code"] = decline_code
        charge = self._new_charge(intent, "failed", captured=False, failure=error)
        self._fail(intent, dict(error, charge=charge.id), charge)

    def _fail(self, intent: PaymentIntent, error: dict, charge: Optional[Charge]) -> None:
        """Common end of a failed attempt, with or without a charge."""
        error["payment_method"] = intent.method.as_dict()
        self.store.touch(intent, status="requires_payment_method", last_error=error,
                         method=None, next_action=None, authenticated=False)
        if charge is not None:
            self.store.emit("charge.failed", charge)
        self.store.emit("payment_intent.payment_failed", intent)

    def _start_debit(self, intent: PaymentIntent) -> None:
        """A bank debit: days of processing, ended by settle()."""
        charge = self._new_charge(intent, "pending", captured=True, prefix="py")
        self.store.touch(intent, status="processing")
        self.store.emit("charge.pending", charge)
        self.store.emit("payment_intent.processing", intent)

    def settle(self, intent: PaymentIntent, succeed: bool) -> None:
        """The bank's answer to a debit."""
        charge = self.store.charges.by_id[intent.latest_charge]
        if succeed:
            charge.status = "succeeded"
            charge.balance_transaction = self.store.new_id("txn")
            self.store.touch(intent, status="succeeded", amount_received=intent.amount)
            self.store.emit("charge.succeeded", charge)
            self.store.emit("payment_intent.succeeded", intent)
            return
        error = {"type": "invalid_request_error",
                 "code": "payment_intent_payment_attempt_failed", "charge": charge.id,
                 "message": "The bank did not pay the debit."}
        charge.status, charge.failure, charge.amount_captured = "failed", error, 0
        self._fail(intent, dict(error), charge)

    def authenticate(self, intent: PaymentIntent, succeed: bool) -> None:
        """The customer's answer to a 3-D Secure challenge."""
        if not succeed:
            self._fail(intent, {
                "type": "invalid_request_error",
                "code": "payment_intent_authentication_failure",
                "message": "The customer did not pass the authentication."}, None)
        elif intent.confirmation_method == "manual":
            self.store.touch(intent, status="requires_confirmation", next_action=None,
                             authenticated=True)
        else:
            self.store.touch(intent, next_action=None, authenticated=True)
            self.charge(intent, after_challenge=True)

    def capture(self, intent: PaymentIntent, amount: int) -> None:
        """Take all or part of an authorisation; the rest is released."""
        charge = self.store.charges.by_id[intent.latest_charge]
        charge.captured, charge.amount_captured = True, amount
        charge.balance_transaction = self.store.new_id("txn")
        self.store.touch(intent, status="succeeded", amount_capturable=0,
                         amount_received=amount)
        self.store.emit("charge.captured", charge, {
            "amount_captured": 0, "balance_transaction": None, "captured": False})
        self.store.emit("payment_intent.succeeded", intent)

    def cancel(self, intent: PaymentIntent, reason: Optional[str]) -> None:
        """End a PaymentIntent; funds only authorised go back to the customer."""
        held = intent.status == "requires_capture"
        self.store.touch(intent, status="canceled", canceled_at=self.store.now(),
                         cancellation_reason=reason, amount_capturable=0, next_action=None)
        if held:
            charge = self.store.charges.by_id[intent.latest_charge]
            charge.released = True
            if reason == "automatic":
                self.store.emit("charge.expired", charge)
            else:
                self.store.emit("charge.refunded", charge,
                                {"amount_refunded": 0, "refunded": False})
        self.store.emit("payment_intent.canceled", intent)

    def refund(self, charge: Charge, amount: int, reason: Optional[str], meta: dict) -> Refund:
        """Give back part or all of a captured charge."""
        store, how = self.store, charge.method.behaviour.refund
        before = {"amount_refunded": charge.amount_refunded, "refunded": False}
        refund = store.refunds.add(Refund(
            store.new_id("re"), len(store.refunds), charge.scope, store.now(), charge, amount,
            "pending" if how == "pending" else "succeeded", reason, meta, store.new_id("txn")))
        charge.amount_refunded += amount
        store.emit("refund.created", refund)
        store.emit("charge.refunded", charge, before)
        if how == "failed":
            self.settle_refund(refund, succeed=False)
        elif how == "succeeded":
            refund.reference = "4%015d" % store.random.randrange(10 ** 15)
            store.emit("refund.updated", refund, {"destination_details": {"card": {
                "reference": None, "reference_status": "pending"}}})
        return refund

    def settle_refund(self, refund: Refund, succeed: bool) -> None:
        """A pending refund arrives, or one bounces: the money is then ours again."""
        before = {"status": refund.status}
        refund.status = "succeeded" if succeed else "failed"
        if not succeed:
            refund.failure_reason = "expired_or_canceled_card"
            refund.failure_transaction = self.store.new_id("txn")
            refund.charge.amount_refunded -= refund.amount
            self.store.emit("refund.failed", refund)
        self.store.emit("refund.updated", refund, before)
        self.store.emit("charge.refund.updated", refund, before)


# ---------------------------------------------------------------------------
# Faults
# ---------------------------------------------------------------------------

BEFORE = ("drop_before", "rst_before")
FAULT_KINDS = {                     # kind: how the connection ends
    "drop_before": "fin", "rst_before": "rst", "drop_after": "fin", "rst_after": "rst",
    "truncate": "half", "delay": "keep", "500_after": "keep",
    **dict.fromkeys(("400", "401", "402", "403", "404", "409", "429", "500", "503"), "keep")}
# Raised by the endpoint itself, so behind the replay of a saved answer.  The
# other statuses come from the layers before it.
ENDPOINT_FAULTS = ("402", "500", "500_after")
# And saved in turn.  A plain 500 is one that passes, unless told to be saved.
SAVED_FAULTS = ("402", "500_after")
FAULT_ERRORS = {
    "400": ("invalid_request_error", None, "An injected refusal.", {}),
    "401": ("invalid_request_error", None, "Invalid API Key provided (injected).", {}),
    "402": ("card_error", "card_declined", "Your card was declined (injected).", {}),
    "403": ("invalid_request_error", None, "This key lacks the permission (injected).", {}),
    "404": ("invalid_request_error", "resource_missing", "No such resource (injected).", {}),
    "409": ("invalid_request_error", "idempotency_key_in_use",
            "There is currently another in-progress request using this Idempotent Key "
            "(injected).", {}),
    "429": ("invalid_request_error", "rate_limit", "Too many requests (injected).",
            {"Stripe-Rate-Limited-Reason": "endpoint-rate"}),
    "500": ("api_error", None, "An unexpected error occurred (injected).", {}),
    "503": ("api_error", None, "Temporarily unavailable (injected).", {}),
}


class ControlError(Exception):
    """A mistake in the use of the control surface; shown to the caller."""


@dataclass
class Fault:
    """One rule: which requests suffer, how, and how many of them."""

    route: str
    kind: str
    count: int = 1
    probability: float = 1.0
    delay_ms: int = 0
    skip: int = 0
    headers: dict = field(default_factory=dict)
    code: Optional[str] = None
    save: Optional[bool] = None
    hits: int = 0

    def matches(self, method: str, path: str) -> bool:
        """`METHOD /path`: exact; with * or :id a glob; ending in / a prefix."""
        pattern = re.sub(r":[a-z_]+", "*", self.route)
        subject = path if pattern.startswith("/") else f"{method} {path}"
        if pattern.endswith("/"):
            return subject.startswith(pattern)
        if re.search(r"[*?\[]", pattern):
            return fnmatch.fnmatchcase(subject, pattern)
        return subject == pattern

    def error(self) -> ApiError:
        """The answer of a status fault."""
        status = self.kind.removesuffix("_after")
        type_, code, message, headers = FAULT_ERRORS[status]
        saved = self.kind in SAVED_FAULTS if self.save is None else self.save
        decline = "generic_decline" if status == "402" else None
        return ApiError(int(status), type_, message, code=self.code or code, saved=saved,
                        decline_code=decline, headers={**headers, **self.headers})


class FaultBoard:
    """The active rules; the first that matches a request decides."""

    def __init__(self, store: Store):
        self.store = store
        self.rules: list = []

    def add(self, spec: Any) -> None:
        """Install one rule given as JSON, or a list of them."""
        for item in spec if isinstance(spec, list) else [spec]:
            if not isinstance(item, dict) or "kind" not in item:
                raise ControlError("a fault is an object with at least a kind")
            item = dict(item, kind=str(item["kind"]), route=item.get("route", "*"))
            if item["kind"] not in FAULT_KINDS:
                raise ControlError("unknown kind; known: " + ", ".join(FAULT_KINDS))
            try:
                self.rules.append(Fault(**item))
            except TypeError as error:
                raise ControlError(f"bad fault: {error}") from None

    def pick(self, method: str, path: str, replaying: bool) -> Optional[Fault]:
        """The fault this request suffers, if any; spends its count."""
        for rule in self.rules:
            if rule.count == 0 or not rule.matches(method, path):
                continue
            if replaying and rule.kind in ENDPOINT_FAULTS:
                continue            # a replay never reaches the endpoint
            if rule.skip > 0:
                rule.skip -= 1
                continue
            if rule.probability < 1 and self.store.random.random() >= rule.probability:
                continue
            rule.count -= rule.count > 0
            rule.hits += 1
            return rule
        return None


# ---------------------------------------------------------------------------
# HTTP messages
# ---------------------------------------------------------------------------

class Request(NamedTuple):
    """One parsed request; header names are in lower case."""

    method: str
    path: str
    query: str
    headers: dict
    body: bytes
    keep_alive: bool


@functools.lru_cache(maxsize=4)
def http_date(at: int) -> str:
    """A Date header; one string a second is enough."""
    return formatdate(at, usegmt=True)


@dataclass(slots=True)
class Reply:
    """An answer, and how the connection is to end: keep, fin, rst or half."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple = ()
    end: str = "keep"
    delay: float = 0.0

    def wire(self, keep_alive: bool) -> bytes:
        """The answer's bytes."""
        head = ["HTTP/1.1 %d %s" % (self.status, http.client.responses.get(self.status, "")),
                "Content-Type: application/json", "Content-Length: %d" % len(self.body),
                "Access-Control-Allow-Origin: *"]
        head += [f"{name}: {value}" for name, value in self.headers]
        if not keep_alive:
            head.append("Connection: close")
        return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + self.body


# ---------------------------------------------------------------------------
# The API
# ---------------------------------------------------------------------------

class Caller(NamedTuple):
    """Who is asking: what they can see, and whether only as a browser may."""

    scope: Scope
    publishable: bool


class Call(NamedTuple):
    """One API call as the endpoints see it."""

    caller: Caller
    id: Optional[str]
    params: dict
    key: Optional[str]


_KEY_FORM = re.compile(r"(sk|rk|pk)_(test|live)_\w+\Z", re.ASCII)


def _pairs(form: str) -> list:
    """A form's pairs in a fixed order: the same parameters, however arranged."""
    return sorted(urllib.parse.parse_qsl(form, keep_blank_values=True))


def identify(request: Request) -> Union[Caller, ApiError]:
    """Read the API key.  Returned, not raised: some faults come before the 401."""
    value = request.headers.get("authorization", "")
    kind, _, key = value.partition(" ")
    key = key.strip()
    if kind.lower() == "basic":
        try:
            key = base64_user(key)
        except ValueError:
            key = ""
    elif not value:                     # Stripe.js puts its publishable key in the form
        form = request.query if request.method == "GET" else request.body.decode("latin-1")
        found = re.search(r"(?:^|&)key=(pk_\w+)", form)
        key = found.group(1) if found else ""
    if not key:
        return invalid("You did not provide an API key. Send it as a bearer token in the "
                       "Authorization header.", status=401)
    match = _KEY_FORM.match(key)
    if not match:
        return invalid(f"Invalid API Key provided: {key[:3]}...", status=401)
    scope = _scope(match.group(2) == "live", request.headers.get("stripe-account"))
    return Caller(scope, match.group(1) == "pk")


def base64_user(text_: str) -> str:
    """The user part of HTTP Basic credentials, where curl -u puts the key."""
    import base64                       # rarely used, so not loaded for it
    return base64.b64decode(text_, validate=True).decode("latin-1").partition(":")[0]


class Api:
    """The /v1 surface: authentication, faults, idempotency, then the endpoints."""

    def __init__(self, store: Store, faults: FaultBoard, latency: float = 0.0):
        self.store = store
        self.faults = faults
        self.engine = Engine(store)
        self.latency = latency
        self.routes = {
            "GET payment_intents": self.list_intents,
            "POST payment_intents": self.create_intent,
            "GET payment_intents/:id": self.retrieve_intent,
            "POST payment_intents/:id": self.update_intent,
            "POST payment_intents/:id/confirm": self.confirm_intent,
            "POST payment_intents/:id/capture": self.capture_intent,
            "POST payment_intents/:id/cancel": self.cancel_intent,
            "GET refunds": self.list_refunds,
            "POST refunds": self.create_refund,
            "GET refunds/:id": self.retrieve_refund,
            "POST refunds/:id": self.update_refund,
            "GET charges": self.list_charges,
            "GET charges/:id": self.retrieve_charge,
            "GET events": self.list_events,
            "GET events/:id": self.retrieve_event,
            "POST payment_methods": self.create_method,
            "GET payment_methods/:id": self.retrieve_method,
        }
        self.public_routes = ("GET payment_intents/:id", "POST payment_intents/:id/confirm",
                              "POST payment_methods")

    # -- the layers before the endpoints ------------------------------------

    def handle(self, request: Request) -> Reply:
        """Answer one request and enter it into the ledger."""
        store = self.store
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        body = request.query if request.method == "GET" else request.body.decode(
            "utf-8", "replace")
        record = RequestRecord(len(store.requests) + 1, time.time(), request.method,
                               request.path, key, body, "req_" + store.token(14), store.now(),
                               authorization=request.headers.get("authorization", ""))
        store.requests.append(record)
        caller = identify(request)
        slot = (caller.scope, key) if key and isinstance(caller, Caller) else None
        saved = self._saved(slot)
        fault = self.faults.pick(request.method, request.path, saved is not None)
        if fault:
            record.fault = fault.kind
        delay = self.latency + (fault.delay_ms / 1000 if fault else 0)
        end = FAULT_KINDS[fault.kind] if fault else "keep"
        if fault and fault.kind in BEFORE:
            return Reply(end=end, delay=delay)
        reply = self._answer(request, record, caller, slot, saved, fault)
        reply.end, reply.delay = end, delay
        if delay and record.answer is not None and not record.replayed:
            record.busy_until = time.monotonic() + delay
        return reply

    def _saved(self, slot: Optional[tuple]) -> Optional[RequestRecord]:
        """The request that first used this key, unless Stripe has forgotten it."""
        saved = self.store.keys.get(slot) if slot else None
        if saved and saved.sim_time + KEY_RETENTION <= self.store.now():
            del self.store.keys[slot]
            return None
        return saved

    def _answer(self, request: Request, record: RequestRecord,
                caller: Union[Caller, ApiError], slot: Optional[tuple],
                saved: Optional[RequestRecord], fault: Optional[Fault]) -> Reply:
        """Replay, refuse or execute; save what Stripe would save."""
        headers = [("Date", http_date(self.store.now())), ("Request-Id", record.request_id),
                   ("Stripe-Version", request.headers.get("stripe-version",
                                                          self.store.api_version))]
        if record.key:
            headers.append(("Idempotency-Key", record.key))
        kind = fault.kind if fault else ""
        keep = False
        try:
            if kind in FAULT_ERRORS and kind not in ENDPOINT_FAULTS:
                raise fault.error()
            if isinstance(caller, ApiError):
                raise caller
            if saved:
                self._check_reuse(record, saved)
                record.status, record.replayed = saved.status, True
                headers += [("Idempotent-Replayed", "true"),
                            ("Original-Request", saved.request_id)]
                return Reply(saved.status, saved.answer, tuple(headers))
            if kind in ("402", "500"):
                raise fault.error()
            status, body, keep = 200, self._execute(request, record, caller), True
            if kind == "500_after":
                raise fault.error()
        except ApiError as error:
            if kind == "500_after" and error.saved:
                error = fault.error()           # a decline was processed work, too
            status, body, keep = error.status, error.body(), error.saved
            headers += error.headers.items()
        if fault and fault.headers:
            headers += [item for item in fault.headers.items() if item not in headers]
        record.status = status
        if slot and keep and not saved:
            record.answer = body
            self.store.keys[slot] = record
        return Reply(status, body, tuple(headers))

    def _check_reuse(self, record: RequestRecord, saved: RequestRecord) -> None:
        """A key may come back only for the same call, and not before its answer."""
        if record.path != saved.path:
            raise ApiError(400, "idempotency_error",
                           "Keys for idempotent requests can only be used for the same "
                           f"endpoint they were first used for ('{saved.path}').")
        if record.body != saved.body and _pairs(record.body) != _pairs(saved.body):
            raise ApiError(400, "idempotency_error",
                           "Keys for idempotent requests can only be used with the same "
                           "parameters they were first used with.")
        if saved.busy_until > time.monotonic():
            raise invalid("There is currently another in-progress request using this "
                          "Idempotent Key. Try again later.", status=409,
                          code="idempotency_key_in_use")

    def _execute(self, request: Request, record: RequestRecord, caller: Caller) -> bytes:
        """Find the endpoint and run it; a bug in it must not look like Stripe's."""
        ident, route = None, request.path[4:].rstrip("/")
        parts = route.split("/")
        if len(parts) > 1:
            ident, parts[1] = urllib.parse.unquote(parts[1]), ":id"
            route = "/".join(parts)
        name = f"{request.method} {route}"
        endpoint = self.routes.get(name)
        if endpoint is None:
            raise invalid(f"Unrecognized request URL ({request.method}: {request.path}).",
                          status=404)
        if caller.publishable and name not in self.public_routes:
            raise invalid("This API call cannot be made with a publishable API key.",
                          status=403, code="secret_key_required")
        if record.key and len(record.key) > 255:
            raise ApiError(400, "idempotency_error",
                           "An idempotency key has at most 255 characters.")
        if request.headers.get("content-type", "").startswith("application/json"):
            raise invalid("Parameters of /v1 are form-encoded, not JSON.")
        try:
            source = (request.query if request.method == "GET"
                      else request.body.decode("utf-8"))
        except UnicodeDecodeError:
            raise invalid("The request is not valid UTF-8.") from None
        self.store.current = record
        try:
            return endpoint(Call(caller, ident, decode_form(source), record.key))
        finally:
            self.store.current = None

    # -- answers ------------------------------------------------------------

    def _object(self, obj: Any, expand: Optional[list]) -> bytes:
        """Render one object, with what was asked for expanded in place."""
        if not expand:
            return obj.render()
        out = obj.as_dict()
        for name in expand:
            out[name] = self._expanded(obj, name, out)
        return to_json(out)

    def _expanded(self, obj: Any, name: str, out: dict) -> Any:
        """What stands behind an id; an object without it keeps its null."""
        if name == "latest_charge" and isinstance(obj, PaymentIntent):
            charge = self.store.charges.by_id.get(obj.latest_charge)
            return charge.as_dict() if charge else None
        if name == "payment_method" and isinstance(obj, PaymentIntent):
            return obj.method.as_dict() if obj.method else None
        if name == "payment_intent" and isinstance(obj, (Charge, Refund)):
            return (obj.charge if isinstance(obj, Refund) else obj).intent.as_dict()
        if name == "charge" and isinstance(obj, Refund):
            return obj.charge.as_dict()
        if name in ("customer", "balance_transaction", "review") and name in out:
            return out[name]                # out of scope: the id stays
        raise invalid(f"This property cannot be expanded ({name}).", param="expand")

    def _list(self, rows: list, more: bool, url: str, expand: Optional[list]) -> bytes:
        """A list object."""
        inner = [name.removeprefix("data.") for name in expand or ()]
        return b'{"object":"list","data":[%s],"has_more":%s,"url":"%s"}' % (
            b",".join(self._object(row, inner) for row in rows),
            b"true" if more else b"false", url.encode())

    # -- PaymentIntents -----------------------------------------------------

    def create_intent(self, call: Call) -> bytes:
        """POST /v1/payment_intents"""
        params = validate(call.params, INTENT_CREATE, ("amount", "currency"))
        currency = check_money(params["amount"], params["currency"])
        confirm = bool(params.get("confirm"))
        self._check_confirm_only(params, confirm)
        automatic = params.get("automatic_payment_methods")
        if automatic and params.get("payment_method_types"):
            raise invalid("You may only specify one of automatic_payment_methods and "
                          "payment_method_types.", param="payment_method_types")
        meta = merge_metadata({}, params.get("metadata", {}))
        store = self.store
        ident = store.new_id("pi")
        intent = PaymentIntent(
            ident, len(store.intents), call.caller.scope, store.now(),
            f"{ident}_secret_{store.token(24)}", params["amount"], currency, metadata=meta,
            creation_key=call.key)
        if automatic and automatic.get("enabled"):
            intent.automatic = {"allow_redirects": automatic.get("allow_redirects") or "always",
                                "enabled": True}
        intent.confirmation_method = params.get("confirmation_method") or "automatic"
        intent.on_behalf_of = params.get("on_behalf_of")
        self._describe(intent, params)
        method = self._method(call, params, intent)
        if confirm:
            if method is None:
                raise invalid("A PaymentIntent cannot be confirmed without a payment method.",
                              param="payment_method", code="parameter_missing")
            self._check_return_url(call, intent)
        elif method is not None:
            self._attach(intent, method)
            intent.status = "requires_confirmation"
        store.intents.add(intent)
        store.emit("payment_intent.created", intent)
        if confirm:
            self._attach(intent, method)
            self._attempt(intent, params)
        return self._object(intent, params.get("expand"))

    def _check_confirm_only(self, params: dict, confirm: bool) -> None:
        """Some parameters of a creation make sense only with confirm=true."""
        if confirm:
            return
        for name in ("off_session", "return_url", "error_on_requires_action", "mandate",
                     "mandate_data"):
            if params.get(name):
                raise invalid(f"The parameter {name} cannot be passed when creating a "
                              "PaymentIntent unless confirm is set to true.", param=name)

    def _check_return_url(self, call: Call, intent: PaymentIntent) -> None:
        """A server that confirms must say where redirecting methods return to."""
        automatic = intent.automatic
        if (automatic and automatic["allow_redirects"] != "never" and not intent.return_url
                and not call.caller.publishable):
            raise invalid("This PaymentIntent may use payment methods that redirect: provide a "
                          "return_url, or set automatic_payment_methods[allow_redirects] to "
                          "never.", param="return_url")

    def _describe(self, intent: PaymentIntent, params: dict) -> None:
        """Take over the parameters that are simply kept.  Call after all checks."""
        types = params.get("payment_method_types")
        if params.get("statement_descriptor") and "card" in (types or intent.method_types):
            raise invalid("statement_descriptor is not supported for cards; use "
                          "statement_descriptor_suffix.", param="statement_descriptor")
        if types:
            intent.method_types, intent.explicit_types = tuple(types), True
        for name in ("description", "customer", "receipt_email", "statement_descriptor",
                     "statement_descriptor_suffix", "transfer_group", "shipping",
                     "setup_future_usage", "return_url"):
            if name in params:
                setattr(intent, name, params[name])
        if params.get("capture_method"):
            intent.capture_method = params["capture_method"]
        intent.rendered = None

    def _method(self, call: Call, params: dict,
                intent: Optional[PaymentIntent] = None) -> Optional[PaymentMethod]:
        """The payment method the parameters name, made from a test id if need be."""
        ident, data = params.get("payment_method"), params.get("payment_method_data")
        if not ident and not data:
            return None
        known = self.store.methods.get(ident) if ident else None
        if known and known.scope == call.caller.scope:
            behaviour = known.behaviour
        elif data:
            behaviour = self._inline_behaviour(data)
        else:
            behaviour = known_behaviour(ident)
            if behaviour is None:
                raise invalid(f"No such PaymentMethod: '{ident}'", param="payment_method",
                              code="resource_missing")
        if intent and intent.explicit_types and behaviour.type not in intent.method_types:
            raise invalid(f"The PaymentMethod provided ({behaviour.type}) is not allowed for "
                          "this PaymentIntent.", param="payment_method",
                          code="payment_intent_incompatible_payment_method")
        if known:
            return known
        method = PaymentMethod(self.store.new_id("pm"), call.caller.scope, self.store.now(),
                               behaviour)
        self.store.methods[method.id] = method
        return method

    def _inline_behaviour(self, data: dict) -> Behaviour:
        """payment_method_data; card numbers are refused, as for most real accounts."""
        card = data.get("card")
        if data.get("type") == "card" and isinstance(card, dict):
            if "number" in card:
                raise invalid("Sending card numbers directly to the API is unsafe and not "
                              "enabled here. Use a test id such as pm_card_visa.", status=402)
            token = str(card.get("token", ""))
            behaviour = BEHAVIOURS.get("pm_card_" + token.removeprefix("tok_"))
            if behaviour:
                return behaviour
            raise invalid(f"No such token: '{token}'", param="payment_method_data[card][token]",
                          code="resource_missing")
        behaviour = BANK_DEBITS.get(str(data.get("type")))
        if behaviour is None:
            raise invalid("Invalid payment_method_data[type]", param="payment_method_data[type]")
        return behaviour

    def _attach(self, intent: PaymentIntent, method: PaymentMethod) -> None:
        kind = method.behaviour.type
        if kind not in intent.method_types:
            intent.method_types += (kind,)
        self.store.touch(intent, method=method, authenticated=False)

    def _attempt(self, intent: PaymentIntent, params: dict) -> None:
        """Confirm; a decline becomes the 402 that Stripe answers with."""
        off_session = params.get("off_session") not in (None, "false", "False")
        self.engine.attempt(intent, off_session, bool(params.get("error_on_requires_action")))
        if intent.status == "requires_payment_method":
            fields = dict(intent.last_error)
            fields.pop("doc_url")
            raise ApiError(402, fields.pop("type"), fields.pop("message"), saved=True,
                           payment_intent=intent.as_dict(), **fields)

    def _intent(self, call: Call, params: dict) -> PaymentIntent:
        """The PaymentIntent in the path; browsers must also know its secret."""
        intent = self.store.find(self.store.intents, call.caller.scope, call.id,
                                 "payment_intent", "intent")
        secret = params.get("client_secret")
        if call.caller.publishable and not secret:
            raise invalid("Missing required param: client_secret.", param="client_secret",
                          code="parameter_missing")
        if secret and secret != intent.client_secret:
            raise invalid("The client_secret does not belong to this PaymentIntent.",
                          param="client_secret")
        return intent

    def retrieve_intent(self, call: Call) -> bytes:
        """GET /v1/payment_intents/:id"""
        params = validate(call.params, INTENT_RETRIEVE)
        return self._object(self._intent(call, params), params.get("expand"))

    def list_intents(self, call: Call) -> bytes:
        """GET /v1/payment_intents"""
        params = validate(call.params, INTENT_LIST)
        customer = params.get("customer")
        rows, more = page(self.store.intents, call.caller.scope, params, "payment_intent",
                          lambda row: not customer or row.customer == customer)
        return self._list(rows, more, "/v1/payment_intents", params.get("expand"))

    def update_intent(self, call: Call) -> bytes:
        """POST /v1/payment_intents/:id"""
        params = validate(call.params, INTENT_UPDATE)
        intent = self._intent(call, params)
        substantial = [name for name in ("amount", "currency", "payment_method",
                                         "payment_method_data", "capture_method",
                                         "payment_method_types") if params.get(name)]
        if substantial and intent.status not in CONFIRMABLE:
            raise unexpected_state(intent, "updated", CONFIRMABLE)
        amount = params.get("amount") or intent.amount
        currency = check_money(amount, params.get("currency") or intent.currency)
        meta = merge_metadata(intent.metadata, params.get("metadata", {}))
        method = self._method(call, params, intent)
        self._describe(intent, params)
        if method:
            self._attach(intent, method)
        if substantial:
            status = "requires_confirmation" if intent.method else "requires_payment_method"
            self.store.touch(intent, status=status, next_action=None)
        self.store.touch(intent, amount=amount, currency=currency, metadata=meta,
                         last_error=None)
        return self._object(intent, params.get("expand"))

    def confirm_intent(self, call: Call) -> bytes:
        """POST /v1/payment_intents/:id/confirm"""
        params = validate(call.params, INTENT_CONFIRM)
        intent = self._intent(call, params)
        if intent.status not in CONFIRMABLE:
            raise unexpected_state(intent, "confirmed", CONFIRMABLE)
        if call.caller.publishable and intent.confirmation_method == "manual":
            raise invalid("This PaymentIntent can only be confirmed with a secret key.",
                          code="payment_intent_invalid_parameter")
        expected = params.get("amount_to_confirm")
        if expected and expected != intent.amount:
            raise invalid("amount_to_confirm differs from the PaymentIntent's amount.",
                          param="amount_to_confirm")
        method = self._method(call, params, intent)
        if method is None and intent.method is None:
            raise invalid("This PaymentIntent cannot be confirmed because it's missing a "
                          "payment method.", code="payment_intent_unexpected_state",
                          saved=True, payment_intent=intent.as_dict())
        self._describe(intent, params)
        self._check_return_url(call, intent)
        if method:
            self._attach(intent, method)
        self._attempt(intent, params)
        return self._object(intent, params.get("expand"))

    def capture_intent(self, call: Call) -> bytes:
        """POST /v1/payment_intents/:id/capture"""
        params = validate(call.params, INTENT_CAPTURE)
        intent = self._intent(call, params)
        if intent.status != "requires_capture":
            raise unexpected_state(intent, "captured", ("requires_capture",))
        amount = params.get("amount_to_capture") or intent.amount_capturable
        if amount > intent.amount_capturable:
            raise invalid("amount_to_capture is more than can be captured "
                          f"({intent.amount_capturable}).", param="amount_to_capture",
                          code="amount_too_large")
        if params.get("final_capture") is False:
            raise invalid("Capturing more than once is not available.", param="final_capture")
        intent.metadata = merge_metadata(intent.metadata, params.get("metadata", {}))
        self.engine.capture(intent, amount)
        return self._object(intent, params.get("expand"))

    def cancel_intent(self, call: Call) -> bytes:
        """POST /v1/payment_intents/:id/cancel"""
        params = validate(call.params, INTENT_CANCEL)
        intent = self._intent(call, params)
        if intent.status not in CANCELABLE:
            raise unexpected_state(intent, "canceled", CANCELABLE)
        self.engine.cancel(intent, params.get("cancellation_reason"))
        return self._object(intent, params.get("expand"))

    # -- charges, refunds, payment methods ----------------------------------

    def retrieve_charge(self, call: Call) -> bytes:
        """GET /v1/charges/:id"""
        params = validate(call.params, RETRIEVE)
        charge = self.store.find(self.store.charges, call.caller.scope, call.id, "charge", "id")
        return self._object(charge, params.get("expand"))

    def list_charges(self, call: Call) -> bytes:
        """GET /v1/charges"""
        params = validate(call.params, CHARGE_LIST)
        intent, customer = params.get("payment_intent"), params.get("customer")
        rows, more = page(self.store.charges, call.caller.scope, params, "charge",
                          lambda row: ((not intent or row.intent.id == intent)
                                       and (not customer or row.intent.customer == customer)))
        return self._list(rows, more, "/v1/charges", params.get("expand"))

    def create_refund(self, call: Call) -> bytes:
        """POST /v1/refunds"""
        params = validate(call.params, REFUND_CREATE)
        charge = self._refundable(call, params)
        left = charge.refundable()
        if left <= 0:
            raise invalid(f"Charge {charge.id} has already been refunded.",
                          code="charge_already_refunded", saved=True)
        amount = params.get("amount") or left
        if amount > left:
            raise invalid(f"Refund amount ({amount}) is greater than unrefunded amount on "
                          f"charge ({left}).", param="amount", saved=True)
        check_money(amount, charge.intent.currency)
        meta = merge_metadata({}, params.get("metadata", {}))
        refund = self.engine.refund(charge, amount, params.get("reason"), meta)
        return self._object(refund, params.get("expand"))

    def _refundable(self, call: Call, params: dict) -> Charge:
        """The charge a refund is for; it must have brought money."""
        scope, ident = call.caller.scope, params.get("charge")
        if bool(ident) == bool(params.get("payment_intent")):
            raise invalid("Exactly one of charge and payment_intent must be given.",
                          param="payment_intent", code="parameter_missing")
        if not ident:
            intent = self.store.find(self.store.intents, scope, params["payment_intent"],
                                     "payment_intent", "payment_intent")
            if intent.status != "succeeded":
                raise invalid("This PaymentIntent has no successful charge to refund.",
                              param="payment_intent", saved=True)
            ident = intent.latest_charge
        charge = self.store.find(self.store.charges, scope, ident, "charge", "charge")
        if charge.status != "succeeded" or not charge.captured:
            raise invalid(f"Charge {charge.id} was not paid; it cannot be refunded.",
                          param="charge", code="charge_not_refundable", saved=True)
        return charge

    def retrieve_refund(self, call: Call) -> bytes:
        """GET /v1/refunds/:id"""
        params = validate(call.params, RETRIEVE)
        refund = self.store.find(self.store.refunds, call.caller.scope, call.id, "refund", "id")
        return self._object(refund, params.get("expand"))

    def update_refund(self, call: Call) -> bytes:
        """POST /v1/refunds/:id, which changes only the metadata"""
        params = validate(call.params, REFUND_UPDATE)
        refund = self.store.find(self.store.refunds, call.caller.scope, call.id, "refund", "id")
        before = refund.metadata
        refund.metadata = merge_metadata(before, params.get("metadata", {}))
        if refund.metadata != before:
            old = {key: before.get(key) for key in {*before, *refund.metadata}
                   if before.get(key) != refund.metadata.get(key)}
            self.store.emit("refund.updated", refund, {"metadata": old})
            self.store.emit("charge.refund.updated", refund, {"metadata": old})
        return self._object(refund, params.get("expand"))

    def list_refunds(self, call: Call) -> bytes:
        """GET /v1/refunds"""
        params = validate(call.params, REFUND_LIST)
        charge, intent = params.get("charge"), params.get("payment_intent")
        rows, more = page(self.store.refunds, call.caller.scope, params, "refund",
                          lambda row: ((not charge or row.charge.id == charge)
                                       and (not intent or row.charge.intent.id == intent)))
        return self._list(rows, more, "/v1/refunds", params.get("expand"))

    def create_method(self, call: Call) -> bytes:
        """POST /v1/payment_methods: only so that a bank debit can be set up by id"""
        params = validate(call.params, METHOD_CREATE, ("type",))
        data = {"payment_method_data": {"type": params["type"], "card": params.get("card")}}
        return self._object(self._method(call, data), params.get("expand"))

    def retrieve_method(self, call: Call) -> bytes:
        """GET /v1/payment_methods/:id"""
        params = validate(call.params, RETRIEVE)
        method = self.store.methods.get(call.id)
        if method is None or method.scope != call.caller.scope:
            raise missing_resource("PaymentMethod", call.id, "payment_method")
        return self._object(method, params.get("expand"))

    # -- events -------------------------------------------------------------

    def list_events(self, call: Call) -> bytes:
        """GET /v1/events: what a receiver pages through to catch up"""
        params = validate(call.params, EVENT_LIST)
        one, several = params.get("type"), params.get("types")
        if one and several:
            raise invalid("You may only specify one of type and types.", param="types")
        if several and len(several) > 20:
            raise invalid("types takes at most 20 values.", param="types")
        wanted, delivered = TypeFilter([one] if one else several), params.get("delivery_success")
        rows, more = page(
            self.store.events, call.caller.scope, params, "event",
            lambda row: (wanted(row.type)
                         and (delivered is None or delivered == bool(row.deliveries))),
            floor=self.store.now() - EVENT_RETENTION)
        return b'{"object":"list","data":[%s],"has_more":%s,"url":"/v1/events"}' % (
            b",".join(row.render(0 if row.deliveries else 1) for row in rows),
            b"true" if more else b"false")

    def retrieve_event(self, call: Call) -> bytes:
        """GET /v1/events/:id, for 30 days"""
        validate(call.params, RETRIEVE)
        event = self.store.find(self.store.events, call.caller.scope, call.id, "event", "id")
        if event.created < self.store.now() - EVENT_RETENTION:
            raise missing_resource("event", call.id, "id")
        return event.render(0 if event.deliveries else 1)


def merge_metadata(old: dict, new: Optional[dict]) -> dict:
    """Stripe's rule: new keys are added, empty values delete, all-empty clears."""
    if new is None:
        return {}
    merged = {**old, **new}
    merged = {key: value for key, value in merged.items() if value != ""}
    if len(merged) > 50:
        raise invalid("Metadata can have at most 50 keys.", param="metadata")
    return merged


class TypeFilter:
    """Matches event types against names with * in them; None matches all."""

    def __init__(self, patterns: Optional[list]):
        patterns = patterns or ["*"]
        self.exact = frozenset(p for p in patterns if "*" not in p)
        self.globs = [p for p in patterns if "*" in p]
        self.all = "*" in patterns

    def __call__(self, type_: str) -> bool:
        return (self.all or type_ in self.exact
                or any(fnmatch.fnmatchcase(type_, glob) for glob in self.globs))


# ---------------------------------------------------------------------------
# Webhooks
# ---------------------------------------------------------------------------

def sign(secret: str, timestamp: int, body: bytes) -> str:
    """Stripe's v1 signature: HMAC-SHA256 over `t.body`, keyed by the whole secret."""
    return hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()


def signature_header(secrets: Iterable[str], timestamp: int, body: bytes,
                     v0: str = "") -> str:
    """The Stripe-Signature header, one v1 per secret."""
    items = [f"t={timestamp}", *(f"v1={sign(s, timestamp, body)}" for s in secrets)]
    if v0:
        items.append(f"v0={v0}")
    return ",".join(items)


@dataclass
class WebhookConfig:
    """How events reach the receiver; see `serve --help` for the meaning."""

    mode: str = "pull"
    url: Optional[str] = None
    secrets: list = field(default_factory=list)
    types: list = field(default_factory=lambda: ["*"])
    headers: dict = field(default_factory=dict)
    duplicate: int = 0
    shuffle: bool = False
    clock_skew: int = 0
    wrong_secret: bool = False
    also_v0: bool = False
    retry_delay_ms: int = 200

    def updated(self, changes: dict) -> "WebhookConfig":
        """A copy with the given members replaced, checked."""
        changes = dict(changes)
        if "secret" in changes:
            changes["secrets"] = [changes.pop("secret")]
        unknown = set(changes) - set(self.__dataclass_fields__)
        if unknown:
            raise ControlError(f"unknown member: {', '.join(sorted(unknown))}")
        new = WebhookConfig(**{**self.__dict__, **changes})
        for name, value in new.__dict__.items():
            default = getattr(DEFAULT_CONFIG, name)
            if default is not None and not isinstance(value, type(default)):
                raise ControlError(f"{name} must be of type {type(default).__name__}")
        if new.mode not in ("pull", "push", "hold"):
            raise ControlError("mode is one of pull, push, hold")
        if not new.secrets or not all(isinstance(s, str) and s.strip() for s in new.secrets):
            raise ControlError("at least one secret, none of them blank")
        if new.url is not None:
            check_loopback(new.url)
        elif new.mode == "push":
            raise ControlError("push needs a url")
        return new


DEFAULT_CONFIG = WebhookConfig()


def check_loopback(url: str) -> urllib.parse.SplitResult:
    """Refuse to send anything off this machine."""
    parts = urllib.parse.urlsplit(str(url))
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ControlError("the url must be http:// on 127.0.0.1, localhost or [::1]")
    return parts


class DeliveryQueue:
    """Events waiting for delivery, in order or drawn at random."""

    def __init__(self, rng: random.Random):
        self.random = rng
        self.items: list = []
        self.head = 0                   # items before it are gone; trimmed now and then

    def __len__(self) -> int:
        return len(self.items) - self.head

    def push(self, event: Event) -> None:
        """Add one delivery."""
        self.items.append(event)

    def pop(self, shuffle: bool) -> Event:
        """Take the oldest, or with `shuffle` any."""
        items, head = self.items, self.head
        if shuffle:
            pick = self.random.randrange(head, len(items))
            items[head], items[pick] = items[pick], items[head]
        event = items[head]
        items[head] = None
        self.head += 1
        if self.head > 1024 and self.head * 2 > len(items):
            del items[:self.head]
            self.head = 0
        return event


class Webhooks:
    """Signs events and hands them out: pulled by tests or pushed to a URL."""

    PUSH_WORKERS = 8
    PUSH_RETRIES = 3

    def __init__(self, store: Store, secret: str):
        self.store = store
        self.secret = secret
        self.push_tasks: set = set()
        self.waiters: deque = deque()
        self.wake_scheduled = False
        store.on_event = self.enqueue
        self.reset()

    def reset(self) -> None:
        """Back to pulling, with nothing waiting."""
        self.config = WebhookConfig(secrets=[self.secret])
        self.wanted = TypeFilter(None)
        self.queue = DeliveryQueue(self.store.random)
        self.deliveries = 0
        self.failed = 0
        for task in self.push_tasks:
            task.cancel()

    def configure(self, changes: dict) -> None:
        """Change the configuration; what already waits goes the new way."""
        self.config = self.config.updated(changes)
        self.wanted = TypeFilter(self.config.types)
        self.wake()

    def enqueue(self, event: Event, copies: Optional[int] = None) -> None:
        """An event happened (or is to be sent again)."""
        if copies is None:
            if not self.wanted(event.type):
                return
            copies = 1 + self.config.duplicate
        for _ in range(copies):
            self.queue.push(event)
        self.wake()

    def wake(self) -> None:
        """Serve waiting pulls or pushes, once the current request is done, so
        that the events of one request are delivered together."""
        if not self.wake_scheduled and (self.waiters or self.config.mode == "push"):
            self.wake_scheduled = True
            asyncio.get_running_loop().call_soon(self._woken)

    def _woken(self) -> None:
        self.wake_scheduled = False
        if self.config.mode == "push":
            wanted = min(len(self.queue), self.PUSH_WORKERS)
            while len(self.push_tasks) < wanted:
                task = asyncio.get_running_loop().create_task(self._push_worker())
                self.push_tasks.add(task)
                task.add_done_callback(self.push_tasks.discard)
        while self.waiters and self.config.mode == "pull" and len(self.queue):
            future, limit = self.waiters.popleft()
            if not future.done():
                future.set_result(self.take(limit))

    def sign(self, event: Event) -> tuple:
        """Prepare one delivery of an event: (header, body), signed now."""
        body = event.render(1)
        event.deliveries += 1
        self.deliveries += 1
        config = self.config
        secrets = config.secrets
        if config.wrong_secret:
            secrets = [secret + "_wrong" for secret in secrets]
        v0 = self.store.token(64) if config.also_v0 else ""
        # Signed by the real clock, not the stand-in's: the receiver compares
        # with its own, and clock_skew is there for making them differ.
        at = int(time.time()) + config.clock_skew
        return signature_header(secrets, at, body, v0), body

    def take(self, limit: int) -> list:
        """Up to `limit` deliveries, as the pull endpoint shows them."""
        out = []
        while len(self.queue) and len(out) < limit and self.config.mode == "pull":
            event = self.queue.pop(self.config.shuffle)
            header, body = self.sign(event)
            out.append({"delivery": self.deliveries, "event_id": event.id, "type": event.type,
                        "created": event.created, "header": header, "body": body.decode()})
        return out

    def pull(self, limit: int, wait: float) -> Union[list, Awaitable]:
        """Deliveries now, or a future for the first ones within `wait` seconds."""
        out = self.take(limit)
        if out or wait <= 0:
            return out
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        entry = (future, limit)
        self.waiters.append(entry)
        timer = loop.call_later(wait, lambda: future.done() or future.set_result([]))

        def forget(_: Any) -> None:
            """Also runs when the puller hung up: it must not swallow events."""
            timer.cancel()
            if entry in self.waiters:
                self.waiters.remove(entry)
        future.add_done_callback(forget)
        return future

    async def _push_worker(self) -> None:
        """Deliver what waits over one connection, then end."""
        client = PushClient()
        try:
            while len(self.queue) and self.config.mode == "push":
                event = self.queue.pop(self.config.shuffle)
                if not await self._push(client, event):
                    self.failed += 1
        finally:
            client.close()

    async def _push(self, client: "PushClient", event: Event) -> bool:
        """One event, retried; each attempt with a time and signature of its own."""
        for attempt in range(1 + self.PUSH_RETRIES):
            if attempt:
                await asyncio.sleep(self.config.retry_delay_ms / 1000 * attempt)
            if self.config.mode != "push":
                self.queue.push(event)          # no longer wanted here: back in line
                return True
            header, body = self.sign(event)
            if await client.post(self.config, header, body):
                return True
        return False


class PushClient:
    """A keep-alive HTTP connection to the webhook receiver."""

    TIMEOUT = 10.0

    def __init__(self) -> None:
        self.url: Optional[str] = None
        self.reader: Optional[asyncio.StreamReader] = None
        self.writer: Optional[asyncio.StreamWriter] = None

    def close(self) -> None:
        """Drop the connection; the next post() opens another."""
        if self.writer is not None:
            self.writer.close()
            self.reader = self.writer = None

    async def post(self, config: WebhookConfig, header: str, body: bytes) -> bool:
        """True if the receiver answered with any 2xx in time."""
        try:
            return await asyncio.wait_for(self._post(config, header, body), self.TIMEOUT)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError,
                asyncio.LimitOverrunError):
            self.close()
            return False

    async def _post(self, config: WebhookConfig, header: str, body: bytes) -> bool:
        parts = check_loopback(config.url)
        if self.writer is None or self.url != config.url or self.reader.at_eof():
            self.close()
            self.reader, self.writer = await asyncio.open_connection(
                parts.hostname, parts.port or 80)
            self.url = config.url
        target = parts.path or "/"
        if parts.query:
            target += "?" + parts.query
        headers = {"Host": parts.netloc, "Accept": "*/*; q=0.5, application/xml",
                   "User-Agent": "Stripe/1.0 (stand-in)",
                   "Content-Type": "application/json; charset=utf-8",
                   "Content-Length": len(body), "Stripe-Signature": header, **config.headers}
        head = f"POST {target} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items())
        self.writer.write(head.encode("latin-1") + b"\r\n" + body)
        return 200 <= await self._read_answer() < 300

    async def _read_answer(self) -> int:
        """Read one answer to its end, so that the connection can be used again."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        length = re.search(r"\r\ncontent-length: *(\d+)", head)
        if re.search(r"\r\ntransfer-encoding: *chunked", head):
            while True:
                size = int((await self.reader.readline()).split(b";")[0], 16)
                await self.reader.readexactly(size + 2)
                if size == 0:
                    break
        elif length:
            await self.reader.readexactly(int(length.group(1)))
        elif status not in (204, 304):
            self.close()                        # its body ends with the connection
        if "\r\nconnection: close" in head:
            self.close()
        return status


# ---------------------------------------------------------------------------
# The control surface
# ---------------------------------------------------------------------------

class Control:
    """Everything under /_sim/: what a test does that a customer or time would."""

    def __init__(self, api: Api, webhooks: Webhooks):
        self.api = api
        self.store = api.store
        self.webhooks = webhooks
        self.started = time.time()
        self.routes: dict = {
            "GET health": self.health,
            "POST reset": self.reset,
            "POST clock": self.clock,
            "GET ledger": self.ledger,
            "GET faults": self.show_faults,
            "POST faults": self.add_faults,
            "DELETE faults": self.clear_faults,
            "GET webhooks": self.pull,
            "GET webhooks/config": self.show_webhooks,
            "POST webhooks/config": self.configure_webhooks,
            "POST webhooks/release": self.release,
            "POST webhooks/resend": self.resend,
            "GET payment_intents/:id/authenticate": self.authenticate,
            "POST payment_intents/:id/authenticate": self.authenticate,
            "POST payment_intents/:id/settle": self.settle,
            "POST payment_intents/:id/expire": self.expire,
            "POST refunds/:id/settle": self.settle_refund,
        }

    def handle(self, request: Request) -> Union[Reply, Awaitable]:
        """Answer one control request, perhaps later (a waiting pull)."""
        if "origin" in request.headers:
            # Any web page could otherwise make the developer's browser send
            # this, and have push mode post to whatever listens on loopback.
            return self._refusal(403, "the control surface is not for web pages")
        try:
            query = dict(urllib.parse.parse_qsl(request.query))
            body = json.loads(request.body) if request.body.strip() else {}
            parts = request.path[6:].rstrip("/").split("/")
            ident = None
            if len(parts) == 3:
                ident, parts[1] = parts[1], ":id"
            handler = self.routes.get(f"{request.method} {'/'.join(parts)}")
            if handler is None:
                return self._refusal(404, "no such control; see `stripe_sim.py serve --help`")
            result = handler(*([ident] if ident is not None else []), body, query)
        except (ControlError, ValueError, TypeError, AttributeError, ApiError) as error:
            return self._refusal(400, str(error))
        if asyncio.isfuture(result):
            return result
        return Reply(200, to_json(result))

    @staticmethod
    def _refusal(status: int, message: str) -> Reply:
        return Reply(status, to_json({"error": {"message": message}}))

    # -- state --------------------------------------------------------------

    def health(self, _body: dict, _query: dict) -> dict:
        """Is it up, and with which settings."""
        return {"status": "ok", "pid": os.getpid(), "base_url": self.store.base_url,
                "uptime": round(time.time() - self.started, 3), "seed": self.store.seed,
                "api_version": self.store.api_version, "now": self.store.now(),
                "clock_offset": self.store.clock_offset}

    def reset(self, body: dict, _query: dict) -> dict:
        """Forget everything: objects, keys, faults, webhook settings, the clock."""
        seed = body.get("seed")
        if seed is not None and not isinstance(seed, int):
            raise ControlError("seed is a whole number")
        self.store.reset(seed)
        self.webhooks.reset()
        self.api.faults.rules.clear()
        gc.collect()
        return {"status": "reset", "seed": self.store.seed}

    def clock(self, body: dict, _query: dict) -> dict:
        """Move the stand-in's clock forward: keys age, new objects are younger."""
        seconds = body.get("advance")
        if not isinstance(seconds, int) or seconds < 0:
            raise ControlError("advance is a number of seconds, 0 or more")
        self.store.clock_offset += seconds
        return {"now": self.store.now(), "clock_offset": self.store.clock_offset}

    def ledger(self, _body: dict, query: dict) -> dict:
        """The books, whole or (summary=1) only what an exactly-once audit needs."""
        by_payment: dict = {}
        for intent in self.store.intents.rows:
            payment = intent.metadata.get(PAYMENT_ID_KEY)
            if payment is not None:
                by_payment.setdefault(payment, []).append(intent.id)
        out = {"counts": self._counts(by_payment), "payment_intents_by_payment": by_payment}
        if query.get("summary") in ("1", "true"):
            return out
        out["payment_intents"] = [self._intent_row(row) for row in self.store.intents.rows]
        out["requests"] = [row.as_dict() for row in self.store.requests]
        out["charges"] = [
            {"id": row.id, "payment_intent": row.intent.id, "status": row.status,
             "amount": row.amount, "currency": row.intent.currency, "captured": row.captured,
             "amount_captured": row.amount_captured, "amount_refunded": row.amount_refunded}
            for row in self.store.charges.rows]
        out["refunds"] = [
            {"id": row.id, "charge": row.charge.id, "payment_intent": row.charge.intent.id,
             "amount": row.amount, "status": row.status, "reason": row.reason}
            for row in self.store.refunds.rows]
        out["events"] = [
            {"id": row.id, "type": row.type, "created": row.created,
             "payment_intent": row.intent_id, "deliveries": row.deliveries}
            for row in self.store.events.rows]
        return out

    @staticmethod
    def _intent_row(intent: PaymentIntent) -> dict:
        return {"id": intent.id, "status": intent.status, "amount": intent.amount,
                "currency": intent.currency, "livemode": intent.scope.livemode,
                "account": intent.scope.account, "metadata": intent.metadata,
                "idempotency_key": intent.creation_key,
                "client_secret": intent.client_secret,
                "amount_received": intent.amount_received,
                "amount_capturable": intent.amount_capturable,
                "latest_charge": intent.latest_charge, "created": intent.created}

    def _counts(self, by_payment: dict) -> dict:
        """Totals; `duplicated_payments` above 0 is what must never happen."""
        store = self.store
        statuses: dict = {}
        received: dict = {}
        for intent in store.intents.rows:
            statuses[intent.status] = statuses.get(intent.status, 0) + 1
            if intent.amount_received:
                received[intent.currency] = (received.get(intent.currency, 0)
                                             + intent.amount_received)
        return {
            "requests": len(store.requests),
            "replayed": sum(row.replayed for row in store.requests),
            "faults": sum(row.fault is not None for row in store.requests),
            "payment_intents": len(store.intents), "by_status": statuses,
            "amount_received": received, "payments": len(by_payment),
            "duplicated_payments": sum(len(ids) > 1 for ids in by_payment.values()),
            "charges": len(store.charges),
            "succeeded_charges": sum(c.status == "succeeded" for c in store.charges.rows),
            "refunds": len(store.refunds), "events": len(store.events),
            "deliveries": self.webhooks.deliveries,
            "failed_pushes": self.webhooks.failed,
            "connections": store.connections,
            "pending_deliveries": len(self.webhooks.queue)}

    # -- faults -------------------------------------------------------------

    def show_faults(self, _body: dict, _query: dict) -> list:
        """The rules, with their remaining counts and hits."""
        return [rule.__dict__ for rule in self.api.faults.rules]

    def add_faults(self, body: Any, query: dict) -> list:
        """Install one rule or a list of them."""
        self.api.faults.add(body)
        return self.show_faults({}, query)

    def clear_faults(self, _body: dict, query: dict) -> list:
        """Back to good behaviour."""
        self.api.faults.rules.clear()
        return self.show_faults({}, query)

    # -- webhooks -----------------------------------------------------------

    def show_webhooks(self, _body: dict, _query: dict) -> dict:
        """The current configuration and how much waits."""
        return {**self.webhooks.config.__dict__, "pending": len(self.webhooks.queue)}

    def configure_webhooks(self, body: dict, query: dict) -> dict:
        """Change some members of the configuration."""
        self.webhooks.configure(body)
        return self.show_webhooks({}, query)

    def release(self, body: dict, query: dict) -> dict:
        """Let go of what was held; it can then be pulled (or is pushed)."""
        self.webhooks.configure({"mode": body.get("mode", "pull")})
        return self.show_webhooks({}, query)

    def resend(self, body: dict, _query: dict) -> dict:
        """Deliver one event again, or with {"all": true} every one."""
        if body.get("all") is True:
            events = list(self.store.events.rows)
        else:
            event = self.store.events.by_id.get(body.get("event_id"))
            if event is None:
                raise ControlError("no such event_id")
            events = [event]
        for event in events:
            self.webhooks.enqueue(event, copies=1)
        return {"queued": len(events)}

    def pull(self, _body: dict, query: dict) -> Union[list, Awaitable]:
        """Take waiting deliveries; wait_ms waits for the first."""
        limit = int(query.get("max", "100"))
        wait = int(query.get("wait_ms", "0")) / 1000
        if limit < 1 or not 0 <= wait <= 600:
            raise ControlError("max is at least 1, wait_ms at most 600000")
        return self.webhooks.pull(limit, wait)

    # -- what customers, banks and time do ----------------------------------

    def _intent(self, ident: str, *statuses: str) -> PaymentIntent:
        intent = self.store.intents.by_id.get(ident)
        if intent is None:
            raise ControlError(f"no such PaymentIntent: {ident}")
        if intent.status not in statuses:
            raise ControlError(f"its status is {intent.status}, not {' or '.join(statuses)}")
        return intent

    @staticmethod
    def _outcome(body: dict, query: dict) -> bool:
        """True for succeed, the default; False for fail."""
        outcome = body.get("outcome", query.get("outcome", "succeed"))
        if outcome not in ("succeed", "fail"):
            raise ControlError("outcome is succeed or fail")
        return outcome == "succeed"

    def authenticate(self, ident: str, body: dict, query: dict) -> dict:
        """The customer passes or fails the 3-D Secure challenge."""
        intent = self._intent(ident, "requires_action")
        self.api.engine.authenticate(intent, self._outcome(body, query))
        return self._intent_row(intent)

    def settle(self, ident: str, body: dict, query: dict) -> dict:
        """The bank honours or refuses a debit that is processing."""
        intent = self._intent(ident, "processing")
        self.api.engine.settle(intent, self._outcome(body, query))
        return self._intent_row(intent)

    def expire(self, ident: str, _body: dict, _query: dict) -> dict:
        """An authorisation lapses uncaptured, as after a week."""
        intent = self._intent(ident, "requires_capture")
        self.api.engine.cancel(intent, "automatic")
        return self._intent_row(intent)

    def settle_refund(self, ident: str, body: dict, query: dict) -> dict:
        """A pending refund arrives; any refund bounces with outcome fail."""
        refund = self.store.refunds.by_id.get(ident)
        if refund is None or refund.status == "failed":
            raise ControlError(f"no such refund that could still change: {ident}")
        self.api.engine.settle_refund(refund, self._outcome(body, query))
        return refund.as_dict()


# ---------------------------------------------------------------------------
# HTTP server
# ---------------------------------------------------------------------------

class Application:
    """Sends each request to the API or the control surface."""

    def __init__(self, api: Api, control: Control, log: bool):
        self.api = api
        self.control = control
        self.log = log
        self.connections: set = set()

    def handle(self, request: Request) -> Union[Reply, Awaitable]:
        """Never raises: a bug becomes a 500 and a trace on standard error."""
        try:
            if request.method == "OPTIONS":     # a browser asking before it confirms
                return Reply(200, b"{}", (
                    ("Access-Control-Allow-Methods", "GET, POST, DELETE"),
                    ("Access-Control-Allow-Headers",
                     "authorization, content-type, idempotency-key, stripe-version")))
            if request.path.startswith("/_sim/"):
                return self.control.handle(request)
            if request.path.startswith("/v1/"):
                return self.api.handle(request)
            return Reply(404, invalid(
                f"Unrecognized request URL ({request.method}: {request.path}).").body())
        except Exception:
            import traceback
            traceback.print_exc()
            return Reply(500, ApiError(500, "api_error", "A bug in the stand-in.").body())


class ProtocolError(Exception):
    """A request that cannot be parsed; carries the status to answer with."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


class HttpProtocol(asyncio.Protocol):
    """HTTP/1.1 for one connection: keep-alive, pipelining in order.

    While an answer is outstanding (a delay, a waiting pull) later requests
    stay in the buffer, so answers never overtake one another.
    """

    def __init__(self, app: Application):
        self.app = app
        self.buffer = b""
        self.transport: Any = None
        self.busy = False
        self.continued = False
        self.pending: Optional[asyncio.Future] = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.app.connections.add(self)
        self.app.api.store.connections += 1

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self.app.connections.discard(self)
        self.transport = None
        if self.pending:
            self.pending.cancel()               # a pull nobody waits for any more

    def eof_received(self) -> bool:
        return self.busy and self.pending is None   # half-closed: still send the answer

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        if not self.busy:
            self._pump()
        elif len(self.buffer) > MAX_BODY + MAX_HEADER:
            self.transport.pause_reading()

    def _pump(self) -> None:
        """Handle complete requests until one has to wait."""
        try:
            while (self.buffer and not self.busy and self.transport
                   and not self.transport.is_closing()):
                request = self._next_request()
                if request is None:
                    return
                self._handle(request)
        except ProtocolError as error:
            reply = Reply(error.status, invalid("Malformed HTTP request.").body())
            self.transport.write(reply.wire(keep_alive=False))
            self.transport.close()

    def _next_request(self) -> Optional[Request]:
        """Cut one complete request off the buffer."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > MAX_HEADER:
                raise ProtocolError(431)
            return None
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        start = lines[0].split(" ")
        if start[0] not in ("GET", "POST", "DELETE", "OPTIONS"):
            raise ProtocolError(405)
        if len(start) != 3 or not start[2].startswith("HTTP/1.") or start[1][:1] != "/":
            raise ProtocolError(400)
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise ProtocolError(400)
            headers[name.lower()] = value.strip()
        if "transfer-encoding" in headers:
            raise ProtocolError(411)            # no client of Stripe sends chunks
        length = headers.get("content-length", "0")
        if not length.isdigit():
            raise ProtocolError(400)
        if int(length) > MAX_BODY:
            raise ProtocolError(413)
        stop = end + 4 + int(length)
        if len(self.buffer) < stop:
            if headers.get("expect", "").lower() == "100-continue" and not self.continued:
                self.continued = True
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        body = self.buffer[end + 4:stop]
        self.buffer = self.buffer[stop:]
        self.continued = False
        path, _, query = start[1].partition("?")
        wish = headers.get("connection", "").lower()
        keep = wish != "close" if start[2] == "HTTP/1.1" else wish == "keep-alive"
        return Request(start[0], path, query, headers, body, keep)

    def _handle(self, request: Request) -> None:
        """Answer now, after a delay, or when a future is done."""
        result = self.app.handle(request)
        if isinstance(result, Reply):
            if result.delay > 0:
                self.busy = True
                asyncio.get_running_loop().call_later(
                    result.delay, self._resume, request, result)
            else:
                self._send(request, result)
            return
        self.busy = True
        self.pending = asyncio.ensure_future(result)
        self.pending.add_done_callback(functools.partial(self._pulled, request))

    def _pulled(self, request: Request, future: asyncio.Future) -> None:
        self.pending = None
        if not future.cancelled():
            self._resume(request, Reply(200, to_json(future.result())))

    def _resume(self, request: Request, reply: Reply) -> None:
        """A delayed answer is due; go on with what arrived meanwhile."""
        self.busy = False
        if self.transport is None or self.transport.is_closing():
            return
        self._send(request, reply)
        if self.transport and not self.transport.is_closing():
            self.transport.resume_reading()
            self._pump()

    def _send(self, request: Request, reply: Reply) -> None:
        """Send the answer, or end the connection the way the fault wants it."""
        if self.app.log:
            print(f"{request.method} {request.path} {reply.status} {reply.end}", flush=True)
        if reply.end == "keep":
            self.transport.write(reply.wire(request.keep_alive))
            if not request.keep_alive:
                self.transport.close()
        elif reply.end == "half":
            wire = reply.wire(request.keep_alive)
            self.transport.write(wire[:len(wire) - len(reply.body) // 2])
            self.transport.close()
        elif reply.end == "fin":
            self.transport.close()
        else:
            # With no time to linger the kernel answers with RST instead of FIN.
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


def write_port_file(path: str, port: int) -> None:
    """Appear complete or not at all: a reader may be polling for it."""
    directory = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=".port-")
    with os.fdopen(handle, "w") as out:
        out.write(f"{port}\n")
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


async def serve(args: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    # Unasked, every run is different: the same ids twice would look like
    # redeliveries to a database that outlived the stand-in.
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10 ** 9)
    store = Store(seed, args.api_version)
    webhooks = Webhooks(store, args.webhook_secret)
    api = Api(store, FaultBoard(store), args.latency_ms / 1000)
    app = Application(api, Control(api, webhooks), args.log)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: HttpProtocol(app), HOST, args.port, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    store.base_url = f"http://{HOST}:{port}"
    if args.port_file:
        write_port_file(args.port_file, port)
    print(f"stripe_sim: listening on {store.base_url} (seed {seed})", flush=True)
    # Objects here live until a reset, so the collector would only walk them
    # over and over; reset collects by hand.
    gc.freeze()
    gc.disable()
    await stop.wait()
    server.close()
    webhooks.reset()
    for connection in list(app.connections):
        connection.transport.abort()
    await asyncio.sleep(0)


# ---------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------

SERVE_HELP = """\
control surface (JSON in, JSON out; /_sim/ needs no key):
  GET  /_sim/health
  POST /_sim/reset                    forget everything; {"seed": N} repeats ids and chances
  GET  /_sim/ledger[?summary=1]       every object, request and event; or only totals
  POST /_sim/clock                    {"advance": 86400} ages idempotency keys, dates events
  POST /_sim/faults                   one rule or a list; GET shows them, DELETE clears them:
       {"route": "POST /v1/payment_intents", "kind": "drop_after", "count": 1,
        "skip": 0, "probability": 1.0, "delay_ms": 0, "headers": {}, "code": null,
        "save": null}
       route: exact; with * or :id a pattern; ending in / a prefix; without a method any;
              default * (all).  The first rule that matches and has hits left applies.
       count: how many requests suffer (-1: all); skip: how many are spared before.
       kind:  drop_before rst_before   closed by FIN / reset by RST, nothing processed
              drop_after  rst_after    processed, then closed / reset without an answer
              truncate                 processed, half of the answer's body, then closed
              delay                    processed, answered after delay_ms; the idempotency
                                       key counts as in flight meanwhile
              400 401 403 404 409 429 503   refused before the endpoint, not processed,
                                       not saved under the key
              500                      refused by the endpoint, not processed (save: true =
                                       saved under the key and replayed for ever)
              402                      the same, but saved unless told otherwise
              500_after                processed, then a saved 500
       delay_ms, headers (Retry-After, Stripe-Should-Retry) and code go with any kind.
  POST /_sim/webhooks/config          any of: mode (pull, push, hold), url (push; loopback),
       secret or secrets (one v1 each), types (["payment_intent.*"]), duplicate (extra
       copies), shuffle, clock_skew (seconds), wrong_secret, also_v0, headers (push),
       retry_delay_ms (push).  GET shows it.
  GET  /_sim/webhooks?max=N&wait_ms=M take deliveries, each {delivery, event_id, type,
                                      created, header, body}, signed as they are taken
  POST /_sim/webhooks/release         hold -> pull ({"mode": "push"} for push)
  POST /_sim/webhooks/resend          {"event_id": "evt_..."} or {"all": true}
  POST /_sim/payment_intents/ID/authenticate   {"outcome": "succeed" | "fail"}: 3-D Secure
  POST /_sim/payment_intents/ID/settle         the same, for a bank debit in processing
  POST /_sim/payment_intents/ID/expire         an uncaptured authorisation lapses
  POST /_sim/refunds/ID/settle                 the same outcomes, for a refund

payment methods: pm_card_visa pays; pm_card_visa_chargeDeclined and its siblings decline;
pm_card_authenticationRequired asks for 3-D Secure; pm_usBankAccount_success and
pm_sepaDebit go to processing; pm_card_pendingRefund and pm_card_refundFail do what they say.
Any key of the right shape is accepted: sk_test_x, rk_live_x (live mode), pk_test_x.
"""

EXAMPLES = """\
a first payment by hand:
  stripe_sim.py serve &
  curl -u sk_test_x: http://127.0.0.1:12111/v1/payment_intents -d amount=2000 -d currency=eur
  stripe_sim.py confirm pi_... --client-secret pi_..._secret_... --payment-method pm_card_visa
  curl http://127.0.0.1:12111/_sim/webhooks        # the signed events it caused
  curl http://127.0.0.1:12111/_sim/ledger          # everything that happened
"""


def http_json(base: str, method: str, path: str, body: bytes, headers: dict) -> tuple:
    """One request to the stand-in: (status, parsed answer)."""
    parts = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(parts.hostname or HOST, parts.port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def show(status: int, answer: dict) -> int:
    """Print an answer for a person; the exit status tells whether it was good."""
    print(json.dumps(answer, indent=2, ensure_ascii=False))
    return 0 if status == 200 else 1


def command_serve(args: argparse.Namespace) -> int:
    """stripe_sim.py serve"""
    if not args.webhook_secret.strip():
        print("stripe_sim: the webhook secret is blank", file=sys.stderr)
        return 2
    try:
        asyncio.run(serve(args))
    except OSError as error:
        print(f"stripe_sim: {error}", file=sys.stderr)
        return 1
    return 0


def command_sign(args: argparse.Namespace) -> int:
    """stripe_sim.py sign"""
    at = int(time.time()) if args.time is None else args.time
    print(signature_header(args.secret, at, sys.stdin.buffer.read()))
    return 0


def command_confirm(args: argparse.Namespace) -> int:
    """stripe_sim.py confirm: what Stripe.js does in the customer's browser"""
    form = {"client_secret": args.client_secret, "payment_method": args.payment_method}
    if args.return_url:
        form["return_url"] = args.return_url
    return show(*http_json(
        args.base, "POST", f"/v1/payment_intents/{args.payment_intent}/confirm",
        urllib.parse.urlencode(form).encode(),
        {"Authorization": f"Bearer {args.key}",
         "Content-Type": "application/x-www-form-urlencoded"}))


def command_authenticate(args: argparse.Namespace) -> int:
    """stripe_sim.py authenticate: the customer in front of the bank's page"""
    return show(*http_json(
        args.base, "POST", f"/_sim/payment_intents/{args.payment_intent}/authenticate",
        to_json({"outcome": args.outcome}), {"Content-Type": "application/json"}))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="stripe_sim.py", formatter_class=raw, epilog=EXAMPLES,
        description="A stand-in for Stripe's payment API, for tests and trying things out. "
                    "See `stripe_sim.py serve --help` for its control surface.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sub = commands.add_parser("serve", help="run the stand-in", formatter_class=raw,
                              epilog=SERVE_HELP)
    sub.add_argument("--port", type=int, default=DEFAULT_PORT,
                     help="port on 127.0.0.1; 0 takes a free one (default %(default)s)")
    sub.add_argument("--port-file", help="file to write the port to, once it listens")
    sub.add_argument("--webhook-secret", default=DEFAULT_SECRET,
                     help="secret that signs webhooks (default %(default)s)")
    sub.add_argument("--seed", type=int,
                     help="start of ids, faults and shuffling (default: another each time)")
    sub.add_argument("--latency-ms", type=float, default=0,
                     help="delay of every API answer (default none)")
    sub.add_argument("--api-version", default=DEFAULT_API_VERSION,
                     help="api_version shown in events (default %(default)s)")
    sub.add_argument("--log", action="store_true", help="print one line per request")
    sub.set_defaults(run=command_serve)

    sub = commands.add_parser(
        "sign", help="print a Stripe-Signature header for the body on standard input",
        description="Reads a webhook body from standard input, byte for byte, and prints "
                    "the Stripe-Signature header that belongs to it.")
    sub.add_argument("--secret", action="append", required=True,
                     help="whsec_... (several: one signature each)")
    sub.add_argument("--time", type=int, help="Unix seconds to sign with (default now)")
    sub.set_defaults(run=command_sign)

    base = f"http://{HOST}:{DEFAULT_PORT}"
    sub = commands.add_parser("confirm", help="pay a PaymentIntent, as the browser would")
    sub.add_argument("payment_intent", metavar="PI", help="pi_...")
    sub.add_argument("--base", default=base, help="the stand-in (default %(default)s)")
    sub.add_argument("--client-secret", required=True, help="pi_..._secret_...")
    sub.add_argument("--payment-method", default="pm_card_visa",
                     help="test payment method (default %(default)s)")
    sub.add_argument("--return-url", help="where a redirecting method comes back to")
    sub.add_argument("--key", default="pk_test_stand_in",
                     help="publishable key (default %(default)s)")
    sub.set_defaults(run=command_confirm)

    sub = commands.add_parser("authenticate", help="pass or fail a 3-D Secure challenge")
    sub.add_argument("payment_intent", metavar="PI", help="pi_...")
    sub.add_argument("--base", default=base, help="the stand-in (default %(default)s)")
    sub.add_argument("--outcome", choices=("succeed", "fail"), default="succeed",
                     help="default %(default)s")
    sub.set_defaults(run=command_authenticate)
    return parser


def main(argv: Optional[list] = None) -> int:
    """Entry point; returns the exit status."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except (ConnectionError, TimeoutError) as error:
        print(f"stripe_sim: {getattr(args, 'base', '')}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
