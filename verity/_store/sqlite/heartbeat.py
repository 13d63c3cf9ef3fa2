"""Notices outages of a SQLite file, inside the transactions that are under way anyway.

There are two kinds; see `verity/_ledger/outages.py` for what an outage does.

- The clock jumped forward. Every process compares the clock with one that nobody sets and that stops while the machine
  is suspended. Their difference, the offset, is in the file, too. So a process that starts after the jump notices it,
  and one that has slept meanwhile knows that another process has recorded it.
- The node was away. Only a served ledger has nodes. A node writes the time into the file, in the transaction of a
  batch, or in one of its own if leases are live and no batch comes. An idle node without live leases writes nothing.

A program that does not write the heartbeat (an older one, or an embedded ledger beside a node) is no outage by itself.
A node that starts later may record one that lasts since the last heartbeat. It concerns only leases that are not
decided, and gives none more than its own length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from verity._ledger.calls import ENVIRONMENTS
from verity._ledger.outages import Outage, add, current, from_text, gap_until, matters_after, to_text
from verity._store.heartbeat import BEAT_EVERY_MS, Outages

_SMALLEST_JUMP_MS = 1_000
_FASTEST_SLEW = 1_000
"""Clocks that are adjusted slowly gain at most one part in this many. That is no jump, however long it lasts."""
_SAVE_EVERY_MS = 60_000
_SAVED_FOR_MS = 600_000
"""For how long a saved offset says something. In a file without a transaction for so long, no lease is live."""
_NOTABLE_MS = 250

_READ = "SELECT alive_at, boot, clock_offset, offset_at, outages FROM heartbeat"
_WRITE = "UPDATE heartbeat SET alive_at = ?, boot = ?, clock_offset = ?, offset_at = ?, outages = ?"
# The last condition is implied by the one before. Without it SQLite would not use the partial index.
_EXPIRES_AFTER = (
    "SELECT EXISTS (SELECT 1 FROM effects WHERE environment = ? AND status = 'RUNNING' AND status <> 'COMMITTED'"
    " AND lease_expires_at > ?)"
)
# Reads all that are running. Only for an outage, which is rare.
_SETTLES_AFTER = _EXPIRES_AFTER.replace("lease_expires_at", "settles_at")


class Offset(NamedTuple):
    """The wall clock minus the steady clock, in ms, when the steady clock showed `at`."""

    ms: int
    at: int


def compare(before: Offset, seen: Offset) -> tuple[Offset, int]:
    """The offset to compare the next one with, and by how many ms the wall clock jumped forward since `before`.

    Small steps forward add up until they are a jump, unless they are as slow as an adjustment. Steps back do not count.
    """
    slewed = (seen.at - before.at) // _FASTEST_SLEW
    if seen.ms - before.ms - slewed > _SMALLEST_JUMP_MS:
        return seen, seen.ms - before.ms
    if seen.ms <= before.ms + slewed:
        return seen, 0
    return Offset(before.ms + slewed, before.at + slewed * _FASTEST_SLEW), 0


def read_outages(connection: apsw.Connection, now: int) -> tuple[Outage, ...]:
    """The outages that may concern a lease at `now`, in ms since 1970."""
    text: str = connection.execute("SELECT outages FROM heartbeat").get
    return current(from_text(text), now)


@cache
def boot_id() -> str | None:
    """Names this run of the operating system, and the steady clock that this process has; None: unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"
    except OSError:
        return None


class Heartbeat:
    """What one process knows about outages of its file. Not thread-safe, but for `rest`: the store's lock guards it.

    Args:
        steady: ms of a clock that nobody sets and that stops while the machine is suspended; None: jumps are not
            noticed.
        boot: names the run of the operating system in which `steady` counts; None: unknown.

    Attributes:
        is_node: whether this process serves the file, so that it has a heartbeat.
        recorded: tells of the outages that this process has recorded.
    """

    def __init__(self, steady: Callable[[], int] | None, boot: str | None) -> None:
        self.is_node = False
        self.recorded = Outages()
        self._steady = steady
        self._boot = boot
        self._offset: Offset | None = None
        self._offset_saved_at = 0
        self._alive_at: int | None = None
        self._saved_at: int | None = None
        """The time that this process has last written into the file."""
        self._now = 0
        self._pending: tuple[Offset | None, int, int | None, tuple[Outage, ...]] = (None, 0, None, ())

    def begin(self, connection: apsw.Connection, now: int) -> None:
        """Notice and record outages. Call it in a transaction that has the write lock, before anything is decided.

        Args:
            connection: in the transaction.
            now: the time of the transaction, in ms since 1970.
        """
        self._now = now
        seen = offset = None
        is_due = self.is_node and not self.is_fresh(now)
        if self._steady is not None:
            at = self._steady()
            seen, before = Offset(now - at, at), self._offset
            if before is None or at - self._offset_saved_at > _SAVE_EVERY_MS:
                is_due = True
            else:
                offset, jumped = compare(before, seen)
                is_due = is_due or jumped > 0 or seen.ms < before.ms - _NOTABLE_MS
        if is_due:
            self._record(connection, now, seen)
        else:
            self._pending = (offset, self._offset_saved_at, self._saved_at, ())

    def end(self) -> None:
        """The transaction is committed."""
        self._offset, self._offset_saved_at, self._saved_at, outages = self._pending
        self._alive_at = self._now
        for outage in outages:
            self.recorded.tell(outage)

    def is_fresh(self, now: int) -> bool:
        """Whether this process has written the time a short time ago."""
        return self._saved_at is not None and 0 <= now - self._saved_at < BEAT_EVERY_MS

    def is_idle(self, connection: apsw.Connection, now: int) -> bool:
        """Whether no lease expires after the time that this process has last written: then nothing can be missed.

        A time in the future says nothing: the clock was set back.
        """
        saved_at = self._saved_at
        return saved_at is not None and saved_at <= now and not _expires_after(connection, saved_at)

    def rest(self, now: int) -> None:
        """Note that an idle node is alive, without writing anything."""
        self._alive_at = now

    def _record(self, connection: apsw.Connection, now: int, seen: Offset | None) -> None:
        row: tuple[Any, ...] = next(connection.execute(_READ))
        alive_at, boot, offset_ms, offset_at, text = row
        recorded = current(from_text(text), now)
        found: tuple[Outage, ...] = ()
        offset = seen
        if seen is not None:
            saved = Offset(offset_ms, offset_at)
            is_comparable = None is not boot == self._boot and 0 <= seen.at - offset_at <= _SAVED_FOR_MS
            known = [each for each in (self._offset, saved if is_comparable else None) if each is not None]
            compared = [compare(each, seen) for each in known]
            jump_ms = min((jumped for _, jumped in compared), default=0)
            if jump_ms:
                found = (Outage(now - jump_ms, now),)
            elif compared:
                offset = min(each for each, _ in compared)
            if self._boot is not None and (
                not is_comparable or seen.at - offset_at > _SAVE_EVERY_MS or abs(seen.ms - offset_ms) > _NOTABLE_MS
            ):
                boot, offset_ms, offset_at = self._boot, *(offset or seen)
        if self.is_node:
            alive = max((each for each in (self._alive_at, alive_at) if each is not None and each <= now), default=None)
            gap = gap_until(now, alive)
            if gap is not None:
                found = add(gap, found)
            alive_at = now
        found = tuple(each for each in found if _matters(connection, each, recorded))
        for each in found:
            recorded = add(each, recorded)
        after = (alive_at, boot, offset_ms, offset_at, to_text(recorded))
        if after != row:
            connection.execute(_WRITE, after)
        self._pending = (
            offset,
            offset_at if seen is None or self._boot is not None else seen.at,
            now if self.is_node else None,
            found,
        )


def _matters(connection: apsw.Connection, outage: Outage, recorded: Sequence[Outage]) -> bool:
    """Whether the outage matters to a lease, or to what a holder sent before it gave its lease back."""
    at = matters_after(outage, recorded)
    return _expires_after(connection, at) or any(
        connection.execute(_SETTLES_AFTER, (each, at)).get for each in ENVIRONMENTS
    )


def _expires_after(connection: apsw.Connection, at: int) -> bool:
    """Whether an effect's lease expires after a time."""
    return any(connection.execute(_EXPIRES_AFTER, (each, at)).get for each in ENVIRONMENTS)
