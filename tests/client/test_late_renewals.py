"""A renewal that begins too late: whoever operates the program hears of it once, and whose code it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from tests.helpers._async.virtual_runtime import AsyncVirtualRuntime
from tests.helpers._sync.virtual_runtime import SyncVirtualRuntime
from tests.helpers.concurrency import async_gather, async_until
from tests.helpers.served_ledger import ServedLedger, TestClock
from verity import EffectPolicy, SyncVerityClient, VerityClient


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def ledger(clock: TestClock) -> Iterator[ServedLedger]:
    with ServedLedger(clock=clock) as served:
        yield served


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "s late" in record.getMessage()]


def _levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.levelno for record in caplog.records if "s late" in record.getMessage()]


@pytest.mark.parametrize("where", ["act", "observe"])
async def test_the_act_that_blocked_the_event_loop_is_named(
    where: str, ledger: ServedLedger, clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "verity")
    runtime = AsyncVirtualRuntime(clock)
    began = anyio.Event()

    async def wait() -> str:
        began.set()
        await async_until(lambda: len(_levels(caplog)) == 2)
        return "done"

    async def block() -> str | None:
        await began.wait()
        clock.advance(40_000)  # and nothing else runs meanwhile
        await anyio.lowlevel.checkpoint()
        await runtime.advance(0)
        return "done"

    blocking: dict[str, Any] = {"act": block}
    if where == "observe":
        blocking = {"act": wait, "observe": block, "policy": EffectPolicy(observe_when="always")}
    async with VerityClient(ledger.base_url, ledger.create_key(), "late", _runtime=runtime) as client:
        outcomes = await async_gather(
            [
                lambda: client.protect("waits", act=wait),
                lambda: client.protect("blocks", effect_name="slow.refund", **blocking),
            ]
        )
    assert outcomes == ["done", "done"]
    assert "effect 'blocks' (slow.refund) blocked the event loop" in _warnings(caplog)[0]
    assert "20.5 s late" in _warnings(caplog)[0]
    assert _levels(caplog) == [logging.WARNING, logging.DEBUG]


async def test_where_no_act_blocked_the_event_loop_none_is_named(
    ledger: ServedLedger, clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = AsyncVirtualRuntime(clock)

    def block() -> None:
        clock.advance(40_000)

    async def act() -> None:
        await anyio.to_thread.run_sync(block)  # as other code in the loop would, or a lid that is closed
        await runtime.advance(0)

    async with VerityClient(ledger.base_url, ledger.create_key(), "late", _runtime=runtime) as client:
        await client.protect("k", act=act)
    (warning,) = _warnings(caplog)
    assert "No act or observe blocked the event loop" in warning


async def test_a_renewal_in_time_is_not_told(
    ledger: ServedLedger, clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = AsyncVirtualRuntime(clock)

    async def act() -> None:
        clock.advance(29_000)  # late, and the lease is still ours
        await runtime.advance(0)
        await runtime.advance(60)

    async with VerityClient(ledger.base_url, ledger.create_key(), "late", _runtime=runtime) as client:
        await client.protect("k", act=act)
    assert not _warnings(caplog)


def test_the_sync_client_tells_it_too(ledger: ServedLedger, clock: TestClock, caplog: pytest.LogCaptureFixture) -> None:
    runtime = SyncVirtualRuntime(clock)

    def act() -> None:
        clock.advance(40_000)
        runtime.advance(0)

    with SyncVerityClient(ledger.base_url, ledger.create_key(), "late", _runtime=runtime) as client:
        client.protect("k", act=act)
    (warning,) = _warnings(caplog)
    assert "interpreter lock" in warning
