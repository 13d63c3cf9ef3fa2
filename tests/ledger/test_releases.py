"""Releases: a holder gives its lease back, and says whether it may have acted. By the table, and in each store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers.served_ledger import TestClock
from tests.helpers.store_calls import Caller
from tests.helpers.stores import Bench
from tests.ledger.test_transitions import ERROR, RESULT, Story, in_state
from verity._ledger.commands import Commit, Fail, Lease, Release, Renew, Reset, Resolve
from verity._ledger.effect import EventType, State, fold
from verity._store.lease_states import EffectName, LeaseState

LEASE_MS = 30_000


def taken_over() -> Story:
    """A live lease whose holder was told that an earlier one may have acted."""
    story = in_state(State.EXPIRED)
    story.now += 7
    story.send(Lease(LEASE_MS, "request-2"))
    return story


def after(story: Story) -> Any:
    assert story.effect is not None
    return story.effect


# --- the holder has not acted ---


@pytest.mark.parametrize("late_ms", [0, LEASE_MS], ids=["live", "expired"])
def test_a_release_without_an_act_restores_what_the_first_grant_found(late_ms: int) -> None:
    story = in_state(State.RUNNING)
    old = story.pair()
    story.now += late_ms
    assert story.send(Release(*old, "no", 60_000)).reply.word == "released"
    assert story.events[-1].detail == {"acted": "no", "priorState": "none"}
    assert (after(story).state(story.now), after(story).prior_state) == (State.IDLE, "none")
    granted = story.send(Lease(LEASE_MS, "request-2"))
    assert (after(story).prior_state, after(story).fence, after(story).attempt) == ("none", 2, 2)
    assert [event.type for event in granted.events] == [EventType.LEASE_GRANTED]
    assert story.send(Commit(*old, RESULT)).reply.word == "stale_fence"


@pytest.mark.parametrize(("mode", "told"), [("verify", "expired"), ("retry", "reset")])
def test_a_release_without_an_act_keeps_what_an_admin_said(mode: str, told: str) -> None:
    story = in_state(State.FAILED)
    story.send(Reset(mode=mode))
    story.send(Lease())
    story.send(Release(*story.pair(), "no"))
    story.send(Lease())
    assert after(story).prior_state == told


def test_a_release_without_an_act_leaves_the_doubt_about_an_earlier_holder() -> None:
    story = taken_over()
    expired_at = story.events[0].detail["leaseExpiresAt"]
    story.now += 1_000
    assert story.send(Release(*story.pair(), "no", 60_000)).reply.word == "released"
    assert (after(story).state(story.now), after(story).shown_status(story.now)) == (State.RELEASED, "EXPIRED")
    assert after(story).lease_expires_at == expired_at, "stuck for as long as before"
    granted = story.send(Lease())
    assert after(story).prior_state == "expired", "the next holder observes at once"
    assert [event.type for event in granted.events] == [EventType.LEASE_GRANTED]
    story.send(Release(*story.pair(), "no"))
    assert after(story).lease_expires_at == expired_at, "however often"


def test_whoever_gave_back_without_an_act_records_nothing() -> None:
    story = in_state(State.RUNNING)
    pair = story.pair()
    story.send(Release(*pair, "no"))
    for command in (Commit(*pair, RESULT), Fail(*pair, ERROR), Renew(*pair)):
        assert story.send(command).reply.word == "stale_fence"
    assert story.send(Release(*pair, "unknown")).reply.word == "already_released", "the first one counts"
    assert after(story).prior_state == "none"


# --- the holder may have acted ---


def test_nobody_is_granted_before_what_was_sent_has_settled() -> None:
    story = in_state(State.RUNNING)
    story.now += 1_000
    decision = story.send(Release(*story.pair(), "unknown", 60_000))
    assert decision.events[0].detail == {
        "acted": "unknown",
        "priorState": "expired",
        "settleMs": 60_000,
        "leaseExpiresAt": story.now,
        "settlesAt": story.now + 60_000,
    }
    for _ in range(2):
        story.now += 29_999
        assert story.send(Lease()).reply.word == "lease_conflict"
    story.now += 2
    granted = story.send(Lease())
    assert (granted.reply.word, after(story).prior_state) == ("granted", "expired")
    assert [event.type for event in granted.events] == [EventType.LEASE_GRANTED], "no lease expired"
    assert (after(story).settles_at, after(story).doubt_since) == (None, story.now - 60_000)


def test_what_the_releaser_finds_out_is_recorded_until_the_next_grant() -> None:
    for command, word in ((Commit, "accepted"), (Fail, "recorded")):
        for late_ms in (0, 600_000):
            story = in_state(State.RUNNING)
            pair = story.pair()
            story.send(Release(*pair, "unknown", 30_000))
            story.now += late_ms
            assert story.send(Renew(*pair)).reply.word == "stale_fence", "nobody holds the lease"
            assert story.send(command(*pair, RESULT)).reply.word == word
        story = in_state(State.RELEASED)
        pair = story.pair()
        story.send(Lease())
        assert story.send(command(*pair, RESULT)).reply.word == "stale_fence"
        assert story.send(Release(*pair, "no")).reply.word == "stale_fence", "nor does it end the lease of another"


def test_a_late_release_does_not_make_an_expiry_later() -> None:
    story = in_state(State.EXPIRED)
    expired_at = after(story).lease_expires_at
    story.now += 5_000
    story.send(Release(*story.pair(), "unknown", 30_000))
    assert after(story).lease_expires_at == expired_at
    story.now += 29_999
    assert story.send(Lease()).reply.word == "lease_conflict"


def test_a_clock_that_is_set_back_does_not_make_a_released_lease_live() -> None:
    story = in_state(State.RUNNING)
    pair = story.pair()
    story.send(Release(*pair, "unknown", 1_000))
    story.now -= 3_600_000
    assert after(story).state(story.now) is State.RELEASED
    assert story.send(Renew(*pair)).reply.word == "stale_fence"
    assert story.send(Resolve(RESULT)).reply.word == "resolved"


def test_a_request_that_is_resent_after_the_release_is_no_repeat_of_the_grant() -> None:
    for acted in ("no", "unknown"):
        story = in_state(State.RUNNING)
        story.send(Release(*story.pair(), acted, 0))
        assert after(story).idempotency_key is None, "by which an older program would repeat the grant"
        assert story.send(Lease(LEASE_MS, "request-1")).reply.word == "granted"
        assert after(story).fence == 2


@pytest.mark.parametrize("mode", ["verify", "retry"])
def test_only_an_admin_who_knows_that_nothing_happened_ends_the_settling(mode: str) -> None:
    story = in_state(State.RUNNING)
    story.send(Release(*story.pair(), "unknown", 60_000))
    assert story.send(Reset(mode=mode)).reply.word == "reset"
    assert fold(story.events).settles_at == (story.now + 60_000 if mode == "verify" else None)
    if mode == "verify":
        assert story.send(Lease()).reply.word == "lease_conflict"
        story.now += 60_000
    assert story.send(Lease()).reply.word == "granted"
    assert after(story).prior_state == ("expired" if mode == "verify" else "reset")


def test_a_failure_of_the_releaser_and_a_reset_do_not_end_the_settling() -> None:
    story = in_state(State.RUNNING)
    pair = story.pair()
    story.send(Release(*pair, "unknown", 60_000))
    story.send(Fail(*pair, ERROR))
    story.send(Reset())
    assert story.send(Lease()).reply.word == "lease_conflict"


# --- the attempt key, and the fence that an admin saw ---


def test_each_reset_to_retry_makes_a_new_attempt_key() -> None:
    story = in_state(State.FAILED)
    story.send(Reset(mode="verify"))
    assert after(story).retries == 0
    for _ in range(2):
        story.send(Reset(mode="retry"))
        assert after(story).retries == 1, "the same reset again is none"
    story.send(Lease())
    story.send(Release(*story.pair(), "no"))
    assert story.send(Reset(mode="retry")).reply.word == "reset", "the holder may have used the key"
    assert after(story).retries == 2


@pytest.mark.parametrize("state", [State.FAILED, State.EXPIRED, State.RELEASED, State.RUNNING])
@pytest.mark.parametrize("command", [Reset(force=True), Resolve(RESULT)], ids=["reset", "resolve"])
def test_an_admin_changes_only_what_they_saw(state: State, command: Reset | Resolve) -> None:
    if state is State.RUNNING and isinstance(command, Resolve):
        return  # refused in any case
    story = in_state(state)
    fence = after(story).fence
    for wrong in (fence - 1, fence + 1):
        refused = story.send(command._replace(expected_fence=wrong))
        assert (refused.reply.word, refused.reply.refused, refused.events) == ("stale_fence", True, ())
    right = command._replace(expected_fence=fence)
    done = story.send(right)
    assert done.reply.word in ("reset", "resolved")
    assert done.events[0].detail["expectedFence"] == fence
    again = story.send(right)
    assert again.reply.word == ("already_reset" if isinstance(command, Reset) else "already_committed")
    other = Reset(mode="retry") if isinstance(command, Reset) else Resolve(ERROR)
    if after(story).fence != fence:
        assert story.send(other._replace(expected_fence=fence)).reply.word == "stale_fence", "another change"


def test_a_forced_reset_that_is_resent_with_its_fence_does_not_hit_the_next_holder() -> None:
    story = in_state(State.RUNNING)
    reset = Reset(force=True, expected_fence=after(story).fence)
    story.send(reset)
    story.send(Lease())
    assert story.send(reset).reply.word == "stale_fence"
    assert after(story).state(story.now) is State.RUNNING


# --- in a store ---


def release(call: Caller, lease: Any, acted: str, settle_ms: int = 600_000) -> Any:
    return call("release_effect", {**call.tokens(lease), "acted": acted, "settleMs": settle_ms})


def test_a_release_counts_once(call: Caller, clock: TestClock) -> None:
    lease = call("lease_effect", {"effectKey": "k"})
    first = release(call, lease, "unknown")
    assert (first["status"], first["fenceToken"]) == ("released", 1)
    clock.advance(1_000)
    again = release(call, lease, "no")
    assert again == {**first, "status": "already_released"}
    assert call("get_effect", effectKey="k")["settlesAt"] == first["settlesAt"]
    clock.advance(599_000)
    granted = call("lease_effect", {"effectKey": "k"})
    assert (granted["priorState"], granted["fenceToken"], granted["attempt"]) == ("expired", 2, 2)
    assert call.refused("release_effect", {**call.tokens(lease), "acted": "no"}) == (409, "stale_fence")
    assert "settlesAt" not in call("get_effect", effectKey="k")


def test_half_a_minute_is_the_default(call: Caller, clock: TestClock) -> None:
    lease = call("lease_effect", {"effectKey": "k", "leaseDurationMs": 120_000})
    call("release_effect", {**call.tokens(lease), "acted": "unknown"})
    refused = call.ask("lease_effect", {"effectKey": "k"})
    assert refused.headers["retry-after"] == "1"
    details = json.loads(refused.body)["error"]["details"]
    assert details["leaseExpiresAt"] == call("get_effect", effectKey="k")["settlesAt"]
    clock.advance(29_999)
    assert call.refused("lease_effect", {"effectKey": "k"}) == (409, "lease_conflict")
    clock.advance(1)
    assert call("lease_effect", {"effectKey": "k"})["status"] == "granted"


def test_the_releaser_commits_on_every_path(call: Caller, clock: TestClock) -> None:
    lease = call("lease_effect", {"effectKey": "k"})
    release(call, lease, "unknown", 0)
    clock.advance(60_000)
    assert call("commit_effect", {**call.tokens(lease), "result": 7})["status"] == "accepted"
    assert call("lease_effect", {"effectKey": "k"})["cachedResult"] == 7


def test_what_was_released_is_listed_like_an_expired_effect(bench: Bench, call: Caller, clock: TestClock) -> None:
    doubtful = call("lease_effect", {"effectKey": "doubtful", "leaseDurationMs": 5_000})
    clock.advance(5_000)
    expired_at = call("get_effect", effectKey="doubtful")["leaseExpiresAt"]
    clock.advance(10_000)
    doubtful = call("lease_effect", {"effectKey": "doubtful"})
    release(call, call("lease_effect", {"effectKey": "released"}), "unknown")
    release(call, call("lease_effect", {"effectKey": "given back"}), "no")
    assert bench.store.expired_for_ms() == {"test": 0}, "of what was released just now"
    release(call, doubtful, "no")
    assert bench.store.expired_for_ms() == {"test": 10_000}, "nobody found out what became of it"
    expired = call("list_effects", status="EXPIRED")["items"]
    assert [item["effectKey"] for item in expired] == ["released", "doubtful"]
    assert [item["effectKey"] for item in call("list_effects", status="IDLE")["items"]] == ["given back"]
    stats = call("get_stats")
    assert (stats["byStatus"]["EXPIRED"], stats["oldestExpiredAt"]) == (2, expired_at)
    assert stats["events"]["LEASE_RELEASED"] == 3
    assert call("reset_effect", {"effectKey": "released", "mode": "retry"})["status"] == "reset"
    assert call("resolve_effect", {"effectKey": "doubtful", "result": 1})["status"] == "resolved"


def test_waiters_sleep_until_what_was_sent_has_settled(bench: Bench, call: Caller, clock: TestClock) -> None:
    names = [EffectName("test", "payments", key) for key in ("released", "reset", "given back", "live")]
    for name in names:
        lease = call("lease_effect", {"effectKey": name.key})
        if name.key != "live":
            release(call, lease, "no" if name.key == "given back" else "unknown", 50_000)
    call("reset_effect", {"effectKey": "reset"})
    assert _lease_states(bench, names) == [(50_000, False), (50_000, False), (0, False), (LEASE_MS, False)]
    clock.advance(50_000)
    assert _lease_states(bench, names) == [(0, False)] * 4


def _lease_states(bench: Bench, names: list[EffectName]) -> list[LeaseState]:
    store = bench.store
    states: list[LeaseState] = (
        store._run(store._store.lease_states(names)) if bench.kind == "postgres" else store.lease_states(names)
    )
    return states


def test_all_grants_of_an_effect_have_the_attempt_key_until_a_reset_to_retry(call: Caller, clock: TestClock) -> None:
    def grant(attempt: int, key: str = "k") -> str:
        lease = call("lease_effect", {"effectKey": key}, key="once")
        again = call("lease_effect", {"effectKey": key}, key="once")
        assert (again["attemptKey"], again["attempt"]) == (lease["attemptKey"], attempt)
        release(call, lease, "unknown", 0)
        return str(lease["attemptKey"])

    first = grant(1)
    assert grant(2) == first
    call("reset_effect", {"effectKey": "k"})
    assert grant(3) == first
    call("reset_effect", {"effectKey": "k", "mode": "retry"})
    second = grant(4)
    assert second != first
    assert grant(5) == second
    assert len({first, second, grant(1, "another")}) == 3
    assert Caller(call.store, "live")("lease_effect", {"effectKey": "k"})["attemptKey"] not in (first, second)


def test_a_stale_fence_says_what_was_expected(call: Caller) -> None:
    lease = call("lease_effect", {"effectKey": "k"})
    call("fail_effect", {**call.tokens(lease), "error": 1})
    for operation in ("reset_effect", "resolve_effect"):
        body = {"effectKey": "k", "expectedFence": 7} | ({"result": 1} if operation == "resolve_effect" else {})
        answer = call.ask(operation, body)
        error = json.loads(answer.body)["error"]
        assert (answer.status, error["code"], error["details"]["expectedFence"]) == (409, "stale_fence", 7)
        assert "it had fence 7: it has fence 1 now" in error["message"]
    assert call("reset_effect", {"effectKey": "k", "expectedFence": 1})["status"] == "reset"


def test_a_release_says_whether_the_holder_acted(call: Caller) -> None:
    lease = call("lease_effect", {"effectKey": "k"})
    wrong = {"effectKey": "k", **call.tokens(lease), "acted": "perhaps"}
    assert call.refused("release_effect", wrong) == (400, "invalid_request")
