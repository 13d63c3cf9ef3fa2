"""Clock, sleep, randomness, ids and timers."""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from verity._concurrency.calls import AsyncThunk, SyncThunk
from verity._concurrency.homes import forget_in_child
from verity._concurrency.loops import asyncio_loop

if TYPE_CHECKING:
    import asyncio

_logger = logging.getLogger("verity")


def clock_that_never_sleeps(clocks: Any = time, platform: str = sys.platform) -> Callable[[], float]:
    """The monotonic clock that goes on while the machine is suspended, in seconds: leases run out meanwhile.

    Python's own stands still on Linux and on macOS, where CLOCK_MONOTONIC is another clock than Python's.
    """
    clock_id = getattr(clocks, "CLOCK_MONOTONIC" if platform == "darwin" else "CLOCK_BOOTTIME", None)
    return clocks.monotonic if clock_id is None else partial(clocks.clock_gettime, clock_id)


_monotonic = clock_that_never_sleeps()


class Timer(Protocol):
    """A call that is planned; `stop()` is idempotent, and afterwards the call neither starts nor starts another."""

    def stop(self) -> None: ...


class AsyncRuntime:
    """Clock, sleep, randomness, ids and timers of the async client. Tests hand in one of their own."""

    monotonic: Callable[[], float] = staticmethod(_monotonic)
    random: Callable[[], float] = staticmethod(random.random)

    def new_id(self) -> str:
        """A fresh id, unique across processes and forks."""
        return str(uuid.uuid4())

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        import anyio

        await anyio.sleep(seconds)

    def call_later(self, delay_s: float, fn: AsyncThunk[None]) -> Timer:
        """Call `fn` in the background after `delay_s` seconds. Costs no task until then (on trio: one system task)."""
        loop = asyncio_loop()
        return _TrioTimer(delay_s, fn) if loop is None else _AsyncioTimer(loop, delay_s, fn)

    def close(self) -> None:
        """Nothing runs between calls."""


class _AsyncioTimer:
    def __init__(self, loop: asyncio.AbstractEventLoop, delay_s: float, fn: AsyncThunk[None]) -> None:
        self._fn = fn
        self._task: asyncio.Task[None] | None = None
        self._handle = loop.call_later(delay_s, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(_guarded(self._fn))

    def stop(self) -> None:
        self._handle.cancel()
        if self._task is not None:
            self._task.cancel()


class _TrioTimer:
    def __init__(self, delay_s: float, fn: AsyncThunk[None]) -> None:
        import trio

        self._scope = trio.CancelScope()

        async def wait_then_call() -> None:
            with self._scope:
                await trio.sleep(delay_s)
                await _guarded(fn)

        trio.lowlevel.spawn_system_task(wait_then_call)

    def stop(self) -> None:
        self._scope.cancel()


async def _guarded(fn: AsyncThunk[None]) -> None:
    try:
        await fn()
    except Exception:  # a background call has nobody to raise to
        _logger.exception("a background call failed")


MAX_TIMER_THREADS = 8
"""Calls of planned timers at once, where one takes long while others fall due."""


class SyncRuntime:
    """Clock, sleep, randomness, ids and timers of the sync client.

    One lazy daemon thread waits for all timers. While it is in a call, another one waits: a ledger that answers slowly
    would otherwise let the other leases run out, one behind the other. Whoever comes back to find one waiting ends.
    """

    monotonic: Callable[[], float] = staticmethod(_monotonic)
    random: Callable[[], float] = staticmethod(random.random)

    def __init__(self) -> None:
        self.reset_after_fork()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Threads don't survive a fork, and a lock may have been held by one that didn't."""
        self._changed = threading.Condition()
        self._planned: list[tuple[float, int, _ThreadTimer]] = []
        self._count = itertools.count()
        self._threads = 0
        self._is_awaited = False
        self._closed = False

    def new_id(self) -> str:
        """A fresh id, unique across processes and forks."""
        return str(uuid.uuid4())

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def call_later(self, delay_s: float, fn: SyncThunk[None]) -> Timer:
        """Call `fn` in the timer thread after `delay_s` seconds."""
        timer = _ThreadTimer(fn)
        with self._changed:
            heapq.heappush(self._planned, (time.monotonic() + delay_s, next(self._count), timer))
            if not self._is_awaited:
                self._await_in_a_thread()
            elif self._planned[0][2] is timer:
                self._changed.notify()
        return timer

    def close(self) -> None:
        """End the threads as soon as no timer is left: a lease is renewed for as long as its act goes on."""
        with self._changed:
            self._closed = self._threads > 0
            self._changed.notify()

    def _await_in_a_thread(self) -> None:
        if self._threads < MAX_TIMER_THREADS:
            threading.Thread(target=self._run, name="verity-timers", daemon=True).start()
            self._threads += 1
            self._is_awaited = True

    def _run(self) -> None:
        while True:
            with self._changed:
                timer = self._next_due()
                self._is_awaited = False
                if timer is None:
                    self._threads -= 1
                    self._closed = self._closed and self._threads > 0
                    return
                if any(each.fn is not None for _, _, each in self._planned):
                    with suppress(RuntimeError):  # no more threads to be had: the others wait for this one
                        self._await_in_a_thread()
            timer.fire()
            with self._changed:
                if self._is_awaited:
                    self._threads -= 1
                    return
                self._is_awaited = True

    def _next_due(self) -> _ThreadTimer | None:
        """Wait for the next timer that is due; None once the runtime is closed and has none."""
        while True:
            if self._closed and all(timer.fn is None for _, _, timer in self._planned):
                self._planned.clear()
                return None
            if not self._planned:
                self._changed.wait()
                continue
            delay_s = self._planned[0][0] - time.monotonic()
            if delay_s > 0:
                self._changed.wait(delay_s)
                continue
            timer = heapq.heappop(self._planned)[2]
            if timer.fn is not None:
                return timer


class _ThreadTimer:
    def __init__(self, fn: SyncThunk[None]) -> None:
        self.fn: SyncThunk[None] | None = fn

    def fire(self) -> None:
        fn = self.fn
        if fn is None:
            return
        try:
            fn()
        except Exception:  # a background call has nobody to raise to
            _logger.exception("a background call failed")

    def stop(self) -> None:
        self.fn = None
