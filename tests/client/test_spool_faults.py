"""Kills, interrupts and cancellations at the steps of the code that spools: no result is lost, none is committed twice.

The long form takes every step: `nox -s steps`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.client.spool_faults import NAMESPACE, PROCEED, URL, Bridge, World, check
from tests.every_await.faults import FAULTS, Counter, bounded, run
from tests.helpers._async.virtual_runtime import AsyncVirtualRuntime
from tests.helpers.served_ledger import TestClock
from verity import CommitUncertainError, EffectPolicy, VerityClient, VerityError
from verity._spool import Spool

ROOT = Path(__file__).parents[2]


@pytest.mark.untraced
@pytest.mark.parametrize(("fault", "every"), [("kill", 29), ("interrupt", 11)])
def test_the_sync_client(fault: str, every: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.client.spool_faults", fault, str(every)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 6


class AsyncBridge(Bridge, httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.lowlevel.checkpoint()
        return self.handle_request(request)


_AWAY: dict[str, tuple[set[str], dict[str, Any]]] = {
    "always": (set(), {"spool_when": "always"}),
    "trouble": ({"commit"}, {"policy": EffectPolicy(commit_patience_s=0.5)}),
    "proceed": ({"lease", "commit"}, {"policy": PROCEED}),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scenario", _AWAY)
def test_the_async_client(tmp_path: Path, scenario: str, fault: str) -> None:
    world = World(tmp_path, TestClock())
    away, settings = _AWAY[scenario]
    at = 1
    while _run_with_fault(world, fault, away, settings, at):
        at += 1 if "no thread" in fault else 3
    world.store.close()
    assert at > 1


def _run_with_fault(world: World, fault: str, away: set[str], settings: dict[str, Any], at: int) -> bool:
    """One call with the fault at this moment; whether there was such a moment."""
    key, counter, returned = f"async-{at}-", Counter(at), []
    spooled: list[bool] = []
    network = AsyncBridge(world.store)
    network.away = away
    client = VerityClient(
        URL,
        "vt_test_key",
        NAMESPACE,
        spool=world.path,
        transport=network,
        _runtime=AsyncVirtualRuntime(world.clock),
        **settings,
    )

    async def act() -> object:
        await anyio.lowlevel.checkpoint()
        returned.append(world.act(key))
        return returned[0]

    async def call() -> None:
        try:
            await client.protect(key, act=act)
        except CommitUncertainError as uncertain:
            spooled.append(uncertain.spooled)

    error = bounded(lambda: run(fault, call, counter, client.close), 60)
    about = f"{fault}, at {at}: {error!r}"
    assert not isinstance(error, Exception) or isinstance(error, VerityError), about
    assert all(spooled), about
    problems = check(world, key, was_spooled=bool(returned), is_refused=False)
    assert problems == [], about
    if returned:
        assert world.effect(key)["result"] == returned[0], about
    assert Spool(world.path).read() == [], about
    return counter.was_reached
