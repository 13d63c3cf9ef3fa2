"""Limiters: at most so many callers at a time. Each permit is returned, whatever interrupts its owner.

`threading.Semaphore` can't be used. Python runs a signal handler between two steps of Python code, and an exception
that the handler raises continues from there. Inside `Semaphore.release`, the permit is then lost, or the semaphore's
lock stays locked for ever. One call of a function written in C is never divided. So a limiter is only a dict of permits
in order of arrival, and the first `limit` permits in it are granted. Use it like this:

    permit = Permit()  # before the try
    try:
        limiter.acquire(permit)
        ...
    finally:
        try:  # see verity/_mutex.py
            limiter.permits.pop(permit, None)  # one call into C; it may be repeated, and may come before acquire()
        finally:
            limiter.wake_next()
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from verity._process import forget_in_child

_CHECK_EVERY_S = 0.05
"""An interrupt can prevent a wake-up, so a thread that waits also checks for itself."""


class Permit:
    """What one caller acquires."""

    __slots__ = ("using", "wake")

    def __init__(self) -> None:
        self.wake: Callable[[], object] | None = None
        """Wakes the caller while it waits."""
        self.using: Any = None
        """What the caller uses while its permit is granted."""


class _Limiter:
    """The first `limit` permits are granted.

    Attributes:
        permits: in order of arrival. Each step is one call into C, which no other thread divides.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.permits: dict[Permit, None] = {}

    def _is_granted(self, permit: Permit) -> bool:
        return len(self.permits) <= self._limit or permit in self._first()

    def _first(self) -> list[Permit]:
        return list(self.permits)[: self._limit]  # `list` is one step; an `islice` can meet another thread's change


class AsyncLimiter(_Limiter):
    """For the tasks of one event loop."""

    def wake_next(self) -> None:
        """Wake all callers whose permits are granted now: an interrupt may have prevented an earlier wake-up."""
        if len(self.permits) >= self._limit:
            for permit in list(islice(self.permits, self._limit)):
                if permit.wake is not None:
                    permit.wake()

    async def acquire(self, permit: Permit) -> None:
        """Wait until the permit is granted."""
        self.permits[permit] = None
        if self._is_granted(permit):
            return
        import anyio

        woken = anyio.Event()
        permit.wake = woken.set
        await woken.wait()
        permit.wake = None


class SyncLimiter(_Limiter):
    """The twin for threads."""

    def wake_next(self) -> None:
        """Wake all callers whose permits are granted now: if two return theirs at once, one may wake for both."""
        if len(self.permits) >= self._limit:
            for permit in self._first():
                if permit.wake is not None:
                    permit.wake()

    def acquire(self, permit: Permit) -> None:
        """Wait until the permit is granted."""
        self.permits[permit] = None
        if self._is_granted(permit):
            return
        wakeups: SimpleQueue[None] = SimpleQueue()
        permit.wake = partial(wakeups.put, None)
        while not self._is_granted(permit):
            try:
                wakeups.get(timeout=_CHECK_EVERY_S)
            except Empty:
                continue
        permit.wake = None


class NonBlockingLimiter(_Limiter):
    """For tasks and threads alike: a caller over the limit is refused and does not wait."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Forget all permits: their owners are in the parent process."""
        self.permits = {}

    def acquire(self, permit: Permit) -> bool:
        """Whether the permit is granted. Return it with `permits.pop(permit, None)`."""
        self.permits[permit] = None
        if self._is_granted(permit):
            return True
        self.permits.pop(permit, None)
        return False
