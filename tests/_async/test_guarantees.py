"""The sentences of docs/guarantees.md that a client and a ledger make true together.

Details have tests of their own beside what they are about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers._async.faulty_transport import LOSE_ANSWER, LOSE_REQUEST
from tests.helpers._async.world import AsyncWorld
from verity import (
    CommitUncertainError,
    EffectPolicy,
    LeaseConflictError,
    NotExecuted,
    ObserveFailedError,
    OutcomeUnknown,
    OutcomeUnknownError,
    VerityConnectionError,
    current_effect,
)

RESULT = {"refund": "re_1"}
AFTERWARDS_MS = 60_000
"""No lease lasts as long, and whatever timed out has settled."""
Way = Callable[[AsyncWorld], Any]


# How an effect gets into doubt after it has happened. All of them act once.


async def holder_died(world: AsyncWorld) -> None:
    await world.crash_after_act()


def _act_ends_with(error: BaseException) -> Way:
    async def way(world: AsyncWorld) -> None:
        async def act() -> None:
            await world.act()
            raise error

        with pytest.raises(type(error)):
            await world.client.protect(world.key, act=act)

    return way


async def commit_was_lost(world: AsyncWorld) -> None:
    world.network.faults["commit"] = [LOSE_REQUEST] * 1_000
    with pytest.raises(CommitUncertainError):
        await world.client.protect(world.key, act=world.act)
    world.network.faults["commit"] = []


async def release_was_lost(world: AsyncWorld) -> None:
    world.network.faults["release"] = [LOSE_REQUEST] * 10
    await _act_ends_with(TimeoutError())(world)
    world.network.faults["release"] = []


DOUBTS = {
    "its holder died": holder_died,
    "act timed out": _act_ends_with(TimeoutError()),
    "a connection of act broke": _act_ends_with(ConnectionResetError()),
    "act says that it does not know": _act_ends_with(OutcomeUnknown("no answer")),
    "act was interrupted": _act_ends_with(KeyboardInterrupt()),
    "its commit was lost": commit_was_lost,
    "its release was lost": release_was_lost,
}
in_each_doubt = pytest.mark.parametrize("get_into_doubt", DOUBTS.values(), ids=DOUBTS)


@in_each_doubt
async def test_in_doubt_nobody_acts_without_observe(world: AsyncWorld, get_into_doubt: Way) -> None:
    await get_into_doubt(world)
    world.clock.advance(AFTERWARDS_MS)
    for _ in range(3):
        with pytest.raises(OutcomeUnknownError, match="observe"):
            await world.client.protect(world.key, act=world.act)
    assert world.acts == [world.key]


@in_each_doubt
async def test_what_nobody_may_act_on_is_left_to_a_person(world: AsyncWorld, get_into_doubt: Way) -> None:
    await get_into_doubt(world)
    world.clock.advance(AFTERWARDS_MS)
    with pytest.raises(OutcomeUnknownError):
        await world.client.protect(world.key, act=world.act)
    effects = world.client.effects
    listed = [effect.effect_key async for effect in effects.list(status="EXPIRED", search=world.key)]
    assert world.key in listed
    seen = await effects.get(world.key)
    await effects.resolve(world.key, RESULT, expected_fence=seen.fence_token)
    assert await world.client.protect(world.key, act=world.act) == RESULT
    assert world.acts == [world.key]


@in_each_doubt
async def test_in_doubt_observe_decides(world: AsyncWorld, get_into_doubt: Way) -> None:
    await get_into_doubt(world)
    world.clock.advance(AFTERWARDS_MS)
    assert await world.client.protect(world.key, observe=world.find, act=world.act) == RESULT
    assert world.acts == [world.key]


@in_each_doubt
async def test_an_unknown_outcome_is_never_recorded_as_a_failure(world: AsyncWorld, get_into_doubt: Way) -> None:
    await get_into_doubt(world)
    assert "FAILED" not in await world.events()


async def test_in_doubt_it_acts_once_if_observe_finds_nothing(world: AsyncWorld) -> None:
    await world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5_000})
    world.clock.advance(5_000)
    assert await world.client.protect(world.key, observe=world.find, act=world.act) == RESULT
    assert world.acts == [world.key]


async def test_in_doubt_an_observe_that_raises_ends_the_call(world: AsyncWorld) -> None:
    async def observe() -> None:
        raise ConnectionError("provider down")

    await world.crash_after_act()
    with pytest.raises(ObserveFailedError):
        await world.client.protect(world.key, observe=observe, act=world.act)
    assert world.acts == [world.key]


@pytest.mark.parametrize("error", [TimeoutError(), OutcomeUnknown("no answer")], ids=["time-out", "OutcomeUnknown"])
async def test_nobody_is_granted_before_what_timed_out_has_settled(world: AsyncWorld, error: Exception) -> None:
    await _act_ends_with(error)(world)
    world.clock.advance(29_000)
    with pytest.raises(LeaseConflictError):
        await world.client.protect(world.key, observe=world.find, act=world.act, on_conflict="throw")
    world.clock.advance(1_000)
    assert await world.client.protect(world.key, observe=world.find, act=world.act) == RESULT
    assert world.acts == [world.key]


async def test_act_begins_with_a_third_of_its_lease_left(world: AsyncWorld) -> None:
    left: list[float] = []

    async def observe() -> None:
        world.clock.advance(29_000)

    async def act() -> dict[str, str]:
        effect = current_effect()
        assert effect is not None
        left.append(effect.remaining_s())
        return await world.act()

    await world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5_000})
    world.clock.advance(5_000)
    await world.client.protect(world.key, observe=observe, act=act)
    assert left[0] >= 0.35 * 30


# Who certainly did not act leaves no doubt behind: the next call acts at once, and need not observe.


async def act_was_refused(world: AsyncWorld) -> None:
    async def act() -> None:
        raise NotExecuted("the card has no number")

    with pytest.raises(NotExecuted):
        await world.client.protect(world.key, act=act)


async def act_could_not_connect(world: AsyncWorld) -> None:
    async def act() -> None:
        raise ConnectionRefusedError

    policy = EffectPolicy(definite=(ConnectionRefusedError,))
    with pytest.raises(ConnectionRefusedError):
        await world.client.protect(world.key, act=act, policy=policy)
    await world.client.effects.reset(world.key, mode="retry")


async def on_lease_raised(world: AsyncWorld) -> None:
    def on_lease(_lease: Any) -> None:
        raise LookupError("not now")

    with pytest.raises(LookupError):
        await world.client.protect(world.key, act=world.act, on_lease=on_lease)


async def a_person_reset_it(world: AsyncWorld) -> None:
    await world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5_000})
    world.clock.advance(5_000)
    await world.client.effects.reset(world.key, mode="retry")


NO_DOUBTS = {
    "act says that nothing happened": act_was_refused,
    "act failed for certain, and was reset": act_could_not_connect,
    "on_lease raised": on_lease_raised,
    "a person says that nobody acted": a_person_reset_it,
}


@pytest.mark.parametrize("way", NO_DOUBTS.values(), ids=NO_DOUBTS)
@pytest.mark.parametrize("has_observe", [False, True], ids=["without observe", "with observe"])
async def test_without_doubt_act_runs_at_once(world: AsyncWorld, way: Way, has_observe: bool) -> None:
    async def observe() -> None:
        raise ConnectionError("the search is down")

    await way(world)
    result = await world.client.protect(
        world.key, observe=observe if has_observe else None, act=world.act, on_conflict="throw"
    )
    assert result == RESULT
    assert world.acts == [world.key]


async def test_a_new_effect_is_not_observed(world: AsyncWorld) -> None:
    async def observe() -> None:
        raise ConnectionError("the search is down")

    assert await world.client.protect(world.key, observe=observe, act=world.act) == RESULT


# The ledger is away.


@pytest.mark.parametrize("fault", [LOSE_REQUEST, LOSE_ANSWER])
async def test_a_commit_is_tried_for_as_long_as_the_ledger_is_away(world: AsyncWorld, fault: str) -> None:
    world.network.faults["commit"] = [fault] * 8
    assert await world.client.protect(world.key, act=world.act) == RESULT
    assert (await world.effect())["status"] == "COMMITTED"
    assert world.acts == [world.key]


async def test_without_a_ledger_nobody_acts(world: AsyncWorld) -> None:
    world.network.faults["lease"] = [LOSE_REQUEST] * 3
    with pytest.raises(VerityConnectionError) as caught:
        await world.client.protect(world.key, act=world.act)
    assert world.acts == []
    (note,) = caught.value.__notes__  # type: ignore[attr-defined]  # typed from 3.11 on
    assert "did not run" in note


# What the modes give up.


async def test_on_unknown_act_acts_again_in_doubt(world: AsyncWorld) -> None:
    await world.crash_after_act()
    await world.client.protect(world.key, act=world.act, policy=EffectPolicy(on_unknown="act"))
    assert world.acts == [world.key] * 2


async def test_observe_when_always_finds_what_the_ledger_does_not_know(world: AsyncWorld) -> None:
    await world.act()
    policy = EffectPolicy(observe_when="always")
    assert await world.client.protect(world.key, observe=world.find, act=world.act, policy=policy) == RESULT
    assert world.acts == [world.key]


async def test_on_observe_error_act_acts_again_in_doubt(world: AsyncWorld) -> None:
    async def observe() -> None:
        raise ConnectionError("provider down")

    await world.crash_after_act()
    policy = EffectPolicy(on_observe_error="act")
    await world.client.protect(world.key, observe=observe, act=world.act, policy=policy)
    assert world.acts == [world.key] * 2


async def test_definite_is_believed(world: AsyncWorld) -> None:
    class MyTimeout(TimeoutError):
        pass

    async def act() -> None:
        await world.act()
        raise MyTimeout

    with pytest.raises(MyTimeout):
        await world.client.protect(world.key, act=act, policy=EffectPolicy(definite=(MyTimeout,)))
    assert (await world.effect())["status"] == "FAILED"


async def test_ambiguous_is_believed(world: AsyncWorld) -> None:
    class MyError(ValueError):
        pass

    async def act() -> None:
        await world.act()
        raise MyError

    with pytest.raises(MyError):
        await world.client.protect(world.key, act=act, policy=EffectPolicy(ambiguous=(MyError,)))
    assert (await world.effect())["status"] == "EXPIRED"


async def test_a_short_settle_time_lets_the_next_holder_look_too_early(world: AsyncWorld) -> None:
    async def act() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await world.client.protect(world.key, act=act, policy=EffectPolicy(settle_s=1))
    world.clock.advance(1_000)
    await world.client.protect(world.key, observe=world.find, act=world.act)
    await world.act()  # what timed out lands now
    assert world.acts == [world.key] * 2


async def test_the_idempotency_key_is_the_same_for_every_attempt(world: AsyncWorld) -> None:
    keys: list[str] = []

    async def act() -> None:
        effect = current_effect()
        assert effect is not None
        keys.append(effect.idempotency_key)
        raise TimeoutError

    async def observe() -> None:
        return None

    for _ in range(3):
        with pytest.raises(TimeoutError):
            await world.client.protect(world.key, act=act, observe=observe)
        world.clock.advance(AFTERWARDS_MS)
    assert len(set(keys)) == 1
    await world.client.effects.reset(world.key, mode="retry")
    with pytest.raises(TimeoutError):
        await world.client.protect(world.key, act=act)
    assert len(set(keys)) == 2
