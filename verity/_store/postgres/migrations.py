"""Migrations: numbered, forward only, and safe when several nodes begin at once.

A row that says which ones are done is locked while the next ones are carried out, so that of several nodes one works
and the others find it done. PostgreSQL carries out all of it or nothing.
"""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import Any

import asyncpg

from verity._store.postgres.database import Database
from verity.errors import VerityConfigError

_MIGRATIONS = sorted(
    (entry for entry in resources.files("verity._store.postgres").joinpath("schema").iterdir()),
    key=lambda entry: entry.name,
)
SCHEMA_VERSION = len(_MIGRATIONS)
_TIMEOUT_S = 7 * 24 * 3600.0
"""Large tables take their time, and so does another node's migration that is waited for."""
_ATTEMPTS = 10
_PAUSE_S = 0.05


async def read_version(database: Database) -> int:
    """The schema's version; 0 where there is none yet."""
    async with database.connection() as connection:
        if await connection.fetchval("SELECT to_regclass('verity_schema')") is None:
            return 0
        return await connection.fetchval("SELECT version FROM verity_schema") or 0


async def check_version(database: Database) -> None:
    """Whether this Verity can work on the database.

    Raises:
        VerityConfigError: it has to be migrated, or was made by a newer Verity.
    """
    version = await read_version(database)
    _refuse_newer(version)
    if version < SCHEMA_VERSION:
        raise VerityConfigError(
            f"The database has schema {version}, and this Verity needs {SCHEMA_VERSION}: run `verity migrate` first.",
            parameter="database",
        )


async def migrate(database: Database, *, to: int = SCHEMA_VERSION) -> tuple[int, int]:
    """Bring the schema up to date; (the version before, the version now).

    Raises:
        VerityConfigError: it was made by a newer Verity, or has tables of something else.
        StorageError: whether it was done, or whether the standbys have it, is unknown; it may be asked for again.
    """
    async with database.connection() as connection:
        try:
            await _prepare(connection)
            async with connection.transaction():
                await connection.execute("SET LOCAL statement_timeout = 0")
                # The lock makes it a transaction that standbys have to confirm, also where there is nothing to do.
                before: int = await connection.fetchval(
                    "SELECT version FROM verity_schema FOR UPDATE", timeout=_TIMEOUT_S
                )
                _refuse_newer(before)
                for migration in _MIGRATIONS[before:to]:
                    await connection.execute(migration.read_text(encoding="utf-8"), timeout=_TIMEOUT_S)
                if before < to:
                    await connection.execute("UPDATE verity_schema SET version = $1", to)
        except asyncpg.DuplicateTableError as error:
            raise VerityConfigError(
                f"The database has tables of something else ({error}); name an empty one.", parameter="database"
            ) from None
        except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError) as error:
            raise VerityConfigError(
                f"The database can't be migrated, and is as it was ({error}).", parameter="database"
            ) from None
    return before, max(before, to)


async def _prepare(connection: Any) -> None:
    """Make the row that says what is done. Of two nodes that make the same table at once, the later one looks anew."""
    for _ in range(_ATTEMPTS):
        try:
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS verity_schema"
                " (id integer PRIMARY KEY CHECK (id = 1), version integer NOT NULL)"
            )
            await connection.execute("INSERT INTO verity_schema VALUES (1, 0) ON CONFLICT DO NOTHING")
        except (asyncpg.UniqueViolationError, asyncpg.DuplicateTableError):
            await asyncio.sleep(_PAUSE_S)
        else:
            return


def _refuse_newer(version: int) -> None:
    if version > SCHEMA_VERSION:
        raise VerityConfigError(
            f"The database has schema {version}, made by a newer Verity; this one knows up to {SCHEMA_VERSION}. "
            "Upgrade this installation.",
            parameter="database",
        )
