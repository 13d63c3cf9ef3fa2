"""Every kind of store behind one interface (`Bench`), for the tests that each of them must pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import apsw

from tests.helpers.served_ledger import DATABASE_CLOCK, DatabaseClock, TestClock
from verity._ledger.calls import Answer, Environment, Request
from verity._ledger.effect import agrees_with_its_events, from_row
from verity._store.api_keys import ApiKey
from verity._store.events import read_events
from verity._store.names import COLUMNS
from verity._store.postgres import statements
from verity._store.postgres.database import Use
from verity._store.postgres.store import PostgresStore
from verity._store.purging import Purge
from verity._store.sqlite.reads import DIALECT
from verity._store.sqlite.store import SqliteStore
from verity._store.view import Query, select_events

KINDS = ("file", "memory", "postgres")


class Store(Protocol):
    """The operations of every store."""

    def answer(self, request: Request) -> Answer: ...
    def answer_batch(self, requests: list[Request]) -> list[Answer]: ...
    def insert_key(self, key: ApiKey) -> None: ...
    def find_key(self, sha256: bytes) -> ApiKey | None: ...
    def list_keys(self) -> list[ApiKey]: ...
    def revoke_key(self, key_id: str, now: int) -> bool: ...
    def purge(self, purge: Purge) -> Purge: ...
    def expired_for_ms(self) -> dict[Environment, int]: ...
    def close(self) -> None: ...


class DatabaseRefused(Exception):
    """The database itself refused a statement."""


class Bench:
    """A store, its clock, and a way around it into its database."""

    def __init__(self, kind: str, path: Path, make_url: Callable[[], str]) -> None:
        self.kind = kind
        self.clock = TestClock()
        if kind == "postgres":
            self.url = make_url()
            self.store: Any = PostgresStore(self.url, clock=DATABASE_CLOCK)
            self.clock = DatabaseClock(self.execute)
        else:
            self.store = SqliteStore(str(path / "v.db") if kind == "file" else None, clock=self.clock)

    def execute(self, sql: str, *values: Any) -> list[Any]:
        """Run a statement in the database; its `?`s are values."""
        if self.kind == "postgres":
            return self._execute_in_postgres(sql, values)
        try:
            rows: list[Any] = self.store._connected().execute(sql, values).fetchall()
        except apsw.Error as error:
            raise DatabaseRefused(str(error)) from error
        return rows

    def _execute_in_postgres(self, sql: str, values: Any) -> list[Any]:
        import asyncpg

        async def fetch() -> Any:
            async with self.store._database._pools[Use.COMMANDS].pool.acquire() as connection:
                return await connection.fetch(statements.to_numbered(sql), *values)

        try:
            return [tuple(row) for row in self.store._run(fetch())]
        except asyncpg.IntegrityConstraintViolationError as error:
            raise DatabaseRefused(str(error)) from error

    def columns_of(self, table: str) -> list[str]:
        """The names of a table's columns, in their order."""
        if self.kind != "postgres":
            return [row[1] for row in self.execute(f"PRAGMA table_info({table})")]
        rows = self.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = ? ORDER BY ordinal_position", table
        )
        return [name for (name,) in rows]

    def check_all_rows(self) -> None:
        """Check that each effect's row agrees with its events."""
        dialect = statements.DIALECT if self.kind == "postgres" else DIALECT
        for environment, *row in self.execute(f"SELECT environment, {COLUMNS} FROM effects WHERE purged_at IS NULL"):
            effect = from_row(row)
            query: Query = select_events(dialect, environment, effect, 0, 1000)
            events = read_events(self.execute(query.sql, *query.values))
            assert [sequence for sequence, _ in events] == list(range(1, len(events) + 1))
            assert agrees_with_its_events(effect, [event for _, event in events])
