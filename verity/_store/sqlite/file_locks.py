"""Locks of our own on a ledger's file, beside SQLite's.

SQLite uses POSIX locks. They belong to a process. When any code in the process opens and closes the file by other means
(`sqlite3.connect` to read it, a copy for a backup), the kernel drops all of the process's locks on it. Then other
processes write at the same time, delete the log that this process uses, or truncate the log's index under it, which
ends this process with SIGBUS. https://www.sqlite.org/howtocorrupt.html section 2.2

So on Linux a store also holds "open file description locks". They belong to a descriptor, and stay when another
descriptor is closed:

- Shared locks on the bytes by which SQLite tells that a database is open and that its log's index is in use. SQLite
  respects them in every program, in older versions of Verity too: no process deletes or truncates the files in use.
- An exclusive lock during each write transaction of this process, on a byte far behind those that SQLite locks.
- An exclusive lock while this process is next to write. Without it, a process that has just written would write again
  at once. The others check only now and then whether the file is free, and would hardly ever find it free.

One case is left: the locks are dropped during a transaction, while a program without our locks writes. So before each
commit, the store checks whether a lock of SQLite's kind (the canary) is still there.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import struct
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import apsw

from verity._clock import monotonic, wall_clock_ns
from verity._mutex import Mutex
from verity._process import forget_in_child
from verity._store.sqlite.connection import FileMoved

if sys.platform == "linux":
    import fcntl

_OPEN = 0x40000000 + 2, 510
"""Of the database: locked while it is open."""
_IN_USE = 128, 1
"""Of the log's index: locked while it is mapped."""
_WRITES = 120, 1
"""Of the log's index: SQLite's write lock."""
_OURS_AT = 1 << 60
"""Of the database: our write lock begins here. Its length encodes the holder's process id and when it was taken."""
_PID_BITS = 22
_CANARY_AT = 1 << 40
_FLOCK = struct.Struct("@hhqqi")
_NEXT_AT = _OURS_AT - 1
"""Of the database: locked by the process that writes next."""
_TURN_S = 0.5
"""How long to wait for the process that is next; it may be stopped. This is about fairness, not about safety."""
_PAUSES_S = (0.0005,) * 40 + (0.002,) * 100 + (0.01,)
"""Between attempts of the process that is next."""
_LONGER_PAUSES_S = (0.001,) * 20 + (0.005,)
"""Between attempts of all others. They are short, since a file is free for short times only."""
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}

_logger = logging.getLogger("verity.ledger")


class LockTimeout(apsw.BusyError):
    """The write lock was not free in time: another process, or another part of this one, writes."""


class LocksUnavailable(apsw.Error):
    """The system refused a lock of ours, or a file descriptor for it."""

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(f"the ledger's file {path!r} can't be locked ({type(error).__name__}: {error.strerror})")


class LocksDropped(apsw.Error):
    """Code in this process opened and closed the ledger's file by other means than Verity."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"code in this process opened and closed the ledger's file {path!r} without Verity, which drops SQLite's "
            "locks on the file; read the file in another process, and back it up with `verity backup`"
        )


class _Descriptors:
    """Descriptors that stay open while this process uses their file: closing one drops SQLite's locks on the file."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's connections."""
        self._lock = Mutex()
        self._users: Counter[tuple[int, int]] = Counter()
        self._kept: dict[tuple[int, int], list[int]] = {}

    def add_user(self, file: tuple[int, int]) -> None:
        """Count a connection or a store that is about to open the file."""
        self._lock.run(lambda: self._users.update((file,)))

    def remove_user(self, file: tuple[int, int], descriptors: list[int]) -> None:
        """Take the descriptors of a user that has closed its connections. All are closed when the last user ends."""
        for descriptor in self._lock.run(lambda: self._remove_user(file, descriptors)):
            with suppress(OSError):  # somebody closed it already
                os.close(descriptor)

    def _remove_user(self, file: tuple[int, int], descriptors: list[int]) -> list[int]:
        self._kept.setdefault(file, []).extend(descriptors)
        self._users[file] -= 1
        return [] if self._users[file] > 0 else self._kept.pop(file)


_descriptors = _Descriptors()


def use(file: tuple[int, int]) -> None:
    """Call before a connection to the file is opened that has no `FileLocks`."""
    _descriptors.add_user(file)


def stop_using(file: tuple[int, int]) -> None:
    """Call after that connection was closed."""
    _descriptors.remove_user(file, [])


class Locks:
    """The locks of a store. This class has none: SQLite's own locks must do, or the ledger is in memory."""

    release: Callable[[], object] = bool

    def acquire(self, within_s: float | None = None) -> None:
        """There is nothing to acquire."""

    def are_intact(self) -> bool:
        """Always True: without locks there is nothing to check."""
        return True

    def describe_holder(self) -> str:
        """Which process keeps others from writing."""
        return "another process, or another part of this one, keeps the ledger's file locked"

    def release_shared(self) -> None:
        """There is nothing to release."""

    def close(self) -> None:
        """There is nothing to close."""

    def close_in_child(self) -> None:
        """There is nothing to close."""


class FileLocks(Locks):
    """The locks of one store, from the opening of the file until it is closed.

    Args:
        path: the database, which is open in this process.
        wait_s: how long to wait for another process's transaction, in seconds.
        turn_s: how much of that to wait for the process that is next to write, in seconds.

    Raises:
        OSError: a file can't be opened, or this system has no such locks.

    Attributes:
        release: releases the write lock, whether it is held or not. It is one call into C, so no interrupt splits it.
    """

    def __init__(self, path: str, *, wait_s: float, turn_s: float = _TURN_S) -> None:
        self._path = path
        self._wait_s = wait_s
        self._turn_s = turn_s
        self._turns_from = 0.0
        self._canary = _CANARY_AT + int.from_bytes(os.urandom(5), "big")
        self._database = self._index = -1
        status = Path(path).stat()
        self._file: tuple[int, int] | None = (status.st_dev, status.st_ino)
        _descriptors.add_user(self._file)
        try:
            self._database = _open(path)
            self._index = _open(f"{path}-shm")
            set_lock = partial(fcntl.fcntl, self._database, fcntl.F_OFD_SETLK)
            self.release = partial(set_lock, _pack(fcntl.F_UNLCK, _NEXT_AT, 0))  # to the end of the file: both locks
            self._be_next = partial(set_lock, _pack(fcntl.F_WRLCK, _NEXT_AT, 1))
            self._let_next = partial(set_lock, _pack(fcntl.F_UNLCK, _NEXT_AT, 1))
            _set(self._database, fcntl.F_RDLCK, *_OPEN)
            _set(self._index, fcntl.F_RDLCK, *_IN_USE)
            self._set_canary()
        except BaseException:
            self.close()
            raise
        _held.add(self)

    def _set_canary(self) -> None:
        fcntl.lockf(self._index, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, self._canary)

    def acquire(self, within_s: float | None = None) -> None:
        """Wait for the write lock. No other process with our locks writes until `release()`.

        Args:
            within_s: how long to wait, in seconds; None: `wait_s`.

        Raises:
            LockTimeout: the lock was not free in time.
            LocksUnavailable: the system refused the lock.
        """
        try:
            self._acquire(within_s)
        except OSError as error:
            raise LocksUnavailable(self._path, error) from error

    def _acquire(self, within_s: float | None) -> None:
        if _find(self._database, _NEXT_AT, 1) is None and self._try():
            return
        began_at = monotonic()
        until, pauses = began_at + (self._wait_s if within_s is None else within_s), iter(_PAUSES_S)
        self._wait_for_turn(began_at, until)
        while not self._try():
            if monotonic() >= until:
                raise LockTimeout(self.describe_holder())
            time.sleep(next(pauses, _PAUSES_S[-1]))
        self._let_next()

    def _wait_for_turn(self, began_at: float, until: float) -> None:
        """Become next to write. If that takes too long, go on without it, and do not try again for a while."""
        until, pauses = min(until, began_at + self._turn_s), iter(_LONGER_PAUSES_S)
        while not self._is_next():
            now = monotonic()
            if now < self._turns_from:
                return
            if now >= until:
                self._turns_from = now + 2 * self._turn_s
                return
            time.sleep(next(pauses, _LONGER_PAUSES_S[-1]))

    def _is_next(self) -> bool:
        """Become next to write, unless another process is; returns whether that worked."""
        try:
            self._be_next()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EBADF):
                raise
            return error.errno == errno.EBADF  # as in `_try`: the file is read-only
        return True

    def _try(self) -> bool:
        length = 1 + (wall_clock_ns() // 1_000_000_000 << _PID_BITS | os.getpid())
        try:
            _set(self._database, fcntl.F_WRLCK, _OURS_AT, length)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # The file is read-only. SQLite reports that when it writes.
        return True

    def are_intact(self) -> bool:
        """Whether SQLite still has its locks. False: they were dropped since the last check.

        Raises:
            LocksUnavailable: the system refused to tell.
        """
        try:
            if _find(self._index, self._canary, 1) is not None:
                return True
            self._set_canary()
        except OSError as error:
            raise LocksUnavailable(self._path, error) from error
        return False

    def describe_holder(self) -> str:
        """Which process keeps others from writing, if the system tells."""
        place = f"the ledger's file {self._path!r} has been locked for {self._wait_s:g} seconds by"
        found = _find(self._index, *_WRITES)
        if found is not None and found[1] > 0:
            return f"{place} process {_describe(found[1])}"
        found = _find(self._database, _OURS_AT, 0)
        if found is None:
            return f"{place} an unknown process"
        since_s, pid = divmod(found[0] - 1, 1 << _PID_BITS)
        since = datetime.fromtimestamp(since_s, timezone.utc)
        return f"{place} process {_describe(pid)}, since {since:%Y-%m-%dT%H:%M:%SZ}"

    def release_shared(self) -> None:
        """Call before the connections are closed, so that the last process can delete the log."""
        if self._file is not None:
            _set(self._database, fcntl.F_UNLCK, *_OPEN)
            _set(self._index, fcntl.F_UNLCK, *_IN_USE)

    def close(self) -> None:
        """Call after the connections are closed. Idempotent."""
        if self._file is None:
            return
        if self._database >= 0:
            with suppress(OSError):  # if this fails, closing the descriptor releases the lock
                self.release()  # the descriptor may stay open for longer
        descriptors = [each for each in (self._database, self._index) if each >= 0]
        self._database = self._index = -1
        file, self._file = self._file, None
        _descriptors.remove_user(file, descriptors)

    def close_in_child(self) -> None:
        """Call in the child of a fork that ran no hooks, before it opens the file. The parent keeps the locks."""
        for each in (self._database, self._index):
            os.close(each)
        self._database, self._index, self._file = -1, -1, None


_held: weakref.WeakSet[FileLocks] = weakref.WeakSet()
_has_warned = False


@atexit.register
def _release_all_shared() -> None:
    """Let the last process delete the log, even if this one ends without closing its clients."""
    for locks in list(_held):
        locks.release_shared()


def open_locks(path: str, *, wait_s: float) -> Locks:
    """The locks of a store that has just opened the file.

    Raises:
        FileMoved: one of its files is gone.
        LocksUnavailable: the system refused a lock, or a descriptor for it.
    """
    global _has_warned  # noqa: PLW0603 - once for each process
    if sys.platform != "linux":
        return Locks()
    try:
        return FileLocks(path, wait_s=wait_s)
    except FileNotFoundError:
        raise FileMoved from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise LocksUnavailable(path, error) from error
    if not _has_warned:
        _has_warned = True
        _logger.warning(
            "The system has no open file description locks for %s: whatever opens and closes the ledger's file in this "
            "process drops SQLite's locks, unnoticed. Keep it on a local disk.",
            path,
        )
    return Locks()


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _set(descriptor: int, kind: int, start: int, length: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _pack(kind, start, length))


def _pack(kind: int, start: int, length: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, start, length, 0)


def _find(descriptor: int, start: int, length: int) -> tuple[int, int] | None:
    """Another holder's lock on these bytes: its length, and its process (-1: it belongs to a descriptor)."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _pack(fcntl.F_WRLCK, start, length))
    kind, _, _, found, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else (found, pid)


def _describe(pid: int) -> str:
    """`4242 (python), which is stopped`, or the number alone."""
    with suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        name, state = status[status.index("(") :].rsplit(")", 1)
        return f"{pid} {name})" + (", which is stopped" if state.split()[0] in "tT" else "")
    return str(pid)
