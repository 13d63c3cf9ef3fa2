# Made from tests/helpers/_async/virtual_runtime.py by scripts/mirror.py. Do not edit.
"""Virtual time: the clock of client and ledger advances only when the client sleeps or the test says so."""

from __future__ import annotations

from tests.helpers.served_ledger import TestClock
from verity._concurrency import SyncRuntime, SyncThunk, sync_here


class VirtualTimer:
    """A call that is planned."""

    def __init__(self, at: float, fn: SyncThunk[None]) -> None:
        self.at = at
        self.fn = fn
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


class SyncVirtualRuntime(SyncRuntime):
    """The client's clock is the ledger's; randomness is always in the middle."""

    def __init__(self, clock: TestClock) -> None:
        super().__init__()
        self._clock = clock
        self.monotonic = lambda: clock.now_ms / 1000
        self.wall_clock_ns = lambda: clock.now_ms * 1_000_000
        self.random = lambda: 0.5
        self.slept: list[float] = []
        self.timers: list[VirtualTimer] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        was_inside, sync_here.is_inside = sync_here.is_inside, False  # what others do meanwhile, they do elsewhere
        self.advance(seconds)
        sync_here.is_inside = was_inside

    def call_later(self, delay_s: float, fn: SyncThunk[None]) -> VirtualTimer:
        timer = VirtualTimer(self.monotonic() + delay_s, fn)
        self.timers.append(timer)
        return timer

    def planned(self) -> list[VirtualTimer]:
        """What has not fired and was not stopped, soonest first."""
        return sorted((timer for timer in self.timers if not timer.stopped), key=lambda timer: timer.at)

    def advance(self, seconds: float) -> None:
        """Let time pass, and fire what falls due."""
        end_ms = self._clock.now_ms + round(seconds * 1000)
        while (due := self.planned()) and due[0].at * 1000 <= end_ms:
            due[0].stopped = True
            self._clock.now_ms = max(self._clock.now_ms, round(due[0].at * 1000))
            due[0].fn()
        self._clock.now_ms = max(self._clock.now_ms, end_ms)
