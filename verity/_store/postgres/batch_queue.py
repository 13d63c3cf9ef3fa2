"""Group commit on an event loop: calls that wait at the same moment go out together; a lone one goes at once.

The same idea as SQLite's `group_commit.py`, with coroutines for threads. While as many batches are under way as a lane
is wide, what comes gathers; the next batch takes all of it. A batch that is slow no longer counts, as long as the lane
has room to spare.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from verity._store.postgres.batches import PendingCall

SLOW_AFTER_S = 1.0


class BatchQueue:
    """Carries out one kind of work in batches.

    Args:
        carry_out: carries a batch out, and answers each call or hands it to another lane; never raises.
        max_batch: the most calls in one batch.
        width: how many batches may be under way at a time.
        spare: how many more, while as many are slow.

    Attributes:
        watch: called with the size of each batch.
    """

    def __init__(
        self,
        carry_out: Callable[[list[PendingCall]], Coroutine[Any, Any, None]],
        *,
        max_batch: int,
        width: int,
        spare: int = 0,
    ) -> None:
        self.watch: Callable[[int], None] = lambda _size: None
        self._carry_out = carry_out
        self._max_batch = max_batch
        self._width = width
        self._spare = spare
        self._waiting: deque[PendingCall] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._slow: set[asyncio.Task[None]] = set()
        self._is_planned = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, pending: PendingCall) -> None:
        """Have it carried out. What is added in the same turn of the event loop goes out together."""
        self._waiting.append(pending)
        self._plan()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not (self._running or self._waiting)

    async def drain(self) -> None:
        """Return once nothing waits and nothing is under way."""
        while not self.is_idle:
            self._plan()
            await asyncio.gather(*self._running, asyncio.sleep(0))

    @property
    def _has_room(self) -> bool:
        return len(self._running) - min(len(self._slow), self._spare) < self._width

    def _plan(self) -> None:
        if not self._is_planned and self._has_room:
            self._is_planned = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._is_planned = False
        loop = asyncio.get_running_loop()
        while self._waiting and self._has_room:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]
            self.watch(len(batch))
            task = loop.create_task(self._carry_out(batch))
            self._running.add(task)
            timer = loop.call_later(SLOW_AFTER_S, self._let_others_pass, task) if self._spare else None
            task.add_done_callback(functools.partial(self._end, timer))

    def _let_others_pass(self, task: asyncio.Task[None]) -> None:
        self._slow.add(task)
        if self._waiting:
            self._begin()

    def _end(self, timer: asyncio.TimerHandle | None, task: asyncio.Task[None]) -> None:
        if timer is not None:
            timer.cancel()
        self._running.discard(task)
        self._slow.discard(task)
        if self._waiting:
            self._begin()
