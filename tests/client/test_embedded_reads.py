"""An embedded ledger's reads, in both colours: on connections and in threads of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.helpers.concurrency import AsyncBackground, SyncBackground, async_until, sync_until
from tests.helpers.slow_reads import endless_reads, held_searches
from verity import ConflictRetryConfig, SyncVerityClient, VerityApiError, VerityClient
from verity._store.sqlite import registry

BRISK = ConflictRetryConfig(initial_delay_s=0.01, max_delay_s=0.02)
PATIENT = ConflictRetryConfig(initial_delay_s=15.0, jitter=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/v.db"


async def test_acts_are_leased_and_committed_beside_reads(url: str, anyio_backend: str) -> None:
    async with VerityClient(url, namespace="payments") as client:
        await client.protect("before", act=lambda: 1)
        async with AsyncBackground() as background:
            with held_searches() as gate:
                for _ in range(5):
                    background.start(partial(_list, client))
                await async_until(lambda: gate.reached == 2)
                with anyio.fail_after(30):
                    assert await client.protect("k", act=lambda: 2) == 2
                    assert (await client.effects.get("k")).status == "COMMITTED"
                assert not background.outcomes
                gate.open()
        assert sorted(len(found) for found in background.outcomes) == [1, 1, 2, 2, 2]


async def _list(client: VerityClient) -> list[Any]:
    return [effect async for effect in client.effects.list(search="e")]


def test_threads_lease_and_commit_beside_reads(url: str) -> None:
    with SyncVerityClient(url, namespace="payments") as client:
        client.protect("before", act=lambda: 1)
        with SyncBackground() as background, held_searches() as gate:
            for _ in range(5):
                background.start(lambda: len(list(client.effects.list(search="e"))))
            sync_until(lambda: gate.reached == 5)
            assert client.protect("k", act=lambda: 2) == 2
            assert client.effects.get("k").status == "COMMITTED"
            assert not background.outcomes
            gate.open()
    assert background.outcomes == [1] * 5


async def test_a_read_that_takes_too_long_says_what_to_do(url: str, anyio_backend: str) -> None:
    async with VerityClient(url, namespace="payments", conflict_retry=BRISK) as client:
        await client.protect("k", act=lambda: 1)
        (ledger,) = registry._open.values()
        ledger.store.read_within_s = 0.05
        with endless_reads(), pytest.raises(VerityApiError, match="Ask for less") as caught:
            await client.effects.stats()
        assert (caught.value.status_code, caught.value.code) == (503, "unavailable")
        ledger.store.read_within_s = 5.0
        assert (await client.effects.stats()).by_status["COMMITTED"] == 1


@contextmanager
def _all_threads_taken(anyio_backend: str) -> Iterator[None]:
    """Of the loop's executor, and of anyio's: user code may have them all."""
    limiter = anyio.to_thread.current_default_thread_limiter()
    borrowers = [object() for _ in range(int(limiter.total_tokens))]
    for each in borrowers:
        limiter.acquire_on_behalf_of_nowait(each)
    release = Event()
    executor = ThreadPoolExecutor(1)
    if anyio_backend == "asyncio":
        asyncio.get_running_loop().set_default_executor(executor)
        executor.submit(release.wait)
    try:
        yield
    finally:
        release.set()
        executor.shutdown()
        for each in borrowers:
            limiter.release_on_behalf_of(each)


async def test_waiting_for_another_holder_needs_no_thread_of_user_codes(url: str, anyio_backend: str) -> None:
    async with (
        VerityClient(url, namespace="payments") as holder,
        VerityClient(url, namespace="payments", conflict_retry=PATIENT) as client,
    ):
        lease = await holder.request_lease("payments", {"effectKey": "k"})
        (ledger,) = registry._open.values()

        async def act() -> str:
            return "ours"

        with _all_threads_taken(anyio_backend):
            async with AsyncBackground() as background:
                background.start(partial(client.protect, "k", act=act))
                await async_until(lambda: bool(ledger.reads._node._threads))
                tokens = {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
                await holder.commit("payments", {**tokens, "result": "theirs"})
                await async_until(lambda: bool(background.outcomes))
        assert background.outcomes == ["theirs"]
