"""A backup of a ledger's file while other processes write to it, by SQLite's online backup.

The copy has the state of one moment.
"""

from __future__ import annotations

import os
import secrets  # noqa: TID251 - a file's name
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import apsw

from verity._store.sqlite.connection import BUSY_TIMEOUT_MS, files_of, identify
from verity._store.sqlite.location import check_file
from verity._store.sqlite.migrations import SCHEMA_VERSION
from verity.errors import VerityConfigError

_PAGES = 2_000
"""Pages copied in one step. Between two steps Python can handle Ctrl-C."""


class Backup(NamedTuple):
    """The copy."""

    path: str
    size_bytes: int
    effects: int


def back_up(path: str, target: str) -> Backup:
    """Copy the ledger's file to a new file. The new file appears only when it is complete and on disk.

    A ledger with an older schema is copied without migrating it. Do not call this in a process that has the ledger
    open: this connection has none of the store's own locks.

    Raises:
        VerityConfigError: there is no ledger, or the target exists.
        apsw.Error, OSError: the ledger can't be read, or the copy can't be written. The unfinished copy is deleted.
    """
    file = Path(target).expanduser().absolute()
    if os.path.lexists(file):
        raise VerityConfigError(f"{str(file)!r} is there already: name a new file.", parameter="target")
    if not file.parent.is_dir():
        raise VerityConfigError(f"The directory {str(file.parent)!r} does not exist.", parameter="target")
    if not Path(path).is_file():
        raise VerityConfigError(f"There is no ledger at {path!r}.", parameter="database")
    check_file(path, must_exist=True)
    part = file.with_name(f"{file.name}.{secrets.token_hex(8)}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # the copy has payloads
        effects = _copy(path, str(part))
        size = part.stat().st_size
        _sync(part)
        _name(part, file)
        _sync(file.parent)
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{part}{suffix}").unlink()
    return Backup(str(file), size, effects)


def _copy(path: str, part: str) -> int:
    """Copy, check the copy, and count its effects."""
    copy = apsw.Connection(part)
    try:
        # The read of the ledger ends with this call. While it lasts, the ledger's log can only grow.
        _copy_pages(path, copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log
        found = copy.execute("PRAGMA integrity_check").get
        if found != "ok":
            raise apsw.CorruptError(f"the copy of {path!r} is damaged, and the file itself probably is, too: {found}")
        effects: int = copy.execute("SELECT count(*) FROM effects").get
        return effects
    finally:
        copy.close()


def _copy_pages(path: str, copy: apsw.Connection) -> None:
    opened: list[tuple[int, int] | None] | None = None
    source = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        source.set_busy_timeout(BUSY_TIMEOUT_MS)
        # One read transaction. Otherwise each write of another process would make the copy start again.
        source.execute("PRAGMA query_only = ON; BEGIN")
        _check(source, path)
        opened = identify(files_of(path))
        with copy.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(_PAGES)
    finally:
        if opened is not None and identify(files_of(path)) != opened:
            # The path leads to other files by now. This connection must not write to them when it closes.
            source.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        source.close(force=True)


def _check(source: apsw.Connection, path: str) -> None:
    version = source.execute("PRAGMA user_version").get
    has_effects = source.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'effects'").get
    if not version or not has_effects:
        raise VerityConfigError(f"The file {path!r} is not a ledger.", parameter="database")
    if version > SCHEMA_VERSION:
        raise VerityConfigError(
            f"The ledger's file {path!r} has schema {version}, made by a newer Verity; this one knows up to "
            f"{SCHEMA_VERSION}. Upgrade this installation.",
            parameter="database",
        )


def _name(part: Path, file: Path) -> None:
    """Give the finished copy its name. A file that got this name meanwhile is not overwritten."""
    try:
        os.link(part, file)
    except FileExistsError:
        raise VerityConfigError(f"{str(file)!r} is there already: name a new file.", parameter="target") from None
    except OSError:  # a file system without links
        part.rename(file)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
