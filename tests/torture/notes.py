"""What a worker writes down: what its clients were told, when they came to what, and how often which error came."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.torture.history import STALL_MS, STALLED, Mark
from tests.torture.plan import Plan
from verity import CommitUncertainError, VerityApiError, VerityConnectionError, VerityError

_TICK_S = 0.05


class Notes:
    """Those of one process; a kill loses no line that was written."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._log = os.open(plan.told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._history = os.open(plan.history, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._counts: Counter[str] = Counter()
        told = [line.split(" ", 2)[:2] for line in plan.told.read_text().splitlines()]
        known = {(int(client), key) for client, key in told}
        self.left = {
            client: [key for key in keys if (client, key) not in known] for client, keys in plan.shares().items()
        }

    def note(self, client: int, key: str, result: Any) -> None:
        """Write down what a client was told."""
        os.write(self._log, f"{client} {key} {json.dumps(result)}\n".encode())

    def mark(self, client: int, what: str, key: str, fence: int) -> None:
        """Note that a client has come to something."""
        os.write(self._history, Mark(time.time_ns() // 1_000_000, client, what, key, fence).line())

    def note_stalls(self) -> None:
        """Note, in a thread of its own, whenever this process did not run for a while."""
        while True:
            slept_at = time.monotonic()
            time.sleep(_TICK_S)
            late_ms = int((time.monotonic() - slept_at - _TICK_S) * 1000)
            if late_ms >= STALL_MS:
                self.mark(-1, STALLED, "-", late_ms)

    def count(self, what: str) -> None:
        self._counts[what] += 1

    def count_error(self, error: VerityError) -> None:
        """These come from crashes, and the effect is asked for again; any other error ends the worker."""
        cause = error.commit_error if isinstance(error, CommitUncertainError) else error
        if isinstance(cause, VerityApiError):
            if cause.status_code not in (409, 503):
                raise error
            why = cause.code
        elif isinstance(cause, VerityConnectionError):
            why = "no answer"
        else:
            raise error
        spooled = ", spooled" if isinstance(error, CommitUncertainError) and error.spooled else ""
        self.count(f"{type(error).__name__} ({why}{spooled}), and asked again")

    def save_counts(self) -> None:
        with self.plan.counts.open("a") as file:
            file.write(json.dumps(self._counts) + "\n")


def read_counts(file: Path) -> Counter[str]:
    """The counts that a worker saved in each of its lives that ended in order."""
    counts: Counter[str] = Counter()
    for line in file.read_text().splitlines() if file.exists() else ():
        counts.update(json.loads(line))
    return counts
