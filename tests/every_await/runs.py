"""Runs with one fault each, and what must hold after each of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread

from tests.every_await.faults import Counter, bounded, run
from tests.helpers._async.virtual_runtime import AsyncVirtualRuntime
from tests.helpers.served_ledger import ServedLedger, TestClock
from verity import EffectPolicy, LeaseConflictError, SyncVerityClient, VerityClient, VerityError

WITHIN_S = 60.0
SHAPES = tuple(itertools.product(("a sync act", "an async act"), ("no observe", "a sync observe", "an async observe")))
_numbers = itertools.count()


@dataclass(frozen=True)
class Ledger:
    """Where a ledger is."""

    url: str
    api_key: str | None

    def arguments(self) -> dict[str, Any]:
        return {"base_url": self.url, "api_key": self.api_key, "namespace": "steps"}


@contextmanager
def open_ledger(kind: str, directory: Path) -> Iterator[Ledger]:
    """One that is embedded, or served on the loopback interface."""
    if kind == "embedded":
        yield Ledger(f"sqlite:///{directory}/steps.db", None)
        return
    with ServedLedger() as served:
        yield Ledger(served.base_url, served.create_key(role="org_admin"))


class World:
    """Where the effect happens, and how far its act came."""

    def __init__(self) -> None:
        self.began = 0
        self.happened = 0
        self.returned = 0

    def sync_act(self) -> str:
        self.began += 1
        anyio.from_thread.run(anyio.lowlevel.checkpoint)  # the event loop makes steps meanwhile
        self.happened += 1
        self.returned += 1
        return "done"

    async def async_act(self) -> str:
        self.began += 1
        await anyio.lowlevel.checkpoint()
        self.happened += 1
        await anyio.lowlevel.checkpoint()
        self.returned += 1
        return "done"

    def find(self) -> str | None:
        return "done" if self.happened else None

    async def async_find(self) -> str | None:
        await anyio.lowlevel.checkpoint()
        return self.find()


def check_run(ledger: Ledger, fault: str, shape: tuple[str, str], at: int, again_after: int = 0) -> bool:
    """One call with the fault at the n-th moment; whether there were that many.

    Raises:
        AssertionError: something does not hold that must.
        TimeoutError: it hangs.
    """
    world, counter, runtime = World(), Counter(at, again_after), AsyncVirtualRuntime(TestClock())
    key = f"k{next(_numbers):06}"
    always = EffectPolicy(observe_when="always", settle_s=0, definite=(Exception,))
    client = VerityClient(**ledger.arguments(), policy=always, _runtime=runtime)
    act: Callable[[], Any] = world.sync_act if shape[0] == "a sync act" else world.async_act
    observe = {"no observe": None, "a sync observe": world.find, "an async observe": world.async_find}[shape[1]]

    async def call() -> None:
        try:
            await client.protect(key, act=act, observe=observe)
        finally:
            if "loop ends" not in fault:
                with anyio.CancelScope(shield=True):
                    await client.close()

    error = bounded(lambda: run(fault, call, counter, client.close), WITHIN_S)
    about = f"{fault}, {shape}, at {at}, again after {again_after}: {error!r}"
    assert not isinstance(error, Exception) or isinstance(error, VerityError), about
    assert not runtime.planned(), f"a lease goes on being renewed: {about}"
    assert world.began <= 1, about
    _check_afterwards(ledger, key, world, about)
    return counter.was_reached


def _check_afterwards(ledger: Ledger, key: str, world: World, about: str) -> None:
    with SyncVerityClient(**ledger.arguments()) as later:
        status = next((effect.status for effect in later.effects.list(search=key)), "none")
        assert status != "FAILED", f"a failure was recorded, and act raised nothing: {about}"
        assert status == "COMMITTED" if world.returned else status != "COMMITTED", f"{status}: {about}"
        assert not world.began or status not in ("none", "IDLE"), f"given back as if act had not run: {about}"

        def act() -> str:
            world.happened += 1
            return "done"

        for _ in range(9):
            if status == "RUNNING":
                later.effects.reset(key, force=True)  # as when the lease has run out
            try:
                assert later.protect(key, act=act, observe=world.find, on_conflict="throw") == "done", about
                break
            except LeaseConflictError:  # a request of the call that was given up has only now arrived
                status = "RUNNING"
    assert world.happened == 1, about
