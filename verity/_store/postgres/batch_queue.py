"""Group commit on an event loop: calls that wait at the same time go out as one batch; a lone call goes out at once.

SQLite's `group_commit.py` does the same with threads. A queue has at most `width` batches under way. Calls that arrive
meanwhile gather, and the next batch takes them all. A batch that takes longer than `SLOW_AFTER_S` does not count, as
long as no more than `spare` batches are slow.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from verity._store.postgres.pending import Outcome, PendingCall

SLOW_AFTER_S = 1.0


class BatchQueue:
    """Attempts calls in batches.

    Args:
        attempt: attempts a batch, and concludes each of its calls. Never raises.
        max_batch: the most calls in one batch.
        width: how many batches may be under way at a time.
        spare: how many more may be under way while as many are slow.

    Attributes:
        watch: called with the size of each batch.
    """

    def __init__(
        self,
        attempt: Callable[[list[PendingCall]], Coroutine[Any, Any, None]],
        *,
        max_batch: int,
        width: int,
        spare: int = 0,
    ) -> None:
        self.watch: Callable[[int], None] = lambda _size: None
        self._attempt = attempt
        self._max_batch = max_batch
        self._width = width
        self._spare = spare
        self._waiting: deque[PendingCall] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._slow: set[asyncio.Task[None]] = set()
        self._is_planned = False

    def add(self, call: PendingCall) -> asyncio.Future[Outcome]:
        """Have a call attempted; returns its outcome. Calls added in one turn of the event loop go out together."""
        outcome = call.start_attempt()
        self._waiting.append(call)
        self._plan()
        return outcome

    @property
    def is_idle(self) -> bool:
        """Whether no call waits and no batch is under way."""
        return not (self._running or self._waiting)

    async def drain(self) -> None:
        """Return once the queue is idle."""
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
            task = loop.create_task(self._attempt(batch))
            self._running.add(task)
            timer = loop.call_later(SLOW_AFTER_S, self._note_slow, task) if self._spare else None
            task.add_done_callback(functools.partial(self._end, timer))

    def _note_slow(self, task: asyncio.Task[None]) -> None:
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
