# Made from tests/_async/test_outcomes.py by scripts/mirror.py. Do not edit.
"""What becomes of an effect whose act raised, or whose call ended before it: see docs/outcomes.md."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import httpx
import pytest

from tests.helpers._sync.faulty_transport import LOSE_REQUEST, Says
from tests.helpers._sync.world import SyncWorld
from verity import (
    ConflictRetryConfig,
    EffectPolicy,
    EffectPreviouslyFailedError,
    LeaseConflictError,
    NotExecuted,
    OutcomeUnknown,
    OutcomeUnknownError,
    SyncVerityClient,
)

NO_WAIT = ConflictRetryConfig(enabled=False)


def _raise(error: BaseException) -> Any:
    raise error


class _Lost(Exception):
    """An error of the user's own."""


# --- nothing happened ---


def test_not_executed_is_no_failure_and_a_later_call_acts_at_once(world: SyncWorld) -> None:
    sold_out = NotExecuted("sold out")
    with pytest.raises(NotExecuted) as caught:
        world.client.protect(world.key, act=partial(_raise, sold_out))
    assert caught.value is sold_out
    assert caught.value.effect_key == world.key
    assert world.network.operations() == ["lease", "release"]
    assert world.network.sent[1].body["acted"] == "no"
    assert "settleMs" not in world.network.sent[1].body
    assert world.events() == ["LEASE_GRANTED", "LEASE_RELEASED"]
    assert not world.runtime.planned(), "the renewal has stopped"
    assert world.client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert not world.runtime.slept


def test_not_executed_leaves_a_doubt_as_it_was(world: SyncWorld) -> None:
    """What an earlier holder did, this one does not know."""
    world.leave_in_doubt()
    with pytest.raises(NotExecuted):
        world.client.protect(world.key, observe=world.find, act=partial(_raise, NotExecuted()))
    with pytest.raises(OutcomeUnknownError):
        world.client.protect(world.key, act=world.act)
    assert (world.effect())["status"] == "EXPIRED"


@pytest.mark.parametrize("namespace", ["payments", "another"])
def test_not_executed_of_an_inner_effect_says_nothing_about_the_outer_one(world: SyncWorld, namespace: str) -> None:
    inner = f"inner {world.key}" if namespace == "payments" else world.key

    def act() -> Any:
        world.act()
        return world.client.protect(inner, act=partial(_raise, NotExecuted()), namespace=namespace)

    with pytest.raises(NotExecuted) as caught:
        world.client.protect(world.key, act=act)
    assert caught.value.effect_key == inner
    assert world.network.sent[-1].body["acted"] == "unknown"
    assert world.client.protect(inner, act=lambda: 7, namespace=namespace) == 7
    with pytest.raises(OutcomeUnknownError):
        world.client.protect(world.key, act=world.act)
    assert world.acts == [world.key]


# --- it may have happened ---


@pytest.mark.parametrize(
    ("error", "policy"),
    [
        (OutcomeUnknown("the provider said: pending"), EffectPolicy()),
        (TimeoutError("no answer"), EffectPolicy()),
        (httpx.ReadTimeout("no answer"), EffectPolicy()),
        (ConnectionResetError(), EffectPolicy()),
        (_Lost(), EffectPolicy(ambiguous=(_Lost,))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_ambiguous_error_is_never_recorded_as_a_failure(
    world: SyncWorld, error: Exception, policy: EffectPolicy
) -> None:
    def act() -> Any:
        world.act()
        raise error

    client = world.new_client(policy=policy)
    with pytest.raises(type(error)) as caught:
        client.protect(world.key, act=act)
    assert caught.value is error
    assert "may have happened" in error.__notes__[0]  # type: ignore[attr-defined]  # typed from 3.11 on
    assert world.network.operations() == ["lease", "release"]
    assert (world.network.sent[1].body["acted"], world.network.sent[1].body["settleMs"]) == ("unknown", 30_000)
    assert not world.runtime.planned(), "the renewal has stopped"
    with pytest.raises(OutcomeUnknownError):
        client.protect(world.key, act=world.act)
    assert client.protect(world.key, observe=world.find, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]


def test_nobody_observes_before_what_timed_out_may_have_landed(world: SyncWorld) -> None:
    policy = EffectPolicy(settle_s=90)
    with pytest.raises(TimeoutError):
        world.client.protect(world.key, act=partial(_raise, TimeoutError()), policy=policy)
    impatient = world.new_client(conflict_retry=NO_WAIT)
    world.clock.advance(89_999)
    with pytest.raises(LeaseConflictError, match="before what it sent has settled") as caught:
        impatient.protect(world.key, observe=world.find, act=world.act)
    assert "is live" not in str(caught.value)
    world.clock.advance(1)
    world.act()  # it lands at the very last moment
    assert impatient.protect(world.key, observe=world.find, act=world.act) == {"refund": "re_1"}
    assert len(world.acts) == 1


@pytest.mark.parametrize(
    ("error", "policy"),
    [
        (_Lost("declined"), EffectPolicy()),
        (httpx.ConnectError("refused"), EffectPolicy()),
        (TimeoutError(), EffectPolicy(definite=(TimeoutError,))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_definite_error_is_recorded_as_the_failure(world: SyncWorld, error: Exception, policy: EffectPolicy) -> None:
    with pytest.raises(type(error)):
        world.client.protect(world.key, act=partial(_raise, error), policy=policy)
    assert world.network.operations() == ["lease", "fail"]
    with pytest.raises(EffectPreviouslyFailedError):
        world.client.protect(world.key, act=world.act)


def test_what_was_being_handled_before_the_call_makes_no_failure_ambiguous(world: SyncWorld) -> None:
    """As where a fallback is protected after a time-out."""
    try:
        raise TimeoutError
    except TimeoutError:
        with pytest.raises(ValueError, match="declined"):
            world.client.protect(world.key, act=partial(_raise, ValueError("declined")))
    assert (world.effect())["status"] == "FAILED"


# --- a release that does not arrive ---


@pytest.mark.parametrize("answer", [Says(404, b'{"error": {"code": "not_found"}}'), Says(405), Says(403)])
def test_with_a_ledger_that_takes_no_lease_back_the_lease_expires(world: SyncWorld, answer: Says) -> None:
    world.network.faults["release"] = [answer]
    error = TimeoutError()
    with pytest.raises(TimeoutError):
        world.client.protect(world.key, act=partial(_raise, error))
    assert "could not give the lease back" in error.__notes__[0]  # type: ignore[attr-defined]  # typed from 3.11 on
    assert world.network.operations() == ["lease", "release"]
    world.clock.advance(30_000)
    with pytest.raises(OutcomeUnknownError):
        world.client.protect(world.key, act=world.act)


def test_a_release_whose_answer_is_lost_is_sent_again(world: SyncWorld) -> None:
    world.network.faults["release"] = [LOSE_REQUEST, "lose the answer"]
    with pytest.raises(NotExecuted):
        world.client.protect(world.key, act=partial(_raise, NotExecuted()))
    assert world.network.operations() == ["lease", "release", "release", "release"]
    assert world.client.protect(world.key, act=world.act) == {"refund": "re_1"}


def test_a_lease_that_was_given_back_is_not_renewed(world: SyncWorld, caplog: pytest.LogCaptureFixture) -> None:
    world.network.faults["release"] = ["lose the answer", *[Says(503, headers={"retry-after": "15"})] * 2]
    with pytest.raises(TimeoutError):
        world.client.protect(world.key, act=partial(_raise, TimeoutError()), lease_duration_ms=10_000)
    assert world.runtime.slept[-1] == 15, "longer than until the next renewal"
    assert world.network.operations() == ["lease", "release", "release", "release"]
    assert "was lost" not in caplog.text


def test_a_call_that_ends_before_its_act_tries_once(world: SyncWorld, caplog: pytest.LogCaptureFixture) -> None:
    """It does not make a caller wait that was told to end."""
    caplog.set_level(logging.DEBUG, "verity")
    world.network.faults["release"] = [LOSE_REQUEST]
    with pytest.raises(LookupError):
        world.client.protect(world.key, act=world.act, on_lease=lambda _: _raise(LookupError()))
    assert world.network.operations() == ["lease", "release"]
    assert "was not given back" in caplog.text
    assert [record.levelno for record in caplog.records if "given back" in record.getMessage()] == [logging.DEBUG]


# --- before act began ---


def _on_lease(client: SyncVerityClient, key: str) -> None:
    client.protect(key, act=lambda: 1, on_lease=lambda _: _raise(LookupError()))


def _interrupted_observe(client: SyncVerityClient, key: str) -> None:
    always = EffectPolicy(observe_when="always")
    client.protect(key, act=lambda: 1, observe=partial(_raise, KeyboardInterrupt()), policy=always)


def _failing_observe(client: SyncVerityClient, key: str) -> None:
    always = EffectPolicy(observe_when="always")
    client.protect(key, act=lambda: 1, observe=partial(_raise, LookupError()), policy=always)


def _empty_observe(client: SyncVerityClient, key: str) -> None:
    always = EffectPolicy(observe_when="always")
    client.protect(key, act=lambda: 1, observe=list, policy=always)


def _unconfirmed(client: SyncVerityClient, key: str) -> None:
    client.protect(key, act=lambda: 1)


@pytest.mark.parametrize("end", [_on_lease, _interrupted_observe, _failing_observe, _empty_observe, _unconfirmed])
def test_a_call_that_ends_before_its_act_leaves_no_doubt(world: SyncWorld, end: Any) -> None:
    if end is _unconfirmed:
        world.network.faults["lease"] = [lambda: world.clock.advance(25_000)]
        world.network.faults["renew"] = [LOSE_REQUEST] * 12
    with pytest.raises(BaseException):  # noqa: B017, PT011 - each its own
        end(world.client, world.key)
    assert world.network.operations()[-1] == "release"
    assert world.network.sent[-1].body["acted"] == "no"
    world.network.faults.clear()
    assert world.client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert not world.acts[1:]


def test_a_result_is_never_given_back(world: SyncWorld) -> None:
    """Whatever becomes of its commit."""
    faults: list[list[Any]] = [[Says(400)], [LOSE_REQUEST] * 99]
    for number, answers in enumerate(faults):
        world.network.faults["commit"] = answers
        with pytest.raises(Exception, match="commit is not confirmed"):
            world.client.protect(f"{world.key}-{number}", act=world.act)
    always = EffectPolicy(observe_when="always")
    world.network.faults["commit"] = [Says(400)]
    with pytest.raises(Exception, match="commit is not confirmed"):
        world.client.protect(f"{world.key}-found", observe=lambda: 1, act=world.act, policy=always)
    assert "release" not in world.network.operations()
