"""One SQLite connection that writes: which files it uses, and how it is opened.

SQLite itself comes with `apsw`. The system's own SQLite may be old, and releases before 3.51.3 can lose data with WAL
and several connections.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import apsw

from verity._store.sqlite import forks
from verity._store.sqlite.migrations import migrate
from verity.errors import VerityConfigError

BUSY_TIMEOUT_MS = 10_000

_logger = logging.getLogger("verity.ledger")


class FileMoved(apsw.Error):
    """A file of the ledger was removed or replaced while it was open, or a symbolic link leads elsewhere."""

    def __init__(self) -> None:
        super().__init__(
            "the ledger's file, its -wal or its -shm was removed or replaced under this process, or a symbolic link "
            "leads to another file by now; put the files back, or restart the process"
        )


def files_of(path: str | None) -> list[Path]:
    """The files of a ledger: the database, its log and the log's index."""
    return [] if path is None else [Path(path + suffix) for suffix in ("", "-wal", "-shm")]


def identify(files: Iterable[Path]) -> list[tuple[int, int] | None]:
    """The device and inode that each path leads to now; None: there is no file.

    A connection keeps using its files after they were deleted or replaced. Its commits would be lost when the last
    process closes them, and a process that opens the path would be granted the same effects again.
    """
    return [_identify(file) for file in files]


def _identify(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect(path: str | None, *, upgrade: bool = True) -> apsw.Connection:
    """Open the file, and migrate its schema.

    Args:
        path: the file; None: a new database in memory.
        upgrade: whether to migrate an older schema; False refuses it. A new file gets its schema in both cases.

    Raises:
        VerityConfigError: the file is not a database, can't be written, was made by a newer Verity, or has an older
            schema.
    """
    connection, _ = open_and_migrate(path, upgrade=upgrade)
    return connection


def open_and_migrate(
    path: str | None, *, upgrade: bool = True, wait_ms: int = BUSY_TIMEOUT_MS
) -> tuple[apsw.Connection, int]:
    """As `connect`; also returns the schema's version before. `wait_ms`: how long to wait for other processes."""
    forks.check_not_stranded()
    try:
        connection = apsw.Connection(path or ":memory:")
        connection.set_busy_timeout(wait_ms)
        if path is not None:
            if connection.pragma("application_id"):  # a ledger has none; a spool, which is a database too, has one
                raise VerityConfigError(
                    f"The ledger's file {path!r} is a database of something else, such as a spool; name another file.",
                    parameter="base_url",
                )
            mode = connection.execute("PRAGMA journal_mode = WAL").get
            if mode != "wal":
                raise VerityConfigError(
                    f"The ledger's file {path!r} cannot use write-ahead logging (its mode is {mode}); "
                    "keep it on a local disk.",
                    parameter="base_url",
                )
        connection.execute("PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -65536")
        before = migrate(connection, path, upgrade=upgrade)
        if path is not None:
            _rewrite_recovered_log(connection)
    except apsw.BusyError as error:
        raise VerityConfigError(
            f"The ledger's file {path!r} was locked for {wait_ms / 1000:g} seconds by another process, which may "
            "be migrating it. Try again.",
            parameter="base_url",
        ) from error
    except (apsw.Error, OSError) as error:
        raise VerityConfigError(
            f"The ledger's file {path!r} cannot be opened as a database ({type(error).__name__}: {error}).",
            parameter="base_url",
        ) from error
    if path is not None and not before:
        _logger.warning(
            "There was no ledger at %s: a new, empty one was made. If there should have been one, check the path and "
            "whether its volume is mounted; ?mode=rw at the end of the URL refuses a file that is not there.",
            path,
        )
    return connection, before


def _rewrite_recovered_log(connection: apsw.Connection) -> None:
    """Write the log's content into the database and sync it, before any of it is read by a caller.

    The first process that opens a file recovers the log, which it reads through the system's cache. After a failed
    sync the cache may show a commit that is not on disk: Linux marks such pages as clean, and later syncs succeed
    without writing them. Pages that are written again do reach the disk. If other processes have the file open, nothing
    was recovered, and this does not wait for them.
    """
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    except apsw.BusyError:  # another process is doing the same
        return
    except apsw.Error:
        with suppress(apsw.Error):
            connection.close()
        raise
