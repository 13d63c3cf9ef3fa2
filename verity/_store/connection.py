"""One SQLite connection: where the file is, how it is opened, and its schema.

SQLite itself comes with `apsw`: a system's own may be old, and some releases lose data with WAL and several
connections (fixed in 3.51.3).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import apsw

from verity.errors import VerityConfigError

BUSY_TIMEOUT_MS = 10_000
_MIGRATIONS = sorted(
    (entry for entry in resources.files("verity._store").joinpath("schema").iterdir() if entry.name.endswith(".sql")),
    key=lambda entry: entry.name,
)
SCHEMA_VERSION = len(_MIGRATIONS)


def read_path(url: str) -> str | None:
    """The file of `sqlite:///relative.db` or `sqlite:////absolute.db`, absolute; None for `sqlite://`, in memory.

    Raises:
        VerityConfigError: the URL has another form, or its directory does not exist.
    """
    if url in ("sqlite://", "sqlite:///:memory:"):
        return None
    path = url.removeprefix("sqlite:///")
    if path == url or not path or "?" in path or "#" in path:
        raise VerityConfigError(
            f"{url!r} is not a ledger's URL: use sqlite:///relative.db, sqlite:////absolute.db, "
            "or sqlite:// for a ledger in memory.",
            parameter="base_url",
        )
    file = Path(path).expanduser().resolve()
    if not file.parent.is_dir():
        raise VerityConfigError(
            f"The directory {str(file.parent)!r} of the ledger's file does not exist; create it first.",
            parameter="base_url",
        )
    if file.is_dir():
        raise VerityConfigError(f"{str(file)!r} is a directory; name a file in it.", parameter="base_url")
    return str(file)


def connect(path: str | None) -> apsw.Connection:
    """Open the file (None: a new database in memory), and bring its schema up to date.

    Raises:
        VerityConfigError: it is not a database, can't be written, or was made by a newer Verity.
    """
    try:
        connection = apsw.Connection(path or ":memory:")
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        if path is not None:
            mode = connection.execute("PRAGMA journal_mode = WAL").get
            if mode != "wal":
                raise VerityConfigError(
                    f"The ledger's file {path!r} cannot use write-ahead logging (its mode is {mode}); "
                    "keep it on a local disk.",
                    parameter="base_url",
                )
        connection.execute("PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -65536")
        _migrate(connection, path)
    except apsw.Error as error:
        raise VerityConfigError(
            f"The ledger's file {path!r} cannot be opened as a database ({type(error).__name__}: {error}).",
            parameter="base_url",
        ) from error
    return connection


def _migrate(connection: apsw.Connection, path: str | None) -> None:
    if connection.execute("PRAGMA user_version").get == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")  # several processes may open a new file at once
    try:
        version = connection.execute("PRAGMA user_version").get
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
        for migration in _MIGRATIONS[version:]:
            connection.execute(migration.read_text(encoding="utf-8"))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
