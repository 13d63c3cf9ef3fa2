"""The worker threads in which sync functions of the async client's users run."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from queue import Full
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from verity._concurrency.loops import asyncio_loop, current_loop
from verity._concurrency.nesting import Inside

if TYPE_CHECKING:
    import asyncio

    import anyio
    from anyio.lowlevel import RunVar

ANYIO = "anyio>=4.5,<5"
MAX_THREADS = 40
"""Sync acts and observes that run at once in one event loop; they share no limit with anybody else."""


_logger = logging.getLogger("verity")


class Lease(Protocol):
    """What a call has to know of the lease that it begins on."""

    def is_due(self) -> bool: ...
    async def confirm(self) -> None: ...


class LoopThreads:
    """What one event loop has of threads: a limit of Verity's own, so that no other user of threads is in the way."""

    def __init__(self) -> None:
        import anyio

        self.limiter = anyio.CapacityLimiter(MAX_THREADS)
        self.unlimited = anyio.CapacityLimiter(math.inf)
        self.was_refused = False
        """Whether the system had no thread left when one was asked for the last time."""
        self.is_told_to_exit = False
        """Whether an act has raised SystemExit or KeyboardInterrupt into the loop."""

    async def check(self) -> None:
        """Raise what the system raises where no thread can be had, if there is a reason to ask: it takes a while."""
        if self.was_refused or not threading.main_thread().is_alive():
            self.was_refused = True
            await self.run(_nothing)
            self.was_refused = False

    async def run(self, fn: Callable[[], None]) -> None:
        """Run it in a thread, with the context variables; the limit is not asked."""
        import anyio.to_thread

        _end_idle_threads_at_exit()
        await anyio.to_thread.run_sync(partial(_run, fn, asyncio_loop()), limiter=self.unlimited)


def _run(fn: Callable[[], None], loop: asyncio.AbstractEventLoop | None) -> None:
    """In the thread."""
    thread = threading.current_thread()
    if loop is not None and thread not in _threads:
        for each in list(_threads):
            if not each.is_alive():
                _threads.pop(each, None)
        if not hasattr(thread, "stop"):
            _warn_of_threads("WorkerThread.stop")
        _threads[thread] = loop
    fn()


def _nothing() -> None:
    """For a look at whether there is a thread."""


_threads: dict[threading.Thread, asyncio.AbstractEventLoop] = {}
"""anyio's threads that have run something for us, and their event loops. trio's are daemons, and not here."""


@cache
def _end_idle_threads_at_exit() -> None:
    """Have no idle thread keep the process from ending.

    anyio ends its threads with a callback of the loop's first task. A loop that SystemExit or KeyboardInterrupt leaves
    again, while it cancels what is left, never calls it: `asyncio.gather` raises what an act raised once more.
    Python's own pools have the same call for their threads. Neither it nor how anyio's threads end is public. No effect
    depends on them, so that a missing name is told and refuses nothing.
    """
    at_exit: Callable[[Callable[[], None]], None] | None = getattr(threading, "_register_atexit", None)
    if at_exit is None:
        _warn_of_threads("threading._register_atexit")
        return
    with suppress(RuntimeError):  # Python is ending already
        at_exit(_end_idle_threads)


@cache
def _warn_of_threads(missing: str) -> None:
    """Once for each process."""
    _logger.warning(
        "There is no %s in this Python or anyio: where an act ends the event loop with SystemExit or "
        "KeyboardInterrupt, idle threads may keep the process from ending. Install %r.",
        missing,
        ANYIO,
    )


def _end_idle_threads() -> None:
    for thread, loop in list(_threads.items()):
        stop: Callable[[], None] | None = getattr(thread, "stop", None)
        if stop is not None and thread.is_alive() and not loop.is_running():
            with suppress(Full):  # it has been told
                stop()


@cache
def _variable() -> RunVar[LoopThreads]:
    from anyio.lowlevel import RunVar

    return RunVar("verity_threads")


def loop_threads() -> LoopThreads:
    """Those of the running event loop."""
    try:
        return _variable().get()
    except LookupError:
        threads = LoopThreads()
        _variable().set(threads)
        return threads


def _would_block() -> tuple[type[Exception], ...]:
    """What a limiter raises that has no place left: on trio it is trio's own error before anyio 4.13."""
    import anyio

    if asyncio_loop() is not None:
        return (anyio.WouldBlock,)
    import trio

    return anyio.WouldBlock, trio.WouldBlock


class ThreadPlace:
    """A place among the event loop's threads, inside `async with`. Waiting for one can be cancelled.

    A call made from inside a sync act has the place of that act's thread where all others are taken: that thread waits
    for it, and were they to wait for each other, nothing would ever end.
    """

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._limiter: anyio.CapacityLimiter | None = None

    async def __aenter__(self) -> LoopThreads:
        import anyio

        threads, loop = loop_threads(), current_loop()
        lender = self._inside.outer
        while lender is not None and lender.thread_loop is not loop:
            lender = lender.outer
        if lender is None:
            await threads.limiter.acquire_on_behalf_of(self)
            self._limiter = threads.limiter
        else:
            try:
                threads.limiter.acquire_on_behalf_of_nowait(self)
                self._limiter = threads.limiter
            except _would_block():
                lender.lent_place = lender.lent_place or anyio.CapacityLimiter(1)
                await lender.lent_place.acquire_on_behalf_of(self)
                self._limiter = lender.lent_place
        self._inside.thread_loop, self._inside.lent_place = loop, None
        return threads

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside.thread_loop = None
        if self._limiter is not None:
            self._limiter.release_on_behalf_of(self)


class Job:
    """One call of a user's function in a worker thread: what both sides know of it.

    Args:
        fn: what is called.
        lease: what it begins on.
        returned: what it returns is appended here.
        raised: what it raises, and the traceback, is appended here.

    Attributes:
        has_begun: whether the function was called at all.
        is_late: whether it was not, since so little was left of the lease.
        is_over: whether the function was called and has ended.
    """

    def __init__(
        self,
        fn: Callable[[], Any],
        lease: Lease | None,
        returned: list[Any],
        raised: list[tuple[Exception, TracebackType | None]],
    ) -> None:
        self._fn = fn
        self._returned = returned
        self._raised = raised
        self._lease = lease
        self._lock = threading.Lock()
        self._is_withdrawn = False
        self._tell: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self.has_begun = False
        self.is_late = False
        self.is_over = False

    def __call__(self) -> None:
        """In the thread. Whatever comes of it is kept for the other side."""
        with self._lock:
            # Looked at here and now: the thread may have come long after it was asked for.
            self.is_late = self._lease is not None and self._lease.is_due()
            self.has_begun = not (self.is_late or self._is_withdrawn)
        if not self.has_begun:
            return
        try:
            self._returned.append(self._fn())
        except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
            self._error = error
            if isinstance(error, Exception):
                self._raised.append((error, error.__traceback__))
        with self._lock:
            self.is_over = True
            tell = self._tell
        if tell is not None:
            tell()

    def withdraw(self) -> None:
        """Let it not begin any more, unless it has."""
        with self._lock:
            self._is_withdrawn = True

    def tell_when_over(self, tell: Callable[[], None]) -> None:
        """Call `tell` once a call that has begun is over: here and now, or in its thread."""
        with self._lock:
            self._tell = tell
            is_over = self.is_over
        if is_over:
            tell()

    @property
    def error(self) -> BaseException | None:
        """What it raised."""
        return self._error

    def outcome(self) -> Any:
        """What it returned; raises what it raised. Once."""
        error, self._error = self._error, None
        if error is None:
            return self._returned[0]
        try:
            raise error
        finally:
            del error  # its traceback leads here
