"""Single-flight: of the callers that want the same thing, one asks and the others wait for its answer.

The caller that asks leads. It either publishes its answer to all who wait, or leaves, and the next caller leads. The
term is from Go's `golang.org/x/sync/singleflight`.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from verity._clock import monotonic
from verity._concurrency.loops import current_loop
from verity._mutex import Mutex
from verity._process import forget_in_child

_CHECK_EVERY_S = 1.0


class AsyncSingleFlight:
    """One flight for each key, in each event loop."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Forget the callers: they are tasks of the parent process."""
        self.flights: dict[object, deque[AsyncCaller]] = {}

    def join(self, key: object) -> AsyncCaller:
        """A caller that has not begun to wait. Call `wait_to_lead()` once, and `leave()` at the end."""
        return AsyncCaller(self, key)


class AsyncCaller:
    """One task in a flight."""

    def __init__(self, flights: AsyncSingleFlight, key: object) -> None:
        self._flights = flights.flights
        self._key = (current_loop(), key)
        self._event: Any = None
        self.published: Any = None
        """The answer of the caller that led; None: it published none."""
        self.is_gone = False
        """Used by the twin only."""

    async def wait_to_lead(self, timeout_s: float) -> bool:
        """Wait until this caller leads or an answer is published; False: `timeout_s` passed first."""
        flight = self._flights.setdefault(self._key, deque())
        flight.append(self)
        if flight[0] is self:
            return True
        import anyio

        self._event = anyio.Event()
        with anyio.move_on_after(timeout_s):
            await self._event.wait()
        return bool(self._event.is_set())

    def publish(self, value: Any) -> None:
        """Give the answer to all callers that wait, and end the flight."""
        for caller in self._flights.pop(self._key, ()):
            caller.published = value
            caller.wake()

    def wake(self) -> None:
        """Tell this caller that it leads, or that an answer is published."""
        if self._event is not None:
            self._event.set()

    def leave(self) -> None:
        """Leave the flight; if this caller led, the next one leads. Idempotent."""
        flight = self._flights.get(self._key)
        if flight is None or self not in flight:
            return
        led = flight[0] is self
        flight.remove(self)
        if not flight:
            del self._flights[self._key]
        elif led:
            flight[0].wake()


class _Flight:
    """The threads that wait for one thing."""

    def __init__(self) -> None:
        self.callers: deque[SyncCaller] = deque()
        self.published: Any = None

    def __len__(self) -> int:
        return len(self.callers)


class SyncSingleFlight:
    """The twin for threads."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Forget the callers: they are threads of the parent process."""
        self.flights: dict[object, _Flight] = {}
        self.lock = Mutex()

    def join(self, key: object) -> SyncCaller:
        """A caller that has not begun to wait. Call `wait_to_lead()` once, and `leave()` at the end."""
        return SyncCaller(self, key)


class SyncCaller:
    """One thread in a flight.

    A signal handler may raise an exception at any point of this code, also in `leave()`. The other threads must not
    wait for a thread that has left. So it first sets `is_gone` and then calls `leave()`, and a thread that waits checks
    every `_CHECK_EVERY_S` seconds whether all callers before it are gone.
    """

    def __init__(self, flights: SyncSingleFlight, key: object) -> None:
        self._flights = flights.flights
        self._lock = flights.lock
        self._key = key
        self._flight: _Flight | None = None
        self._wakeup = threading.Lock()
        self._wakeup.acquire()
        self.is_gone = False
        """Set it before `leave()`, by a plain assignment: a call can be interrupted at its entry."""

    @property
    def published(self) -> Any:
        """The answer of the caller that led; None: it published none."""
        return None if self._flight is None else self._flight.published

    def wait_to_lead(self, timeout_s: float) -> bool:
        """Wait until this caller leads or an answer is published; False: `timeout_s` passed first."""
        flight = self._lock.run(self._enter)
        is_over = partial(self._leads_or_has_answer, flight)
        until = monotonic() + timeout_s
        while not self._lock.run(is_over):
            rest_s = until - monotonic()
            if rest_s <= 0:
                return False
            self._wakeup.acquire(timeout=min(rest_s, _CHECK_EVERY_S))
        return True

    def _enter(self) -> _Flight:
        flight = self._flights.get(self._key)
        if flight is None or flight.published is not None:  # an answer is only for callers that waited for it
            flight = self._flights[self._key] = _Flight()
        self._flight = flight
        flight.callers.append(self)
        return flight

    def _leads_or_has_answer(self, flight: _Flight) -> bool:
        while flight.callers[0].is_gone:
            flight.callers.popleft()
        return flight.callers[0] is self or flight.published is not None

    def publish(self, value: Any) -> None:
        """Give the answer to all callers that wait, and end the flight."""
        if self._flight is not None:
            self._flight.published = value
            for caller in list(self._flight.callers):
                caller.wake()

    def wake(self) -> None:
        """Tell this caller that it leads, or that an answer is published. Idempotent."""
        with suppress(RuntimeError):  # it was told before
            self._wakeup.release()

    def leave(self) -> None:
        """Leave the flight; if this caller led, the next one leads. Idempotent."""
        self.is_gone = True
        if self._flight is not None:
            following = self._lock.run(partial(self._leave, self._flight))
            if following is not None:
                following.wake()

    def _leave(self, flight: _Flight) -> SyncCaller | None:
        """The caller that leads now."""
        while flight.callers and flight.callers[0].is_gone:
            flight.callers.popleft()
        if flight.callers:
            return flight.callers[0]
        if self._flights.get(self._key) is flight:
            del self._flights[self._key]
        return None
