"""The clock that all waiting goes by."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
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
