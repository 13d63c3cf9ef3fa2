"""Clock, sleep, randomness, ids and timers of the clients. Tests replace them by a runtime with virtual time."""

from __future__ import annotations

import heapq
import itertools
import logging
import random  # noqa: TID251 - only for jitter, not for ids
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

from verity._clock import monotonic, wall_clock_ns
from verity._concurrency.callables import AsyncThunk, SyncThunk
from verity._concurrency.interrupts import sync_here
from verity._concurrency.loops import asyncio_loop
from verity._concurrency.steps import blocking_effect
from verity._mutex import Mutex
from verity._process import forget_in_child, notice_fork
from verity._unique import new_id

if TYPE_CHECKING:
    import asyncio

_logger = logging.getLogger("verity")


class Timer(Protocol):
    """A planned call."""

    def stop(self) -> None:
        """Cancel the call. Idempotent. A call that runs already is cancelled, except in a thread."""


class AsyncRuntime:
    """Clock, sleep, randomness, ids and timers of the async client."""

    monotonic: Callable[[], float] = staticmethod(monotonic)
    random: Callable[[], float] = staticmethod(random.random)
    wall_clock_ns: Callable[[], int] = staticmethod(wall_clock_ns)

    def new_id(self) -> str:
        """A fresh id, unique across processes and forks."""
        return new_id()

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        import anyio

        await anyio.sleep(seconds)

    def prepare(self) -> None:
        """Nothing to do: an event loop needs no thread for its timers."""

    def call_later(self, delay_s: float, fn: AsyncThunk[None]) -> Timer:
        """Call `fn` in the background after `delay_s` seconds. Until then only trio needs a task for it."""
        loop = asyncio_loop()
        return _TrioTimer(delay_s, fn) if loop is None else _AsyncioTimer(loop, delay_s, fn)

    def why_late(self, planned_at: float, began_at: float) -> str:
        """Why a timer planned for one moment fired only at the other, as a sentence for the log."""
        label = blocking_effect(planned_at, began_at)
        if label is None:
            return "No act or observe blocked the event loop for so long: other code did, or the machine was suspended."
        return (
            f"An act or observe of effect {label} blocked the event loop: what blocks belongs into a plain function, "
            "which runs in a thread."
        )

    def close(self) -> None:
        """Nothing to do: nothing runs between calls."""


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
    except Exception:  # a background call has no caller to raise to
        _logger.exception("a background call failed")


MAX_TIMER_THREADS = 8
"""How many timers of one runtime may be in their calls at a time, if calls take long while other timers fall due."""


class SyncRuntime:
    """Clock, sleep, randomness, ids and timers of the sync client."""

    monotonic: Callable[[], float] = staticmethod(monotonic)
    random: Callable[[], float] = staticmethod(random.random)
    wall_clock_ns: Callable[[], int] = staticmethod(wall_clock_ns)

    def __init__(self) -> None:
        self._timers = _ThreadTimers(self)
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Make new timers: threads don't survive a fork, and one of them may have held a lock."""
        self._timers.abandon()
        self._timers = _ThreadTimers(self)

    def new_id(self) -> str:
        """A fresh id, unique across processes and forks."""
        return new_id()

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        time.sleep(seconds)

    def prepare(self) -> None:
        """Start the timer thread before a timer is planned.

        Raises:
            RuntimeError: no thread can be started.
        """
        notice_fork()
        self._timers.ensure_waiter()

    def why_late(self, planned_at: float, began_at: float) -> str:  # noqa: ARG002 - the twin needs them
        """Why a timer may have fired late, as a sentence for the log."""
        return "The machine was suspended or overloaded, or other code held Python's interpreter lock."

    def call_later(self, delay_s: float, fn: SyncThunk[None]) -> Timer:
        """Call `fn` in a timer thread after `delay_s` seconds.

        Raises:
            RuntimeError: no thread can be started.
        """
        timer = _ThreadTimer(fn)
        self._timers.plan(monotonic() + delay_s, timer)
        return timer

    def close(self) -> None:
        """End the timer threads once no timer is left: a lease is renewed for as long as its act runs."""
        self._timers.close()


class _ThreadTimers:
    """The timers of one runtime, and their daemon threads, which start on first use.

    One thread waits for all timers. When a timer is due, that thread calls it, and another thread waits for the rest.
    Otherwise a ledger that answers slowly would delay all renewals, and leases would expire. A thread that returns from
    a call ends if another thread waits already.

    The threads also end once no timer is left and the runtime is closed or garbage-collected, so a client need not be
    closed.

    A signal handler can raise an exception in a caller's thread at any point of this code. So the waiting thread itself
    holds the lock that shows that a thread waits, and callers change shared data in one step.
    """

    def __init__(self, runtime: SyncRuntime) -> None:
        self._lock = Mutex()
        self._planned: list[_Planned] = []
        self._count = itertools.count()
        self._waiting = threading.Lock()
        self._starting = Mutex()
        self._bell: SimpleQueue[object] = SimpleQueue()
        self._threads = 0
        self._is_closed = False
        self._runtime = weakref.ref(runtime, self._bell.put)

    def plan(self, at: float, timer: _ThreadTimer) -> None:
        """Fire the timer at that moment of `verity._clock.monotonic`, in seconds.

        Raises:
            RuntimeError: no thread can be started.
        """
        planned = (at, next(self._count), timer)
        if self._lock.run(partial(self._push, planned)):
            self._bell.put(None)
        if not sync_here.is_ours:  # a timer thread returns from its call and waits
            self.ensure_waiter()

    def _push(self, planned: _Planned) -> bool:
        """Whether this timer is now the next one."""
        heapq.heappush(self._planned, planned)
        return self._planned[0] is planned

    def close(self) -> None:
        """End the threads once no timer is left."""
        self._is_closed = True
        self._bell.put(None)

    def abandon(self) -> None:
        """In the child of a fork: never use the queue again. To wake the parent's threads would crash Python 3.13."""
        del self._runtime

    def ensure_waiter(self) -> None:
        """Start a thread, unless one waits or `MAX_TIMER_THREADS` are in calls."""
        if not self._waiting.locked():
            self._starting.run(self._start)

    def _start(self) -> None:
        if self._waiting.locked() or self._threads >= MAX_TIMER_THREADS:
            return
        if sys.is_finalizing():  # before Python 3.12, a thread started now never begins, and its starter waits for ever
            raise RuntimeError("can't start new thread at interpreter shutdown")
        has_begun: SimpleQueue[None] = SimpleQueue()
        threading.Thread(target=self._run, args=(has_begun,), name="verity-timers", daemon=True).start()
        has_begun.get()

    def _run(self, has_begun: SimpleQueue[None]) -> None:
        sync_here.is_ours = True
        self._lock.run(self._count_thread)
        waits = self._lock.run(self._begin_to_wait)
        has_begun.put(None)
        while waits:
            try:
                timer = self._next_due()
            finally:
                self._waiting.release()
            if timer is not None:
                if self._lock.run(self._has_more):
                    with suppress(RuntimeError):  # no thread can be started: the other timers wait for this one
                        self.ensure_waiter()
                timer.fire()
            waits = self._lock.run(self._begin_to_wait)

    def _next_due(self) -> _ThreadTimer | None:
        """Wait for the next timer that is due; None: the threads have to end."""
        while True:
            delay_s, timer = self._lock.run(self._pop_due)
            if delay_s == 0:
                return timer
            with suppress(Empty):
                self._bell.get(timeout=delay_s)

    # -- inside the lock --

    def _count_thread(self) -> None:
        self._threads += 1

    def _begin_to_wait(self) -> bool:
        """Whether this thread now waits for the timers; if not, it is no longer counted and has to end."""
        if not self._is_over() and self._waiting.acquire(blocking=False):
            return True
        self._threads -= 1
        return False

    def _pop_due(self) -> tuple[float | None, _ThreadTimer | None]:
        """How long to wait, and the timer that is due.

        `(seconds, None)`: wait so long; `(None, None)`: wait for a wake-up; `(0, timer)`: the timer is due;
        `(0, None)`: the threads have to end.
        """
        if self._is_over():
            self._planned.clear()
            return 0, None
        if not self._planned:
            return None, None
        delay_s = self._planned[0][0] - monotonic()
        return (delay_s, None) if delay_s > 0 else (0, heapq.heappop(self._planned)[2])

    def _has_more(self) -> bool:
        return any(timer.fn is not None for _, _, timer in self._planned)

    def _is_over(self) -> bool:
        """Whether no timer is left, and none can be planned."""
        is_over = self._is_closed or self._runtime() is None
        return is_over and all(timer.fn is None for _, _, timer in self._planned)


class _ThreadTimer:
    def __init__(self, fn: SyncThunk[None]) -> None:
        self.fn: SyncThunk[None] | None = fn

    def fire(self) -> None:
        fn = self.fn
        if fn is None:
            return
        try:
            fn()
        except Exception:  # a background call has no caller to raise to
            _logger.exception("a background call failed")

    def stop(self) -> None:
        self.fn = None


_Planned = tuple[float, int, _ThreadTimer]
