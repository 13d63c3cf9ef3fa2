# Made from tests/_async/test_protect.py by scripts/mirror.py. Do not edit.
"""protect(): what it returns, what it raises, and how often it acts."""

from __future__ import annotations

import logging
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from tests.helpers._sync.world import SyncWorld
from tests.helpers.concurrency import sync_gather
from verity import (
    ConflictRetryConfig,
    EffectPolicy,
    EffectPreviouslyFailedError,
    Found,
    LeaseConflictError,
    LeaseResponse,
    ObserveFailedError,
    OutcomeUnknownError,
    VerityConfigError,
    VerityValidationError,
)


def _same(value: Any) -> Any:
    return value


def _fail(error: Exception) -> Any:
    raise error


def test_it_acts_once_and_every_later_call_gets_the_result(world: SyncWorld) -> None:
    results = [world.client.protect(world.key, act=world.act) for _ in range(3)]
    assert results == [{"refund": "re_1"}] * 3
    assert world.acts == [world.key]
    assert world.network.operations() == ["lease", "commit", "lease", "lease"]


def test_many_at_once_act_once(world: SyncWorld) -> None:
    # In real time: sleeps of those that wait would advance virtual time until the lease of a slow thread expires.
    client = world.new_client(_runtime=None, conflict_retry=ConflictRetryConfig(wait=True))
    results = sync_gather([lambda: client.protect(world.key, act=world.act) for _ in range(8)])
    assert results == [{"refund": "re_1"}] * 8
    assert world.acts == [world.key]


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        ((1, 2), [1, 2]),
        ({"a": (1, {"b": ()})}, {"a": [1, {"b": []}]}),
        (None, None),
        (False, False),
        (0, 0),
        ("", ""),
        ([], []),
        ("日本語 \U0001f4b6 \u2028", "日本語 \U0001f4b6 \u2028"),
        (1.5, 1.5),
        (2**70, 2**70),
    ],
)
def test_the_first_call_returns_what_later_calls_return(world: SyncWorld, given: Any, returned: Any) -> None:
    def act() -> Any:
        world.acts.append("once")
        return given

    first = world.client.protect(world.key, act=act)
    second = world.client.protect(world.key, act=act)
    assert first == second == returned
    assert type(first) is type(second) is type(returned)
    assert world.acts == ["once"]


def test_act_and_observe_may_be_plain_functions(world: SyncWorld) -> None:
    result = world.client.protect(world.key, observe=lambda: None, act=lambda: {"plain": True})
    assert result == {"plain": True}


def test_everything_that_is_passed_travels(world: SyncWorld) -> None:
    client = world.new_client(agent_id="worker-1")
    client.protect(
        world.key,
        act=world.act,
        namespace="mail",
        effect_name="stripe.refund",
        lease_duration_ms=60_000,
        input_json={"order": 7},
        key_suffix="eu",
    )
    lease, commit = world.network.sent
    assert lease.namespace == commit.namespace == "mail"
    assert lease.body == {
        "effectKey": f"{world.key}:eu",
        "effectName": "stripe.refund",
        "agentId": "worker-1",
        "leaseDurationMs": 60_000,
        "inputJson": {"order": 7},
    }
    assert lease.headers["authorization"] == f"Bearer {world.api_key}"
    assert lease.headers["idempotency-key"]
    assert commit.body["source"] == "acted"
    assert commit.body["result"] == {"refund": "re_1"}
    client.protect(world.key, act=world.act, agent_id="worker-2")
    assert world.network.sent[-2].body["agentId"] == "worker-2"


def test_what_is_left_out_does_not_travel(world: SyncWorld) -> None:
    world.client.protect(world.key, act=world.act)
    assert world.network.sent[0].body == {"effectKey": world.key}


def test_on_lease_is_called_with_the_grant_only(world: SyncWorld) -> None:
    seen: list[LeaseResponse] = []
    for _ in range(2):
        world.client.protect(world.key, act=world.act, on_lease=seen.append)
    assert [lease.status for lease in seen] == ["granted"]
    assert seen[0]["fenceToken"] == seen[0].fence_token == 1


def test_on_lease_that_raises_ends_the_call_before_the_act(world: SyncWorld) -> None:
    def refuse(_: LeaseResponse) -> None:
        raise LookupError("not now")

    with pytest.raises(LookupError, match="not now"):
        world.client.protect(world.key, act=world.act, on_lease=refuse)
    assert not world.acts
    assert world.network.operations() == ["lease", "release"]
    assert (world.effect())["status"] == "IDLE", "it is given back: the next call need not wait"


# --- observe ---


def test_an_observed_effect_does_not_act_again(world: SyncWorld) -> None:
    world.crash_after_act()
    result = world.client.protect(world.key, observe=world.find, act=world.act)
    assert result == {"refund": "re_1"}
    assert world.acts == [world.key]
    effect = world.effect()
    assert (effect["status"], effect["source"], effect["fenceToken"]) == ("COMMITTED", "observed", 2)
    assert world.events() == ["LEASE_GRANTED", "LEASE_EXPIRED", "LEASE_GRANTED", "OBSERVE_HIT", "COMMITTED"]


class EmptyList(list[Any]):
    """As a provider's SDK has them."""


class HasLength:
    def __len__(self) -> int:
        return 0


class NoTruth(list[Any]):
    """As a table of numbers, which is neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")


EMPTY: list[Any] = [[], {}, "", 0, False, (), set(), b"", 0.0, Decimal(0), EmptyList(), HasLength(), range(0)]


@pytest.mark.parametrize("on_observe_error", ["raise", "act"])
@pytest.mark.parametrize("found", EMPTY, ids=lambda found: type(found).__name__)
def test_an_empty_value_is_neither_found_nor_not(world: SyncWorld, found: Any, on_observe_error: Any) -> None:
    world.leave_in_doubt()
    with pytest.raises(ObserveFailedError, match=rf"empty value \({type(found).__name__}\).* Found\(value\)") as caught:
        world.client.protect(world.key, observe=partial(_same, found), act=world.act, on_observe_error=on_observe_error)
    assert isinstance(caught.value.observe_error, VerityValidationError)
    assert caught.value.observe_error.parameter == "observe"
    assert caught.value.effect_key == world.key
    assert caught.value.request_id
    assert world.network.operations() == ["lease", "release"], "nothing is reported, committed or recorded as a failure"
    assert not world.acts
    assert not world.runtime.planned(), "the renewal has stopped"
    assert world.client.protect(world.key, observe=world.find, act=world.act) == {"refund": "re_1"}


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, {"refund": "re_1"}, Found([])], ids=repr)
def test_found_says_that_it_happened_whatever_its_result(world: SyncWorld, value: Any) -> None:
    expected = [] if isinstance(value, Found) else value
    world.leave_in_doubt()
    assert world.client.protect(world.key, observe=partial(_same, Found(value)), act=world.act) == expected
    assert not world.acts
    effect = world.effect()
    assert (effect["status"], effect["source"], effect["result"]) == ("COMMITTED", "observed", expected)
    assert "OBSERVE_HIT" in world.events()
    assert world.client.protect(world.key, act=world.act) == expected


def test_what_is_neither_true_nor_false_was_found(world: SyncWorld) -> None:
    world.leave_in_doubt()
    result: Any = world.client.protect(world.key, observe=partial(_same, NoTruth([1])), act=world.act)
    assert result == [1]
    assert not world.acts


def test_an_act_may_say_found_as_well(world: SyncWorld) -> None:
    """One function that finds or makes."""
    found: Any = Found([])
    assert world.client.protect(world.key, act=partial(_same, found)) == []
    assert (world.effect())["source"] == "acted"


def test_a_miss_acts_and_is_reported(world: SyncWorld) -> None:
    world.leave_in_doubt()
    world.client.protect(world.key, observe=world.find, act=world.act)
    assert world.network.operations() == ["lease", "report-observe", "commit"]
    assert world.network.sent[1].body["hit"] is False
    assert (world.events())[-2:] == ["OBSERVE_MISS", "COMMITTED"]


def test_a_new_effect_is_not_observed(world: SyncWorld) -> None:
    """It costs no call to the outside world, and goes on while the search there is down."""
    assert world.client.protect(world.key, observe=lambda: 1 // 0, act=world.act) == {"refund": "re_1"}
    assert world.network.operations() == ["lease", "commit"]


def test_an_effect_that_an_admin_says_nobody_acted_on_is_not_observed(world: SyncWorld) -> None:
    with pytest.raises(ValueError, match="declined"):
        world.client.protect(world.key, act=partial(_fail, ValueError("declined")))
    world.reset(mode="retry")
    assert world.client.protect(world.key, observe=lambda: 1 // 0, act=world.act) == {"refund": "re_1"}


def test_observe_runs_after_a_reset_that_says_verify(world: SyncWorld) -> None:
    """A failure may well have happened after the effect did."""

    def act_then_fail() -> None:
        world.act()
        raise ValueError("the answer cannot be read")

    with pytest.raises(ValueError, match="cannot be read"):
        world.client.protect(world.key, observe=world.find, act=act_then_fail)
    world.reset()
    assert world.client.protect(world.key, observe=world.find, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]


def test_observe_always_asks_for_a_new_effect_too(world: SyncWorld) -> None:
    """As when a running system is moved to Verity, and has acted before."""
    client = world.new_client(policy=EffectPolicy(observe_when="always"))
    world.act()
    assert client.protect(world.key, observe=world.find, act=world.act) == {"refund": "re_1"}
    assert len(world.acts) == 1
    assert world.events() == ["LEASE_GRANTED", "OBSERVE_HIT", "COMMITTED"]


def test_observe_that_raises_ends_the_call_and_gives_the_lease_back_as_it_was(world: SyncWorld) -> None:
    def observe() -> None:
        raise ConnectionError("provider down")

    world.leave_in_doubt()
    with pytest.raises(ObserveFailedError, match="act did not run") as caught:
        world.client.protect(world.key, observe=observe, act=world.act)
    assert isinstance(caught.value.observe_error, ConnectionError)
    assert caught.value.__cause__ is caught.value.observe_error
    assert caught.value.effect_key == world.key
    assert caught.value.request_id, "of the lease, to find the effect in the ledger's log"
    assert not world.acts
    assert world.network.operations() == ["lease", "release"]
    assert world.network.sent[1].body["acted"] == "no"
    assert (world.effect())["status"] == "EXPIRED", "still in doubt"


@pytest.mark.parametrize("where", ["client", "call"])
def test_the_lenient_way_acts_although_observe_raised(
    world: SyncWorld, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def observe() -> None:
        raise ConnectionError("provider down")

    world.leave_in_doubt()
    client = world.new_client(on_observe_error="act" if where == "client" else "raise")
    override: Any = None if where == "client" else "act"
    result = client.protect(world.key, observe=observe, act=world.act, on_observe_error=override)
    assert result == {"refund": "re_1"}
    assert "ConnectionError" in caplog.text


def test_an_effect_in_doubt_without_observe_is_blocked(world: SyncWorld) -> None:
    world.leave_in_doubt()
    for _ in range(2):
        with pytest.raises(
            OutcomeUnknownError, match=r'Pass observe=.*resolve the effect, or reset it.*on_unknown="act"'
        ) as caught:
            world.client.protect(world.key, act=world.act)
    assert (caught.value.effect_key, caught.value.fence_token) == (world.key, 3)
    assert caught.value.request_id
    assert not world.acts
    assert world.network.operations() == ["lease", "release"] * 2
    assert (world.effect())["status"] == "EXPIRED"
    assert not world.runtime.slept, "nobody waits for the lease of a call that was blocked"
    assert world.client.protect(world.key, observe=world.find, act=world.act) == {"refund": "re_1"}


def test_where_the_policy_says_so_an_effect_in_doubt_acts_after_one_warning_per_name(
    world: SyncWorld, caplog: pytest.LogCaptureFixture
) -> None:
    client = world.new_client(policy=EffectPolicy(on_unknown="act"))
    for number in range(3):
        key = f"{world.key}-{number}"
        world.crash_after_act(key)
        name = "stripe.refund" if number < 2 else "mail.send"
        client.protect(key, act=world.act, effect_name=name)
    assert len(world.acts) == 6
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "observe=" in warnings[0].getMessage()


def test_a_report_that_fails_does_not_disturb_the_effect(world: SyncWorld) -> None:
    world.network.faults["report-observe"] = ["lose the request"]
    world.leave_in_doubt()
    assert world.client.protect(world.key, observe=world.find, act=world.act) == {"refund": "re_1"}
    assert world.network.operations() == ["lease", "report-observe", "commit"]


# --- failures ---


def test_what_act_raises_is_recorded_and_comes_out(world: SyncWorld) -> None:
    declined = ValueError("card declined")

    def act() -> None:
        raise declined

    with pytest.raises(ValueError, match="card declined") as caught:
        world.client.protect(world.key, act=act)
    assert caught.value is declined
    with pytest.raises(EffectPreviouslyFailedError, match="until an admin resets it") as again:
        world.client.protect(world.key, act=world.act)
    assert again.value.effect_key == world.key
    assert again.value.request_id
    assert again.value.cached_error["name"] == "ValueError"
    assert again.value.cached_error["message"] == "card declined"
    assert "test_protect.py" in again.value.cached_error["stack"]
    assert not world.acts


def test_a_reset_effect_runs_again(world: SyncWorld) -> None:
    with pytest.raises(ZeroDivisionError):
        world.client.protect(world.key, act=lambda: 1 // 0)
    world.reset(mode="retry")
    assert world.client.protect(world.key, act=world.act) == {"refund": "re_1"}


class Mute(Exception):
    """An exception that can't be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_that_cannot_be_shown_is_survived(world: SyncWorld) -> None:
    def act() -> None:
        raise Mute

    with pytest.raises(Mute):
        world.client.protect(world.key, act=act)
    with pytest.raises(EffectPreviouslyFailedError) as again:
        world.client.protect(world.key, act=world.act)
    assert again.value.cached_error["message"] == "<Mute.__str__ raised RuntimeError>"


def test_a_huge_failure_is_cut_to_fit(world: SyncWorld) -> None:
    def act() -> None:
        raise ValueError("\U0001f4b6\udc80" * 100_000)

    with pytest.raises(ValueError, match="\U0001f4b6"):
        world.client.protect(world.key, act=act)
    assert (world.effect())["status"] == "FAILED"


@pytest.mark.parametrize("interrupt", [SystemExit, KeyboardInterrupt])
def test_a_base_exception_is_not_a_failure(world: SyncWorld, interrupt: type[BaseException]) -> None:
    begun: list[str] = []

    def act() -> None:
        begun.append(world.key)
        raise interrupt

    with pytest.raises(interrupt):
        world.client.protect(world.key, act=act)
    assert begun == [world.key], "an act that was interrupted is not started anew"
    assert world.network.operations() == ["lease", "release"]
    assert world.network.sent[1].body["acted"] == "unknown"
    assert not world.runtime.planned(), "the renewal has stopped"
    world.clock.advance(30_000)
    assert world.client.protect(world.key, observe=world.find, act=world.act) == {"refund": "re_1"}


# --- conflicts ---


def test_a_conflict_waits_until_the_other_holder_is_done(world: SyncWorld) -> None:
    other = world.client.request_lease("payments", {"effectKey": world.key})

    def commit_meanwhile() -> None:
        world.client.commit(
            "payments",
            {"effectKey": world.key, "fenceToken": other["fenceToken"], "leaseToken": other["leaseToken"], "result": 7},
        )

    world.runtime.call_later(2.0, commit_meanwhile)
    result: Any = world.client.protect(world.key, act=world.act)
    assert result == 7
    assert not world.acts
    assert world.runtime.slept == [1.0, 1.0], "Retry-After (1 s) is more than 0.5 s, and as much as the doubled delay"


def test_a_conflict_takes_over_when_the_lease_runs_out(world: SyncWorld) -> None:
    world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5000})
    assert world.client.protect(world.key, observe=world.find, act=world.act) == {"refund": "re_1"}
    assert world.runtime.slept == [1.0, 1.0, 2.0, 4.0]


def test_the_attempts_are_requests(world: SyncWorld) -> None:
    world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 120_000})
    client = world.new_client(
        conflict_retry=ConflictRetryConfig(max_attempts=3, initial_delay_s=2.0, jitter=False, wait=False)
    )
    with pytest.raises(LeaseConflictError, match="Try again later") as caught:
        client.protect(world.key, act=world.act)
    assert world.network.operations().count("lease") == 1 + 3
    assert world.runtime.slept == [2.0, 4.0]
    assert caught.value.status_code == 409
    assert caught.value.effect_key == world.key
    assert caught.value.lease_expires_at
    assert caught.value.request_id
    assert len({sent.headers["idempotency-key"] for sent in world.network.sent[1:]}) == 1


@pytest.mark.parametrize("how", ["throw", "disabled"])
def test_a_conflict_raises_at_once_where_that_is_asked_for(world: SyncWorld, how: str) -> None:
    world.client.request_lease("payments", {"effectKey": world.key})
    client = world.new_client(conflict_retry=ConflictRetryConfig(enabled=how != "disabled"))
    with pytest.raises(LeaseConflictError):
        client.protect(world.key, act=world.act, on_conflict="throw" if how == "throw" else "retry")
    assert world.network.operations() == ["lease", "lease"]
    assert not world.runtime.slept


# --- wrong arguments: nothing is sent ---


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"effect_key": ""}, "effect_key"),
        ({"effect_key": 7}, "effect_key"),
        ({"effect_key": "k\udc80"}, "effect_key"),
        ({"effect_key": "k" * 1025}, "effect_key"),
        ({"key_suffix": ""}, "key_suffix"),
        ({"act": None}, "act"),
        ({"act": "refund"}, "act"),
        ({"act": lambda order: order}, "act"),
        ({"act": lambda *, order: order}, "act"),
        ({"observe": lambda order: order}, "observe"),
        ({"observe": "find"}, "observe"),
        ({"on_lease": 1}, "on_lease"),
        ({"on_conflict": "explode"}, "on_conflict"),
        ({"on_observe_error": "ignore"}, "on_observe_error"),
        ({"lease_duration_ms": 4_999}, "lease_duration_ms"),
        ({"lease_duration_ms": 120_001}, "lease_duration_ms"),
        ({"lease_duration_ms": 60_000.0}, "lease_duration_ms"),
        ({"lease_duration_ms": True}, "lease_duration_ms"),
        ({"effect_name": ""}, "effect_name"),
        ({"agent_id": "a" * 257}, "agent_id"),
        ({"input_json": {"n": float("nan")}}, "input_json.n"),
        ({"input_json": "x" * 65_536}, "input_json"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(
    world: SyncWorld, arguments: dict[str, Any], parameter: str
) -> None:
    call: dict[str, Any] = {"effect_key": world.key, "act": world.act, **arguments}
    with pytest.raises(VerityValidationError) as caught:
        world.client.protect(call.pop("effect_key"), **call)
    assert caught.value.parameter == parameter
    assert parameter.partition(".")[0] in str(caught.value)
    assert not world.network.sent


@pytest.mark.parametrize("namespace", ["", ".", "..", "a/b", "a\\b", "a\nb", "n" * 129, 7])
def test_a_namespace_that_would_leave_its_path_is_refused(world: SyncWorld, namespace: Any) -> None:
    with pytest.raises(VerityConfigError) as caught:
        world.client.protect(world.key, act=world.act, namespace=namespace)
    assert caught.value.parameter == "namespace"
    assert not world.network.sent


def test_a_namespace_with_odd_characters_stays_one_segment(world: SyncWorld) -> None:
    for namespace in ("a b", "a%2Fb", "ä?x=1#y", "..."):
        assert world.client.protect(world.key, act=partial(_same, namespace), namespace=namespace) == namespace


def test_without_any_namespace_it_says_so(world: SyncWorld) -> None:
    client = world.new_client(namespace=None)
    with pytest.raises(VerityConfigError, match="namespace is missing"):
        client.protect(world.key, act=world.act)


def test_a_closed_client_refuses(world: SyncWorld) -> None:
    world.client.close()
    world.client.close()
    with pytest.raises(VerityConfigError, match="closed"):
        world.client.protect(world.key, act=world.act)
    with pytest.raises(VerityConfigError, match="closed"):
        world.client.request_lease("payments", {"effectKey": world.key})
    with pytest.raises(VerityConfigError, match="closed"):
        world.client.__enter__()
