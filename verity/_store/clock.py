"""The clock of a ledger in SQLite: this machine's, as far as it can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable


class LedgerClock:
    """Call it for ms since 1970. It never goes back within the process: a lease that has run out stays so.

    Where the machine's clock is set back, it goes on at half its pace until that one has caught up. Standing still
    meanwhile would be worse: no lease would run out, and what a crashed holder left behind would wait for hours. It is
    for one thread at a time, such as whoever has the store's lock.

    Args:
        wall_ns: ns since 1970.
        steady_ns: ns, from any moment on, that nobody sets.
    """

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._now_ns = 0
        self._asked_at_ns = steady_ns()

    def __call__(self) -> int:
        asked_at_ns = self._steady_ns()
        passed_ns = asked_at_ns - self._asked_at_ns
        self._asked_at_ns = asked_at_ns
        self._now_ns = max(self._wall_ns(), self._now_ns + passed_ns // 2)
        return self._now_ns // 1_000_000
