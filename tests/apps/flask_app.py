"""A Flask app in one file; every refund goes through the one client of the module.

Run as users run it: `gunicorn tests.apps.flask_app:app`.
"""

from __future__ import annotations

import os
import urllib.request
import uuid

from flask import Flask, Response, jsonify

from verity import ConflictRetryConfig, SyncVerityClient

app = Flask(__name__)
# The defaults wait for half a second and more; a test's other holder is done in milliseconds.
verity = SyncVerityClient(
    namespace="payments",
    conflict_retry=ConflictRetryConfig(max_attempts=1000, initial_delay_s=0.01, max_delay_s=0.05),
)
# Used before a server forks its workers: what it opened must not travel into them.
verity.protect(f"deployed:{uuid.uuid4()}", act=lambda: "deployed")


@app.post("/refunds/<order>")
def refund(order: str) -> Response:
    tell_provider("arrived", order)

    def act() -> dict[str, str]:
        return {"refund": tell_provider("refunded", order)}

    return jsonify(verity.protect(f"refund:{order}", act=act))


def tell_provider(what: str, order: str) -> str:
    """The payment provider, seen from the app."""
    url = f"{os.environ['PROVIDER_URL']}/{what}/{order}"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=60) as answer:
        return str(answer.read().decode())
