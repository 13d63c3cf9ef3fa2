# Made from tests/_async/test_guarantees.py by scripts/mirror.py. Do not edit.
"""The sentences of docs/guarantees.md that a client and a ledger make true together.

Details have tests of their own beside what they are about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers._sync.faulty_transport import LOSE_ANSWER, LOSE_REQUEST
from tests.helpers._sync.world import SyncWorld
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
Way = Callable[[SyncWorld], Any]


# How an effect gets into doubt after it has happened. All of them act once.


def holder_died(world: SyncWorld) -> None:
    world.crash_after_act()


def _act_ends_with(error: BaseException) -> Way:
    def way(world: SyncWorld) -> None:
        def act() -> None:
            world.act()
            raise error

        with pytest.raises(type(error)):
            world.client.protect(world.key, act=act)

    return way


def commit_was_lost(world: SyncWorld) -> None:
    world.network.faults["commit"] = [LOSE_REQUEST] * 1_000
    with pytest.raises(CommitUncertainError):
        world.client.protect(world.key, act=world.act)
    world.network.faults["commit"] = []


def release_was_lost(world: SyncWorld) -> None:
    world.network.faults["release"] = [LOSE_REQUEST] * 10
    _act_ends_with(TimeoutError())(world)
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
def test_in_doubt_nobody_acts_without_observe(world: SyncWorld, get_into_doubt: Way) -> None:
    get_into_doubt(world)
    world.clock.advance(AFTERWARDS_MS)
    for _ in range(3):
        with pytest.raises(OutcomeUnknownError, match="observe"):
            world.client.protect(world.key, act=world.act)
    assert world.acts == [world.key]


@in_each_doubt
def test_what_nobody_may_act_on_is_left_to_a_person(world: SyncWorld, get_into_doubt: Way) -> None:
    get_into_doubt(world)
    world.clock.advance(AFTERWARDS_MS)
    with pytest.raises(OutcomeUnknownError):
        world.client.protect(world.key, act=world.act)
    effects = world.client.effects
    listed = [effect.effect_key for effect in effects.list(status="EXPIRED", search=world.key)]
    assert world.key in listed
    seen = effects.get(world.key)
    effects.resolve(world.key, RESULT, expected_fence=seen.fence_token)
    assert world.client.protect(world.key, act=world.act) == RESULT
    assert world.acts == [world.key]


@in_each_doubt
def test_in_doubt_observe_decides(world: SyncWorld, get_into_doubt: Way) -> None:
    get_into_doubt(world)
    world.clock.advance(AFTERWARDS_MS)
    assert world.client.protect(world.key, observe=world.find, act=world.act) == RESULT
    assert world.acts == [world.key]


@in_each_doubt
def test_an_unknown_outcome_is_never_recorded_as_a_failure(world: SyncWorld, get_into_doubt: Way) -> None:
    get_into_doubt(world)
    assert "FAILED" not in world.events()


def test_in_doubt_it_acts_once_if_observe_finds_nothing(world: SyncWorld) -> None:
    world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5_000})
    world.clock.advance(5_000)
    assert world.client.protect(world.key, observe=world.find, act=world.act) == RESULT
    assert world.acts == [world.key]


def test_in_doubt_an_observe_that_raises_ends_the_call(world: SyncWorld) -> None:
    def observe() -> None:
        raise ConnectionError("provider down")

    world.crash_after_act()
    with pytest.raises(ObserveFailedError):
        world.client.protect(world.key, observe=observe, act=world.act)
    assert world.acts == [world.key]


@pytest.mark.parametrize("error", [TimeoutError(), OutcomeUnknown("no answer")], ids=["time-out", "OutcomeUnknown"])
def test_nobody_is_granted_before_what_timed_out_has_settled(world: SyncWorld, error: Exception) -> None:
    _act_ends_with(error)(world)
    world.clock.advance(29_000)
    with pytest.raises(LeaseConflictError):
        world.client.protect(world.key, observe=world.find, act=world.act, on_conflict="throw")
    world.clock.advance(1_000)
    assert world.client.protect(world.key, observe=world.find, act=world.act) == RESULT
    assert world.acts == [world.key]


def test_act_begins_with_a_third_of_its_lease_left(world: SyncWorld) -> None:
    left: list[float] = []

    def observe() -> None:
        world.clock.advance(29_000)

    def act() -> dict[str, str]:
        effect = current_effect()
        assert effect is not None
        left.append(effect.remaining_s())
        return world.act()

    world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5_000})
    world.clock.advance(5_000)
    world.client.protect(world.key, observe=observe, act=act)
    assert left[0] >= 0.35 * 30


# Who certainly did not act leaves no doubt behind: the next call acts at once, and need not observe.


def act_was_refused(world: SyncWorld) -> None:
    def act() -> None:
        raise NotExecuted("the card has no number")

    with pytest.raises(NotExecuted):
        world.client.protect(world.key, act=act)


def act_could_not_connect(world: SyncWorld) -> None:
    def act() -> None:
        raise ConnectionRefusedError

    policy = EffectPolicy(definite=(ConnectionRefusedError,))
    with pytest.raises(ConnectionRefusedError):
        world.client.protect(world.key, act=act, policy=policy)
    world.client.effects.reset(world.key, mode="retry")


def on_lease_raised(world: SyncWorld) -> None:
    def on_lease(_lease: Any) -> None:
        raise LookupError("not now")

    with pytest.raises(LookupError):
        world.client.protect(world.key, act=world.act, on_lease=on_lease)


def a_person_reset_it(world: SyncWorld) -> None:
    world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5_000})
    world.clock.advance(5_000)
    world.client.effects.reset(world.key, mode="retry")


NO_DOUBTS = {
    "act says that nothing happened": act_was_refused,
    "act failed for certain, and was reset": act_could_not_connect,
    "on_lease raised": on_lease_raised,
    "a person says that nobody acted": a_person_reset_it,
}


@pytest.mark.parametrize("way", NO_DOUBTS.values(), ids=NO_DOUBTS)
@pytest.mark.parametrize("has_observe", [False, True], ids=["without observe", "with observe"])
def test_without_doubt_act_runs_at_once(world: SyncWorld, way: Way, has_observe: bool) -> None:
    def observe() -> None:
        raise ConnectionError("the search is down")

    way(world)
    result = world.client.protect(
        world.key, observe=observe if has_observe else None, act=world.act, on_conflict="throw"
    )
    assert result == RESULT
    assert world.acts == [world.key]


def test_a_new_effect_is_not_observed(world: SyncWorld) -> None:
    def observe() -> None:
        raise ConnectionError("the search is down")

    assert world.client.protect(world.key, observe=observe, act=world.act) == RESULT


# The ledger is away.


@pytest.mark.parametrize("fault", [LOSE_REQUEST, LOSE_ANSWER])
def test_a_commit_is_tried_for_as_long_as_the_ledger_is_away(world: SyncWorld, fault: str) -> None:
    world.network.faults["commit"] = [fault] * 8
    assert world.client.protect(world.key, act=world.act) == RESULT
    assert (world.effect())["status"] == "COMMITTED"
    assert world.acts == [world.key]


def test_without_a_ledger_nobody_acts(world: SyncWorld) -> None:
    world.network.faults["lease"] = [LOSE_REQUEST] * 3
    with pytest.raises(VerityConnectionError) as caught:
        world.client.protect(world.key, act=world.act)
    assert world.acts == []
    (note,) = caught.value.__notes__  # type: ignore[attr-defined]  # typed from 3.11 on
    assert "did not run" in note


# What the modes give up.


def test_on_unknown_act_acts_again_in_doubt(world: SyncWorld) -> None:
    world.crash_after_act()
    world.client.protect(world.key, act=world.act, policy=EffectPolicy(on_unknown="act"))
    assert world.acts == [world.key] * 2


def test_observe_when_always_finds_what_the_ledger_does_not_know(world: SyncWorld) -> None:
    world.act()
    policy = EffectPolicy(observe_when="always")
    assert world.client.protect(world.key, observe=world.find, act=world.act, policy=policy) == RESULT
    assert world.acts == [world.key]


def test_on_observe_error_act_acts_again_in_doubt(world: SyncWorld) -> None:
    def observe() -> None:
        raise ConnectionError("provider down")

    world.crash_after_act()
    policy = EffectPolicy(on_observe_error="act")
    world.client.protect(world.key, observe=observe, act=world.act, policy=policy)
    assert world.acts == [world.key] * 2


def test_definite_is_believed(world: SyncWorld) -> None:
    class MyTimeout(TimeoutError):
        pass

    def act() -> None:
        world.act()
        raise MyTimeout

    with pytest.raises(MyTimeout):
        world.client.protect(world.key, act=act, policy=EffectPolicy(definite=(MyTimeout,)))
    assert (world.effect())["status"] == "FAILED"


def test_ambiguous_is_believed(world: SyncWorld) -> None:
    class MyError(ValueError):
        pass

    def act() -> None:
        world.act()
        raise MyError

    with pytest.raises(MyError):
        world.client.protect(world.key, act=act, policy=EffectPolicy(ambiguous=(MyError,)))
    assert (world.effect())["status"] == "EXPIRED"


def test_a_short_settle_time_lets_the_next_holder_look_too_early(world: SyncWorld) -> None:
    def act() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        world.client.protect(world.key, act=act, policy=EffectPolicy(settle_s=1))
    world.clock.advance(1_000)
    world.client.protect(world.key, observe=world.find, act=world.act)
    world.act()  # what timed out lands now
    assert world.acts == [world.key] * 2


def test_the_idempotency_key_is_the_same_for_every_attempt(world: SyncWorld) -> None:
    keys: list[str] = []

    def act() -> None:
        effect = current_effect()
        assert effect is not None
        keys.append(effect.idempotency_key)
        raise TimeoutError

    def observe() -> None:
        return None

    for _ in range(3):
        with pytest.raises(TimeoutError):
            world.client.protect(world.key, act=act, observe=observe)
        world.clock.advance(AFTERWARDS_MS)
    assert len(set(keys)) == 1
    world.client.effects.reset(world.key, mode="retry")
    with pytest.raises(TimeoutError):
        world.client.protect(world.key, act=act)
    assert len(set(keys)) == 2
