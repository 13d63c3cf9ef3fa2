# Made from tests/_async/test_patient_commits.py by scripts/mirror.py. Do not edit.
"""The ledger is away when the result is there: the client goes on trying, and the lease is renewed meanwhile."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.helpers._sync.faulty_transport import LOSE_ANSWER, LOSE_REQUEST, Says
from tests.helpers._sync.world import SyncWorld
from verity import CommitUncertainError, EffectPolicy, VerityApiError

AWAY = [LOSE_REQUEST, LOSE_ANSWER, *(Says(status) for status in (408, 425, 429, 502, 503, 504))]
# Not the ledger's answers: a proxy's page, its redirect to one, and no route to a node that restarts.
AWAY += [Says(200, b"<html>"), Says(302, headers={"location": "/page"}), Says(404, b"404 page not found")]


def commits(world: SyncWorld) -> int:
    return world.network.operations().count("commit")


def be_away(world: SyncWorld, seconds: float, *operations: str) -> None:
    """From the first commit on, nothing gets through for so long."""
    end: list[float] = []

    def fault() -> None:
        end[:] = end or [world.runtime.monotonic() + seconds]
        if world.runtime.monotonic() < end[0]:
            raise httpx.ConnectError("refused")

    for operation in ("commit", *operations):
        world.network.faults[operation] = [fault] * 100


def try_in_vain(world: SyncWorld, **options: Any) -> float:
    """How many seconds the client tried to commit."""
    began: list[float] = []

    def act() -> dict[str, str]:
        began.append(world.runtime.monotonic())
        return world.act()

    with pytest.raises(CommitUncertainError) as caught:
        world.client.protect(world.key, act=act, **options)
    assert caught.value.result == {"refund": "re_1"}
    return world.runtime.monotonic() - began[0]


@pytest.mark.parametrize("fault", AWAY, ids=str)
def test_a_ledger_that_comes_back_within_the_patience_gets_the_commit(world: SyncWorld, fault: Any) -> None:
    world.network.faults["commit"] = [fault] * 12
    assert world.client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.runtime.slept == [0.2, 0.4, 0.8, 1.6, *[2.0] * 8]
    assert (world.effect())["status"] == "COMMITTED"


@pytest.mark.parametrize("away_s", [7, 20, 25, 29.9])
def test_an_outage_of_the_whole_ledger_ends_in_the_result(world: SyncWorld, away_s: float) -> None:
    be_away(world, away_s, "renew")
    assert world.client.protect(world.key, act=world.act, lease_duration_ms=5000) == {"refund": "re_1"}
    assert world.acts == [world.key]


def test_the_lease_is_renewed_beside_it(world: SyncWorld) -> None:
    be_away(world, 25)
    world.client.protect(world.key, act=world.act, lease_duration_ms=5000)
    assert world.network.operations().count("renew") == 7, "every 3.25 s"
    assert (world.effect())["fenceToken"] == 1


def test_the_patience_ends(world: SyncWorld) -> None:
    world.network.faults["commit"] = [LOSE_REQUEST] * 100
    assert try_in_vain(world, lease_duration_ms=5000) == pytest.approx(30), "the last try comes at the end"


def test_the_patience_is_the_policys(world: SyncWorld) -> None:
    world.network.faults["commit"] = [LOSE_REQUEST] * 1000
    policy = EffectPolicy(commit_patience_s=300)
    assert try_in_vain(world, lease_duration_ms=5000, policy=policy) == pytest.approx(300)


def test_it_lasts_as_long_as_the_lease_and_no_longer_than_its_duration(world: SyncWorld) -> None:
    """A lease that is renewed for ever must not make a commit that never succeeds last for ever."""
    world.network.faults["commit"] = [LOSE_REQUEST] * 1000
    policy = EffectPolicy(commit_patience_s=0)
    assert try_in_vain(world, lease_duration_ms=60_000, policy=policy) == pytest.approx(60)


def test_it_lasts_only_until_the_expiry_by_the_last_confirmed_renewal(world: SyncWorld) -> None:
    world.network.faults["renew"] = [LOSE_REQUEST] * 1000
    world.network.faults["commit"] = [LOSE_REQUEST] * 1000

    def act() -> dict[str, str]:
        world.runtime.advance(20)
        return world.act()

    policy = EffectPolicy(commit_patience_s=0)
    with pytest.raises(CommitUncertainError):
        world.client.protect(world.key, act=act, policy=policy)
    assert sum(world.runtime.slept) == pytest.approx(10)


def test_three_tries_are_made_however_long_they_take(world: SyncWorld) -> None:
    def time_out() -> None:
        world.clock.advance(40_000)
        raise httpx.ReadTimeout("lost")

    world.network.faults["commit"] = [time_out] * 2
    world.network.faults["renew"] = [LOSE_REQUEST] * 100
    assert world.client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert commits(world) == 3


def test_only_the_first_try_has_the_clients_timeout(world: SyncWorld) -> None:
    world.network.faults["commit"] = [LOSE_REQUEST] * 3
    world.client.protect(world.key, act=world.act)
    assert [sent.timeout_s for sent in world.network.sent if sent.operation == "commit"] == [20, 5, 5, 5]


def test_a_shorter_timeout_of_the_client_is_kept(world: SyncWorld) -> None:
    world.network.faults["commit"] = [LOSE_REQUEST]
    world.new_client(request_timeout_s=3.0).protect(world.key, act=world.act)
    assert [sent.timeout_s for sent in world.network.sent if sent.operation == "commit"] == [3, 3]


def test_what_the_ledger_asks_for_counts_up_to_the_longest_delay_and_to_the_end(world: SyncWorld) -> None:
    world.network.faults["commit"] = [Says(429, headers={"retry-after": "99"})] * 3
    with pytest.raises(CommitUncertainError):
        world.client.protect(world.key, act=world.act)
    assert world.runtime.slept == [15, 15], "the third one comes when the 30 s are over"


def test_other_faults_of_the_ledger_are_tried_three_times_in_all(world: SyncWorld) -> None:
    world.network.faults["commit"] = [Says(500), LOSE_REQUEST, LOSE_REQUEST, Says(501), LOSE_REQUEST, Says(520)]
    with pytest.raises(CommitUncertainError):
        world.client.protect(world.key, act=world.act)
    assert commits(world) == 6


def test_a_refusal_ends_the_patience(world: SyncWorld) -> None:
    def lose_the_lease() -> None:
        world.reset(force=True)

    world.runtime.call_later(5, lose_the_lease)
    be_away(world, 6)
    with pytest.raises(CommitUncertainError) as caught:
        world.client.protect(world.key, act=world.act)
    assert isinstance(caught.value.commit_error, VerityApiError)
    assert caught.value.commit_error.code == "stale_fence"


def test_what_observe_found_is_committed_with_patience_too(world: SyncWorld) -> None:
    world.crash_after_act()
    be_away(world, 20)
    assert world.client.protect(world.key, act=world.act, observe=world.find) == {"refund": "re_1"}
    assert world.acts == [world.key]


def test_a_client_with_short_delays_does_not_press_a_ledger_that_is_away(world: SyncWorld) -> None:
    from verity import ConflictRetryConfig

    client = world.new_client(conflict_retry=ConflictRetryConfig(wait=False, initial_delay_s=0, max_delay_s=0))
    world.network.faults["commit"] = [LOSE_REQUEST] * 100
    with pytest.raises(CommitUncertainError):
        client.protect(world.key, act=world.act)
    assert world.runtime.slept[:4] == [0, 0, 0.8, 1.6]
    assert commits(world) < 25
