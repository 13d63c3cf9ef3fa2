# Made from tests/_async/test_spool.py by scripts/mirror.py. Do not edit.
"""The spool: a result whose commit is not confirmed outlives the ledger's absence, and is committed once.

The ledger is away in these tests where its answers are planned to be lost or to be 503.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers._sync.faulty_transport import LOSE_ANSWER, LOSE_REQUEST, Says
from tests.helpers._sync.world import SyncWorld
from tests.helpers.concurrency import sync_gather
from verity import (
    CommitUncertainError,
    EffectPolicy,
    EffectPreviouslyFailedError,
    LeaseConflictError,
    ObserveFailedError,
    SyncVerityClient,
    VerityApiError,
    VerityConnectionError,
)
from verity._spool import Entry, Spool

AWAY = [LOSE_REQUEST] * 1000
PROCEED = EffectPolicy(on_unavailable="proceed")
STALE = Says(409, b'{"error": {"code": "stale_fence", "message": "another holder"}}')
FINISHED = Says(409, b'{"error": {"code": "effect_finished", "message": "it failed"}}')


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "verity.spool")


@pytest.fixture
def client(world: SyncWorld, path: str) -> SyncVerityClient:
    """A client with a spool."""
    return world.new_client(spool=path)


def overwrite(path: str) -> None:
    Path(path).write_bytes(b"no spool any more" * 100)


def waiting(path: str) -> list[Entry]:
    return Spool(path).read()


def fail_to_commit(world: SyncWorld, client: SyncVerityClient, **options: Any) -> CommitUncertainError:
    """Act, while the ledger is away at the commit."""
    world.network.faults["commit"] = list(AWAY)
    with pytest.raises(CommitUncertainError) as caught:
        client.protect(world.key, act=world.act, **options)
    world.network.faults["commit"].clear()
    return caught.value


def outcomes_of(world: SyncWorld) -> list[str]:
    """The audit trail without the renewals of a patient commit."""
    return [event for event in world.events() if event != "LEASE_RENEWED"]


def test_a_result_whose_commit_is_not_confirmed_is_in_the_spool(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    error = fail_to_commit(world, client)
    assert error.spooled
    assert "The result is in the spool" in str(error)
    assert isinstance(error.commit_error, VerityConnectionError)
    (entry,) = waiting(path)
    assert (entry.namespace, entry.effect_key, entry.kind, entry.source) == (
        "payments",
        world.key,
        "committed",
        "acted",
    )
    assert entry.value == error.result == {"refund": "re_1"}
    assert (entry.base_url, entry.environment) == (world.ledger.base_url, "test")
    assert (world.effect())["status"] == "RUNNING"


def overtake(world: SyncWorld, result: Any = None) -> dict[str, Any]:
    """Another holder is granted the effect, and commits, if there is a result. Returns its tokens."""
    world.clock.advance(60_000)
    lease = world.client.request_lease("payments", {"effectKey": world.key})
    tokens = {"effectKey": world.key, "fenceToken": lease.fence_token, "leaseToken": lease.lease_token}
    if result is not None:
        world.client.commit("payments", {**tokens, "result": result})
    return tokens


def test_without_a_spool_nothing_is_spooled(world: SyncWorld) -> None:
    error = fail_to_commit(world, world.client)
    assert not error.spooled
    assert "look it up in the ledger and reconcile it" in str(error)


def test_the_next_start_of_a_client_replays(world: SyncWorld, client: SyncVerityClient, path: str) -> None:
    fail_to_commit(world, client)
    with world.new_client(spool=path):
        assert (world.effect())["result"] == {"refund": "re_1"}
    assert waiting(path) == []
    assert world.client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]


def test_the_first_call_of_a_client_replays_the_results_of_other_effects(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    fail_to_commit(world, client)
    world.new_client(spool=path).protect(f"{world.key}-other", act=world.act)
    assert (world.effect())["status"] == "COMMITTED"
    assert waiting(path) == []


def test_the_very_next_call_for_the_key_gets_the_result(world: SyncWorld, client: SyncVerityClient, path: str) -> None:
    """Without a wait, an observe, or another act: before its lease request."""
    client.protect(f"{world.key}-first", act=world.act)
    fail_to_commit(world, client)
    world.network.sent.clear()
    assert client.protect(world.key, act=world.act) == {"refund": "re_2"}
    assert world.network.operations() == ["commit", "lease"]
    assert len(world.acts) == 2
    assert waiting(path) == []
    assert outcomes_of(world) == ["LEASE_GRANTED", "COMMITTED"]


def test_the_lease_may_have_expired_meanwhile(world: SyncWorld, client: SyncVerityClient) -> None:
    fail_to_commit(world, client)
    world.clock.advance(60_000)
    assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]


def test_a_call_goes_no_further_while_the_result_of_its_effect_can_not_be_committed(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    """It could be granted a lease, and act again."""
    fail_to_commit(world, client)
    world.clock.advance(60_000)
    for fault, kind in (
        (LOSE_REQUEST, VerityConnectionError),
        (Says(503), VerityApiError),
        (Says(401), VerityApiError),
    ):
        world.network.faults["commit"] = [fault] * 20
        world.network.sent.clear()
        with pytest.raises(kind) as caught:
            client.protect(world.key, act=world.act, policy=EffectPolicy(on_unknown="act"))
        assert "The spool has a result" in caught.value.__notes__[0]  # type: ignore[attr-defined]  # typed from 3.11 on
        assert "lease" not in world.network.operations()
    assert len(waiting(path)) == 1
    world.network.faults["commit"].clear()
    assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]


def test_a_replay_of_other_effects_takes_some_seconds_and_no_longer(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    first = world.key
    for number in range(4):
        world.key = f"{first}-{number}"
        fail_to_commit(world, client)
    world.network.faults["commit"] = [lambda: world.clock.advance(6_000)] * 4
    with world.new_client(spool=path) as other:
        assert len(waiting(path)) == 2
        world.runtime.advance(31)
        other.protect(f"{first}-later", act=world.act)
        assert waiting(path) == []


def test_an_effect_that_is_lost_again_during_its_replay_stays(world: SyncWorld, path: str) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    world.network.faults.update(lease=[LOSE_REQUEST] * 3, commit=[STALE, Says(403)])
    client.protect(world.key, act=world.act)
    for _ in range(2):
        with world.new_client(spool=path):
            assert len(waiting(path)) == 1
    with world.new_client(spool=path):
        assert (waiting(path), Spool(path).rejected()) == ([], [])


def test_a_lease_that_can_not_be_given_back_expires(world: SyncWorld, client: SyncVerityClient, path: str) -> None:
    fail_to_commit(world, client)
    client.effects.reset(world.key, mode="retry", force=True)
    world.network.faults["release"] = [LOSE_REQUEST] * 3
    with world.new_client(spool=path):
        assert [each.code for each in Spool(path).rejected()] == ["stale_fence"]


def test_a_lost_answer_to_a_replay_changes_nothing(world: SyncWorld, client: SyncVerityClient, path: str) -> None:
    fail_to_commit(world, client)
    world.network.faults["commit"] = [LOSE_ANSWER]
    with world.new_client(spool=path):
        assert len(waiting(path)) == 1, "it is replayed later"
    with world.new_client(spool=path):
        assert waiting(path) == []
    assert outcomes_of(world) == ["LEASE_GRANTED", "COMMITTED"]


def test_a_commit_that_arrived_although_its_answer_was_lost_is_confirmed_by_the_replay(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    world.network.faults["commit"] = [LOSE_ANSWER] * 1000
    with pytest.raises(CommitUncertainError) as caught:
        client.protect(world.key, act=world.act)
    world.network.faults["commit"].clear()
    assert caught.value.spooled
    assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert waiting(path) == []


def test_a_replay_stops_while_the_ledger_is_away_and_is_tried_again_later(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    first = world.key
    fail_to_commit(world, client)
    world.key = f"{first}-second"
    fail_to_commit(world, client)
    world.network.faults["commit"] = [Says(503)]
    world.network.sent.clear()
    with world.new_client(spool=path) as other:
        assert [each.body["effectKey"] for each in world.network.sent] == [first]
        assert len(waiting(path)) == 2
        other.protect(f"{world.key}-soon", act=world.act)
        assert len(waiting(path)) == 2, "not with every call"
        world.runtime.advance(31)
        other.protect(f"{world.key}-later", act=world.act)
        assert waiting(path) == []


def test_a_client_also_replays_what_it_spooled_itself(world: SyncWorld, client: SyncVerityClient, path: str) -> None:
    client.protect(f"{world.key}-first", act=world.act)
    fail_to_commit(world, client)
    world.runtime.advance(31)
    client.protect(f"{world.key}-later", act=world.act)
    assert waiting(path) == []
    assert (world.effect())["status"] == "COMMITTED"


def test_what_the_ledger_refuses_for_good_is_kept_apart_and_told(
    world: SyncWorld, client: SyncVerityClient, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    fail_to_commit(world, client)
    overtake(world, result={"refund": "re_7"})
    caplog.set_level(logging.WARNING)
    with world.new_client(spool=path):
        pass
    assert f"The result of effect '{world.key}' in namespace 'payments' can never be committed (stale_fence)" in (
        caplog.text
    )
    assert waiting(path) == []
    (refused,) = Spool(path).rejected()
    assert (refused.code, refused.effect_key, refused.value) == ("stale_fence", world.key, {"refund": "re_1"})
    for secret in (refused.token, "re_1"):
        assert secret not in caplog.text
        assert secret not in repr(refused)


def test_what_is_refused_for_good_at_the_commit_itself_is_kept_for_people_and_not_called_spooled(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    world.network.faults["commit"] = [FINISHED]
    with pytest.raises(CommitUncertainError) as caught:
        client.protect(world.key, act=world.act)
    assert not caught.value.spooled
    assert "reconcile it" in str(caught.value)
    assert waiting(path) == []
    assert [each.code for each in Spool(path).rejected()] == ["effect_finished"]


def test_a_result_waits_while_the_holder_that_overtook_it_is_at_work(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    error = fail_to_commit(world, client)
    later = overtake(world)
    with world.new_client(spool=path):
        assert len(waiting(path)) == 1
    world.client.commit("payments", {**later, "result": error.result})
    with world.new_client(spool=path):
        assert (waiting(path), Spool(path).rejected()) == ([], []), "it is the same result"


@pytest.mark.parametrize("how", ["start", "protect"])
def test_a_result_is_committed_after_a_holder_that_overtook_it_and_did_not_finish(
    world: SyncWorld, client: SyncVerityClient, path: str, how: str
) -> None:
    """A holder elsewhere, without this spool, that was blocked or crashed."""
    fail_to_commit(world, client)
    overtake(world)
    world.clock.advance(60_000)
    if how == "start":
        with world.new_client(spool=path):
            pass
    else:
        assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert (world.effect())["result"] == {"refund": "re_1"}
    assert (waiting(path), Spool(path).rejected(), world.acts) == ([], [], [world.key])


def test_an_admin_who_says_that_nobody_acted_counts_more_than_the_spool(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    fail_to_commit(world, client)
    client.effects.reset(world.key, mode="retry", force=True)
    assert client.protect(world.key, act=world.act) == {"refund": "re_2"}
    assert [each.code for each in Spool(path).rejected()] == ["stale_fence"]
    assert waiting(path) == []
    assert "LEASE_RELEASED" in world.events()


def test_a_replay_of_an_effect_that_failed_meanwhile_is_refused_for_good(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    fail_to_commit(world, client)
    world.network.faults["commit"] = [FINISHED]
    with world.new_client(spool=path):
        assert [each.code for each in Spool(path).rejected()] == ["effect_finished"]
    assert waiting(path) == []


def test_a_spool_that_lacks_an_effect_is_not_read_again(world: SyncWorld, client: SyncVerityClient, path: str) -> None:
    os.utime(path, (0, 0))
    for number in range(3):
        client.protect(f"{world.key}-{number}", act=world.act)
    assert len(world.acts) == 3


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 413, 401, 403, 429, 500, 499])
def test_an_answer_that_is_not_the_ledgers_own_rejects_nothing(
    world: SyncWorld, client: SyncVerityClient, path: str, status: int
) -> None:
    """A proxy without a route answers 404 for a while."""
    fail_to_commit(world, client)
    world.network.faults["commit"] = [Says(status, b"<html>no</html>")]
    with world.new_client(spool=path):
        pass
    assert len(waiting(path)) == 1
    assert Spool(path).rejected() == []


def test_a_refusal_of_one_entry_does_not_keep_back_the_others(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    fail_to_commit(world, client)
    first = world.key
    world.key = f"{first}-second"
    fail_to_commit(world, client)
    world.network.faults["commit"] = [Says(403)]
    with world.new_client(spool=path):
        assert [each.effect_key for each in waiting(path)] == [first]
    assert (world.effect())["status"] == "COMMITTED"


def test_a_result_is_written_as_soon_as_its_commit_meets_trouble(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    """The process may be killed while it goes on trying."""
    seen: list[int] = []

    def look() -> None:
        seen.append(len(waiting(path)))

    world.network.faults["commit"] = [LOSE_REQUEST, look]
    assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert seen == [1]
    assert waiting(path) == []


def test_a_result_that_is_too_large_is_kept_for_people(world: SyncWorld, path: str) -> None:
    large = "x" * 70_000
    client = world.new_client(spool=path, policy=PROCEED)
    for faults in ([], [LOSE_REQUEST] * 3):
        world.network.faults["lease"] = list(faults)
        with pytest.raises(CommitUncertainError) as caught:
            client.protect(f"{world.key}-{len(faults)}", act=lambda: (large,))
        assert not caught.value.spooled
    assert [(each.code, each.value) for each in Spool(path).rejected()] == [("payload_too_large", [large])] * 2
    with pytest.raises(CommitUncertainError):
        client.protect(f"{world.key}-2", act=_what_is_not_json)
    assert len(Spool(path).rejected()) == 2


def test_always_writes_before_the_commit_and_removes_after_it(world: SyncWorld, path: str) -> None:
    client = world.new_client(spool=path, spool_when="always")
    seen: list[int] = []

    def look() -> None:
        seen.append(len(waiting(path)))

    world.network.faults["commit"] = [look]
    assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert seen == [1]
    assert waiting(path) == []


def test_an_entry_of_a_process_that_died_before_its_commit_is_committed(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    """With always: killed between the write and the commit."""
    lease = client.request_lease("payments", {"effectKey": world.key})
    entry = Entry(
        world.ledger.base_url,
        "test",
        "payments",
        world.key,
        "committed",
        lease.fence_token,
        str(lease.lease_token),
        '{"refund":"re_9"}',
        "acted",
    )
    Spool(path).add(entry)
    assert world.new_client(spool=path).protect(world.key, act=world.act) == {"refund": "re_9"}
    assert not world.acts


def test_what_an_earlier_holder_spooled_is_committed_by_the_call_that_waited_for_it(
    world: SyncWorld, client: SyncVerityClient, path: str
) -> None:
    """The entry came after the look before the lease request. It counts more than observe and act."""
    lease = world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5000})

    def spool() -> None:
        tokens = (lease.fence_token, str(lease.lease_token))
        names = (world.ledger.base_url, "test", "payments", world.key)
        Spool(path).add(Entry(*names, "committed", *tokens, '{"refund":"re_9"}', "acted"))
        world.clock.advance(5000)

    world.network.faults["lease"] = [spool]
    assert client.protect(world.key, act=world.act, observe=world.find) == {"refund": "re_9"}
    assert not world.acts
    assert waiting(path) == []
    assert (world.effect())["source"] == "observed"


def test_entries_for_another_ledger_or_environment_stay(world: SyncWorld, path: str) -> None:
    spool = Spool(path)
    for base_url, environment in (("https://other.example/v1", "test"), (world.ledger.base_url, "live")):
        spool.add(Entry(base_url, environment, "payments", world.key, "committed", 1, "token", "1", "acted"))
    with world.new_client(spool=path) as client:
        assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert len(waiting(path)) == 2


def test_an_entry_that_is_no_commit_is_rejected_and_not_sent(world: SyncWorld, path: str) -> None:
    spool = Spool(path)
    ledger = (world.ledger.base_url, "test")
    kinds: Any = ("committed", "unknown")
    for kind, namespace, fence, result, source in (
        (kinds[0], "../keys", 1, "1", "acted"),
        (kinds[0], "payments", -1, "1", "acted"),
        (kinds[0], "payments", 1, "{", "acted"),
        (kinds[0], "payments", 1, "1", "resolved"),
        (kinds[1], "payments", 1, "1", "acted"),
    ):
        token = f"{kind}{namespace}{fence}{result}{source}"
        spool.add(Entry(*ledger, namespace, world.key, kind, fence, token, result, source))
    with world.new_client(spool=path):
        pass
    assert world.network.sent == []
    assert [each.code for each in spool.rejected()] == ["invalid_entry"] * 5
    assert waiting(path) == []


def test_a_spool_that_fails_is_told_and_changes_nothing_else(
    world: SyncWorld, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    for when in ("trouble", "always"):
        client = world.new_client(spool=path, spool_when=when)
        overwrite(path)
        with caplog.at_level(logging.WARNING):
            error = fail_to_commit(world, client)
        assert not error.spooled
        assert f"The spool {path} can't be used: NotADBError" in caplog.text
        assert error.result == {"refund": f"re_{len(world.acts)}"}
        for _ in range(2):
            assert client.protect(f"{world.key}-next", act=lambda: 1) == 1
        Path.unlink(Path(path))
        world.key = f"{world.key}-2"


# --- on_unavailable="proceed" ---


@pytest.mark.parametrize("fault", [LOSE_REQUEST, LOSE_ANSWER, Says(500), Says(502, b"<html>"), Says(503)], ids=str)
def test_proceed_acts_without_a_lease_while_the_ledger_is_away(
    world: SyncWorld, path: str, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    world.network.faults["lease"] = [fault] * 3
    with caplog.at_level(logging.WARNING):
        assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert f"Effect '{world.key}' runs unprotected" in caplog.text
    assert world.network.operations() == ["lease"] * 3
    (entry,) = waiting(path)
    assert (entry.kind, entry.fence, entry.value) == ("unprotected", None, {"refund": "re_1"})
    world.clock.advance(60_000)  # the lease of a request whose answer was lost
    assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]
    assert waiting(path) == []
    assert (world.effect())["status"] == "COMMITTED"


def test_block_is_the_default(world: SyncWorld, client: SyncVerityClient) -> None:
    world.network.faults["lease"] = [LOSE_REQUEST] * 3
    with pytest.raises(VerityConnectionError):
        client.protect(world.key, act=world.act)
    assert not world.acts


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 410, 413, 422, 425, 429])
def test_a_refusal_always_raises(world: SyncWorld, status: int) -> None:
    world.network.faults["lease"] = [Says(status)] * 3
    with pytest.raises(VerityApiError):
        world.client.protect(world.key, act=world.act, policy=PROCEED)
    assert not world.acts


def test_proceed_does_not_act_beside_a_holder_that_it_has_met(world: SyncWorld, path: str) -> None:
    world.client.request_lease("payments", {"effectKey": world.key})
    world.network.faults["lease"] = [lambda: None, *AWAY]
    with pytest.raises(VerityConnectionError):
        world.new_client(policy=PROCEED, spool=path).protect(world.key, act=world.act)
    world.network.faults["lease"].clear()
    with pytest.raises(LeaseConflictError):
        world.client.protect(world.key, act=world.act, policy=PROCEED, on_conflict="throw")
    assert not world.acts


def test_proceed_returns_the_result_that_is_in_the_spool_instead_of_acting_again(world: SyncWorld, path: str) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    fail_to_commit(world, client)
    world.network.faults.update(lease=list(AWAY), commit=list(AWAY))
    assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    world.key = f"{world.key}-unprotected"
    for _ in range(2):
        assert client.protect(world.key, act=world.act) == {"refund": "re_2"}
    assert len(world.acts) == 2


def test_proceed_observes_first(world: SyncWorld, path: str) -> None:
    world.network.faults["lease"] = list(AWAY)
    client = world.new_client(policy=PROCEED, spool=path)
    world.acts.append("elsewhere")
    assert client.protect(world.key, act=world.act, observe=world.find) == {"refund": "re_1"}
    assert world.acts == ["elsewhere"]
    assert [each.source for each in waiting(path)] == ["observed"]

    def raises() -> None:
        raise LookupError

    with pytest.raises(ObserveFailedError):
        client.protect(f"{world.key}-2", act=world.act, observe=raises)
    assert world.acts == ["elsewhere"]


def test_proceed_needs_no_spool_and_an_exception_of_act_comes_out(world: SyncWorld) -> None:
    world.network.faults["lease"] = list(AWAY)

    def raises() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        world.client.protect(world.key, act=raises, policy=PROCEED)
    assert world.client.protect(world.key, act=world.act, policy=PROCEED) == {"refund": "re_1"}
    with pytest.raises(CommitUncertainError):
        world.client.protect(world.key, act=_what_is_not_json, policy=PROCEED)


def _what_is_not_json() -> object:
    return object()


def test_an_unprotected_result_is_compared_with_the_one_that_the_effect_has(world: SyncWorld, path: str) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    same, other, failed = (f"{world.key}-{name}" for name in ("same", "other", "failed"))
    for key in (same, other, failed):
        world.network.faults["lease"] = [LOSE_REQUEST] * 3
        client.protect(key, act=lambda: {"refund": 1})
    assert world.client.protect(same, act=lambda: {"refund": 1}) == {"refund": 1}
    assert world.client.protect(other, act=lambda: {"refund": True}) == {"refund": True}
    with pytest.raises(ZeroDivisionError):
        world.client.protect(failed, act=lambda: 1 // 0)
    with world.new_client(spool=path):
        pass
    assert waiting(path) == []
    assert [(each.effect_key, each.code) for each in Spool(path).rejected()] == [
        (other, "other_result"),
        (failed, "effect_finished"),
    ]
    with pytest.raises(EffectPreviouslyFailedError):
        client.protect(failed, act=world.act)


def test_an_unprotected_result_waits_for_another_holder(world: SyncWorld, path: str) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    world.network.faults["lease"] = [LOSE_REQUEST] * 3
    client.protect(world.key, act=world.act)
    world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5000})
    with world.new_client(spool=path):
        assert len(waiting(path)) == 1
    assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]
    assert waiting(path) == []


def test_a_lost_answer_to_the_commit_of_an_unprotected_result_is_survived(world: SyncWorld, path: str) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    world.network.faults.update(lease=[LOSE_REQUEST] * 3, commit=[LOSE_REQUEST])
    client.protect(world.key, act=world.act, effect_name="stripe.refund")
    with world.new_client(spool=path):
        assert len(waiting(path)) == 1
    with world.new_client(spool=path):
        assert waiting(path) == []
    effect = world.effect()
    assert (effect["status"], effect["effectName"], effect["fenceToken"]) == ("COMMITTED", "stripe.refund", 1)


def test_many_calls_share_one_spool(world: SyncWorld, path: str) -> None:
    clients = [world.new_client(spool=path) for _ in range(3)]
    keys = [f"{world.key}-{number}" for number in range(12)]
    # Not away: each call's patience would advance the time of the others' leases.
    world.network.faults["commit"] = [Says(500)] * 1000
    outcomes = sync_gather(
        [
            lambda key=key, client=clients[number % 3]: client.protect(key, act=world.act)  # type: ignore[misc]
            for number, key in enumerate(keys)
        ]
    )
    assert all(isinstance(each, CommitUncertainError) and each.spooled for each in outcomes)
    world.network.faults["commit"].clear()
    again = sync_gather([lambda key=key: clients[0].protect(key, act=world.act) for key in keys])  # type: ignore[misc]
    assert again == [each.result for each in outcomes]
    assert len(world.acts) == len(keys)
    assert waiting(path) == []
