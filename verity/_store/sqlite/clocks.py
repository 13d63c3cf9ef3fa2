"""The clocks of a ledger in a SQLite file."""

from __future__ import annotations

from verity._clock import awake_ns, wall_clock_ns


def now_ms() -> int:
    """The machine's clock: ms since 1970.

    All processes that work on a file must see the same clock, even if it is set back: leases then last longer. A
    process with a clock of its own would see the leases of others as expired, and grant their effects again. For the
    same reason this is the real clock even if a test tool stops or moves the time.
    """
    return wall_clock_ns() // 1_000_000


def awake_ms() -> int:
    """ms of a clock that nobody sets, and that stops while the machine is suspended."""
    return awake_ns() // 1_000_000
