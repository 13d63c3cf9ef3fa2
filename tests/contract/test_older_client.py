"""An older client and the present ledger: what it sent once gets the answers that it got then.

The requests are those of `cassettes/older`. An answer may have gained fields, as every client has to expect.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.helpers.cassettes import BASE_URL, OLDER, Scrubber
from tests.helpers.served_ledger import ServedLedger, TestClock

TAPES = sorted(tape for tape in OLDER.glob("*.yaml") if not tape.stem.startswith("release_"))
"""Without those of releases, which no older client sends."""


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def served(clock: TestClock) -> Iterator[ServedLedger]:
    with ServedLedger(clock=clock) as served:
        yield served


class OlderClient:
    """Sends recorded requests, with the lease tokens of today in place of the recorded ones."""

    def __init__(self, served: ServedLedger) -> None:
        self._base_url = served.base_url
        self._headers = {"Authorization": f"Bearer {served.create_key()}", "Content-Type": "application/json"}
        self._tokens: dict[str, str] = {}
        self._scrubber = Scrubber()

    def send(self, request: Any) -> tuple[httpx.Response, Any]:
        """The answer, and its body with the stand-ins that recorded bodies have."""
        body = json.loads(request["body"])
        if "leaseToken" in body:
            body["leaseToken"] = self._tokens.get(body["leaseToken"], body["leaseToken"])
        url = self._base_url + request["uri"].removeprefix(BASE_URL)
        answer = httpx.request(request["method"], url, headers=self._headers, json=body, timeout=60)
        told = answer.json()
        scrubbed = self._scrubber.body(answer.json())
        if told.get("leaseToken"):
            self._tokens[scrubbed["leaseToken"]] = told["leaseToken"]
        return answer, scrubbed


def granted_at(request: Any, answer: Any) -> int | None:
    """When a lease was granted, in ms since 1970; None for every other exchange."""
    if answer.get("status") != "granted":
        return None
    expires_at = datetime.fromisoformat(answer["leaseExpiresAt"].replace("Z", "+00:00"))
    return round(expires_at.timestamp() * 1000) - int(json.loads(request["body"]).get("leaseDurationMs", 30_000))


@pytest.mark.parametrize("tape", TAPES, ids=lambda tape: tape.stem)
def test_it_gets_the_answers_that_it_got_then(tape: Path, served: ServedLedger, clock: TestClock) -> None:
    client = OlderClient(served)
    for exchange in yaml.safe_load(tape.read_text(encoding="utf-8"))["interactions"]:
        request, recorded = exchange["request"], exchange["response"]
        then = json.loads(recorded["body"]["string"])
        clock.now_ms = granted_at(request, then) or clock.now_ms
        answer, now = client.send(request)
        assert answer.status_code == recorded["status"]["code"]
        assert answer.headers.get("Retry-After") == recorded["headers"].get("retry-after", [None])[0]
        assert includes(now, then)


def includes(now: Any, then: Any) -> bool:
    """Whether an answer still has all that it had. It may have more, and say it in other words."""
    if isinstance(now, dict) and isinstance(then, dict):
        return all(name in now and (name == "message" or includes(now[name], then[name])) for name in then)
    return bool(now == then)
