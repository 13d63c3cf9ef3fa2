"""The PostgreSQL store for commands: each method runs an event loop of the store's own until it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from verity._ledger.calls import Answer, Environment, Request
from verity._store.api_keys import ApiKey
from verity._store.postgres.async_store import AsyncPostgresStore
from verity._store.postgres.database import Database, connect
from verity._store.postgres.migrations import check_version, migrate, read_version
from verity._store.postgres.statements import CLOCK
from verity._store.purging import Purge
from verity._store.reads import COMMAND_READS_WITHIN_S

T = TypeVar("T")


class PostgresStore:
    """Has the methods of `SqliteStore`, on a PostgreSQL database. For one thread.

    Args:
        url: `postgresql://…`.
        migrated: whether an empty database is migrated and the schema is checked. False is for `migrate`.
        clock: an SQL expression for the time in ms since 1970, for tests.

    Raises:
        VerityConfigError: the database can't be used.
    """

    def __init__(self, url: str, *, migrated: bool = True, clock: str = CLOCK) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._database = self._run(_open(url, migrated=migrated))
        except BaseException:
            self._loop.close()
            raise
        self._store = AsyncPostgresStore(self._database, clock=clock)

    def __repr__(self) -> str:
        return "<PostgresStore>"

    def answer(self, request: Request) -> Answer:
        """Carry a call of the API out."""
        return self._run(self._store.answer(request))

    def answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Carry requests out concurrently; returns the answers in their order."""

        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*map(self._store.answer, requests))

        return self._run(all_of_them())

    def insert_key(self, key: ApiKey) -> None:
        """Add an API key, durably."""
        self._run(self._store.insert_key(key))

    def find_key(self, sha256: bytes) -> ApiKey | None:
        """The API key with this hash, even if it is revoked or has expired; None: there is none."""
        return self._run(self._store.find_key(sha256))

    def list_keys(self) -> list[ApiKey]:
        """All API keys, oldest first."""
        return self._run(self._store.list_keys())

    def revoke_key(self, key_id: str, now: int) -> bool:
        """Revoke an API key, durably; False: there is none with this id."""
        return self._run(self._store.revoke_key(key_id, now))

    def purge(self, purge: Purge) -> Purge:
        """Carry out one batch of a purge, durably; returns what is left to do."""
        return self._run(self._store.purge(purge))

    def expired_for_ms(self) -> dict[Environment, int]:
        """By environment, how many ms ago the oldest lease expired that was not taken over."""
        return {each: round(age_s * 1000) for each, age_s in self._run(self._store.expired_for_s()).items()}

    def now_ms(self) -> int:
        """The database's clock, in ms since 1970."""
        return self._run(self._store.now_ms())

    def check_version(self) -> None:
        """Raise VerityConfigError unless this Verity can work on the schema."""
        self._run(check_version(self._database))

    def migrate(self) -> tuple[int, int]:
        """Bring the schema up to date; (the version before, the version now)."""
        return self._run(migrate(self._database))

    def close(self) -> None:
        """Close the connections. Idempotent."""
        if not self._loop.is_closed():
            self._run(self._store.close())
            self._run(self._database.close())
            self._loop.close()

    def _run(self, pending: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(pending)


async def _open(url: str, *, migrated: bool) -> Database:
    database = await connect(url, readers=1, read_within_s=COMMAND_READS_WITHIN_S)
    try:
        if migrated:
            if not await read_version(database):
                await migrate(database)
            await check_version(database)
    except BaseException:
        await database.close()
        raise
    return database
