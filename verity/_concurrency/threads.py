"""The worker threads in which the async client runs sync acts and observes."""

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

ANYIO = "anyio>=4.13,<5"
MAX_THREADS = 40
"""How many sync acts and observes of one event loop run at a time. No other code shares this limit."""


_logger = logging.getLogger("verity")


class Lease(Protocol):
    """The part of a lease that a call uses.

    No function begins under a lease that `is_due()` calls close to its expiry. `confirm()` renews such a lease, and
    raises VerityError if the lease may be lost.
    """

    def is_due(self) -> bool: ...
    async def confirm(self) -> None: ...


class LoopThreads:
    """The threads of one event loop, with a limit of Verity's own: other code that uses threads can't block an act."""

    def __init__(self) -> None:
        import anyio

        self.limiter = anyio.CapacityLimiter(MAX_THREADS)
        self.unlimited = anyio.CapacityLimiter(math.inf)
        self.was_refused = False
        """Whether the last attempt to start a thread failed."""
        self.is_told_to_exit = False
        """Whether an act has raised SystemExit or KeyboardInterrupt into the loop."""

    async def check(self) -> None:
        """Raise the system's error if no thread can be started. It tries only after a failure: a try takes time."""
        if self.was_refused or not threading.main_thread().is_alive():
            self.was_refused = True
            await self.run(_nothing)
            self.was_refused = False

    async def run(self, fn: Callable[[], None]) -> None:
        """Run `fn` in a thread, with the context variables of the caller, outside the limit."""
        import anyio.to_thread

        _end_idle_threads_at_exit()
        await anyio.to_thread.run_sync(partial(_run, fn, asyncio_loop()), limiter=self.unlimited)


def _run(fn: Callable[[], None], loop: asyncio.AbstractEventLoop | None) -> None:
    """Runs in the thread. Remembers the thread, so that it can end with the process."""
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
    """The work of a thread that is only started to check that it can be."""


_threads: dict[threading.Thread, asyncio.AbstractEventLoop] = {}
"""anyio's threads on asyncio that ran a function for Verity, and their event loops. trio's threads are daemons."""


@cache
def _end_idle_threads_at_exit() -> None:
    """At exit, end the idle threads that would keep the process alive.

    anyio ends its threads in a callback of the loop's first task. If SystemExit or KeyboardInterrupt ends the loop a
    second time, while it cancels its tasks, that callback never runs. `asyncio.gather` does so: it raises an act's
    exception again.

    `threading._register_atexit` (which Python's own pools use) and the `stop` of anyio's threads are private names. No
    effect depends on them, so a missing name is only logged.
    """
    at_exit: Callable[[Callable[[], None]], None] | None = getattr(threading, "_register_atexit", None)
    if at_exit is None:
        _warn_of_threads("threading._register_atexit")
        return
    with suppress(RuntimeError):  # Python is ending already
        at_exit(_end_idle_threads)


@cache
def _warn_of_threads(missing: str) -> None:
    """Log it once for each process and name."""
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
            with suppress(Full):  # it was told before
                stop()


@cache
def _variable() -> RunVar[LoopThreads]:
    from anyio.lowlevel import RunVar

    return RunVar("verity_threads")


def loop_threads() -> LoopThreads:
    """The threads of the running event loop."""
    try:
        return _variable().get()
    except LookupError:
        threads = LoopThreads()
        _variable().set(threads)
        return threads


async def _acquire(limiter: anyio.CapacityLimiter, borrower: object) -> None:
    """Acquire a permit, and wait only if none is left.

    Before anyio 4.16 on asyncio, a cancellation while `acquire_on_behalf_of` takes a free permit loses that permit, and
    raises RuntimeError in place of the cancellation.
    """
    import anyio

    try:
        limiter.acquire_on_behalf_of_nowait(borrower)
    except anyio.WouldBlock:
        await limiter.acquire_on_behalf_of(borrower)


class ThreadPermit:
    """A permit to run a function in a thread of the event loop, inside `async with`. The wait for it can be cancelled.

    If no permit is left, a call made inside a sync act uses the permit of that act's thread, which waits for the call.
    Otherwise acts that make calls could hold all permits while their calls wait for one: a deadlock.
    """

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._limiter: anyio.CapacityLimiter | None = None

    async def __aenter__(self) -> LoopThreads:
        import anyio
        import anyio.lowlevel

        threads, loop = loop_threads(), current_loop()
        lender = self._inside.outer
        while lender is not None and lender.thread_loop is not loop:
            lender = lender.outer
        await anyio.lowlevel.checkpoint_if_cancelled()
        limiter = threads.limiter
        try:
            limiter.acquire_on_behalf_of_nowait(self)
        except anyio.WouldBlock:
            if lender is not None:
                limiter = lender.lent_limiter = lender.lent_limiter or anyio.CapacityLimiter(1)
            await _acquire(limiter, self)
        self._limiter = limiter
        self._inside.thread_loop, self._inside.lent_limiter = loop, None
        return threads

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside.thread_loop = None
        if self._limiter is not None:
            self._limiter.release_on_behalf_of(self)


class Job:
    """One call of a user's function in a worker thread, shared by that thread and the event loop.

    Args:
        fn: the function.
        lease: the lease under which it begins; None for no lease.
        returned: the function's result is appended here.
        raised: the function's exception, with its traceback, is appended here.

    Attributes:
        has_begun: whether the function was called.
        is_late: whether the function was not called, because the lease was too close to its expiry.
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
        """Runs in the thread. The outcome is kept for the event loop."""
        with self._lock:
            # Checked in the thread: it may have started long after it was requested.
            self.is_late = self._lease is not None and self._lease.is_due()
            self.has_begun = not (self.is_late or self._is_withdrawn)
        if not self.has_begun:
            return
        try:
            self._returned.append(self._fn())
        except BaseException as error:  # noqa: BLE001 - `outcome` raises it in the event loop
            self._error = error
            if isinstance(error, Exception):
                self._raised.append((error, error.__traceback__))
        with self._lock:
            self.is_over = True
            tell = self._tell
        if tell is not None:
            tell()

    def withdraw(self) -> None:
        """Prevent the function from being called, unless it has begun."""
        with self._lock:
            self._is_withdrawn = True

    def tell_when_over(self, tell: Callable[[], None]) -> None:
        """Call `tell` once the function has ended: at once if it has, otherwise in its thread."""
        with self._lock:
            self._tell = tell
            is_over = self.is_over
        if is_over:
            tell()

    @property
    def may_have_begun(self) -> bool:
        """Whether the function was called, or may still be called. False is final."""
        is_prevented = self._is_withdrawn or self.is_late  # read before `has_begun`, which does not change from then on
        return self.has_begun or not is_prevented

    @property
    def error(self) -> BaseException | None:
        """The function's exception; None if it raised none, or `outcome` has raised it."""
        return self._error

    def outcome(self) -> Any:
        """Return the function's result, or raise its exception. Call it once."""
        error, self._error = self._error, None
        if error is None:
            return self._returned[0]
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame: break the cycle
