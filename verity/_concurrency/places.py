"""Places: so many at a time, and each is given back whatever interrupts the one who had it.

Python runs a signal's handler between two steps of its own code, and what the handler raises goes on from there: from
within `threading.Semaphore.release`, too, which then gives nothing back, or keeps its lock for ever. A single call of a
function written in C is not divided. So there is nothing here but a dict, in which whoever wants a place stands in line
with a turn of its own, and the first ones in it have the places. The turn is made before the `try` in which it takes
its place, and the `finally` takes it out with one call, `line.pop(turn, None)`, which may be made for one who never
stood there, and twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from verity._process import forget_in_child

_LOOK_AGAIN_S = 0.05
"""An interrupt can keep a call from being made: who waits looks for itself now and then."""


class Turn:
    """Who wants a place."""

    __slots__ = ("call", "using")

    def __init__(self) -> None:
        self.call: Callable[[], object] | None = None
        """Says, while it waits, that it may have a place by now."""
        self.using: Any = None
        """What it uses, for as long as it has its place."""


class _Line:
    """Whoever stands among the first `places` has one.

    Attributes:
        line: in order of arrival. Each step is one call into C, which no other thread divides.
    """

    def __init__(self, places: int) -> None:
        self._count = places
        self.line: dict[Turn, None] = {}

    def _has_place(self, turn: Turn) -> bool:
        return len(self.line) <= self._count or turn in islice(self.line, self._count)


class AsyncPlaces(_Line):
    """For the tasks of one event loop."""

    def call_next(self) -> None:
        """Call the one who has a place now that another one has left."""
        if len(self.line) >= self._count:
            for turn in islice(self.line, self._count - 1, self._count):
                if turn.call is not None:
                    turn.call()

    async def take(self, turn: Turn) -> None:
        """Wait for a place."""
        self.line[turn] = None
        if self._has_place(turn):
            return
        import anyio

        called = anyio.Event()
        turn.call = called.set
        await called.wait()
        turn.call = None


class SyncPlaces(_Line):
    """The twin for threads."""

    def call_next(self) -> None:
        """Call those who have a place now that others have left: of two that leave at once, one may call for both."""
        if len(self.line) >= self._count:
            for turn in list(islice(self.line, self._count)):
                if turn.call is not None:
                    turn.call()

    def take(self, turn: Turn) -> None:
        """Wait for a place."""
        self.line[turn] = None
        if self._has_place(turn):
            return
        calls: SimpleQueue[None] = SimpleQueue()
        turn.call = partial(calls.put, None)
        while not self._has_place(turn):
            try:
                calls.get(timeout=_LOOK_AGAIN_S)
            except Empty:
                continue
        turn.call = None


class Quota(_Line):
    """For tasks and threads alike: one more than there are places is told so and does not wait."""

    def __init__(self, places: int) -> None:
        super().__init__(places)
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Who had a place was in the parent."""
        self.line = {}

    def take(self, turn: Turn) -> bool:
        """Whether there was a place left. It is given back with `line.pop(turn, None)`."""
        self.line[turn] = None
        if self._has_place(turn):
            return True
        self.line.pop(turn, None)
        return False
