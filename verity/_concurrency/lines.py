"""Lines: of those who want the same thing one asks, and the others wait for its answer or for their turn."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from verity._concurrency.homes import forget_in_child
from verity._concurrency.loops import current_loop


class AsyncLines:
    """One line for each name, in each event loop."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Who stood here was a task of the parent."""
        self.lines: dict[object, deque[AsyncPlace]] = {}

    def place(self, name: object) -> AsyncPlace:
        """A place at the end of the line; it is left with the `async with`."""
        return AsyncPlace(self, name)


class AsyncPlace:
    """One task's place."""

    def __init__(self, lines: AsyncLines, name: object) -> None:
        self._lines = lines.lines
        self._name = name
        self._event: Any = None
        self.shared: Any = None
        """What the one whose turn it was had for everybody; None: nothing."""

    async def __aenter__(self) -> AsyncPlace:
        self._name = (current_loop(), self._name)
        self._lines.setdefault(self._name, deque()).append(self)
        return self

    async def turn(self, timeout_s: float) -> bool:
        """Wait until it is this one's turn, or something is shared; False: that took too long."""
        if self.shared is not None or self._lines[self._name][0] is self:
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

    async def __aexit__(self, *exc_info: object) -> None:
        line = self._lines.get(self._name)
        if line is None or self not in line:
            return
        leads = line[0] is self
        line.remove(self)
        if not line:
            del self._lines[self._name]
        elif leads:
            line[0].wake()


class SyncLines:
    """The twin for threads."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Who stood here was a thread of the parent."""
        self.lines: dict[object, deque[SyncPlace]] = {}
        self.lock = threading.Lock()

    def place(self, name: object) -> SyncPlace:
        """A place at the end of the line; it is left with the `with`."""
        return SyncPlace(self, name)


class SyncPlace:
    """One thread's place."""

    def __init__(self, lines: SyncLines, name: object) -> None:
        self._lines = lines.lines
        self._lock = lines.lock
        self._name = name
        self._event = threading.Event()
        self.shared: Any = None
        """What the one whose turn it was had for everybody; None: nothing."""

    def __enter__(self) -> SyncPlace:
        with self._lock:
            line = self._lines.setdefault(self._name, deque())
            line.append(self)
            if line[0] is self:
                self._event.set()
        return self

    def turn(self, timeout_s: float) -> bool:
        """Wait until it is this one's turn, or something is shared; False: that took too long."""
        return self._event.wait(min(timeout_s, threading.TIMEOUT_MAX))

    def share(self, value: Any) -> None:
        """Give it to all who wait here, and end the line."""
        with self._lock:
            line = self._lines.pop(self._name, ())
        for place in line:
            place.shared = value
            place.wake()

    def wake(self) -> None:
        """Its turn has come, or something is shared."""
        self._event.set()

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            line = self._lines.get(self._name)
            if line is None or self not in line:
                return
            leads = line[0] is self
            line.remove(self)
            if not line:
                del self._lines[self._name]
            elif leads:
                line[0].wake()
