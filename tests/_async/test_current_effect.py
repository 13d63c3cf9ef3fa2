"""`current_effect()`: what act and observe know about the effect that they run for."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import verity
from tests.helpers._async.faulty_transport import LOSE_REQUEST
from tests.helpers._async.world import AsyncWorld
from verity import CurrentEffect, EffectPolicy
from verity._attempt_key import make_attempt_key


def current() -> CurrentEffect:
    """Fails where there is none."""
    effect = verity.current_effect()
    assert effect is not None
    return effect


async def seen_in_act(world: AsyncWorld, **options: Any) -> CurrentEffect:
    seen: list[CurrentEffect] = []

    async def act() -> dict[str, str]:
        seen.append(current())
        return await world.act()

    await world.client.protect(world.key, act=act, **options)
    return seen[0]


def without(*names: str) -> Callable[[httpx.Response], httpx.Response]:
    """The answers of a ledger that does not know these fields yet."""

    def rewrite(response: httpx.Response) -> httpx.Response:
        body = {name: value for name, value in json.loads(response.content).items() if name not in names}
        return httpx.Response(response.status_code, json=body)

    return rewrite


async def test_act_knows_its_effect(world: AsyncWorld) -> None:
    effect = await seen_in_act(world, key_suffix="eur")
    assert (effect.namespace, effect.key) == ("payments", f"{world.key}:eur")
    assert (effect.fence_token, effect.attempt) == (1, 1)
    found = await world.client.effects.get(effect.key)
    assert effect.effect_id == found.effect_id
    assert effect.idempotency_key == make_attempt_key("test", "payments", effect.key)
    assert repr(effect) == f"<CurrentEffect '{world.key}:eur' in 'payments', attempt 1, fence 1>"


async def test_there_is_none_outside(world: AsyncWorld) -> None:
    seen: list[Any] = [verity.current_effect()]
    await world.client.protect(world.key, act=world.act, on_lease=lambda _: seen.append(verity.current_effect()))
    seen.append(verity.current_effect())
    assert seen == [None] * 3


async def test_a_sync_act_knows_it_too(world: AsyncWorld) -> None:
    """It may run in a worker thread."""
    assert await world.client.protect(world.key, act=lambda: current().key) == world.key


async def test_observe_knows_it(world: AsyncWorld) -> None:
    async def observe() -> str:
        return current().key

    always = EffectPolicy(observe_when="always")
    result: Any = await world.client.protect(world.key, act=world.act, observe=observe, policy=always)
    assert result == world.key


async def test_it_is_one_value_for_the_whole_call(world: AsyncWorld) -> None:
    seen: list[CurrentEffect] = []

    async def observe() -> None:
        seen.append(current())

    async def act() -> None:
        seen.extend([current(), current()])

    await world.client.protect(world.key, act=act, observe=observe, policy=EffectPolicy(observe_when="always"))
    assert len(seen) == 3
    assert len(set(map(id, seen))) == 1


async def test_of_nested_effects_it_is_the_innermost(world: AsyncWorld) -> None:
    seen: list[str] = []

    async def inner() -> None:
        seen.append(current().key)

    def on_lease(_: Any) -> None:
        seen.append(current().key)

    async def outer() -> None:
        seen.append(current().key)
        await world.client.protect(f"{world.key}:inner", act=inner, on_lease=on_lease)
        seen.append(current().key)

    await world.client.protect(world.key, act=outer)
    assert seen == [world.key, world.key, f"{world.key}:inner", world.key], "on_lease has no lease of its own yet"


async def test_each_attempt_has_a_number_and_the_same_idempotency_key(world: AsyncWorld) -> None:
    first = await world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5000})
    world.clock.advance(5000)
    effect = await seen_in_act(world, policy=EffectPolicy(on_unknown="act"))
    assert (effect.fence_token, effect.attempt) == (2, 2)
    assert effect.idempotency_key == first.attempt_key


async def test_a_reset_with_mode_retry_changes_the_idempotency_key(world: AsyncWorld) -> None:
    async def decline() -> None:
        seen.append(current().idempotency_key)
        raise LookupError

    seen: list[str] = []
    with pytest.raises(LookupError):
        await world.client.protect(world.key, act=decline)
    await world.client.effects.reset(world.key, mode="retry")
    seen.append((await seen_in_act(world)).idempotency_key)
    assert seen[0] != seen[1]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", each) for each in seen)


async def test_without_an_attempt_key_of_the_ledger_the_client_makes_the_same(world: AsyncWorld) -> None:
    world.network.rewrite = without("attemptKey", "attempt")
    effect = await seen_in_act(world)
    world.network.rewrite = None
    world.clock.advance(30_000)
    again = await world.client.request_lease("payments", {"effectKey": f"{world.key}-other"})
    assert effect.idempotency_key == make_attempt_key("test", "payments", world.key)
    assert again.attempt_key == make_attempt_key("test", "payments", f"{world.key}-other")
    assert (effect.attempt, effect.fence_token) == (1, 1)


async def test_the_deadline_is_the_leases_and_moves_with_each_renewal(world: AsyncWorld) -> None:
    left: list[float] = []

    async def act() -> None:
        effect = current()
        before = time.monotonic()
        left.append(effect.remaining_s())
        assert before + left[0] <= effect.deadline <= time.monotonic() + left[0]
        await world.runtime.advance(19)
        left.append(effect.remaining_s())
        await world.runtime.advance(1)  # it is renewed at 19.5 s
        left.append(effect.remaining_s())

    await world.client.protect(world.key, act=act)
    assert left == pytest.approx([30, 11, 29.5])


async def test_the_deadline_counts_from_the_request_for_a_renewal(world: AsyncWorld) -> None:
    world.network.faults["renew"] = [lambda: world.clock.advance(8_000)]
    left: list[float] = []

    async def act() -> None:
        await world.runtime.advance(19.5)
        left.append(current().remaining_s())

    await world.client.protect(world.key, act=act)
    assert left == [pytest.approx(22)]


# --- the lease is lost ---


async def test_a_lease_that_another_holder_has_is_lost(world: AsyncWorld) -> None:
    lost: list[bool] = []

    async def act() -> None:
        effect = current()
        lost.append(effect.lease_lost.is_set())
        await world.reset(force=True)
        await world.client.request_lease("payments", {"effectKey": world.key})
        lost.append(effect.lease_lost.is_set())
        await world.runtime.advance(20)  # the renewal learns of it
        lost.append(effect.lease_lost.is_set())
        raise verity.NotExecuted

    with pytest.raises(verity.NotExecuted):
        await world.client.protect(world.key, act=act)
    assert lost == [False, False, True]


async def test_a_lease_that_an_admin_decided_meanwhile_is_lost(world: AsyncWorld) -> None:
    lost: list[bool] = []

    async def act() -> None:
        world.clock.advance(30_000)
        await world.client.effects.resolve(world.key, "by hand")
        await world.runtime.advance(0)
        lost.append(current().lease_lost.is_set())

    with pytest.raises(verity.CommitUncertainError):
        await world.client.protect(world.key, act=act)
    assert lost == [True]


@pytest.mark.parametrize("auto_renew", [True, False])
async def test_a_lease_that_expires_without_a_renewal_is_lost_for_good(world: AsyncWorld, auto_renew: bool) -> None:
    world.network.faults["renew"] = [LOSE_REQUEST] * 12
    lost: list[Any] = []

    async def act() -> None:
        lease_lost = current().lease_lost
        await world.runtime.advance(29.9)
        lost.append((lease_lost.is_set(), repr(lease_lost)))
        await world.runtime.advance(0.2)
        lost.append((lease_lost.is_set(), repr(lease_lost)))
        world.network.faults["renew"].clear()
        await world.runtime.advance(5)
        lost.append(lease_lost.is_set())

    await world.new_client(auto_renew=auto_renew).protect(world.key, act=act)
    assert lost == [(False, "<LeaseLost not set>"), (True, "<LeaseLost set>"), True]


async def test_a_lease_that_was_seen_as_lost_stays_lost(world: AsyncWorld) -> None:
    """Act was told once: a late renewal that succeeds does not take that back."""
    lost: list[bool] = []

    async def act() -> None:
        lease_lost = current().lease_lost
        world.clock.advance(40_000)  # as if the process had been frozen
        lost.append(lease_lost.is_set())
        await world.runtime.advance(0)
        lost.append(lease_lost.is_set())
        assert current().remaining_s() == pytest.approx(30)

    await world.client.protect(world.key, act=act)
    assert lost == [True, True]


async def test_an_act_begins_with_a_lease_that_is_not_lost(world: AsyncWorld) -> None:
    """It had expired while observe ran, and a renewal proved since that nobody else was granted."""
    world.network.faults["renew"] = [LOSE_REQUEST] * 12
    lost: list[bool] = []

    async def observe() -> None:
        await world.runtime.advance(31)
        lost.append(current().lease_lost.is_set())
        await world.runtime.advance(29)

    async def act() -> None:
        lost.append(current().lease_lost.is_set())

    always = EffectPolicy(observe_when="always")
    await world.client.protect(world.key, act=act, observe=observe, policy=always)
    assert lost == [True, False]


async def test_a_thread_can_wait_for_the_loss(world: AsyncWorld) -> None:
    waited: list[bool] = []

    def act() -> None:
        lease_lost = current().lease_lost
        waited.append(lease_lost.wait(0))
        waited.append(lease_lost.wait(0.01))
        world.clock.advance(30_000)
        waited.append(lease_lost.wait())

    await world.new_client(auto_renew=False).protect(world.key, act=act)
    assert waited == [False, False, True]


async def test_after_the_call_nothing_is_lost(world: AsyncWorld) -> None:
    effect = await seen_in_act(world)
    world.clock.advance(100_000)
    assert not effect.lease_lost.is_set()
    assert effect.lease_lost.wait() is False
    assert effect.remaining_s() < 0


# --- without a lease ---


async def test_an_act_that_runs_unprotected_knows_its_effect_too(world: AsyncWorld) -> None:
    """The recipe with the idempotency key must not fail then."""
    world.network.faults["lease"] = [LOSE_REQUEST] * 3
    effect = await seen_in_act(world, policy=EffectPolicy(on_unavailable="proceed"))
    assert (effect.key, effect.effect_id, effect.fence_token, effect.attempt) == (world.key, None, 0, 0)
    assert effect.idempotency_key == make_attempt_key("test", "payments", world.key)
    assert effect.remaining_s() == effect.deadline == math.inf
    assert effect.lease_lost.wait(0) is False
