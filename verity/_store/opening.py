"""Opening the store that a `--database` URL names."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from verity._store.interface import AsyncStore, StorageError
from verity._store.sqlite.async_store import AsyncSqliteStore
from verity._store.sqlite.location import Location, read_location
from verity._store.sqlite.registry import open_ledger
from verity.errors import VerityConfigError

POSTGRES_SCHEMES = ("postgresql://", "postgres://")

_logger = logging.getLogger("verity.server")


def is_postgres(url: str) -> bool:
    """Whether the URL names a PostgreSQL database."""
    return url.startswith(POSTGRES_SCHEMES)


def read_file(url: str) -> Location:
    """The location of the SQLite file that the URL names.

    Raises:
        VerityConfigError: the URL names no file. The message does not show another kind of URL: it may have a password.
    """
    if not url.startswith("sqlite:"):
        raise VerityConfigError(
            "The database is not a ledger's URL: use sqlite:///relative.db, sqlite:////absolute.db or "
            "postgresql://user:password@host/database.",
            parameter="database",
        )
    place = read_location(url)
    if place.path is None:
        raise VerityConfigError(
            "A ledger in memory ends with its process, and no key could reach it; name a file.", parameter="database"
        )
    return place


@asynccontextmanager
async def open_store(
    url: str, *, max_batch: int, database_timeout_s: float, search_timeout_s: float, must_exist: bool = False
) -> AsyncIterator[AsyncStore]:
    """Open a ledger's database for a server, and close it afterwards.

    An empty database gets the schema. A database with an older schema is refused; `verity migrate` migrates it.

    Args:
        url: `sqlite:///file.db` or `postgresql://…`.
        max_batch: the most calls in one transaction; 1 switches group commit off.
        database_timeout_s: the time limit of a statement in PostgreSQL, in seconds.
        search_timeout_s: the time limit of a caller's read, in seconds.
        must_exist: whether to refuse a database without a ledger.

    Raises:
        VerityConfigError: the database can't be used.
    """
    if is_postgres(url):
        async with _open_postgres(url, max_batch, database_timeout_s, search_timeout_s, must_exist) as store:
            yield store
        return
    read_file(url)
    ledger = open_ledger(url, upgrade=False, must_exist=must_exist)
    ledger.loops.max_batch = max_batch
    ledger.store.read_within_s = search_timeout_s
    try:
        store = AsyncSqliteStore(ledger)
        async with store.beating():
            yield store
    finally:
        ledger.close()


@asynccontextmanager
async def _open_postgres(
    url: str, max_batch: int, database_timeout_s: float, search_timeout_s: float, must_exist: bool
) -> AsyncIterator[AsyncStore]:
    from verity._store.postgres.async_store import AsyncPostgresStore, width_for
    from verity._store.postgres.database import StatementRefused, connect, find_dangers, without_password
    from verity._store.postgres.migrations import check_version, migrate, read_version

    width = width_for(max_batch)
    database = await connect(url, width=width, statement_timeout_s=database_timeout_s, read_within_s=search_timeout_s)
    try:
        try:
            if not await read_version(database):
                if must_exist:
                    raise VerityConfigError(
                        f"There is no ledger in the database at {without_password(url)}, and a new one is not wanted "
                        "(--existing). Check the database's name.",
                        parameter="database",
                    )
                await migrate(database)
            await check_version(database)
            dangers = await find_dangers(database)
        except (StorageError, StatementRefused) as error:
            raise VerityConfigError(
                f"The database at {without_password(url)} can't be used ({error}).", parameter="database"
            ) from None
        for danger in dangers:
            _logger.warning("acknowledged commits are in danger: %s", danger)
        store = AsyncPostgresStore(database, max_batch=max_batch, width=width)
        try:
            async with store.beating():
                yield store
        finally:
            await store.close()
    finally:
        await database.close()
