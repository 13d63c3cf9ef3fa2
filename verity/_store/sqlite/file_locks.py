"""Locks of our own on a ledger's file, beside SQLite's.

SQLite's are POSIX locks. They belong to a process, and all of them are dropped when any part of it closes the file
after it opened it by other means: `sqlite3.connect` for a look, a backup that copies it. Then other processes write at
the same time, delete the log that this one uses, or cut the log's index short under it, which ends it with SIGBUS.
https://www.sqlite.org/howtocorrupt.html section 2.2

So on Linux a store also holds locks that belong to a descriptor ("open file description locks") and stay whatever else
is closed:

- shared ones on the bytes by which SQLite tells that a database is open and that its log's index is in use. SQLite
  respects them in every program, old ones too: nobody deletes or cuts what this process uses.
- an exclusive one, for as long as a transaction of this process writes, far behind the bytes that SQLite locks.
- another exclusive one while it is the next to write. Without it, who has just written would write again at once, and
  who looks only now and then whether the file is free would hardly ever find it so.

What is left is a transaction during which the locks are dropped, while a program that has no locks of the second kind
writes. Before a transaction is committed, a lock of SQLite's kind tells whether they still are there.
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

from verity._clock import machines_time_ns, monotonic
from verity._mutex import Mutex
from verity._process import forget_in_child
from verity._store.sqlite.connection import FileMoved

if sys.platform == "linux":
    import fcntl

_OPEN = 0x40000000 + 2, 510
"""Of the database: locked as long as it is open."""
_IN_USE = 128, 1
"""Of the log's index: locked as long as it is mapped."""
_WRITES = 120, 1
"""Of the log's index: locked by whom SQLite lets write."""
_OURS_AT = 1 << 60
"""Of the database: from here on it is locked by whom we let write. The length tells who, and since when."""
_PID_BITS = 22
_CANARY_AT = 1 << 40
_FLOCK = struct.Struct("@hhqqi")
_NEXT_AT = _OURS_AT - 1
"""Of the database: locked by whom we let write next."""
_TURN_S = 0.5
"""How long to wait for whoever is next, who may be frozen. It is a matter of fairness, not of safety."""
_PAUSES_S = (0.0005,) * 40 + (0.002,) * 100 + (0.01,)
"""Of whom is next, while another writes."""
_LONGER_PAUSES_S = (0.001,) * 20 + (0.005,)
"""Of all others: never much longer than the time for which a file is free."""
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}

_logger = logging.getLogger("verity.ledger")


class Locked(apsw.BusyError):
    """Another process writes, for longer than this one waits."""


class LocksUnavailable(apsw.Error):
    """The system refused a lock of ours, or a file descriptor for it."""

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(f"the ledger's file {path!r} can't be locked ({type(error).__name__}: {error.strerror})")


class LocksDropped(apsw.Error):
    """Something in this process opened and closed the ledger's file by other means."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"something in this process opened and closed the ledger's file {path!r} by other means than Verity, which "
            "drops SQLite's locks on it; look at it in another process, and back it up with `verity backup`"
        )


class _Descriptors:
    """What may be closed only when this process has no connection to the file any more: closing drops its locks."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """The parent's connections are not this process's."""
        self._lock = Mutex()
        self._users: Counter[tuple[int, int]] = Counter()
        self._kept: dict[tuple[int, int], list[int]] = {}

    def add_user(self, file: tuple[int, int]) -> None:
        """A store is about to open the file."""
        self._lock.run(lambda: self._users.update((file,)))

    def remove_user(self, file: tuple[int, int], descriptors: list[int]) -> None:
        """It has closed all of its connections; the last one's end closes the descriptors of all."""
        for descriptor in self._lock.run(lambda: self._remove_user(file, descriptors)):
            with suppress(OSError):  # somebody closed it already
                os.close(descriptor)

    def _remove_user(self, file: tuple[int, int], descriptors: list[int]) -> list[int]:
        self._kept.setdefault(file, []).extend(descriptors)
        self._users[file] -= 1
        return [] if self._users[file] > 0 else self._kept.pop(file)


_descriptors = _Descriptors()


def use(file: tuple[int, int]) -> None:
    """A connection to the file is about to be opened that `FileLocks` does not know."""
    _descriptors.add_user(file)


def stop_using(file: tuple[int, int]) -> None:
    """It is closed."""
    _descriptors.remove_user(file, [])


class NoLocks:
    """Of a ledger in memory, and where the system has none: SQLite's alone."""

    give_back: Callable[[], object] = bool

    def take(self, within_s: float | None = None) -> None:
        """Nothing to take."""

    def are_whole(self) -> bool:
        """Not that anybody could tell."""
        return True

    def tell_holder(self) -> str:
        """Who keeps others from writing."""
        return "another process, or another part of this one, keeps the ledger's file locked"

    def let_go(self) -> None:
        """Nothing was held."""

    def close(self) -> None:
        """Nothing was opened."""

    def leave_to_parent(self) -> None:
        """Nothing was held."""


class FileLocks(NoLocks):
    """The locks of one store, from when it has opened the file until it closes it.

    Args:
        path: the database, which is open in this process.
        wait_s: how long to wait for another process's transaction.
        turn_s: for how long of that to let another one be first who came first.

    Raises:
        OSError: a file can't be opened, or this system has no such locks.

    Attributes:
        give_back: lets others write, whether this one did or not; a call that no signal's handler divides.
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
            self.give_back = partial(set_lock, _pack(fcntl.F_UNLCK, _NEXT_AT, 0))  # both: it ends at the file's end
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

    def take(self, within_s: float | None = None) -> None:
        """Wait until no other process writes; then none does before `give_back()`.

        Args:
            within_s: for how long to wait, in seconds, where it is another time than usual.

        Raises:
            Locked: that took too long.
            LocksUnavailable: the system refused the lock.
        """
        try:
            self._take(within_s)
        except OSError as error:
            raise LocksUnavailable(self._path, error) from error

    def _take(self, within_s: float | None) -> None:
        if _find(self._database, _NEXT_AT, 1) is None and self._try():
            return
        began_at = monotonic()
        until, pauses = began_at + (self._wait_s if within_s is None else within_s), iter(_PAUSES_S)
        self._wait_for_turn(began_at, until)
        while not self._try():
            if monotonic() >= until:
                raise Locked(self.tell_holder())
            time.sleep(next(pauses, _PAUSES_S[-1]))
        self._let_next()

    def _wait_for_turn(self, began_at: float, until: float) -> None:
        """Be the next to write, or give it up for a while where that takes long."""
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
        """Be the next, unless another one is."""
        try:
            self._be_next()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EBADF):
                raise
            return error.errno == errno.EBADF  # as below: whoever can only read is soon told so
        return True

    def _try(self) -> bool:
        told = 1 + (machines_time_ns() // 1_000_000_000 << _PID_BITS | os.getpid())
        try:
            _set(self._database, fcntl.F_WRLCK, _OURS_AT, told)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # The file can only be read, and SQLite says so to whoever writes.
        return True

    def are_whole(self) -> bool:
        """Whether SQLite's locks are what it believes. If not, the next answer says whether they were dropped again.

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

    def tell_holder(self) -> str:
        """Who keeps others from writing, as far as can be told."""
        place = f"the ledger's file {self._path!r} has been locked for {self._wait_s:g} seconds by"
        found = _find(self._index, *_WRITES)
        if found is not None and found[1] > 0:
            return f"{place} process {_describe(found[1])}"
        found = _find(self._database, _OURS_AT, 0)
        if found is None:
            return f"{place} a process that can't be told"
        since_s, pid = divmod(found[0] - 1, 1 << _PID_BITS)
        since = datetime.fromtimestamp(since_s, timezone.utc)
        return f"{place} process {_describe(pid)}, since {since:%Y-%m-%dT%H:%M:%SZ}"

    def let_go(self) -> None:
        """Before the connections are closed: the last process to close the file may tidy up."""
        if self._file is not None:
            _set(self._database, fcntl.F_UNLCK, *_OPEN)
            _set(self._index, fcntl.F_UNLCK, *_IN_USE)

    def close(self) -> None:
        """After the connections. Idempotent."""
        if self._file is None:
            return
        if self._database >= 0:
            with suppress(OSError):  # then closing the descriptor has to do
                self.give_back()  # now, since the descriptor may stay open for longer
        descriptors = [each for each in (self._database, self._index) if each >= 0]
        self._database = self._index = -1
        file, self._file = self._file, None
        _descriptors.remove_user(file, descriptors)

    def leave_to_parent(self) -> None:
        """In the child of a fork that ran no hooks, before it opens the file itself: the locks stay the parent's."""
        for each in (self._database, self._index):
            os.close(each)
        self._database, self._index, self._file = -1, -1, None


_held: weakref.WeakSet[FileLocks] = weakref.WeakSet()
_is_told = False


@atexit.register
def _let_go_of_all() -> None:
    """At the end of a process that did not close its clients, too, the last one tidies up."""
    for locks in list(_held):
        locks.let_go()


def open_locks(path: str, *, wait_s: float) -> NoLocks:
    """The locks of a store that has just opened the file.

    Raises:
        FileMoved: one of its files is gone.
        LocksUnavailable: the system refused a lock, or a descriptor for it.
    """
    global _is_told  # noqa: PLW0603 - once for each process
    if sys.platform != "linux":
        return NoLocks()
    try:
        return FileLocks(path, wait_s=wait_s)
    except FileNotFoundError:
        raise FileMoved from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise LocksUnavailable(path, error) from error
    if not _is_told:
        _is_told = True
        _logger.warning(
            "The system has no open file description locks for %s: whatever opens and closes the ledger's file in this "
            "process drops SQLite's locks, unnoticed. Keep it on a local disk.",
            path,
        )
    return NoLocks()


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
    """Somebody else's lock on these bytes, if there is one: its length, and its process (-1: not of a process)."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _pack(fcntl.F_WRLCK, start, length))
    kind, _, _, found, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else (found, pid)


def _describe(pid: int) -> str:
    """`4242 (python), which is stopped`, where the system tells."""
    with suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        name, state = status[status.index("(") :].rsplit(")", 1)
        return f"{pid} {name})" + (", which is stopped" if state.split()[0] in "tT" else "")
    return str(pid)
