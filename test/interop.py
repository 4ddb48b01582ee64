#!/usr/bin/env python3
"""Signs and checks webhooks with Stripe's own library, for test/t/007_interop.pl.

Reads one JSON array of jobs from standard input and writes one array of
results.  A job is either {"sign": secret, "time": seconds, "body": hex}, whose
result is a Stripe-Signature header, or {"check": secret, "header": header,
"body": hex}, whose result is "" or the name of the exception raised.

The library keeps its signing function to itself, because only Stripe signs;
that is just what makes it an independent witness.
"""

import json
import sys

import stripe


def sign(job):
    payload = bytes.fromhex(job["body"]).decode("utf-8")
    signature = stripe.WebhookSignature._compute_signature(
        "%d.%s" % (job["time"], payload), job["sign"])
    return "t=%d,v1=%s" % (job["time"], signature)


def check(job):
    try:
        event = stripe.Webhook.construct_event(
            bytes.fromhex(job["body"]), job["header"], job["check"])
        return "" if event["object"] == "event" else "not an event"
    except Exception as error:      # whatever it is, its name is the verdict
        return type(error).__name__


if __name__ == "__main__":
    json.dump([sign(job) if "sign" in job else check(job)
               for job in json.load(sys.stdin)], sys.stdout)
