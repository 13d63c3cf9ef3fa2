"""Connections that only read: no writer waits for a read, and no read waits for a writer.

With the write-ahead log, a read transaction sees what was committed when it began, whatever is written meanwhile. A
read has a time limit nevertheless, because the log can't be truncated while a transaction reads from it.
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
"""The time limit's divisor in memory: there a writer waits for a read, for a fifth of the shortest lease at most."""
_CHECK_EVERY_S = 0.05
_BUSY_TIMEOUT_MS = 1_000
_STEPS = 20_000
"""Instructions of SQLite's virtual machine between two checks whether to stop; about a millisecond."""


class ReadTooLong(apsw.Error):
    """A read reached its time limit, or was stopped for another reason."""

    def __init__(self) -> None:
        super().__init__("a read took too long")


def _always() -> bool:
    return True


def _never() -> bool:
    return False


class _Reader:
    """A connection, and the reasons to stop its current read."""

    __slots__ = ("__weakref__", "connection", "file", "is_stopped", "is_wanted", "opened", "until")

    def __init__(self) -> None:
        self.connection: apsw.Connection | None = None
        self.file: tuple[int, int] | None = None
        self.opened: list[tuple[int, int] | None] = []
        self.is_stopped = False
        self.is_wanted: Callable[[], bool] = _always
        self.until = 0.0

    def is_over(self) -> bool:
        """Whether to stop. SQLite calls this every `_STEPS` instructions."""
        return self.is_stopped or not self.is_wanted() or monotonic() >= self.until


class Readers:
    """A few read-only connections to a file. They are opened on demand, and used by one thread at a time.

    Args:
        path: the file.
        most: the most connections; further reads wait for a free one.
        shorten_log: truncates the file's log; called while no read is under way, if the log is long.
        long_log_bytes: from this size on, the log is long.
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
        self._reset()

    def _reset(self) -> None:
        self._lock = Mutex()
        self._bells: deque[threading.Lock] = deque()
        """One for each thread that waits. They only save time: a thread also checks every `_CHECK_EVERY_S` seconds."""
        self._idle: list[_Reader] = []
        # Weak: if an interrupt prevents that a reader is put back, it must not count as busy for ever.
        self._busy: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._is_paused = False

    def run(
        self,
        work: Callable[[apsw.Connection], T],
        *,
        within_s: float = READ_WITHIN_S,
        is_wanted: Callable[[], bool] = _always,
    ) -> T:
        """Call `work` with a connection in a read transaction; return what it returns.

        Args:
            work: reads. If a fork stops it, it is called again from the start.
            within_s: the time limit in seconds, with the time until a connection is free.
            is_wanted: called now and then; False stops the read.

        Raises:
            ReadTooLong: the time limit was reached, or the read is not wanted any more.
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
        """Stop all reads, and close the connections. Later reads open new ones."""
        notice_fork()
        self._pause(for_good=True)
        self.after_fork_in_parent()

    def before_fork(self) -> None:
        """Stop all reads, and close the connections; see forks.py. The reads start again after the fork."""
        self._pause(for_good=False)

    def _pause(self, *, for_good: bool) -> None:
        self._is_paused = True
        while not self._are_stopped(for_good=for_good):
            self._wait(_CHECK_EVERY_S)
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

    def _wake_waiting(self) -> None:
        with suppress(IndexError):
            while True:
                self._bells.popleft().release()

    def after_fork_in_parent(self) -> None:
        """Allow reads again."""
        self._is_paused = False
        self._wake_waiting()

    def after_fork_in_child(self) -> None:
        """Begin without connections and with a new lock; see forks.py."""
        if not self._is_paused:  # no hook ran before this fork
            inherited = [each.connection for each in (*self._idle, *self._busy) if each.connection is not None]
            in_use = len(self._busy) > 0 or self._lock.locked()
            forks.discard_inherited(*inherited, in_use=in_use)
        self._reset()

    def _take(self, reader: _Reader, until: float) -> _Reader:
        while (taken := self._lock.run(partial(self._take_if_free, reader))) is None:
            left_s = until - monotonic()
            if left_s <= 0:
                raise ReadTooLong
            self._wait(min(left_s, _CHECK_EVERY_S))
        return taken

    def _take_if_free(self, reader: _Reader) -> _Reader | None:
        if self._is_paused or len(self._busy) >= self._most or (self._busy and self._has_long_log()):
            return None
        if self._idle:
            reader = self._idle.pop()
        reader.is_stopped = False
        self._busy.add(reader)
        return reader

    def _begin(self, reader: _Reader) -> apsw.Connection:
        """Begin a read transaction; returns the connection."""
        if self._has_long_log() and len(self._busy) == 1:  # no other read starts meanwhile: see `_take_if_free`
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
            self._wake_waiting()

    def _put_back(self, reader: _Reader) -> None:
        self._busy.discard(reader)
        if reader.connection is not None and reader not in self._idle:
            self._idle.append(reader)

    def _has_long_log(self) -> bool:
        """Whether the log is long. SQLite restarts the log when nobody reads, so there were always reads under way."""
        try:
            return self._files[1].stat().st_size > self._long_log_bytes
        except OSError:
            return False


class Hold(Protocol):
    """Calls `work` with a connection that no other thread uses meanwhile."""

    def __call__(self, work: Callable[[apsw.Connection], T]) -> T: ...


class OneConnection:
    """Reads of a ledger in memory: reads and writes take turns on one connection.

    In memory there is no write-ahead log, so even with several connections a read would block the writer. Therefore
    reads have a short time limit, and only one read at a time competes with the writer for the connection.

    Args:
        hold: calls a function with the connection while no other thread uses it.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._read_lock = Mutex()

    def run(
        self,
        work: Callable[[apsw.Connection], T],
        *,
        within_s: float = READ_WITHIN_S,
        is_wanted: Callable[[], bool] = _always,
    ) -> T:
        """As `Readers.run`, with a fifth of the time limit."""

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

        return self._read_lock.run(lambda: self._hold(read))

    def close(self) -> None:
        """Its owner closes it."""

    def before_fork(self) -> None:
        """Its owner waits."""

    def after_fork_in_parent(self) -> None:
        """Nothing was held."""

    def after_fork_in_child(self) -> None:
        """Make a new lock: a thread of the parent may hold the old one."""
        self._read_lock = Mutex()


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
    # Not SQLITE_OPEN_READONLY: the first connection after a crash has to recover the log, and this may be the first.
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
    connection.execute("PRAGMA query_only = ON; PRAGMA cache_size = -8192")
    # Only the store's writing connection checkpoints: it checks first that the path still leads to its files.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return connection


def _end(reader: _Reader) -> None:
    """Roll back the transaction; if that fails, close the connection."""
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
