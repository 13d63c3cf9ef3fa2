"""An answer to another request is no answer: a proxy may send one twice, and so give each later request the one before.

What became of the request is unknown then, so it is sent again. An older ledger says less in its answers: what is not
there is not compared.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers._async.faulty_transport import Says
from tests.helpers._async.world import AsyncWorld
from verity import ConflictRetryConfig, VerityApiError, VerityConnectionError

TOKENS = {"effectKey": "mine", "fenceToken": 1, "leaseToken": "t"}


def _says(http_status: int = 200, /, **fields: Any) -> Says:
    return Says(http_status, json.dumps(fields).encode())


def _refuses(status: int, code: str, **details: Any) -> Says:
    return _says(status, error={"code": code, "message": "No.", "details": details})


def _of_another(key: str, operation: str) -> list[Says]:
    """Answers to calls that were not this one."""
    if operation == "lease":
        granted = {"status": "granted", "fenceToken": 7, "leaseToken": "theirs", "priorState": "none"}
        cached = {"status": "cached_completed", "cachedResult": "theirs", "fenceToken": 7, "leaseToken": None}
        return [
            _says(**granted, effectKey="another"),
            _says(**cached, effectKey="another"),
            _says(**cached, effectKey=key, namespace="another"),
            _says(**cached, effectKey=None),
            _says(status="cached_failed", effectKey=key.upper()),
            _refuses(409, "lease_conflict", effectKey="another"),
            _refuses(410, "effect_purged", effectKey=key, namespace="another"),
        ]
    word = {"commit": "accepted", "fail": "recorded"}[operation]
    return [
        _says(status=word, effectKey="another"),
        _says(status=word, effectKey=key, fenceToken=2),
        _says(status=word, namespace="another"),
        _says(status="granted", effectKey=key, fenceToken=1, leaseToken="t"),
        _says(status="renewed", effectKey=key, fenceToken=1),
        _refuses(404, "effect_not_found", effectKey="another"),
        _refuses(409, "stale_fence", effectKey=key, fenceToken=2),
        _refuses(409, "effect_finished", effectKey="another"),
    ]


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("operation", ["lease", "commit"])
async def test_an_effect_gets_its_own_result(world: AsyncWorld, operation: str, number: int) -> None:
    others = _of_another(world.key, operation)
    world.network.faults[operation] = [others[number % len(others)]]
    assert await world.client.protect(world.key, act=world.act, on_conflict="throw") == {"refund": "re_1"}
    assert world.acts == [world.key]
    assert world.network.operations().count(operation) == 2
    assert (await world.effect())["status"] == "COMMITTED"


async def test_a_failure_is_recorded_as_its_own(world: AsyncWorld) -> None:
    async def act() -> None:
        raise ValueError

    for number, other in enumerate(_of_another(world.key, "fail")):
        key = f"{world.key} {number}"
        world.network.faults["fail"] = [other]
        with pytest.raises(ValueError):  # noqa: PT011 - the act's own
            await world.client.protect(key, act=act)
        lease = await world.client.request_lease("payments", {"effectKey": key})
        assert lease.status == "cached_failed"


@pytest.mark.parametrize("code", ["stale_fence", "effect_finished"])
async def test_another_effects_refusal_does_not_end_the_renewals(world: AsyncWorld, code: str) -> None:
    async def act() -> int:
        await world.runtime.advance(20)
        await world.runtime.advance(20)
        return len([each for each in world.network.operations() if each == "renew"])

    world.network.faults["renew"] = [_refuses(409, code, effectKey="another", namespace="payments")]
    renewals = await world.client.protect(world.key, act=act)
    assert renewals > 1
    assert "LEASE_RENEWED" in await world.events()


async def test_a_held_request_ends_with_its_own_answer(world: AsyncWorld) -> None:
    client = world.new_client(conflict_retry=ConflictRetryConfig(wait=True, initial_delay_s=5.0))
    await world.client.protect(world.key, act=world.act)
    world.network.faults["lease"] = [
        _refuses(409, "lease_conflict", effectKey=world.key, namespace="payments"),
        _says(status="cached_completed", cachedResult="theirs", effectKey="another"),
        _refuses(409, "lease_conflict", effectKey="another"),
    ]
    world.network.sent.clear()
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert ["prefer" in each.headers for each in world.network.sent] == [False, True, True, True]
    assert world.acts == [world.key]


@pytest.mark.parametrize("call", ["commit", "fail", "renew", "report_observe"])
async def test_each_call_of_a_holder_is_told_that_nobody_knows(world: AsyncWorld, call: str) -> None:
    operation = call.replace("_", "-")
    more: dict[str, dict[str, Any]] = {
        "commit": {"result": 1}, "fail": {"error": 1}, "renew": {}, "report_observe": {"hit": True},
    }  # fmt: skip
    body = {**TOKENS, **more[call]}
    world.network.faults[operation] = [_says(status="fine", effectKey="another")] * 3
    with pytest.raises(VerityConnectionError, match="answer to another request") as caught:
        await getattr(world.client, call)("payments", body)
    assert caught.value.effect_key == "mine"
    assert "another'" not in str(caught.value)


async def test_a_read_is_of_what_was_asked(world: AsyncWorld) -> None:
    await world.client.protect(world.key, act=world.act)
    record = await world.client.effects.get(world.key)
    other = {**record, "effectKey": "another", "effectId": "eff_00000000000000ff"}
    world.network.faults["effect"] = [_says(**other), _refuses(404, "effect_not_found", effectKey="another")]
    assert await world.client.effects.get(world.key) == record
    effect_id = record["effectId"]
    world.network.faults[effect_id] = [_says(**other)]
    assert await world.client.effects.get_by_id(effect_id) == record
    world.network.faults["events"] = [_says(items=[], effectKey="another")]
    assert [each.type async for each in world.client.effects.events(world.key)] == await world.events()


async def test_an_administrators_call_is_answered_for_its_own_effect(world: AsyncWorld) -> None:
    await world.crash_after_act()
    world.network.faults["reset"] = [_says(status="reset", effectId="e", effectKey="another", fenceToken=1)]
    assert (await world.client.effects.reset(world.key)).status == "reset"
    world.network.faults["resolve"] = [_says(status="reset", effectId="e", effectKey=world.key, fenceToken=1)]
    with pytest.raises(VerityApiError, match="not_failed"):
        await world.client.effects.resolve(world.key, 1)


@pytest.mark.parametrize("code", ["stale_fence", "effect_not_found", "effect_finished"])
async def test_the_ledger_says_what_a_refusal_is_about(world: AsyncWorld, code: str) -> None:
    lease = await world.client.request_lease("payments", {"effectKey": world.key})
    tokens = {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
    if code == "effect_finished":
        await world.client.fail("payments", {**tokens, "error": 1})
    elif code == "stale_fence":
        tokens["fenceToken"] = 9
    else:
        tokens["effectKey"] = f"no {world.key}"
    with pytest.raises(VerityApiError) as caught:
        await world.client.commit("payments", {**tokens, "result": 1})
    assert caught.value.code == code
    about = {name: tokens[name] for name in ("effectKey", "fenceToken")}
    assert caught.value.details == {"namespace": "payments", **about}


async def test_an_older_ledger_says_less(world: AsyncWorld) -> None:
    world.network.faults["commit"] = [_says(status="accepted", effectId="e", message="m")]
    assert await world.client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.network.operations() == ["lease", "commit"]
    world.network.faults["renew"] = [_says(409, error={"code": "stale_fence", "message": "No."})]
    with pytest.raises(VerityApiError, match="stale_fence"):
        await world.client.renew("payments", TOKENS)
