"""The schema of a SQLite file: numbered migrations, forward only, safe when several processes start at the same time.

The process that gets SQLite's write lock carries out all migrations or none. The other processes wait, and find the
schema up to date. An embedded ledger migrates whenever it opens a file, because no other program does it. Servers and
commands give a schema to new files only: an older program may be at work on an older file, so only `verity migrate`
changes it.
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
    """Migrate the schema; returns its version before.

    Args:
        connection: a connection to the file.
        path: the file's path, for messages.
        upgrade: whether to migrate an older schema; False refuses it. A new file gets its schema in both cases.
        to: the version to reach; tests name an earlier one.

    Raises:
        VerityConfigError: the file was made by a newer Verity or by another program, or its schema is older.
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
        if connection.in_transaction:  # some errors, such as a full disk, have rolled it back already
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
            f"The file {path!r} is a database of another program; name a new file.", parameter="base_url"
        )
    if 0 < version < SCHEMA_VERSION and not upgrade:
        raise VerityConfigError(
            f"The ledger's file {path!r} has schema {version}, and this Verity needs {SCHEMA_VERSION}: stop the "
            "programs that use it, make a backup, and run `verity migrate`.",
            parameter="database",
        )
