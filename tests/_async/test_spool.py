"""The spool: a result whose commit is not confirmed outlives the ledger's absence, and is committed once.

The ledger is away in these tests where its answers are planned to be lost or to be 503.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers._async.faulty_transport import LOSE_ANSWER, LOSE_REQUEST, Says
from tests.helpers._async.world import AsyncWorld
from tests.helpers.concurrency import async_gather
from verity import (
    CommitUncertainError,
    EffectPolicy,
    EffectPreviouslyFailedError,
    LeaseConflictError,
    ObserveFailedError,
    VerityApiError,
    VerityClient,
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
def client(world: AsyncWorld, path: str) -> VerityClient:
    """A client with a spool."""
    return world.new_client(spool=path)


def overwrite(path: str) -> None:
    Path(path).write_bytes(b"no spool any more" * 100)


def waiting(path: str) -> list[Entry]:
    return Spool(path).read()


async def fail_to_commit(world: AsyncWorld, client: VerityClient, **options: Any) -> CommitUncertainError:
    """Act, while the ledger is away at the commit."""
    world.network.faults["commit"] = list(AWAY)
    with pytest.raises(CommitUncertainError) as caught:
        await client.protect(world.key, act=world.act, **options)
    world.network.faults["commit"].clear()
    return caught.value


async def outcomes_of(world: AsyncWorld) -> list[str]:
    """The audit trail without the renewals of a patient commit."""
    return [event for event in await world.events() if event != "LEASE_RENEWED"]


async def test_a_result_whose_commit_is_not_confirmed_is_in_the_spool(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    error = await fail_to_commit(world, client)
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
    assert (await world.effect())["status"] == "RUNNING"


async def overtake(world: AsyncWorld, result: Any = None) -> dict[str, Any]:
    """Another holder is granted the effect, and commits, if there is a result. Returns its tokens."""
    world.clock.advance(60_000)
    lease = await world.client.request_lease("payments", {"effectKey": world.key})
    tokens = {"effectKey": world.key, "fenceToken": lease.fence_token, "leaseToken": lease.lease_token}
    if result is not None:
        await world.client.commit("payments", {**tokens, "result": result})
    return tokens


async def test_without_a_spool_nothing_is_spooled(world: AsyncWorld) -> None:
    error = await fail_to_commit(world, world.client)
    assert not error.spooled
    assert "look it up in the ledger and reconcile it" in str(error)


async def test_the_next_start_of_a_client_replays(world: AsyncWorld, client: VerityClient, path: str) -> None:
    await fail_to_commit(world, client)
    async with world.new_client(spool=path):
        assert (await world.effect())["result"] == {"refund": "re_1"}
    assert waiting(path) == []
    assert await world.client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]


async def test_the_first_call_of_a_client_replays_the_results_of_other_effects(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    await fail_to_commit(world, client)
    await world.new_client(spool=path).protect(f"{world.key}-other", act=world.act)
    assert (await world.effect())["status"] == "COMMITTED"
    assert waiting(path) == []


async def test_the_very_next_call_for_the_key_gets_the_result(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    """Without a wait, an observe, or another act: before its lease request."""
    await client.protect(f"{world.key}-first", act=world.act)
    await fail_to_commit(world, client)
    world.network.sent.clear()
    assert await client.protect(world.key, act=world.act) == {"refund": "re_2"}
    assert world.network.operations() == ["commit", "lease"]
    assert len(world.acts) == 2
    assert waiting(path) == []
    assert await outcomes_of(world) == ["LEASE_GRANTED", "COMMITTED"]


async def test_the_lease_may_have_expired_meanwhile(world: AsyncWorld, client: VerityClient) -> None:
    await fail_to_commit(world, client)
    world.clock.advance(60_000)
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]


async def test_a_call_goes_no_further_while_the_result_of_its_effect_can_not_be_committed(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    """It could be granted a lease, and act again."""
    await fail_to_commit(world, client)
    world.clock.advance(60_000)
    for fault, kind in (
        (LOSE_REQUEST, VerityConnectionError),
        (Says(503), VerityApiError),
        (Says(401), VerityApiError),
    ):
        world.network.faults["commit"] = [fault] * 20
        world.network.sent.clear()
        with pytest.raises(kind) as caught:
            await client.protect(world.key, act=world.act, policy=EffectPolicy(on_unknown="act"))
        assert "The spool has a result" in caught.value.__notes__[0]  # type: ignore[attr-defined]  # typed from 3.11 on
        assert "lease" not in world.network.operations()
    assert len(waiting(path)) == 1
    world.network.faults["commit"].clear()
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]


async def test_a_replay_of_other_effects_takes_some_seconds_and_no_longer(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    first = world.key
    for number in range(4):
        world.key = f"{first}-{number}"
        await fail_to_commit(world, client)
    world.network.faults["commit"] = [lambda: world.clock.advance(6_000)] * 4
    async with world.new_client(spool=path) as other:
        assert len(waiting(path)) == 2
        await world.runtime.advance(31)
        await other.protect(f"{first}-later", act=world.act)
        assert waiting(path) == []


async def test_an_effect_that_is_lost_again_during_its_replay_stays(world: AsyncWorld, path: str) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    world.network.faults.update(lease=[LOSE_REQUEST] * 3, commit=[STALE, Says(403)])
    await client.protect(world.key, act=world.act)
    for _ in range(2):
        async with world.new_client(spool=path):
            assert len(waiting(path)) == 1
    async with world.new_client(spool=path):
        assert (waiting(path), Spool(path).rejected()) == ([], [])


async def test_a_lease_that_can_not_be_given_back_expires(world: AsyncWorld, client: VerityClient, path: str) -> None:
    await fail_to_commit(world, client)
    await client.effects.reset(world.key, mode="retry", force=True)
    world.network.faults["release"] = [LOSE_REQUEST] * 3
    async with world.new_client(spool=path):
        assert [each.code for each in Spool(path).rejected()] == ["stale_fence"]


async def test_a_lost_answer_to_a_replay_changes_nothing(world: AsyncWorld, client: VerityClient, path: str) -> None:
    await fail_to_commit(world, client)
    world.network.faults["commit"] = [LOSE_ANSWER]
    async with world.new_client(spool=path):
        assert len(waiting(path)) == 1, "it is replayed later"
    async with world.new_client(spool=path):
        assert waiting(path) == []
    assert await outcomes_of(world) == ["LEASE_GRANTED", "COMMITTED"]


async def test_a_commit_that_arrived_although_its_answer_was_lost_is_confirmed_by_the_replay(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    world.network.faults["commit"] = [LOSE_ANSWER] * 1000
    with pytest.raises(CommitUncertainError) as caught:
        await client.protect(world.key, act=world.act)
    world.network.faults["commit"].clear()
    assert caught.value.spooled
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert waiting(path) == []


async def test_a_replay_stops_while_the_ledger_is_away_and_is_tried_again_later(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    first = world.key
    await fail_to_commit(world, client)
    world.key = f"{first}-second"
    await fail_to_commit(world, client)
    world.network.faults["commit"] = [Says(503)]
    world.network.sent.clear()
    async with world.new_client(spool=path) as other:
        assert [each.body["effectKey"] for each in world.network.sent] == [first]
        assert len(waiting(path)) == 2
        await other.protect(f"{world.key}-soon", act=world.act)
        assert len(waiting(path)) == 2, "not with every call"
        await world.runtime.advance(31)
        await other.protect(f"{world.key}-later", act=world.act)
        assert waiting(path) == []


async def test_a_client_also_replays_what_it_spooled_itself(world: AsyncWorld, client: VerityClient, path: str) -> None:
    await client.protect(f"{world.key}-first", act=world.act)
    await fail_to_commit(world, client)
    await world.runtime.advance(31)
    await client.protect(f"{world.key}-later", act=world.act)
    assert waiting(path) == []
    assert (await world.effect())["status"] == "COMMITTED"


async def test_what_the_ledger_refuses_for_good_is_kept_apart_and_told(
    world: AsyncWorld, client: VerityClient, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    await fail_to_commit(world, client)
    await overtake(world, result={"refund": "re_7"})
    caplog.set_level(logging.WARNING)
    async with world.new_client(spool=path):
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


async def test_what_is_refused_for_good_at_the_commit_itself_is_kept_for_people_and_not_called_spooled(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    world.network.faults["commit"] = [FINISHED]
    with pytest.raises(CommitUncertainError) as caught:
        await client.protect(world.key, act=world.act)
    assert not caught.value.spooled
    assert "reconcile it" in str(caught.value)
    assert waiting(path) == []
    assert [each.code for each in Spool(path).rejected()] == ["effect_finished"]


async def test_a_result_waits_while_the_holder_that_overtook_it_is_at_work(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    error = await fail_to_commit(world, client)
    later = await overtake(world)
    async with world.new_client(spool=path):
        assert len(waiting(path)) == 1
    await world.client.commit("payments", {**later, "result": error.result})
    async with world.new_client(spool=path):
        assert (waiting(path), Spool(path).rejected()) == ([], []), "it is the same result"


@pytest.mark.parametrize("how", ["start", "protect"])
async def test_a_result_is_committed_after_a_holder_that_overtook_it_and_did_not_finish(
    world: AsyncWorld, client: VerityClient, path: str, how: str
) -> None:
    """A holder elsewhere, without this spool, that was blocked or crashed."""
    await fail_to_commit(world, client)
    await overtake(world)
    world.clock.advance(60_000)
    if how == "start":
        async with world.new_client(spool=path):
            pass
    else:
        assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert (await world.effect())["result"] == {"refund": "re_1"}
    assert (waiting(path), Spool(path).rejected(), world.acts) == ([], [], [world.key])


async def test_an_admin_who_says_that_nobody_acted_counts_more_than_the_spool(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    await fail_to_commit(world, client)
    await client.effects.reset(world.key, mode="retry", force=True)
    assert await client.protect(world.key, act=world.act) == {"refund": "re_2"}
    assert [each.code for each in Spool(path).rejected()] == ["stale_fence"]
    assert waiting(path) == []
    assert "LEASE_RELEASED" in await world.events()


async def test_a_replay_of_an_effect_that_failed_meanwhile_is_refused_for_good(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    await fail_to_commit(world, client)
    world.network.faults["commit"] = [FINISHED]
    async with world.new_client(spool=path):
        assert [each.code for each in Spool(path).rejected()] == ["effect_finished"]
    assert waiting(path) == []


async def test_a_spool_that_lacks_an_effect_is_not_read_again(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    os.utime(path, (0, 0))
    for number in range(3):
        await client.protect(f"{world.key}-{number}", act=world.act)
    assert len(world.acts) == 3


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 413, 401, 403, 429, 500, 499])
async def test_an_answer_that_is_not_the_ledgers_own_rejects_nothing(
    world: AsyncWorld, client: VerityClient, path: str, status: int
) -> None:
    """A proxy without a route answers 404 for a while."""
    await fail_to_commit(world, client)
    world.network.faults["commit"] = [Says(status, b"<html>no</html>")]
    async with world.new_client(spool=path):
        pass
    assert len(waiting(path)) == 1
    assert Spool(path).rejected() == []


async def test_a_refusal_of_one_entry_does_not_keep_back_the_others(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    await fail_to_commit(world, client)
    first = world.key
    world.key = f"{first}-second"
    await fail_to_commit(world, client)
    world.network.faults["commit"] = [Says(403)]
    async with world.new_client(spool=path):
        assert [each.effect_key for each in waiting(path)] == [first]
    assert (await world.effect())["status"] == "COMMITTED"


async def test_a_result_is_written_as_soon_as_its_commit_meets_trouble(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    """The process may be killed while it goes on trying."""
    seen: list[int] = []

    def look() -> None:
        seen.append(len(waiting(path)))

    world.network.faults["commit"] = [LOSE_REQUEST, look]
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert seen == [1]
    assert waiting(path) == []


async def test_a_result_that_is_too_large_is_kept_for_people(world: AsyncWorld, path: str) -> None:
    large = "x" * 70_000
    client = world.new_client(spool=path, policy=PROCEED)
    for faults in ([], [LOSE_REQUEST] * 3):
        world.network.faults["lease"] = list(faults)
        with pytest.raises(CommitUncertainError) as caught:
            await client.protect(f"{world.key}-{len(faults)}", act=lambda: (large,))
        assert not caught.value.spooled
    assert [(each.code, each.value) for each in Spool(path).rejected()] == [("payload_too_large", [large])] * 2
    with pytest.raises(CommitUncertainError):
        await client.protect(f"{world.key}-2", act=_what_is_not_json)
    assert len(Spool(path).rejected()) == 2


async def test_always_writes_before_the_commit_and_removes_after_it(world: AsyncWorld, path: str) -> None:
    client = world.new_client(spool=path, spool_when="always")
    seen: list[int] = []

    def look() -> None:
        seen.append(len(waiting(path)))

    world.network.faults["commit"] = [look]
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert seen == [1]
    assert waiting(path) == []


async def test_an_entry_of_a_process_that_died_before_its_commit_is_committed(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    """With always: killed between the write and the commit."""
    lease = await client.request_lease("payments", {"effectKey": world.key})
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
    assert await world.new_client(spool=path).protect(world.key, act=world.act) == {"refund": "re_9"}
    assert not world.acts


async def test_what_an_earlier_holder_spooled_is_committed_by_the_call_that_waited_for_it(
    world: AsyncWorld, client: VerityClient, path: str
) -> None:
    """The entry came after the look before the lease request. It counts more than observe and act."""
    lease = await world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5000})

    def spool() -> None:
        tokens = (lease.fence_token, str(lease.lease_token))
        names = (world.ledger.base_url, "test", "payments", world.key)
        Spool(path).add(Entry(*names, "committed", *tokens, '{"refund":"re_9"}', "acted"))
        world.clock.advance(5000)

    world.network.faults["lease"] = [spool]
    assert await client.protect(world.key, act=world.act, observe=world.find) == {"refund": "re_9"}
    assert not world.acts
    assert waiting(path) == []
    assert (await world.effect())["source"] == "observed"


async def test_entries_for_another_ledger_or_environment_stay(world: AsyncWorld, path: str) -> None:
    spool = Spool(path)
    for base_url, environment in (("https://other.example/v1", "test"), (world.ledger.base_url, "live")):
        spool.add(Entry(base_url, environment, "payments", world.key, "committed", 1, "token", "1", "acted"))
    async with world.new_client(spool=path) as client:
        assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert len(waiting(path)) == 2


async def test_an_entry_that_is_no_commit_is_rejected_and_not_sent(world: AsyncWorld, path: str) -> None:
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
    async with world.new_client(spool=path):
        pass
    assert world.network.sent == []
    assert [each.code for each in spool.rejected()] == ["invalid_entry"] * 5
    assert waiting(path) == []


async def test_a_spool_that_fails_is_told_and_changes_nothing_else(
    world: AsyncWorld, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    for when in ("trouble", "always"):
        client = world.new_client(spool=path, spool_when=when)
        overwrite(path)
        with caplog.at_level(logging.WARNING):
            error = await fail_to_commit(world, client)
        assert not error.spooled
        assert f"The spool {path} can't be used: NotADBError" in caplog.text
        assert error.result == {"refund": f"re_{len(world.acts)}"}
        for _ in range(2):
            assert await client.protect(f"{world.key}-next", act=lambda: 1) == 1
        Path.unlink(Path(path))
        world.key = f"{world.key}-2"


# --- on_unavailable="proceed" ---


@pytest.mark.parametrize("fault", [LOSE_REQUEST, LOSE_ANSWER, Says(500), Says(502, b"<html>"), Says(503)], ids=str)
async def test_proceed_acts_without_a_lease_while_the_ledger_is_away(
    world: AsyncWorld, path: str, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    world.network.faults["lease"] = [fault] * 3
    with caplog.at_level(logging.WARNING):
        assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert f"Effect '{world.key}' runs unprotected" in caplog.text
    assert world.network.operations() == ["lease"] * 3
    (entry,) = waiting(path)
    assert (entry.kind, entry.fence, entry.value) == ("unprotected", None, {"refund": "re_1"})
    world.clock.advance(60_000)  # the lease of a request whose answer was lost
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]
    assert waiting(path) == []
    assert (await world.effect())["status"] == "COMMITTED"


async def test_block_is_the_default(world: AsyncWorld, client: VerityClient) -> None:
    world.network.faults["lease"] = [LOSE_REQUEST] * 3
    with pytest.raises(VerityConnectionError):
        await client.protect(world.key, act=world.act)
    assert not world.acts


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 410, 413, 422, 425, 429])
async def test_a_refusal_always_raises(world: AsyncWorld, status: int) -> None:
    world.network.faults["lease"] = [Says(status)] * 3
    with pytest.raises(VerityApiError):
        await world.client.protect(world.key, act=world.act, policy=PROCEED)
    assert not world.acts


async def test_proceed_does_not_act_beside_a_holder_that_it_has_met(world: AsyncWorld, path: str) -> None:
    await world.client.request_lease("payments", {"effectKey": world.key})
    world.network.faults["lease"] = [lambda: None, *AWAY]
    with pytest.raises(VerityConnectionError):
        await world.new_client(policy=PROCEED, spool=path).protect(world.key, act=world.act)
    world.network.faults["lease"].clear()
    with pytest.raises(LeaseConflictError):
        await world.client.protect(world.key, act=world.act, policy=PROCEED, on_conflict="throw")
    assert not world.acts


async def test_proceed_returns_the_result_that_is_in_the_spool_instead_of_acting_again(
    world: AsyncWorld, path: str
) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    await fail_to_commit(world, client)
    world.network.faults.update(lease=list(AWAY), commit=list(AWAY))
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    world.key = f"{world.key}-unprotected"
    for _ in range(2):
        assert await client.protect(world.key, act=world.act) == {"refund": "re_2"}
    assert len(world.acts) == 2


async def test_proceed_observes_first(world: AsyncWorld, path: str) -> None:
    world.network.faults["lease"] = list(AWAY)
    client = world.new_client(policy=PROCEED, spool=path)
    world.acts.append("elsewhere")
    assert await client.protect(world.key, act=world.act, observe=world.find) == {"refund": "re_1"}
    assert world.acts == ["elsewhere"]
    assert [each.source for each in waiting(path)] == ["observed"]

    async def raises() -> None:
        raise LookupError

    with pytest.raises(ObserveFailedError):
        await client.protect(f"{world.key}-2", act=world.act, observe=raises)
    assert world.acts == ["elsewhere"]


async def test_proceed_needs_no_spool_and_an_exception_of_act_comes_out(world: AsyncWorld) -> None:
    world.network.faults["lease"] = list(AWAY)

    async def raises() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await world.client.protect(world.key, act=raises, policy=PROCEED)
    assert await world.client.protect(world.key, act=world.act, policy=PROCEED) == {"refund": "re_1"}
    with pytest.raises(CommitUncertainError):
        await world.client.protect(world.key, act=_what_is_not_json, policy=PROCEED)


async def _what_is_not_json() -> object:
    return object()


async def test_an_unprotected_result_is_compared_with_the_one_that_the_effect_has(world: AsyncWorld, path: str) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    same, other, failed = (f"{world.key}-{name}" for name in ("same", "other", "failed"))
    for key in (same, other, failed):
        world.network.faults["lease"] = [LOSE_REQUEST] * 3
        await client.protect(key, act=lambda: {"refund": 1})
    assert await world.client.protect(same, act=lambda: {"refund": 1}) == {"refund": 1}
    assert await world.client.protect(other, act=lambda: {"refund": True}) == {"refund": True}
    with pytest.raises(ZeroDivisionError):
        await world.client.protect(failed, act=lambda: 1 // 0)
    async with world.new_client(spool=path):
        pass
    assert waiting(path) == []
    assert [(each.effect_key, each.code) for each in Spool(path).rejected()] == [
        (other, "other_result"),
        (failed, "effect_finished"),
    ]
    with pytest.raises(EffectPreviouslyFailedError):
        await client.protect(failed, act=world.act)


async def test_an_unprotected_result_waits_for_another_holder(world: AsyncWorld, path: str) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    world.network.faults["lease"] = [LOSE_REQUEST] * 3
    await client.protect(world.key, act=world.act)
    await world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5000})
    async with world.new_client(spool=path):
        assert len(waiting(path)) == 1
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]
    assert waiting(path) == []


async def test_a_lost_answer_to_the_commit_of_an_unprotected_result_is_survived(world: AsyncWorld, path: str) -> None:
    client = world.new_client(policy=PROCEED, spool=path)
    world.network.faults.update(lease=[LOSE_REQUEST] * 3, commit=[LOSE_REQUEST])
    await client.protect(world.key, act=world.act, effect_name="stripe.refund")
    async with world.new_client(spool=path):
        assert len(waiting(path)) == 1
    async with world.new_client(spool=path):
        assert waiting(path) == []
    effect = await world.effect()
    assert (effect["status"], effect["effectName"], effect["fenceToken"]) == ("COMMITTED", "stripe.refund", 1)


async def test_many_calls_share_one_spool(world: AsyncWorld, path: str) -> None:
    clients = [world.new_client(spool=path) for _ in range(3)]
    keys = [f"{world.key}-{number}" for number in range(12)]
    # Not away: each call's patience would advance the time of the others' leases.
    world.network.faults["commit"] = [Says(500)] * 1000
    outcomes = await async_gather(
        [
            lambda key=key, client=clients[number % 3]: client.protect(key, act=world.act)  # type: ignore[misc]
            for number, key in enumerate(keys)
        ]
    )
    assert all(isinstance(each, CommitUncertainError) and each.spooled for each in outcomes)
    world.network.faults["commit"].clear()
    again = await async_gather([lambda key=key: clients[0].protect(key, act=world.act) for key in keys])  # type: ignore[misc]
    assert again == [each.result for each in outcomes]
    assert len(world.acts) == len(keys)
    assert waiting(path) == []
