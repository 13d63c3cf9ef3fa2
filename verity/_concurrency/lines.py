"""Lines: of those who want the same thing one asks, and the others wait for its answer or for their turn."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from verity._clock import monotonic
from verity._concurrency.loops import current_loop
from verity._process import forget_in_child

_LOOK_EVERY_S = 1.0


class AsyncLines:
    """One line for each name, in each event loop."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Who stood here was a task of the parent."""
        self.lines: dict[object, deque[AsyncPlace]] = {}

    def place(self, name: object) -> AsyncPlace:
        """A place at the end of the line, from `turn()` on until `leave()`."""
        return AsyncPlace(self, name)


class AsyncPlace:
    """One task's place."""

    def __init__(self, lines: AsyncLines, name: object) -> None:
        self._lines = lines.lines
        self._name = (current_loop(), name)
        self._event: Any = None
        self.shared: Any = None
        """What the one whose turn it was had for everybody; None: nothing."""
        self.is_gone = False
        """For the twin."""

    async def turn(self, timeout_s: float) -> bool:
        """Join the line, once, and wait for the turn, or for what is shared; False: that took too long."""
        line = self._lines.setdefault(self._name, deque())
        line.append(self)
        if line[0] is self:
            return True
        import anyio

        self._event = anyio.Event()
        with anyio.move_on_after(timeout_s):
            await self._event.wait()
        return bool(self._event.is_set())

    def share(self, value: Any) -> None:
        """Give it to all who wait here, and end the line."""
        for place in self._lines.pop(self._name, ()):
            place.shared = value
            place.wake()

    def wake(self) -> None:
        """Its turn has come, or something is shared."""
        if self._event is not None:
            self._event.set()

    def leave(self) -> None:
        """Let the next one have its turn. Idempotent."""
        line = self._lines.get(self._name)
        if line is None or self not in line:
            return
        leads = line[0] is self
        line.remove(self)
        if not line:
            del self._lines[self._name]
        elif leads:
            line[0].wake()


class _Line:
    """The threads that wait for one thing."""

    def __init__(self) -> None:
        self.places: deque[SyncPlace] = deque()
        self.shared: Any = None

    def __len__(self) -> int:
        return len(self.places)


class SyncLines:
    """The twin for threads."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Who stood here was a thread of the parent."""
        self.lines: dict[object, _Line] = {}
        self.lock = threading.Lock()

    def place(self, name: object) -> SyncPlace:
        """A place at the end of the line, from `turn()` on until `leave()`."""
        return SyncPlace(self, name)


class SyncPlace:
    """One thread's place.

    A signal's handler may raise an exception at any point of this code, also in `leave()`. The others must not wait for
    a thread that has left: it first sets `is_gone` and then calls `leave()`, and those who wait look for themselves,
    every `_LOOK_EVERY_S` seconds, whether all before them are gone.
    """

    def __init__(self, lines: SyncLines, name: object) -> None:
        self._lines = lines.lines
        self._lock = lines.lock
        self._name = name
        self._line: _Line | None = None
        self._bell = threading.Lock()
        self._bell.acquire()
        self.is_gone = False
        """Set it when the place is left, with a plain assignment: a call can be interrupted at its entry."""

    @property
    def shared(self) -> Any:
        """What the one whose turn it was had for everybody; None: nothing."""
        return None if self._line is None else self._line.shared

    def turn(self, timeout_s: float) -> bool:
        """Join the line, once, and wait for the turn, or for what is shared; False: that took too long."""
        line = self._join()
        until = monotonic() + timeout_s
        while not self._has_come(line):
            rest_s = until - monotonic()
            if rest_s <= 0:
                return False
            self._bell.acquire(timeout=min(rest_s, _LOOK_EVERY_S))
        return True

    def _join(self) -> _Line:
        with self._lock:
            line = self._lines.get(self._name)
            if line is None or line.shared is not None:  # what was shared is for those who waited then
                line = self._lines[self._name] = _Line()
            self._line = line
            line.places.append(self)
        return line

    def _has_come(self, line: _Line) -> bool:
        with self._lock:
            while line.places[0].is_gone:
                line.places.popleft()
            return line.places[0] is self or line.shared is not None

    def share(self, value: Any) -> None:
        """Give it to all who wait here, and end the line."""
        if self._line is not None:
            self._line.shared = value
            for place in list(self._line.places):
                place.wake()

    def wake(self) -> None:
        """Its turn has come, or something is shared. Idempotent."""
        with self._lock:
            if self._bell.locked():
                self._bell.release()

    def leave(self) -> None:
        """Let the next one have its turn. Idempotent."""
        self.is_gone = True
        line = self._line
        if line is None:
            return
        with self._lock:
            while line.places and line.places[0].is_gone:
                line.places.popleft()
            following = line.places[0] if line.places else None
            if following is None and self._lines.get(self._name) is line:
                del self._lines[self._name]
        if following is not None:
            following.wake()
