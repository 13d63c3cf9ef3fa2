"""What belongs to one process or one event loop, and lets go of it when that changes."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from verity._concurrency.calls import AsyncThunk, SyncThunk
from verity._concurrency.loops import current_loop


class _Forkable(Protocol):
    def reset_after_fork(self) -> None: ...


_forkables: weakref.WeakSet[Any] = weakref.WeakSet()


def forget_in_child(thing: _Forkable) -> None:
    """Have `thing.reset_after_fork()` called in every child process: sockets, threads and locks stay behind."""
    _forkables.add(thing)


def _reset_all_after_fork() -> None:
    for thing in list(_forkables):
        thing.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all_after_fork)


class AsyncSemaphore:
    """At most `value` at a time, first come, first served; created lazily in the event loop that uses it."""

    def __init__(self, value: int) -> None:
        self._value = value
        self._semaphore: Any = None

    async def __aenter__(self) -> None:
        if self._semaphore is None:
            import anyio

            self._semaphore = anyio.Semaphore(self._value, fast_acquire=True)
        await self._semaphore.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        self._semaphore.release()


class SyncSemaphore:
    """At most `value` threads at a time."""

    def __init__(self, value: int) -> None:
        self._semaphore = threading.Semaphore(value)

    def __enter__(self) -> None:
        self._semaphore.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._semaphore.release()


class Quota:
    """At most so many at a time, for tasks and threads alike: one more is told so and does not wait."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.reset_after_fork()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Who took a part of it was in the parent."""
        self._free = threading.Semaphore(self._limit)

    def take(self) -> bool:
        """Whether there was one left; it is to be given back."""
        return self._free.acquire(blocking=False)

    def give_back(self) -> None:
        """Somebody else may have it."""
        self._free.release()


class AsyncHome:
    """Tells when the event loop has changed, and closes what belongs to a loop when that loop ends.

    Sockets of one event loop can't be used in the next `asyncio.run()`. An async generator that is open while the
    loop ends is closed by `asyncio.run` and `trio.run` themselves, which is the one documented moment to let go.
    """

    def __init__(self, close: AsyncThunk[None]) -> None:
        self._close = close
        self._loop: object = None
        self._guard: AsyncGenerator[None, None] | None = None
        self._left_behind: list[object] = []

    async def moved(self) -> bool:
        """Whether this is the first call in this event loop."""
        loop = current_loop()
        if loop is self._loop:
            return False
        self._loop = loop
        self._guard = self._until_the_loop_ends()
        await self._guard.__anext__()
        return True

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        loop = self._loop
        try:
            yield
        finally:
            if self._loop is loop:
                self._loop = None
                await self._close()

    async def leave(self) -> None:
        """Close now what would be closed with the loop."""
        guard, self._guard = self._guard, None
        if guard is not None and self._loop is current_loop():
            await guard.aclose()

    def abandon(self, belongings: object) -> None:
        """In the child of a fork: keep the parent's loop and sockets, since even letting go of them touches both."""
        self._left_behind += [belongings, self._loop, self._guard]
        self._loop = self._guard = None


class SyncHome:
    """The twin for threads: sockets belong to the process."""

    def __init__(self, close: SyncThunk[None]) -> None:
        self._close = close

    def moved(self) -> bool:
        """Never: threads share their process's sockets."""
        return False

    def leave(self) -> None:
        """Close now."""
        self._close()

    def abandon(self, belongings: Any) -> None:
        """In the child of a fork: closing a copied socket says nothing on the wire."""
        for each in belongings:
            each.close()
