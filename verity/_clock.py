"""The clocks that waiting and leases go by: as the machine has them, whatever test tools make of `time`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any


def clock_that_never_sleeps(clocks: Any = time, platform: str = sys.platform) -> Callable[[], float]:
    """The monotonic clock that goes on while the machine is suspended, in seconds: leases run out meanwhile.

    Python's own stands still on Linux and on macOS, where CLOCK_MONOTONIC is another clock than Python's.
    """
    clock_id = getattr(clocks, "CLOCK_MONOTONIC" if platform == "darwin" else "CLOCK_BOOTTIME", None)
    # A partial where there is no other clock, too: test tools that make time stand still (freezegun) replace
    # `time.monotonic` wherever a module has it, and what waits by it would wait for ever.
    return partial(clocks.monotonic) if clock_id is None else partial(clocks.clock_gettime, clock_id)


monotonic = clock_that_never_sleeps()


def _clock_of_the_machine() -> Callable[[], int]:
    """The machine's clock in ns since 1970, as no test tool can replace it.

    freezegun replaces what a module calls by name, so not what a partial holds; time-machine replaces the clock below
    that, too, but not Linux's coarse one, which is at most some ms behind.
    """
    if sys.platform == "linux":
        read = partial(time.clock_gettime_ns, 5)  # CLOCK_REALTIME_COARSE, which Python has no name for
        with suppress(OSError):  # not every kernel that says it is Linux has it
            read()
            return read
    return partial(time.time_ns)


machines_time_ns = _clock_of_the_machine()
