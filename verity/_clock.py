"""The clocks of waits and leases. Test tools that replace or freeze Python's `time` affect only the caller's own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any


def suspend_aware_clock(clocks: Any = time, platform: str = sys.platform) -> Callable[[], float]:
    """A monotonic clock, in seconds, that also counts while the machine is suspended: leases expire meanwhile.

    Python's `time.monotonic` stops during a suspension on Linux and macOS. This clock is CLOCK_BOOTTIME on Linux, and
    CLOCK_MONOTONIC on macOS, where Python does not use it.
    """
    clock_id = getattr(clocks, "CLOCK_MONOTONIC" if platform == "darwin" else "CLOCK_BOOTTIME", None)
    # A partial also for `time.monotonic`: freezegun replaces the function in every module that has it, and a wait by a
    # frozen clock never ends. It does not replace a function inside a partial.
    return partial(clocks.monotonic) if clock_id is None else partial(clocks.clock_gettime, clock_id)


monotonic = suspend_aware_clock()


def _awake_clock(clocks: Any = time, platform: str = sys.platform) -> Callable[[], int]:
    """A monotonic clock, in ns, that stops while the machine is suspended, and that nobody sets."""
    clock_id = getattr(clocks, "CLOCK_UPTIME_RAW" if platform == "darwin" else "CLOCK_MONOTONIC", None)
    return partial(clocks.monotonic_ns) if clock_id is None else partial(clocks.clock_gettime_ns, clock_id)


awake_ns = _awake_clock()


def callers_monotonic() -> float:
    """`time.monotonic()` as the caller's code reads it, in seconds. For values to compare with it, never for a wait."""
    return time.monotonic()


def _wall_clock() -> Callable[[], int]:
    """The machine's wall clock, in ns since 1970, which no test tool replaces.

    freezegun replaces functions by name, but not inside a partial. time-machine also replaces the C functions, but not
    Linux's coarse clock, which is at most a few ms behind.
    """
    if sys.platform == "linux":
        read = partial(time.clock_gettime_ns, 5)  # CLOCK_REALTIME_COARSE, for which Python has no name
        with suppress(OSError):  # some systems that report to be Linux do not have it
            read()
            return read
    return partial(time.time_ns)


wall_clock_ns = _wall_clock()
