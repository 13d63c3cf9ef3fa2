"""Opening stores by URL. A process has one store for each file, so that all its clients share one group commit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from verity._ledger.calls import Answer, Request
from verity._ledger.codec import EFFECT_OPERATIONS
from verity._process import notice_fork
from verity._store.sqlite import forks
from verity._store.sqlite.clocks import now_ms
from verity._store.sqlite.group_commit import LoopGroupCommit, ThreadGroupCommit
from verity._store.sqlite.location import Location, read_location
from verity._store.sqlite.loops import LoopReads
from verity._store.sqlite.store import SqliteStore


class OpenLedger:
    """A store with its group commits and reads, shared by all clients of a file. Close it once for each opening."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.threads = ThreadGroupCommit(store)
        self.loops = LoopGroupCommit(store)
        self.reads = LoopReads(store)
        self.users = 1
        self.path: str | None = None

    def answer(self, request: Request) -> Coroutine[Any, Any, Answer]:
        """Carry out a call for an event loop."""
        return (self.loops if request.operation in EFFECT_OPERATIONS else self.reads).answer(request)

    def answer_here(self, request: Request) -> Answer:
        """Carry out a call, and block this thread meanwhile."""
        is_read = request.operation not in EFFECT_OPERATIONS
        return self.store.read(request) if is_read else self.threads.answer(request)

    def close(self) -> None:
        """Give up one opening. The last one closes the file."""
        notice_fork()
        if forks.without_forks(self._remove_user):
            self.reads.close()
            self.loops.close()
            self.store.close()

    def _remove_user(self) -> bool:
        """Count one user less; returns whether that was the last one."""
        self.users -= 1
        if self.users > 0:
            return False
        if self.path is not None and _open.get(self.path) is self:
            del _open[self.path]
        return True


# Changed only inside `without_forks`, whose lock also excludes other threads.
_open: dict[str, OpenLedger] = {}


def open_ledger(
    url: str, *, clock: Callable[[], int] | None = None, upgrade: bool = True, must_exist: bool = False
) -> OpenLedger:
    """Open `sqlite:///file.db`, shared within the process, or `sqlite://`, a new ledger in memory each time.

    Args:
        url: where the ledger is.
        clock: ms since 1970, for tests. A ledger with a clock of its own is not shared.
        upgrade: whether to migrate a file with an older schema; False refuses it.
        must_exist: whether to refuse a file that does not exist, as with `?mode=rw`, instead of creating it.

    Raises:
        VerityConfigError: the URL or the file can't be used.
    """
    place = read_location(url)
    if must_exist:
        place = place._replace(must_exist=True)
    notice_fork()
    return forks.without_forks(partial(_open_here, place, clock, upgrade=upgrade))


def _open_here(place: Location, clock: Callable[[], int] | None, *, upgrade: bool) -> OpenLedger:
    path = place.path
    if path is None or clock is not None:
        return OpenLedger(SqliteStore.at(place, clock=clock or now_ms, upgrade=upgrade))
    ledger = _open.get(path)
    if ledger is None:
        ledger = _open[path] = OpenLedger(SqliteStore.at(place, upgrade=upgrade))
        ledger.path = path
    else:
        ledger.users += 1
    return ledger
