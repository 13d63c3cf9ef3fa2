"""A history with times: what each call was at, and when each blow fell.

Workers, world and database run on one machine, so that their clocks agree. All times are ms since 1970.

The checker answers what the number of acts alone can't: whether each act began on a lease that was live then. There is
one window in which it may not have been, and README names it: the process was frozen, or starved of the processor,
between its last look at the clock and its act. A worker notes when it was.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.torture.plan import renews

ASKED, LEASED, BEGUN, ENDED, OVER, STALLED = "asked", "leased", "begun", "ended", "over", "stalled"
"""What a worker notes of a call, at the moment that it comes to it; and that its process stood still until then."""

PHASES = {
    ASKED: "before the lease",
    LEASED: "between lease and act",
    BEGUN: "in act",
    ENDED: "between act and commit",
}
AFTER_COMMIT = "after the commit"
ALL_PHASES = (*PHASES.values(), AFTER_COMMIT)

STALL_MS = 500


@dataclass(frozen=True)
class Mark:
    """One line of a worker's history. Of a stall, `fence` is how long it was, in ms."""

    at: int
    client: int
    what: str
    key: str
    fence: int

    def line(self) -> bytes:
        return f"{self.at} {self.client} {self.what} {self.key} {self.fence}\n".encode()


@dataclass(frozen=True)
class Blow:
    """One fault. `worker` is the one that it fell upon, where it was one."""

    what: str
    began_at: int
    worker: str | None = None


@dataclass
class History:
    """What the workers noted, by worker."""

    marks: dict[str, list[Mark]] = field(default_factory=dict)

    def read(self, worker: str, file: Path) -> None:
        """A line that a kill cut off is none."""
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        self.marks[worker] = [
            Mark(int(at), int(client), what, key, int(fence))
            for at, client, what, key, fence in (line for line in lines if len(line) == 5)
        ]


def find_overtaken(history: History, take_overs: Iterable[tuple[str, int, int]], *, lapses: bool) -> int:
    """How many of the leases that were taken over belonged to a call that was alive, and had them renewed.

    Args:
        history: what the workers noted.
        take_overs: (key, fence of the holder before, when its lease was taken over).
        lapses: as in the plan.
    """
    taken_at = {(key, fence): at for key, fence, at in take_overs}
    overtaken = 0
    for marks in history.marks.values():
        stalls = [mark for mark in marks if mark.what == STALLED]
        held: dict[int, Mark] = {}
        for mark in marks:
            if mark.what == LEASED:
                held[mark.client] = mark
            elif mark.what == ASKED:  # the call before was killed
                held.pop(mark.client, None)
            elif mark.what == OVER and (lease := held.pop(mark.client, None)) is not None:
                at = taken_at.get((lease.key, lease.fence))
                if at is not None and lease.at < at < mark.at and renews(mark.client, lapses=lapses):
                    overtaken += not any(stall.at - stall.fence < at and stall.at > lease.at for stall in stalls)
    return overtaken


def count_cells(history: History, blows: Iterable[Blow]) -> Counter[tuple[str, str]]:
    """How many calls each kind of blow met in each phase."""
    cells: Counter[tuple[str, str]] = Counter()
    for blow in blows:
        workers = history.marks if blow.worker is None else {blow.worker}
        for worker in workers:
            for phase in _phases_at(history.marks[worker], blow.began_at):
                cells[blow.what, phase] += 1
    return cells


def unmet(cells: Counter[tuple[str, str]], blows: Iterable[str]) -> list[str]:
    """A line for each phase of a call in which no blow of a kind fell."""
    return [f"no call was met {phase} by: {blow}" for blow in blows for phase in ALL_PHASES if not cells[blow, phase]]


def _phases_at(marks: Sequence[Mark], at: int) -> list[str]:
    """What the calls of one worker were at."""
    latest: dict[int, Mark] = {}
    told: set[str] = set()
    asked_again: set[str] = set()
    for mark in marks:
        if mark.at <= at and mark.what != STALLED:
            latest[mark.client] = mark
        if mark.what == OVER and mark.at <= at and mark.fence >= 0:
            told.add(mark.key)
        elif mark.what == ASKED and mark.at > at:
            asked_again.add(mark.key)
    phases = [PHASES[mark.what] for mark in latest.values() if mark.what in PHASES]
    return phases + [AFTER_COMMIT] * len(told & asked_again)


def wrong_acts(key: str, events: Sequence[Any], acts: Sequence[tuple[int, str]], history: Beginnings) -> list[str]:
    """What is wrong with when and how often an effect was acted; `acts` are the world's own record: (fence, id)."""
    problems = []
    for fence, times in Counter(fence for fence, _ in acts).items():
        if times > 1:
            problems.append(f"acted {times} times under fence {fence}")
    committed_at = next((event["at"] for event in events if event["type"] == "COMMITTED"), None)
    for fence, _ in acts:
        begun = history.begun.get((key, fence))
        if begun is None:
            problems.append(f"acted under fence {fence}, and no worker began that")
            continue
        if committed_at is not None and begun.at > committed_at + history.behind_ms:
            problems.append(f"fence {fence} began {begun.at - committed_at} ms after the commit")
        granted_at, expires_at = _lease_at(events, fence, begun.at)
        if granted_at is None or begun.at < granted_at:
            problems.append(f"fence {fence} began before it was granted")
        elif begun.at >= expires_at and not history.was_stalled(begun):
            problems.append(f"fence {fence} began {begun.at - expires_at} ms after its lease had run out")
    return problems


def was_frozen(key: str, events: Sequence[Any], fence: int, history: Beginnings) -> bool:
    """Whether an act began after its lease had run out, because its process stood still right before."""
    begun = history.begun.get((key, fence))
    return begun is not None and begun.at >= _lease_at(events, fence, begun.at)[1] and history.was_stalled(begun)


def _lease_at(events: Sequence[Any], fence: int, at: int) -> tuple[int | None, int]:
    """When a fence was granted, and until when its lease was good as far as it had been renewed by then."""
    granted_at, expires_at = None, 0
    for event in events:
        if event["fence"] != fence or event["type"] not in ("LEASE_GRANTED", "LEASE_RENEWED"):
            continue
        if event["type"] == "LEASE_GRANTED":
            granted_at = event["at"]
        if event["at"] <= at:
            expires_at = max(expires_at, json.loads(event["detail"])["leaseExpiresAt"])
    return granted_at, expires_at


class Beginnings:
    """When each act began, as the workers noted it, and when their processes stood still.

    Args:
        history: what the workers noted.
        lease_ms: how long leases last.
        behind_ms: how far the ledger's clock may be behind those of the workers. A SQLite ledger reads a coarse one.
    """

    def __init__(self, history: History, lease_ms: int, behind_ms: int = 0) -> None:
        self._lease_ms = lease_ms
        self.behind_ms = behind_ms
        self.begun: dict[tuple[str, int], Mark] = {}
        self._worker_of: dict[tuple[str, int], str] = {}
        self._stalls: dict[str, list[int]] = defaultdict(list)
        for worker, marks in history.marks.items():
            for mark in marks:
                if mark.what == BEGUN:
                    self.begun[mark.key, mark.fence] = mark
                    self._worker_of[mark.key, mark.fence] = worker
                elif mark.what == STALLED and mark.fence >= STALL_MS:
                    self._stalls[worker].append(mark.at)

    def was_stalled(self, begun: Mark) -> bool:
        """Whether its process stood still within a lease's time before it began; a stall is noted when it is over."""
        stalls = self._stalls[self._worker_of[begun.key, begun.fence]]
        following = bisect_right(stalls, begun.at + STALL_MS)
        return following > 0 and stalls[following - 1] > begun.at - self._lease_ms
