"""Binds resources, such as sockets, to one event loop, and closes them when that loop ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from verity._concurrency.callables import AsyncThunk, SyncThunk
from verity._concurrency.loops import current_loop


class AsyncLoopBinding:
    """Detects a change of the event loop, and closes the resources of a loop when that loop ends.

    Sockets of one event loop can't be used in the next `asyncio.run()`. `asyncio.run` and `trio.run` close all open
    async generators when a loop ends. That is the only documented hook, so an open generator calls `close`.
    """

    def __init__(self, close: AsyncThunk[None]) -> None:
        self._close = close
        self._loop: object = None
        self._guard: AsyncGenerator[None, None] | None = None
        self._left_behind: list[object] = []

    async def rebind(self) -> bool:
        """Bind to the running event loop; whether this is the first call in it."""
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

    async def release(self) -> None:
        """Close the resources now, before the loop ends."""
        guard, self._guard = self._guard, None
        if guard is not None and self._loop is current_loop():
            await guard.aclose()

    def abandon_after_fork(self, belongings: object) -> None:
        """In the child of a fork: keep references to the parent's loop and sockets, since to free them touches both."""
        self._left_behind += [belongings, self._loop, self._guard]
        self._loop = self._guard = None


class SyncLoopBinding:
    """The twin for threads: sockets belong to the process, so there is no loop to bind to."""

    def __init__(self, close: SyncThunk[None]) -> None:
        self._close = close

    def rebind(self) -> bool:
        """False: all threads of a process share its sockets."""
        return False

    def release(self) -> None:
        """Close the resources now."""
        self._close()

    def abandon_after_fork(self, belongings: Any) -> None:
        """In the child of a fork: close the copied sockets, which sends nothing to the peer."""
        for each in belongings:
            each.close()
