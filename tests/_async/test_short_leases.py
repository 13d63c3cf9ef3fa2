"""A ledger may grant less than was asked for: what it tells counts where it is shorter, never where it is longer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import formatdate
from typing import Any

import httpx
import pytest

import verity
from tests.helpers._async.faulty_transport import LOSE_ANSWER, LOSE_REQUEST
from tests.helpers._async.world import AsyncWorld


def renewals(world: AsyncWorld) -> int:
    return world.network.operations().count("renew")


def tell(
    world: AsyncWorld, granted_s: float, *, skew_s: float = 0.0, with_date: bool = True
) -> Callable[[httpx.Response], httpx.Response]:
    """The answers of a ledger that grants so many seconds. Without a `Date`, its clock may be ahead of the client's."""

    def rewrite(response: httpx.Response) -> httpx.Response:
        now_s = world.clock.now_ms / 1000
        now_s = int(now_s) if with_date else now_s + skew_s
        body = json.loads(response.content)
        if "leaseExpiresAt" in body:
            body["leaseExpiresAt"] = datetime.fromtimestamp(now_s + granted_s, timezone.utc).isoformat()
        headers = {"date": formatdate(now_s, usegmt=True)} if with_date else {}
        return httpx.Response(response.status_code, json=body, headers=headers)

    return rewrite


async def renewed_at(world: AsyncWorld, seconds: float, **options: Any) -> list[float]:
    """When the lease of an act of so many seconds is renewed."""
    at: list[float] = []

    async def act() -> None:
        began_at = world.runtime.monotonic()
        for _ in range(round(seconds * 10)):
            await world.runtime.advance(0.1)
            if len(at) < renewals(world):
                at.append(round(world.runtime.monotonic() - began_at, 1))

    await world.client.protect(world.key, act=act, **options)
    return at


async def test_a_shorter_lease_is_renewed_sooner(world: AsyncWorld) -> None:
    world.network.rewrite = tell(world, 11)
    assert await renewed_at(world, 20) == [6.5, 13, 19.5], "65 % of the 10 s that are certain"


async def test_the_client_goes_on_asking_for_the_whole_duration(world: AsyncWorld) -> None:
    world.network.rewrite = tell(world, 11)
    await renewed_at(world, 7)
    (renewal,) = [sent for sent in world.network.sent if sent.operation == "renew"]
    assert renewal.body["extensionMs"] == 30_000


async def test_a_renewal_counts_as_it_is_told(world: AsyncWorld) -> None:
    async def act() -> None:
        world.network.rewrite = tell(world, 11)
        await world.runtime.advance(20)
        seen.append(verity.current_effect())
        left.append(seen[0].remaining_s())
        world.network.rewrite = tell(world, 30)
        await world.runtime.advance(6.5)
        left.append(seen[0].remaining_s())

    seen: list[Any] = []
    left: list[float] = []
    await world.client.protect(world.key, act=act)
    assert left == pytest.approx([9.5, 29.5])


@pytest.mark.parametrize("granted_s", [29.5, 30, 300])
async def test_a_lease_that_is_as_long_or_longer_is_renewed_as_asked(world: AsyncWorld, granted_s: float) -> None:
    """A `Date` has whole seconds."""
    world.network.rewrite = tell(world, granted_s)
    assert await renewed_at(world, 30) == [19.5]


async def test_without_a_date_the_clients_clock_counts(world: AsyncWorld) -> None:
    world.network.rewrite = tell(world, 11, with_date=False)
    assert await renewed_at(world, 20) == pytest.approx([6.5, 13, 19.5], abs=0.3)


@pytest.mark.parametrize("skew_s", [-29.9, -29, -28])
async def test_a_skewed_clock_leads_to_one_renewal_a_second_and_act_runs(world: AsyncWorld, skew_s: float) -> None:
    """The ledger's clock is behind the client's, and there is no `Date`."""
    world.network.rewrite = tell(world, 30, skew_s=skew_s, with_date=False)
    at = await renewed_at(world, 5)
    assert at[:4] == pytest.approx([1, 2, 3, 4], abs=0.4)


@pytest.mark.parametrize("skew_s", [-3600, -32, 3600])
async def test_a_remainder_that_cannot_be_is_ignored(world: AsyncWorld, skew_s: float) -> None:
    """No lease expires before it was requested, so the clocks disagree."""
    world.network.rewrite = tell(world, 30, skew_s=skew_s, with_date=False)
    assert await renewed_at(world, 30) == [19.5]


async def test_a_ledger_that_is_away_is_not_asked_more_often_either(world: AsyncWorld) -> None:
    world.network.rewrite = tell(world, 2)
    world.network.faults["renew"] = [LOSE_REQUEST] * 100
    at = await renewed_at(world, 10)
    assert len(at) >= 3
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(at))


async def test_act_does_not_begin_on_a_short_lease_that_is_nearly_over(world: AsyncWorld) -> None:
    world.network.rewrite = tell(world, 11)
    world.network.faults["renew"] = [LOSE_REQUEST] * 100

    async def observe() -> None:
        world.clock.advance(8_000)

    policy = verity.EffectPolicy(observe_when="always")
    with pytest.raises(verity.VerityConnectionError):
        await world.client.protect(world.key, observe=observe, act=world.act, policy=policy)
    assert not world.acts


async def test_a_short_lease_is_lost_when_it_expires(world: AsyncWorld) -> None:
    world.network.rewrite = tell(world, 11)
    world.network.faults["renew"] = [LOSE_REQUEST] * 100
    lost: list[bool] = []

    async def act() -> None:
        effect = verity.current_effect()
        assert effect is not None
        await world.runtime.advance(9.9)
        lost.append(effect.lease_lost.is_set())
        await world.runtime.advance(0.2)
        lost.append(effect.lease_lost.is_set())

    await world.client.protect(world.key, act=act)
    assert lost == [False, True]


async def test_a_slow_answer_is_no_reason_to_refuse_an_act(world: AsyncWorld) -> None:
    """Each answer takes two seconds, and the clocks disagree: a renewal confirms that the lease is held."""

    def slowly() -> None:
        world.clock.advance(2_000)

    world.network.rewrite = tell(world, 30, skew_s=-29, with_date=False)
    world.network.faults.update(lease=[slowly], renew=[slowly])
    assert await world.client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.network.operations() == ["lease", "renew", "commit"]


async def test_a_grant_whose_answer_was_lost_counts_from_the_first_request(world: AsyncWorld) -> None:
    """The remainder is what is left of the same grant; no part of it is counted twice."""
    world.network.rewrite = tell(world, 25)
    world.network.faults["lease"] = [LOSE_ANSWER]
    left: list[float] = []

    async def act() -> None:
        effect = verity.current_effect()
        assert effect is not None
        left.append(effect.remaining_s())

    await world.client.protect(world.key, act=act)
    assert left == [pytest.approx(24 - 0.2)]


async def test_the_answer_tells_how_much_is_left(world: AsyncWorld) -> None:
    world.network.rewrite = tell(world, 11)
    lease = await world.client.request_lease("payments", {"effectKey": world.key})
    assert lease.remaining_s == pytest.approx(11, abs=1)
    tokens = {"effectKey": world.key, "fenceToken": lease.fence_token, "leaseToken": lease.lease_token}
    assert (await world.client.renew("payments", tokens)).remaining_s == pytest.approx(11, abs=1)
    assert "remaining" not in repr(lease)
