"""Migrations: numbered SQL files. They only go forward, and several nodes may start them at the same time.

The table `verity_schema` has one row with the schema's version. A migrating node locks this row, so the other nodes
wait and then find the work done. All of it is one transaction.
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
"""Generous: a migration of a large table is slow, and other nodes wait for it."""
_ATTEMPTS = 10
_PAUSE_S = 0.05


async def read_version(database: Database) -> int:
    """The schema's version; 0: the database has none yet."""
    async with database.connection() as connection:
        if await connection.fetchval("SELECT to_regclass('verity_schema')") is None:
            return 0
        return await connection.fetchval("SELECT version FROM verity_schema") or 0


async def check_version(database: Database) -> None:
    """Check that this Verity can work on the database.

    Raises:
        VerityConfigError: the schema has to be migrated, or is from a newer Verity.
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
        VerityConfigError: the schema is from a newer Verity, or the database has tables of another program.
        StorageError: whether it was done, or whether the standbys have it, is unknown. Call it again.
    """
    async with database.connection() as connection:
        try:
            await _prepare(connection)
            async with connection.transaction():
                await connection.execute("SET LOCAL statement_timeout = 0")
                # With this lock, the commit waits for the standbys even if there is nothing to migrate.
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
                f"The database has tables of another program ({error}); name an empty one.", parameter="database"
            ) from None
        except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError) as error:
            raise VerityConfigError(
                f"The database can't be migrated, and is as it was ({error}).", parameter="database"
            ) from None
    return before, max(before, to)


async def _prepare(connection: Any) -> None:
    """Create the table and its row. If two nodes do so at the same time, one of them fails and tries again."""
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
