"""Group commit on an event loop: calls that wait at the same moment go out together; a lone one goes at once.

The same idea as `_store/group.py`, with coroutines for threads. While as many batches are under way as a lane is wide,
what comes gathers; the next batch takes all of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from verity.server.postgres.batches import Work


class Lane:
    """Carries out one kind of work in batches.

    Args:
        carry_out: carries a batch out, and answers each call or hands it to another lane; never raises.
        max_batch: the most calls in one batch.
        width: how many batches may be under way at a time.

    Attributes:
        watch: called with the size of each batch.
    """

    def __init__(
        self,
        carry_out: Callable[[list[Work]], Coroutine[Any, Any, None]],
        *,
        max_batch: int,
        width: int,
    ) -> None:
        self.watch: Callable[[int], None] = lambda _size: None
        self._carry_out = carry_out
        self._max_batch = max_batch
        self._width = width
        self._waiting: deque[Work] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._is_planned = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, work: Work) -> None:
        """Have it carried out. What is added in the same turn of the event loop goes out together."""
        self._waiting.append(work)
        self._plan()

    async def drain(self) -> None:
        """Return once nothing waits and nothing is under way."""
        while self._running or self._waiting:
            self._plan()
            await asyncio.gather(*self._running, asyncio.sleep(0))

    def _plan(self) -> None:
        if not self._is_planned and len(self._running) < self._width:
            self._is_planned = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._is_planned = False
        while self._waiting and len(self._running) < self._width:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]
            self.watch(len(batch))
            task = asyncio.get_running_loop().create_task(self._carry_out(batch))
            self._running.add(task)
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._waiting:
            self._begin()
