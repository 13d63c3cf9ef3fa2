"""The low-level calls: typed bodies and plain mappings, answers by item and by attribute."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import pytest

from tests.helpers._async.faulty_transport import LOSE_ANSWER, Says
from tests.helpers._async.world import AsyncWorld
from tests.helpers.concurrency import async_until
from tests.helpers.served_ledger import ServedLedger
from verity import (
    CommitRequestBody,
    FailRequestBody,
    LeaseConflictError,
    LeaseRequestBody,
    LeaseResponse,
    ReleaseRequestBody,
    RenewRequestBody,
    ReportObserveBody,
    VerityApiError,
    VerityClient,
    VerityConfigError,
    VerityValidationError,
)


async def test_the_whole_life_with_typed_bodies(world: AsyncWorld) -> None:
    client = world.client
    lease = await client.request_lease("payments", LeaseRequestBody(effect_key=world.key, effect_name="stripe.refund"))
    assert lease["fenceToken"] == lease.fence_token == 1
    assert lease["leaseToken"] == lease.lease_token
    assert lease.prior_state == "none"
    assert lease.status == "granted"
    assert lease.effect_key == world.key
    assert lease.request_id
    tokens: dict[str, Any] = {
        "effect_key": world.key,
        "fence_token": lease["fenceToken"],
        "lease_token": lease["leaseToken"],
    }
    reported = await client.report_observe("payments", ReportObserveBody(**tokens, hit=False, duration_ms=12))
    assert reported.status == "reported"
    renewed = await client.renew("payments", RenewRequestBody(**tokens, extension_ms=60_000))
    assert renewed.status == "renewed"
    assert renewed.lease_expires_at
    assert lease.lease_expires_at
    assert renewed.lease_expires_at > lease.lease_expires_at
    body = CommitRequestBody(**tokens, result={"refund_id": "re_1"}, source="acted")
    assert (await client.commit("payments", body)).status == "accepted"
    again = await client.commit("payments", body)
    assert again.status == again["status"] == "already_committed"
    assert again.message
    cached = await client.request_lease("payments", LeaseRequestBody(effect_key=world.key))
    assert cached.status == "cached_completed"
    assert cached.cached_result == cached["cachedResult"] == {"refund_id": "re_1"}
    assert cached.lease_token is None


async def test_the_whole_life_with_mappings(world: AsyncWorld) -> None:
    lease = await world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5000})
    tokens = {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
    await world.client.renew("payments", tokens)
    failed = await world.client.fail("payments", {**tokens, "error": {"message": "declined"}, "source": "acted"})
    assert failed.status == "recorded"
    assert failed.effect_id == lease.effect_id
    again = await world.client.request_lease("payments", {"effectKey": world.key})
    assert (again.status, again.cached_error) == ("cached_failed", {"message": "declined"})


async def test_a_lease_is_given_back(world: AsyncWorld) -> None:
    first = await world.client.request_lease("payments", {"effectKey": world.key})
    assert (first.attempt, len(first.attempt_key or "")) == (1, 43)
    not_acted = ReleaseRequestBody(world.key, first["fenceToken"], first["leaseToken"], acted="no")
    assert first["leaseToken"] not in repr(not_acted)
    world.network.faults["release"] = [LOSE_ANSWER]
    released = await world.client.release("payments", not_acted)
    assert (released.status, released.fence_token, released.settles_at) == ("already_released", 1, None)
    assert world.network.operations().count("release") == 2

    second = await world.client.request_lease("payments", {"effectKey": world.key})
    assert (second.prior_state, second.attempt, second.attempt_key) == ("none", 2, first.attempt_key)
    tokens = {name: second[name] for name in ("effectKey", "fenceToken", "leaseToken")}
    doubtful = await world.client.release("payments", {**tokens, "acted": "unknown", "settleMs": 600_000})
    assert (doubtful.status, doubtful.settles_at) == ("released", doubtful["settlesAt"])
    with pytest.raises(LeaseConflictError) as caught:
        await world.client.request_lease("payments", {"effectKey": world.key})
    assert caught.value.lease_expires_at == doubtful.settles_at
    with pytest.raises(VerityApiError, match="stale_fence"):
        await world.client.renew("payments", tokens)
    with pytest.raises(VerityApiError, match="stale_fence"):
        await world.client.release("payments", not_acted)


async def test_a_result_may_be_null_and_must_be_there(world: AsyncWorld) -> None:
    lease = await world.client.request_lease("payments", {"effectKey": world.key})
    tokens = {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
    with pytest.raises(VerityValidationError, match="result is missing"):
        await world.client.commit("payments", tokens)
    await world.client.commit(
        "payments",
        CommitRequestBody(
            effect_key=world.key, fence_token=lease["fenceToken"], lease_token=lease["leaseToken"], result=None
        ),
    )
    assert world.network.sent[-1].body["result"] is None
    cached = await world.client.request_lease("payments", {"effectKey": world.key})
    assert "cachedResult" in cached
    assert cached["cachedResult"] is None


async def test_the_client_fills_in_its_agent(world: AsyncWorld) -> None:
    client = world.new_client(agent_id="worker-1")
    await client.request_lease("payments", {"effectKey": world.key})
    await client.request_lease("payments", LeaseRequestBody(effect_key=f"{world.key}-2", agent_id="other"))
    assert [sent.body["agentId"] for sent in world.network.sent] == ["worker-1", "other"]


GOOD = {"effectKey": "k", "fenceToken": 1, "leaseToken": "t"}


@pytest.mark.parametrize(
    ("call", "body", "message"),
    [
        ("request_lease", {}, "effectKey is missing"),
        ("request_lease", {"effect_key": "k"}, "write 'effectKey', not 'effect_key'"),
        ("request_lease", {"effectKey": ""}, "effect_key must not be empty"),
        ("request_lease", {"effectKey": "k", "leaseDurationMs": 1}, "lease_duration_ms must be"),
        ("request_lease", {"effectKey": "k", "agentId": 7}, "agent_id must be a string"),
        ("request_lease", {"effectKey": "k", "inputJson": {1: 2}}, "input_json has a key of type int"),
        ("request_lease", "k", "must be a LeaseRequestBody or a mapping"),
        ("commit", {**GOOD, "fenceToken": "1", "result": 1}, "fence_token must be"),
        ("commit", {**GOOD, "fenceToken": 0, "result": 1}, "fence_token must be"),
        ("commit", {**GOOD, "fenceToken": True, "result": 1}, "fence_token must be"),
        ("commit", {**GOOD, "leaseToken": None, "result": 1}, "lease_token must be"),
        ("commit", {**GOOD, "leaseToken": "a\0", "result": 1}, "lease_token must be"),
        ("request_lease", {"effectKey": "a\0"}, "effect_key contains a NUL"),
        ("request_lease", {"effectKey": "a", "caseId": "\0"}, "case_id contains a NUL"),
        ("commit", {**GOOD, "result": float("inf")}, "result is inf"),
        ("commit", {**GOOD, "result": 1, "source": "guessed"}, "source must be"),
        ("commit", RenewRequestBody("k", 1, "t"), "must be a CommitRequestBody"),
        ("fail", GOOD, "error is missing"),
        ("fail", {**GOOD, "error": "x" * 65_536}, "error has 65,538 bytes"),
        ("renew", {"effectKey": "k", "fenceToken": 1}, "leaseToken is missing"),
        ("renew", {**GOOD, "extensionMs": 200_000}, "extension_ms must be"),
        ("release", GOOD, "acted is missing"),
        ("release", {**GOOD, "acted": "yes"}, 'acted must be "no" or "unknown"'),
        ("release", {**GOOD, "acted": True}, 'acted must be "no" or "unknown"'),
        ("release", {**GOOD, "acted": "no", "settleMs": -1}, "settle_ms must be"),
        ("release", {**GOOD, "acted": "no", "settleMs": 600_001}, "settle_ms must be"),
        ("report_observe", {**GOOD, "hit": 1}, "hit must be True or False"),
        ("report_observe", {**GOOD, "hit": True, "durationMs": -1}, "duration_ms must be"),
    ],
)
async def test_a_wrong_body_is_refused_before_it_is_sent(world: AsyncWorld, call: str, body: Any, message: str) -> None:
    with pytest.raises(VerityValidationError) as caught:
        await getattr(world.client, call)("payments", body)
    assert message in str(caught.value)
    assert caught.value.parameter
    assert not world.network.sent


async def test_a_wrong_namespace_is_refused_before_it_is_sent(world: AsyncWorld) -> None:
    with pytest.raises(VerityConfigError, match="namespace"):
        await world.client.request_lease("..", {"effectKey": "k"})
    assert not world.network.sent


async def test_a_conflict_is_told_at_once(world: AsyncWorld) -> None:
    await world.client.request_lease("payments", {"effectKey": world.key})
    with pytest.raises(LeaseConflictError) as caught:
        await world.client.request_lease("payments", {"effectKey": world.key})
    assert caught.value.code == "lease_conflict"
    assert caught.value.retry_after_s == 1.0
    assert not world.runtime.slept


async def test_a_base_url_without_its_v1_is_told(world: AsyncWorld) -> None:
    stray = world.new_client(base_url=world.ledger.base_url.removesuffix("/v1"))
    with pytest.raises(VerityApiError, match="Check base_url") as caught:
        await stray.request_lease("payments", {"effectKey": world.key})
    assert caught.value.code == "not_found"


async def test_errors_of_the_ledger_say_what_to_do(world: AsyncWorld) -> None:
    with pytest.raises(VerityApiError, match="Check the namespace, the effect key") as caught:
        await world.client.renew("payments", {**GOOD, "effectKey": world.key})
    assert (caught.value.status_code, caught.value.code) == (404, "effect_not_found")
    assert caught.value.effect_key == world.key
    lease = await world.client.request_lease("payments", {"effectKey": world.key})
    with pytest.raises(VerityApiError, match="stale_fence"):
        await world.client.commit("payments", {**GOOD, "effectKey": world.key, "result": 1})
    assert lease.status == "granted"
    stranger = world.new_client(api_key="vt_test_unknown")
    with pytest.raises(VerityApiError, match="Check the API key") as caught:
        await stranger.request_lease("payments", {"effectKey": world.key})
    assert caught.value.status_code == 401
    assert "vt_test_unknown" not in str(caught.value)


async def test_a_lost_answer_is_asked_for_again(world: AsyncWorld) -> None:
    world.network.faults["lease"] = [LOSE_ANSWER]
    lease = await world.client.request_lease("payments", {"effectKey": world.key})
    assert (lease.status, lease.fence_token) == ("granted", 1)


# --- values ---


async def test_an_answer_is_a_read_only_mapping(world: AsyncWorld) -> None:
    lease = await world.client.request_lease("payments", {"effectKey": world.key})
    assert set(lease) == {
        "status", "effectId", "namespace", "effectKey", "fenceToken", "leaseToken", "leaseExpiresAt", "priorState",
        "attemptKey", "attempt",
    }  # fmt: skip
    assert len(lease) == 10
    assert "cachedResult" not in lease
    assert lease.get("cachedResult", "none") == "none"
    assert lease.cached_result is None
    assert lease == dict(lease)
    with pytest.raises(KeyError):
        lease["nothing"]
    with pytest.raises(AttributeError, match="read-only"):
        lease.status = "x"  # type: ignore[misc]  # that is the point
    for twin in (copy.copy(lease), copy.deepcopy(lease), pickle.loads(pickle.dumps(lease))):
        assert type(twin) is LeaseResponse
        assert twin == lease
        assert twin.request_id == lease.request_id


async def test_no_repr_shows_a_token_or_a_payload(world: AsyncWorld) -> None:
    lease = await world.client.request_lease("payments", LeaseRequestBody(effect_key=world.key, input_json="secret-1"))
    token = str(lease["leaseToken"])
    bodies: list[Any] = [
        LeaseRequestBody(effect_key=world.key, input_json="secret-1"),
        CommitRequestBody(effect_key=world.key, fence_token=1, lease_token=token, result="secret-2"),
        FailRequestBody(effect_key=world.key, fence_token=1, lease_token=token, error="secret-3"),
        RenewRequestBody(effect_key=world.key, fence_token=1, lease_token=token),
        ReportObserveBody(effect_key=world.key, fence_token=1, lease_token=token, hit=True),
    ]
    await world.client.commit("payments", bodies[1])
    cached = await world.client.request_lease("payments", {"effectKey": world.key})
    shown = repr([lease, cached, world.client, *bodies])
    assert world.key in shown
    assert token not in shown
    assert "secret" not in shown
    assert world.api_key not in shown


# --- a ledger that is newer than the client, or is none ---


async def test_new_fields_and_words_are_taken_as_they_come(world: AsyncWorld) -> None:
    world.network.faults["lease"] = [
        Says(
            201, b'{"status": "granted", "fenceToken": 9, "leaseToken": "t", "priorState": "haunted", "new": {"a": 1}}'
        )
    ]
    lease = await world.client.request_lease("payments", {"effectKey": world.key})
    assert lease["new"] == {"a": 1}
    assert lease.prior_state == "haunted"
    world.network.faults["commit"] = [Says(202, b'{"status": "replicated", "region": "eu"}')]
    done = await world.client.commit("payments", {**GOOD, "effectKey": world.key, "result": 1})
    assert (done.status, done["region"], done.effect_id) == ("replicated", "eu", None)


async def test_protect_acts_on_a_grant_from_a_newer_ledger(world: AsyncWorld) -> None:
    grant = b'{"status": "granted", "fenceToken": 9, "leaseToken": "t", "priorState": "haunted", "new": 1}'
    world.network.faults["lease"] = [Says(200, grant)]
    world.network.faults["commit"] = [Says(200, b'{"status": "replicated"}')]
    observed: list[str] = []
    observe = partial(observed.append, "a word that the client does not know")
    assert await world.client.protect(world.key, observe=observe, act=world.act) == {"refund": "re_1"}
    assert observed, "it may mean anything"


@pytest.mark.parametrize(
    "answer",
    [
        b'{"status": "queued"}',
        b'{"status": ["granted"]}',
        b'{"status": "granted"}',
        b'{"status": "granted", "fenceToken": "1", "leaseToken": "t"}',
        b'{"status": "granted", "fenceToken": true, "leaseToken": "t"}',
        b'{"status": "granted", "fenceToken": 1, "leaseToken": null}',
        b'{"status": "cached_completed"}',
        b"<html>",
        b"",
        b"[" * 100_000,
    ],
    ids=lambda answer: answer[:40].decode(),
)
async def test_a_lease_answer_that_cannot_be_understood_does_nothing(world: AsyncWorld, answer: bytes) -> None:
    world.network.faults["lease"] = [Says(200, answer)]
    with pytest.raises(VerityApiError, match="cannot be understood") as caught:
        await world.client.protect(world.key, act=world.act)
    assert caught.value.code == "invalid_response"
    assert not world.acts


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b'{"error": {"code": "teapot", "message": "short and stout", "details": [1]}}', "teapot", "short and stout"),
        (b'{"error": "short and stout"}', None, "short and stout"),
        (b'{"message": "short and stout", "code": "teapot"}', "teapot", "short and stout"),
        (b'{"detail": "short and stout"}', None, "short and stout"),
        (b'{"error": {"message": 7}}', None, "HTTP 418"),
        (b'{"error": ["a"]}', None, "HTTP 418"),
        (b'{"error": {"message": "vt_live_abc123 is bad\\n\\u0000really"}}', None, "vt_live_\u2026 is bad really"),
        ("{\"error\": \"sch\u00f6n\"}".encode("latin-1"), None, "HTTP 418"),
        (b"<html>teapot</html>", None, "HTTP 418"),
        (b"", None, "HTTP 418"),
    ],
)  # fmt: skip
async def test_an_error_body_of_any_shape_is_survived(
    world: AsyncWorld, body: bytes, code: str | None, said: str
) -> None:
    world.network.faults["renew"] = [Says(418, body, {"content-type": "application/json; charset=nonsense"})]
    with pytest.raises(VerityApiError) as caught:
        await world.client.renew("payments", {**GOOD, "effectKey": world.key})
    assert (caught.value.status_code, caught.value.code) == (418, code)
    assert said in str(caught.value)
    assert said in caught.value.message


async def test_a_client_that_is_closed_in_an_act_commits_and_leaves_no_connection_open() -> None:
    with ServedLedger() as served:
        client = VerityClient(served.base_url, served.create_key(), "payments")

        async def act() -> int:
            await client.close()
            return 7

        assert await client.protect("closed", act=act) == 7
        await async_until(lambda: not served.connections)
