"""Leases are renewed in the background while observe, act and commit run."""

from __future__ import annotations

import httpx
import pytest

from tests.helpers._async.faulty_transport import LOSE_ANSWER, LOSE_REQUEST, Says
from tests.helpers._async.world import AsyncWorld
from verity import (
    CommitUncertainError,
    ConflictRetryConfig,
    EffectPolicy,
    VerityApiError,
    VerityConnectionError,
    current_effect,
)


def renewals(world: AsyncWorld) -> int:
    return world.network.operations().count("renew")


async def test_a_long_act_keeps_its_lease(world: AsyncWorld) -> None:
    async def act() -> dict[str, str]:
        await world.runtime.advance(100)
        return await world.act()

    assert await world.client.protect(world.key, act=act) == {"refund": "re_1"}
    assert renewals(world) == 5, "every 19.5 s: 65 % of 30 s"
    assert (await world.effect())["fenceToken"] == 1


async def test_it_renews_at_the_fraction_counted_from_the_request(world: AsyncWorld) -> None:
    client = world.new_client(renew_at_fraction=0.5)
    started_at = world.runtime.monotonic()
    world.network.faults["lease"] = [lambda: world.clock.advance(3000)]
    seen: list[float] = []

    async def act() -> None:
        seen.extend(timer.at for timer in world.runtime.planned())

    await client.protect(world.key, act=act, lease_duration_ms=60_000)
    assert seen == [started_at + 30]


async def test_the_extension_is_the_duration(world: AsyncWorld) -> None:
    async def act() -> None:
        await world.runtime.advance(40)

    await world.client.protect(world.key, act=act, lease_duration_ms=60_000)
    (renewal,) = [sent for sent in world.network.sent if sent.operation == "renew"]
    assert renewal.body["extensionMs"] == 60_000
    assert renewal.body["fenceToken"] == 1


async def test_it_goes_on_during_observe(world: AsyncWorld) -> None:
    async def observe() -> None:
        await world.runtime.advance(25)

    await world.leave_in_doubt()
    await world.client.protect(world.key, observe=observe, act=world.act)
    assert renewals(world) == 1


async def test_it_goes_on_during_the_commit(world: AsyncWorld) -> None:
    world.network.faults["commit"] = [Says(503, headers={"retry-after": "15"})] * 2
    await world.client.protect(world.key, act=world.act)
    assert renewals(world) == 1


async def test_a_transient_failure_is_retried_sooner(world: AsyncWorld) -> None:
    world.network.faults["renew"] = [LOSE_REQUEST, LOSE_ANSWER]
    at: list[float] = []

    async def act() -> None:
        started_at = world.runtime.monotonic()
        for _ in range(60):  # half a second each, for as long as the lease lasts
            await world.runtime.advance(0.5)
            if len(at) < renewals(world):
                at.append(world.runtime.monotonic() - started_at)

    await world.client.protect(world.key, act=act)
    assert at == [19.5, 22.5, 25.0], "after 3 s (a tenth of the lease), then after a third of what is left"


async def test_a_lost_lease_is_logged_once_and_renewed_no_more(
    world: AsyncWorld, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> dict[str, str]:
        world.clock.advance(30_000)
        await world.client.request_lease("payments", {"effectKey": world.key})
        await world.runtime.advance(100)
        return await world.act()

    with pytest.raises(CommitUncertainError):
        await world.client.protect(world.key, act=act)
    assert renewals(world) == 1
    assert caplog.text.count("was lost") == 1
    assert world.key in caplog.text


@pytest.mark.parametrize("status", [404, 410])
async def test_the_page_of_a_proxy_takes_no_lease_away(world: AsyncWorld, status: int) -> None:
    """It has no route to a node that restarts. If renewals ended there, a rival would act while act still runs."""
    world.network.faults["renew"] = [Says(status, b"404 page not found")] * 2

    async def act() -> dict[str, str]:
        await world.runtime.advance(60)
        effect = current_effect()
        assert effect is not None
        assert not effect.lease_lost.is_set()
        return await world.act()

    assert await world.client.protect(world.key, act=act) == {"refund": "re_1"}
    assert renewals(world) > 2


async def test_a_lease_that_can_not_be_renewed_in_time_is_logged_once_and_tried_on(
    world: AsyncWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.network.faults["renew"] = [LOSE_REQUEST] * 12

    async def act() -> dict[str, str]:
        await world.runtime.advance(60)
        return await world.act()

    assert await world.client.protect(world.key, act=act) == {"refund": "re_1"}
    assert renewals(world) > 12
    assert caplog.text.count("may have expired") == 1


async def test_no_renewal_where_it_is_switched_off(world: AsyncWorld) -> None:
    async def act() -> None:
        assert not world.runtime.timers
        await world.runtime.advance(29)

    await world.new_client(auto_renew=False).protect(world.key, act=act)
    assert not renewals(world)


async def test_it_stops_on_every_way_out(world: AsyncWorld) -> None:
    async def fail() -> None:
        raise LookupError

    async def exit_now() -> None:
        raise SystemExit

    def refuse(_: object) -> None:
        raise LookupError

    await world.client.protect(f"{world.key}-ok", act=world.act)
    with pytest.raises(LookupError):
        await world.client.protect(f"{world.key}-fail", act=fail)
    with pytest.raises(SystemExit):
        await world.client.protect(f"{world.key}-exit", act=exit_now)
    with pytest.raises(LookupError):
        await world.client.protect(f"{world.key}-lease", act=world.act, on_lease=refuse)
    world.network.faults["commit"] = [Says(400)]
    with pytest.raises(CommitUncertainError):
        await world.client.protect(f"{world.key}-commit", act=world.act)
    assert not world.runtime.planned()
    await world.runtime.advance(200)
    assert not renewals(world)


async def test_a_cached_result_needs_no_renewal(world: AsyncWorld) -> None:
    await world.client.protect(world.key, act=world.act)
    planned = len(world.runtime.timers)
    await world.client.protect(world.key, act=world.act)
    assert len(world.runtime.timers) == planned


@pytest.mark.parametrize("auto_renew", [True, False])
async def test_act_begins_on_a_lease_that_lasts(world: AsyncWorld, auto_renew: bool) -> None:
    """The answer was long on its way: nothing may begin on what is left of the lease before it is renewed."""
    world.network.faults["lease"] = [lambda: world.clock.advance(25_000)]
    client = world.new_client(auto_renew=auto_renew)
    assert await client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.network.operations() == ["lease", "renew", "commit"]


@pytest.mark.parametrize("auto_renew", [True, False])
async def test_nobody_acts_on_a_lease_that_another_holder_has_by_now(world: AsyncWorld, auto_renew: bool) -> None:
    async def observe() -> None:
        world.clock.advance(30_000)  # as a process that was frozen, or a ledger that was away
        await world.client.request_lease("payments", {"effectKey": world.key})

    await world.leave_in_doubt()
    with pytest.raises(VerityApiError, match="stale_fence"):
        await world.new_client(auto_renew=auto_renew).protect(world.key, observe=observe, act=world.act)
    assert not world.acts
    assert (await world.effect())["status"] == "RUNNING", "it is the other one's"


async def test_nobody_acts_on_a_lease_whose_loss_is_known(world: AsyncWorld) -> None:
    async def observe() -> None:
        await world.reset(force=True)
        await world.runtime.advance(20)

    await world.leave_in_doubt()
    with pytest.raises(VerityApiError, match="stale_fence"):
        await world.client.protect(world.key, observe=observe, act=world.act)
    assert not world.acts


async def test_nobody_acts_on_a_lease_that_can_not_be_confirmed(world: AsyncWorld) -> None:
    world.network.faults["renew"] = [LOSE_REQUEST] * 12

    async def observe() -> None:
        world.clock.advance(29_000)

    await world.leave_in_doubt()
    with pytest.raises(VerityConnectionError):
        await world.client.protect(world.key, observe=observe, act=world.act)
    assert not world.acts
    assert (await world.effect())["status"] == "EXPIRED", "nothing is recorded: it is given back as it was"


async def test_nobody_acts_where_even_the_renewal_took_too_long(world: AsyncWorld) -> None:
    slow = lambda: world.clock.advance(20_000)  # noqa: E731
    world.network.faults["lease"] = [slow]
    world.network.faults["renew"] = [slow]
    with pytest.raises(VerityConnectionError, match="act did not run"):
        await world.client.protect(world.key, act=world.act)
    assert not world.acts


async def test_a_lease_is_counted_from_the_first_request_for_it(world: AsyncWorld) -> None:
    """A request that was taken for lost is carried out late; the next one with the same key gets what is left of it."""
    other = await world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5000})
    client = world.new_client(conflict_retry=ConflictRetryConfig(wait=False, initial_delay_s=15.0, jitter=False))

    async def arrive_late() -> None:
        headers = {
            "Authorization": f"Bearer {world.api_key}",
            "Idempotency-Key": world.network.sent[-1].headers["idempotency-key"],
        }
        async with httpx.AsyncClient(base_url=world.ledger.base_url, headers=headers) as http:
            lease = (await http.post("/effects/payments/lease", json={"effectKey": world.key})).json()
        assert (lease["status"], lease["fenceToken"]) == ("granted", other["fenceToken"] + 1)
        world.clock.advance(25_000)

    world.runtime.call_later(5, arrive_late)
    blindly = EffectPolicy(on_unknown="act")
    assert await client.protect(world.key, act=world.act, policy=blindly) == {"refund": "re_1"}
    assert world.network.operations() == ["lease", "lease", "lease", "renew", "commit"]


async def test_a_renewal_counts_from_its_request(world: AsyncWorld) -> None:
    """Its answer may be long on the way; the ledger counts from when it was asked, or later."""
    world.network.faults["renew"] = [lambda: world.clock.advance(8_000)]
    started_at = world.runtime.monotonic()
    planned: list[float] = []

    async def act() -> None:
        await world.runtime.advance(20)
        planned.extend(timer.at - started_at for timer in world.runtime.planned())

    await world.client.protect(world.key, act=act)
    assert planned == [19.5 + 19.5]


async def test_act_begins_on_a_lease_that_lasts_however_late_a_renewal_was_answered(world: AsyncWorld) -> None:
    world.network.faults["renew"] = [lambda: world.clock.advance(8_000), LOSE_REQUEST]

    async def observe() -> None:
        await world.runtime.advance(20)
        await world.runtime.advance(12.5)  # 40 s: the second renewal, at 39 s, was lost

    await world.leave_in_doubt()
    await world.client.protect(world.key, observe=observe, act=world.act)
    assert world.network.operations() == ["lease", "renew", "renew", "report-observe", "renew", "commit"]
