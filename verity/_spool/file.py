"""The spool: a file that keeps results of effects until the ledger has confirmed their commits.

It is a SQLite database with two tables. `entries` has the results that may still be committed. `rejected` has those
that the ledger refused for good, each with the reason. The file holds payloads and lease tokens, so only its owner may
read it (mode 0600; SQLite gives its journal the same mode).

- **Durable.** A rollback journal with `synchronous=EXTRA`: what `add` has written survives a crash and a power cut.
- **Shared.** Several processes and threads may use one file. Each operation opens the file, carries out one transaction
  and closes the file. So no connection crosses a fork, and an interrupt leaves nothing locked.
- **Idempotent.** An effect and a token identify an entry: to add, remove or reject it twice is to do it once.

Operations wait for the disk and for other processes: run them in a thread, not on an event loop.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw

from verity._clock import wall_clock_ns
from verity._mutex import Mutex
from verity._process import forget_in_child, notice_fork
from verity._spool.entry import Entry, LedgerName
from verity._store.sqlite import forks
from verity.errors import VerityConfigError

T = TypeVar("T")
_Stamp = tuple[int, ...]

_logger = logging.getLogger("verity")

_APPLICATION_ID = 0x5674_5350
"""Marks a SQLite file as a spool ("VtSP")."""
_VERSION = 1
_WRITE_WITHIN_MS = 5_000
"""How long a write waits for another process. It is the last chance to keep a result."""
_READ_WITHIN_MS = 1_000
_MAX_KNOWN = 100
"""How many entries are remembered, so that calls for other effects need not read the file."""
_SETTLED_AFTER_NS = 2_000_000_000
"""A file that was last changed so long ago gets another time stamp when it is changed again."""

_COLUMNS = (
    "base_url, environment, namespace, effect_key, kind, fence, token, result, source, run_id, lease_request, "
    "created_at"
)
_DEFINITIONS = """
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    base_url TEXT NOT NULL,
    environment TEXT NOT NULL,
    namespace TEXT NOT NULL,
    effect_key TEXT NOT NULL,
    kind TEXT NOT NULL,
    fence INTEGER,
    token TEXT NOT NULL,
    result TEXT NOT NULL,
    source TEXT NOT NULL,
    run_id TEXT,
    lease_request TEXT,
    created_at INTEGER NOT NULL
"""
_IDENTITY = "base_url, environment, namespace, effect_key, token"
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entries ({_DEFINITIONS}, UNIQUE ({_IDENTITY})) STRICT;
CREATE TABLE IF NOT EXISTS rejected
    ({_DEFINITIONS}, code TEXT NOT NULL, rejected_at INTEGER NOT NULL, UNIQUE ({_IDENTITY})) STRICT;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT
"""
_IS_SAME = " AND ".join(f"{name} = :{name}" for name in _IDENTITY.split(", "))
_VALUES = ", ".join(f":{name}" for name in _COLUMNS.split(", "))
# Each is one call into C, which no interrupt divides.
_ADD = f"INSERT INTO entries ({_COLUMNS}) VALUES ({_VALUES}) ON CONFLICT DO NOTHING"  # noqa: S608 - our own names
_REMOVE = f"DELETE FROM entries WHERE {_IS_SAME}"  # noqa: S608
_REJECT = (
    f"BEGIN IMMEDIATE; INSERT INTO rejected ({_COLUMNS}, code, rejected_at) "  # noqa: S608
    f"VALUES ({_VALUES}, :code, :rejected_at) ON CONFLICT DO NOTHING; {_REMOVE}; COMMIT"
)


class SpoolError(Exception):
    """The spool could not be read or written. The message names the file and the system's reason."""


class _Turns:
    """The mutex for all spools of the process."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forget_in_child(self)

    def reset_after_fork(self) -> None:
        """Make a new mutex: a thread of the parent may hold the old one."""
        self.mutex = Mutex()


_turns = _Turns()


class Spool:
    """One spool file. It is created if it does not exist. Safe to use from several threads, processes and forks.

    Args:
        path: the file. `~` is the user's home.

    Raises:
        VerityConfigError: the file can't be used: its directory does not exist or can't be written, it is a symbolic
            link, has a second name, belongs to another user, or is no spool.
    """

    def __init__(self, path: str, *, must_exist: bool = False) -> None:
        try:
            named = Path(path).expanduser().absolute()
            # Symbolic links on the way to the directory are fine. One in the file's own place is refused.
            self.path = str(named.parent.resolve() / named.name)
            self._known: tuple[_Stamp, frozenset[tuple[str, ...]]] = (), frozenset()
            if must_exist and not os.path.lexists(self.path):
                raise SpoolError("there is no such file")
            self._run(lambda _: None, _WRITE_WITHIN_MS, creates=True)
        except (SpoolError, RuntimeError, OSError) as error:
            raise VerityConfigError(f"The spool {path!r} cannot be used: {error}.", parameter="spool") from error

    def __repr__(self) -> str:
        return f"<Spool {self.path}>"

    def add(self, entry: Entry) -> None:
        """Write an entry durably.

        Raises:
            SpoolError: it may not be on disk.
        """
        self._run(lambda connection: connection.execute(_ADD, _bindings(entry)), _WRITE_WITHIN_MS, creates=True)

    def remove(self, entry: Entry) -> None:
        """Remove an entry whose commit the ledger has confirmed.

        Raises:
            SpoolError: the entry may still be there. To replay it again does no harm.
        """
        self._run(lambda connection: connection.execute(_REMOVE, _bindings(entry)), _WRITE_WITHIN_MS)

    def reject(self, entry: Entry, code: str) -> None:
        """Move an entry, or write one that is new, to the table of what can never be committed.

        Raises:
            SpoolError: it may not be there.
        """
        values = {**_bindings(entry), "code": code, "rejected_at": wall_clock_ns() // 1_000_000}
        self._run(lambda connection: connection.execute(_REJECT, values), _WRITE_WITHIN_MS, creates=True)

    def read(self, ledger: LedgerName | None = None, *, after: int = 0, limit: int = 100) -> list[Entry]:
        """The entries that wait for their commits, of one ledger or of all, oldest first.

        Args:
            ledger: only entries for this ledger.
            after: only entries whose id is above this.
            limit: at most so many.

        Raises:
            SpoolError: the file can't be read.
        """
        where, values = ("", ()) if ledger is None else ("base_url = ? AND environment = ? AND ", tuple(ledger))
        return self._select(f"entries WHERE {where}id > ? ORDER BY id LIMIT ?", (*values, after, limit))

    def read_effect(self, ledger: LedgerName, namespace: str, effect_key: str) -> list[Entry]:
        """The entries of one effect, the latest grant's first.

        Raises:
            SpoolError: the file can't be read.
        """
        where = "base_url = ? AND environment = ? AND namespace = ? AND effect_key = ?"
        stamp = self._stamp()
        found = self._select(
            f"entries WHERE {where} ORDER BY fence DESC NULLS LAST, id", (*ledger, namespace, effect_key)
        )
        if not found and self._is_settled(stamp):
            waiting = self.read(limit=_MAX_KNOWN + 1)
            if len(waiting) <= _MAX_KNOWN:
                self._known = stamp, frozenset((*each.ledger, each.namespace, each.effect_key) for each in waiting)
        return found

    def is_known_to_lack(self, ledger: LedgerName, namespace: str, effect_key: str) -> bool:
        """Whether no entry of the effect waits, by what was read last, and the file has not changed since.

        It takes microseconds, and opens no file. False: read the file.
        """
        stamp, waiting = self._known
        return stamp != () and (*ledger, namespace, effect_key) not in waiting and stamp == self._stamp()

    def rejected(self) -> list[Entry]:
        """The results that can never be committed, oldest first.

        Raises:
            SpoolError: the file can't be read.
        """
        return self._select("rejected ORDER BY id", (), ", code, rejected_at")

    def drop_rejected(self, row_id: int) -> bool:
        """Delete a result that can never be committed; False if there is no such row.

        Raises:
            SpoolError: it may still be there.
        """

        def drop(connection: apsw.Connection) -> bool:
            connection.execute("DELETE FROM rejected WHERE id = ?", (row_id,))
            return connection.changes() > 0

        return self._run(drop, _WRITE_WITHIN_MS)

    def _select(self, rest: str, values: tuple[Any, ...], more: str = "") -> list[Entry]:
        if not os.path.lexists(self.path):  # `add` makes a new one
            return []
        statement = f"SELECT {_COLUMNS}, id{more} FROM {rest}"  # noqa: S608 - our own names
        return self._run(
            lambda connection: [Entry(*row) for row in connection.execute(statement, values)], _READ_WITHIN_MS
        )

    def _run(self, work: Callable[[apsw.Connection], T], within_ms: int, *, creates: bool = False) -> T:
        """Open the file, work, and close it. No fork happens meanwhile: it would copy SQLite's locks.

        Threads of a process take turns here, since they share these locks, too. A turn is awaited for `within_ms`: a
        disk that hangs must not hold up every call.
        """
        notice_fork()
        done: list[T] = []
        run = partial(self._run_alone, work, within_ms, creates=creates)
        try:
            if not _turns.mutex.run_if_free(lambda: done.append(forks.without_forks(run)), within_ms / 1000):
                raise SpoolError(f"another thread has been using it for {within_ms / 1000:g} seconds")
            return done[0]
        except apsw.Error as error:
            raise SpoolError(f"{type(error).__name__}: {error}") from error
        except (OSError, VerityConfigError) as error:  # the latter: a child of a fork that may not use SQLite
            raise SpoolError(str(error)) from error

    def _run_alone(self, work: Callable[[apsw.Connection], T], within_ms: int, *, creates: bool) -> T:
        forks.check_not_stranded()
        if creates:
            _create(self.path)
        _check_file(self.path)
        connection = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
        try:
            connection.set_busy_timeout(within_ms)
            connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
            connection.execute("PRAGMA synchronous = EXTRA")
            if creates:
                _check_tables(connection)
            _keep_private(self.path)
            return work(connection)
        finally:
            try:  # see verity/_mutex.py
                connection.close()  # ends a transaction that is not committed
            finally:
                pass

    def _stamp(self) -> _Stamp:
        """What changes whenever the file is written or replaced; empty if there is no file."""
        with suppress(OSError):
            found = Path(self.path).stat()
            return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        return ()

    @staticmethod
    def _is_settled(stamp: _Stamp) -> bool:
        """Whether the file's next change will change the stamp: time stamps are coarse."""
        return bool(stamp) and stamp[3] < wall_clock_ns() - _SETTLED_AFTER_NS


def _bindings(entry: Entry) -> dict[str, Any]:
    return dict(zip(_COLUMNS.split(", "), astuple(entry), strict=False))


def _create(path: str) -> None:
    """Create the file if it does not exist, readable for its owner alone.

    The file is opened only if it is new. Closing a file that SQLite has open would drop SQLite's locks on it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        return
    try:
        Path(path).chmod(0o600)  # whatever the umask is
    finally:
        os.close(descriptor)


def _check_file(path: str) -> None:
    """Refuse what is no file of our own.

    Raises:
        OSError: see above.
    """
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise OSError("it is a symbolic link; name the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is not a file")
    if found.st_nlink > 1:
        raise OSError("it has another name, a hard link, so that two processes would use two journals; remove the link")
    if not hasattr(os, "geteuid"):
        return
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        raise OSError(f"it belongs to another user (uid {found.st_uid})")


def _keep_private(path: str) -> None:
    """Keep others from reading a spool. Not before it is known to be one: the path may name another file by mistake."""
    if hasattr(os, "geteuid") and stat.S_IMODE(os.lstat(path).st_mode) & 0o077:
        Path(path).chmod(0o600)
        _logger.warning(
            "Others could read the spool %s, which has payloads and lease tokens; its mode is 0600 now.", path
        )


def _check_tables(connection: apsw.Connection) -> None:
    """Make the tables of a new file.

    Raises:
        OSError: the file is not a spool, or a newer version made it.
    """
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    marked = connection.pragma("application_id")
    if marked != _APPLICATION_ID and not (is_empty and marked == 0):
        raise OSError("it is a database of something else; name another file")
    if is_empty:
        connection.execute(_SCHEMA)
    version = connection.pragma("user_version")
    if version != _VERSION:
        raise OSError(
            f"it has version {version}, and this Verity knows version {_VERSION}; upgrade, or name another file"
        )
