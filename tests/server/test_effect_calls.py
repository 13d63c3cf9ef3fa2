"""The effect's life over HTTP. What each step means is the transition table's own test; here it is the way there."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest

from tests.conftest import both_stores
from tests.helpers.served_ledger import TestClock

pytestmark = both_stores


def test_lease_commit_and_the_cached_result(agent: httpx.Client, grant: dict[str, Any]) -> None:
    result = {"refund_id": "re_1", "amount": 1.10, "text": "é\U0001f600", "none": None}
    committed = agent.post("/effects/payments/commit", json={**grant, "result": result, "source": "acted"})
    assert (committed.status_code, committed.json()["status"]) == (200, "accepted")
    again = agent.post("/effects/payments/commit", json={**grant, "result": result})
    assert again.json()["status"] == "already_committed"
    cached = agent.post("/effects/payments/lease", json={"effectKey": grant["effectKey"]}).json()
    assert (cached["status"], cached["leaseToken"], cached["cachedResult"]) == ("cached_completed", None, result)


def test_a_result_comes_back_as_the_text_that_was_sent(agent: httpx.Client, grant: dict[str, Any]) -> None:
    text = b'{"price":1.10,"big":12345678901234567890123,"e":1e400,"esc":"\\u00e9\\/"}'
    head = f'{{"effectKey":"{grant["effectKey"]}","fenceToken":1,"leaseToken":"{grant["leaseToken"]}","result":'
    sent = agent.post("/effects/payments/commit", content=head.encode() + text + b"}")
    assert sent.status_code == 200
    cached = agent.post("/effects/payments/lease", json={"effectKey": grant["effectKey"]})
    assert text in cached.content
    events = agent.get("/effects/payments/events", params={"effectKey": grant["effectKey"]}).json()["items"]
    assert events[-1]["detail"]["resultSha256"] == hashlib.sha256(text).hexdigest()


def test_fail_reset_and_the_next_grant(agent: httpx.Client, admin: httpx.Client, grant: dict[str, Any]) -> None:
    failed = agent.post("/effects/payments/fail", json={**grant, "error": {"message": "declined"}})
    assert failed.json()["status"] == "recorded"
    lease = {"effectKey": grant["effectKey"]}
    assert agent.post("/effects/payments/lease", json=lease).json()["cachedError"] == {"message": "declined"}
    assert admin.post("/effects/payments/reset", json={**lease, "mode": "retry"}).json()["status"] == "reset"
    granted = agent.post("/effects/payments/lease", json=lease).json()
    assert (granted["status"], granted["priorState"], granted["fenceToken"]) == ("granted", "reset", 2)
    stale = agent.post("/effects/payments/commit", json={**grant, "result": 1})
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "stale_fence")


def test_conflict_expiry_renewal_and_resolve(
    agent: httpx.Client, admin: httpx.Client, grant: dict[str, Any], clock: TestClock
) -> None:
    lease = {"effectKey": grant["effectKey"]}
    conflict = agent.post("/effects/payments/lease", json=lease)
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "lease_conflict")
    assert int(conflict.headers["retry-after"]) >= 1
    assert agent.post("/effects/payments/renew", json={**grant, "extensionMs": 60_000}).json()["status"] == "renewed"
    assert agent.post("/effects/payments/report-observe", json={**grant, "hit": False}).status_code == 200
    clock.advance(60_000)
    effect = agent.get("/effects/payments/effect", params={"effectKey": grant["effectKey"]}).json()
    assert effect["status"] == "EXPIRED"
    resolved = admin.post("/effects/payments/resolve", json={**lease, "result": "found"}).json()
    assert resolved["status"] == "resolved"
    assert agent.get(f"/effect-ids/{effect['effectId']}").json()["result"] == "found"


def test_a_repeated_lease_request_gets_its_grant_again(agent: httpx.Client, effect_key: str) -> None:
    headers = {"Idempotency-Key": "one logical request", "Prefer": "wait=5"}
    headers["Idempotency-Key"] = headers["Idempotency-Key"].replace(" ", "-")
    first, second = (
        agent.post("/effects/payments/lease", json={"effectKey": effect_key}, headers=headers).json() for _ in range(2)
    )
    assert first == second
    assert first["status"] == "granted"


@pytest.mark.parametrize("content_type", [None, "application/json", "Application/JSON; charset=UTF-8"])
def test_content_types(content_type: str | None, agent: httpx.Client, effect_key: str) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = f'{{"effectKey":"{effect_key}"}}'.encode()
    assert agent.post("/effects/payments/lease", content=body, headers=headers).status_code == 200
