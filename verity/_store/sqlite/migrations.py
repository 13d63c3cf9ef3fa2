"""The schema of a SQLite file: numbered migrations, forward only, and safe when several processes begin at once.

Whoever holds SQLite's write lock carries them out, all or none of them, and the others find it done. An embedded ledger
does so whenever it opens a file, since there is nobody else to do it. Servers and commands do it to new files only:
what a running ledger's older programs work on is changed by `verity migrate` alone, when somebody asks for it.
"""

from __future__ import annotations

from importlib import resources

import apsw

from verity.errors import VerityConfigError

_MIGRATIONS = sorted(
    (
        entry
        for entry in resources.files("verity._store.sqlite").joinpath("schema").iterdir()
        if entry.name.endswith(".sql")
    ),
    key=lambda entry: entry.name,
)
SCHEMA_VERSION = len(_MIGRATIONS)


def migrate(connection: apsw.Connection, path: str | None, *, upgrade: bool = True, to: int = SCHEMA_VERSION) -> int:
    """Bring the schema up to date; returns its version before.

    Args:
        connection: to the file.
        path: for messages.
        upgrade: False refuses a file that has a schema already, an older one.
        to: an earlier version, for tests.

    Raises:
        VerityConfigError: the file was made by a newer Verity, or by something else, or has to be upgraded.
    """
    before = _read_version(connection)
    if before == to:
        return before
    connection.execute("BEGIN IMMEDIATE")
    try:
        before = _read_version(connection)
        _check(connection, path, before, upgrade=upgrade)
        for migration in _MIGRATIONS[before:to]:
            connection.execute(migration.read_text(encoding="utf-8"))
        connection.execute(f"PRAGMA user_version = {max(before, to)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk, for one, has ended it already
            connection.execute("ROLLBACK")
        raise
    return before


def _read_version(connection: apsw.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").get
    return version


def _check(connection: apsw.Connection, path: str | None, version: int, *, upgrade: bool) -> None:
    if version > SCHEMA_VERSION:
        raise VerityConfigError(
            f"The ledger's file {path!r} has schema {version}, made by a newer Verity; this one knows up to "
            f"{SCHEMA_VERSION}. Upgrade this installation.",
            parameter="base_url",
        )
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").get:
        raise VerityConfigError(
            f"The file {path!r} is a database of something else; name a new file.", parameter="base_url"
        )
    if 0 < version < SCHEMA_VERSION and not upgrade:
        raise VerityConfigError(
            f"The ledger's file {path!r} has schema {version}, and this Verity needs {SCHEMA_VERSION}: stop what works "
            "on it, keep a copy, and run `verity migrate`.",
            parameter="database",
        )
