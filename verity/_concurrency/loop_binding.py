"""What belongs to one process or one event loop, and lets go of it when that changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from verity._concurrency.callables import AsyncThunk, SyncThunk
from verity._concurrency.loops import current_loop


class AsyncLoopBinding:
    """Tells when the event loop has changed, and closes what belongs to a loop when that loop ends.

    Sockets of one event loop can't be used in the next `asyncio.run()`. An async generator that is open while the
    loop ends is closed by `asyncio.run` and `trio.run` themselves, which is the one documented moment to let go.
    """

    def __init__(self, close: AsyncThunk[None]) -> None:
        self._close = close
        self._loop: object = None
        self._guard: AsyncGenerator[None, None] | None = None
        self._left_behind: list[object] = []

    async def rebind(self) -> bool:
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

    async def release(self) -> None:
        """Close now what would be closed with the loop."""
        guard, self._guard = self._guard, None
        if guard is not None and self._loop is current_loop():
            await guard.aclose()

    def abandon_after_fork(self, belongings: object) -> None:
        """In the child of a fork: keep the parent's loop and sockets, since even letting go of them touches both."""
        self._left_behind += [belongings, self._loop, self._guard]
        self._loop = self._guard = None


class SyncLoopBinding:
    """The twin for threads: sockets belong to the process."""

    def __init__(self, close: SyncThunk[None]) -> None:
        self._close = close

    def rebind(self) -> bool:
        """Never: threads share their process's sockets."""
        return False

    def release(self) -> None:
        """Close now."""
        self._close()

    def abandon_after_fork(self, belongings: Any) -> None:
        """In the child of a fork: closing a copied socket says nothing on the wire."""
        for each in belongings:
            each.close()
