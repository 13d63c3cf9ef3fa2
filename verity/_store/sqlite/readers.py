"""Connections that only read: no writer waits for a read, and a read waits for no writer.

With its write-ahead log SQLite shows each connection what was committed when its transaction began, whatever is being
written meanwhile. What a read may take is bounded all the same, in time, since the log can't be begun anew while
somebody reads what is in it.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

import apsw

from verity._clock import monotonic
from verity._mutex import Mutex
from verity._process import notice_fork
from verity._store.reads import READ_WITHIN_S
from verity._store.sqlite import file_locks, forks
from verity._store.sqlite.connection import FileMoved, files_of, identify

T = TypeVar("T")

LONG_LOG_BYTES = 64 * 1024 * 1024
MOST_READERS = 8
_SHORTER_IN_MEMORY = 5
"""So that a writer waits for a read no longer than a fifth of the shortest lease."""
_LOOK_AGAIN_S = 0.05
_BUSY_TIMEOUT_MS = 1_000
_STEPS = 20_000
"""Of SQLite's machine, after which it is asked whether to go on: a millisecond or so."""


class ReadTooLong(apsw.Error):
    """A read was not done in its time, or given up for another reason; nothing else was disturbed."""

    def __init__(self) -> None:
        super().__init__("a read took too long")


def _always() -> bool:
    return True


def _never() -> bool:
    return False


class _Reader:
    """One connection, while it is used and in between, and why to stop what it does."""

    __slots__ = ("__weakref__", "connection", "file", "is_stopped", "is_wanted", "opened", "until")

    def __init__(self) -> None:
        self.connection: apsw.Connection | None = None
        self.file: tuple[int, int] | None = None
        self.opened: list[tuple[int, int] | None] = []
        self.is_stopped = False
        self.is_wanted: Callable[[], bool] = _always
        self.until = 0.0

    def is_over(self) -> bool:
        """Whether to stop; SQLite asks now and then."""
        return self.is_stopped or not self.is_wanted() or monotonic() >= self.until


class Readers:
    """A few read-only connections to a file, opened when they are needed, each for one thread at a time.

    Args:
        path: the file.
        most: how many there may be; further reads wait for one that is free.
        shorten_log: begins the file's log anew; called now and then, while no read is under way, once the log is long.
    """

    def __init__(
        self,
        path: str,
        *,
        most: int = MOST_READERS,
        shorten_log: Callable[[], None] = lambda: None,
        long_log_bytes: int = LONG_LOG_BYTES,
    ) -> None:
        self._files = files_of(path)
        self._file = identify(self._files[:1])
        self._most = most
        self._shorten_log = shorten_log
        self._long_log_bytes = long_log_bytes
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._lock = Mutex()
        self._bells: deque[threading.Lock] = deque()
        """Of who waits for a change; they save time, since who waits also looks for itself."""
        self._idle: list[_Reader] = []
        # Weak: a reader whose thread was interrupted while it gave it back is gone with that, and held by nobody.
        self._busy: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._is_held_off = False

    def run(
        self,
        work: Callable[[apsw.Connection], T],
        *,
        within_s: float = READ_WITHIN_S,
        is_wanted: Callable[[], bool] = _always,
    ) -> T:
        """Have `work` read from a connection, as it was committed when it began, and return what it returns.

        Args:
            work: reads; it may be called again from the start, after a fork.
            within_s: how long it may take, in seconds, with the time until a connection is free.
            is_wanted: asked now and then; False stops the read.

        Raises:
            ReadTooLong: it took longer, or is not wanted any more.
            FileMoved: the file was removed or replaced.
            apsw.Error: the storage failed.
        """
        notice_fork()
        until = monotonic() + within_s
        while True:
            reader = _Reader()
            try:
                reader = self._take(reader, until)
                reader.until, reader.is_wanted = until, is_wanted
                return work(self._begin(reader))
            except apsw.InterruptError:
                if not reader.is_stopped or not reader.is_wanted() or monotonic() >= until:
                    raise ReadTooLong from None
            finally:
                self._give_back(reader)

    def close(self) -> None:
        """Stop what reads, and close the connections. Reads that come later open new ones."""
        notice_fork()
        self._hold_off(for_good=True)
        self.after_fork_in_parent()

    def before_fork(self) -> None:
        """Stop what reads, which begins anew afterwards, and close: as in forks.py."""
        self._hold_off(for_good=False)

    def _hold_off(self, *, for_good: bool) -> None:
        self._is_held_off = True
        while not self._are_stopped(for_good=for_good):
            self._wait(_LOOK_AGAIN_S)
        while self._idle:
            _close(self._idle.pop())

    def _are_stopped(self, *, for_good: bool) -> bool:
        busy = self._lock.run(lambda: list(self._busy))
        for reader in busy:
            reader.is_stopped = True
            if for_good:
                reader.is_wanted = _never
        return not busy

    def _wait(self, at_most_s: float) -> None:
        bell = threading.Lock()
        bell.acquire()
        self._bells.append(bell)
        bell.acquire(timeout=at_most_s)

    def _tell_of_change(self) -> None:
        with suppress(IndexError):
            while True:
                self._bells.popleft().release()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._is_held_off = False
        self._tell_of_change()

    def after_fork_in_child(self) -> None:
        """Go on with locks of this process."""
        if not self._is_held_off:  # no hook ran before this fork
            inherited = [each.connection for each in (*self._idle, *self._busy) if each.connection is not None]
            in_use = len(self._busy) > 0 or self._lock.locked()
            forks.discard_inherited(*inherited, in_use=in_use)
        self._begin_anew()

    def _take(self, reader: _Reader, until: float) -> _Reader:
        while (taken := self._lock.run(partial(self._take_if_free, reader))) is None:
            left_s = until - monotonic()
            if left_s <= 0:
                raise ReadTooLong
            self._wait(min(left_s, _LOOK_AGAIN_S))
        return taken

    def _take_if_free(self, reader: _Reader) -> _Reader | None:
        if self._is_held_off or len(self._busy) >= self._most or (self._busy and self._has_long_log()):
            return None
        if self._idle:
            reader = self._idle.pop()
        reader.is_stopped = False
        self._busy.add(reader)
        return reader

    def _begin(self, reader: _Reader) -> apsw.Connection:
        """Its connection, in a transaction."""
        if self._has_long_log() and len(self._busy) == 1:  # and so it stays: see `_take`
            self._shorten_log()
        found = identify(self._files)
        if reader.connection is None:
            if found[:1] != self._file:
                raise FileMoved
            reader.file = self._file[0]
            reader.connection = _open(str(self._files[0]), reader.file)
            reader.connection.set_progress_handler(reader.is_over, _STEPS)
            reader.opened = identify(self._files)
        elif found != reader.opened:
            raise FileMoved
        reader.connection.execute("BEGIN")
        return reader.connection

    def _give_back(self, reader: _Reader) -> None:
        reader.is_wanted = _always
        try:
            _end(reader)
        finally:
            self._lock.run(partial(self._put_back, reader))
            self._tell_of_change()

    def _put_back(self, reader: _Reader) -> None:
        self._busy.discard(reader)
        if reader.connection is not None and reader not in self._idle:
            self._idle.append(reader)

    def _has_long_log(self) -> bool:
        """Whether the log grew although SQLite begins it anew when nobody reads: somebody always did."""
        try:
            return self._files[1].stat().st_size > self._long_log_bytes
        except OSError:
            return False


class Hold(Protocol):
    """Calls `work` with a connection that nobody else uses meanwhile."""

    def __call__(self, work: Callable[[apsw.Connection], T]) -> T: ...


class OneConnection:
    """In memory: reads and the writer share one connection, in turns.

    There is no write-ahead log in memory, and of several connections to one database a reader would lock the writer
    out, too. So a read is short, or given up; and reads queue among themselves, so that a writer waits for one at most.

    Args:
        hold: calls a function with the connection, and keeps everybody else from it.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._turn = Mutex()

    def run(
        self,
        work: Callable[[apsw.Connection], T],
        *,
        within_s: float = READ_WITHIN_S,
        is_wanted: Callable[[], bool] = _always,
    ) -> T:
        """As `Readers.run` does, in a fifth of the time."""

        def read(connection: apsw.Connection) -> T:
            until = monotonic() + within_s / _SHORTER_IN_MEMORY
            try:
                connection.set_progress_handler(lambda: monotonic() >= until or not is_wanted(), _STEPS)
                return work(connection)
            except apsw.InterruptError:
                raise ReadTooLong from None
            finally:
                try:  # see verity/_mutex.py
                    connection.set_progress_handler(None)
                finally:
                    pass

        return self._turn.run(lambda: self._hold(read))

    def close(self) -> None:
        """Its owner closes it."""

    def before_fork(self) -> None:
        """Its owner waits."""

    def after_fork_in_parent(self) -> None:
        """Nothing was held."""

    def after_fork_in_child(self) -> None:
        """Who had the turn was a thread of the parent."""
        self._turn = Mutex()


def _open(path: str, file: tuple[int, int] | None) -> apsw.Connection:
    if file is not None:
        file_locks.use(file)
    try:
        return _connect(path)
    except BaseException:
        if file is not None:
            file_locks.stop_using(file)
        raise


def _connect(path: str) -> apsw.Connection:
    # Not SQLITE_OPEN_READONLY: the first connection after a crash has to recover the log, whoever it belongs to.
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
    connection.execute("PRAGMA query_only = ON; PRAGMA cache_size = -8192")
    # The log is written into the file by the writer, who knows whether that still is its file.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return connection


def _end(reader: _Reader) -> None:
    """End its transaction, or where that fails, the connection."""
    connection = reader.connection
    if connection is not None and connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except apsw.Error:
            _close(reader)


def _close(reader: _Reader) -> None:
    connection, reader.connection = reader.connection, None
    if connection is not None:
        with suppress(apsw.Error):  # nothing was written, so nothing can be lost
            connection.close(force=True)
        if reader.file is not None:
            file_locks.stop_using(reader.file)
