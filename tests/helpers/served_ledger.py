"""A served ledger and its clocks: uvicorn in a thread of the test, on a free loopback port and a real store."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Protocol

from tests.helpers.postgres import execute
from verity._ledger.calls import Environment
from verity._store.api_keys import Role
from verity._store.interface import AsyncStore
from verity._store.opening import is_postgres
from verity._store.postgres.async_store import AsyncPostgresStore
from verity._store.postgres.database import connect
from verity._store.postgres.statements import CLOCK
from verity._store.postgres.store import PostgresStore
from verity._store.sqlite.async_store import AsyncSqliteStore
from verity._store.sqlite.registry import open_ledger
from verity.server.api_keys import issue
from verity.server.app import LedgerApp, create_app
from verity.server.protocol import LedgerProtocol
from verity.server.serving import LedgerServer, base_url, listen, run
from verity.server.settings import ServerSettings

_START_WITHIN_S = 30.0
DATABASE_CLOCK = "(SELECT now_ms FROM test_clock)"


class TestClock:
    """A clock that stands still until it is told otherwise. Call it for ms since 1970."""

    __test__ = False

    def __init__(self, now_ms: int = 1_770_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: int) -> None:
        self.now_ms += ms


class DatabaseClock(TestClock):
    """A clock that a PostgreSQL database reads: `DATABASE_CLOCK`.

    Args:
        execute: runs a statement in that database.
    """

    def __init__(self, execute: Callable[[str], Any]) -> None:
        self._execute = execute
        execute("CREATE TABLE test_clock (now_ms bigint)")
        execute("INSERT INTO test_clock VALUES (0)")
        super().__init__()

    @property
    def now_ms(self) -> int:
        return self._now_ms

    @now_ms.setter
    def now_ms(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._execute(f"UPDATE test_clock SET now_ms = {now_ms}")


def make_clock(database: str) -> TestClock:
    """A clock for the ledger in this database."""
    return DatabaseClock(lambda sql: execute(database, sql)) if is_postgres(database) else TestClock()


class _Database(Protocol):
    store: Any
    """For what commands do: keys and purges."""

    def open(self, settings: ServerSettings) -> AbstractAsyncContextManager[AsyncStore]: ...
    def close(self) -> None: ...


class _Sqlite:
    def __init__(self, url: str, clock: Callable[[], int] | None) -> None:
        self._ledger = open_ledger(url, clock=clock)
        self.store = self._ledger.store

    @asynccontextmanager
    async def open(self, settings: ServerSettings) -> AsyncIterator[AsyncStore]:
        self._ledger.store.read_within_s = settings.search_timeout_s
        yield AsyncSqliteStore(self._ledger)

    def close(self) -> None:
        self._ledger.close()


class _Postgres:
    def __init__(self, url: str, clock: Callable[[], int] | None) -> None:
        assert clock is None or isinstance(clock, DatabaseClock)
        self._url = url
        self._clock = CLOCK if clock is None else DATABASE_CLOCK
        self.store = PostgresStore(url, clock=self._clock)

    @asynccontextmanager
    async def open(self, settings: ServerSettings) -> AsyncIterator[AsyncStore]:
        database = await connect(self._url, read_within_s=settings.search_timeout_s)
        storage = AsyncPostgresStore(database, clock=self._clock)
        yield storage
        await storage.close()
        await database.close()

    def close(self) -> None:
        self.store.close()


class ServedLedger:
    """Serve a ledger from `start()` to `stop()`, or as a context manager.

    Args:
        database: `sqlite:///file.db` or `postgresql://…`; SQLite in memory by default.
        clock: ms since 1970; decides when leases and API keys expire. The real clock by default. A PostgreSQL
            database's must be a `DatabaseClock`.
        settings: by default those of `verity serve`, but without caches: of API keys and of metrics.

    Attributes:
        base_url: what a client is given, with `/v1`. From `start()` on.
        store: the way around the server, for keys and purges.
        app: the application, once it listens.
    """

    def __init__(
        self,
        database: str = "sqlite://",
        *,
        clock: Callable[[], int] | None = None,
        settings: ServerSettings | None = None,
    ) -> None:
        self.base_url = ""
        self._database: _Database = (_Postgres if is_postgres(database) else _Sqlite)(database, clock)
        self.store: Any = self._database.store
        self._clock = clock or (lambda: time.time_ns() // 1_000_000)
        self._settings = settings or ServerSettings(key_cache_s=0.0, metrics_kept_s=0.0)
        self._listening = threading.Event()
        self._thread: threading.Thread | None = None
        self._server: LedgerServer | None = None
        self.app: LedgerApp

    def start(self) -> ServedLedger:
        """Listen; returns when requests are answered."""
        listener = listen("127.0.0.1", 0)
        self.base_url = base_url(listener)
        self._thread = threading.Thread(target=run, args=[self._serve(listener)], name="served-ledger", daemon=True)
        self._thread.start()
        if not self._listening.wait(_START_WITHIN_S):
            raise RuntimeError("the served ledger did not start")
        return self

    def stop(self) -> None:
        """Answer the requests that have begun, then end the server and close the store. Idempotent."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
            self._thread = None
            self._database.close()

    @property
    def connections(self) -> list[LedgerProtocol]:
        """What is open at the moment."""
        assert self._server is not None
        return [each for each in self._server.connections.open if isinstance(each, LedgerProtocol)]

    def create_key(
        self,
        environment: Environment = "test",
        role: Role = "agent",
        *,
        namespaces: Iterable[str] = (),
        lifetime_ms: int | None = None,
    ) -> str:
        """Make an API key."""
        key, record = issue(environment, role, now=self._clock(), namespaces=namespaces, lifetime_ms=lifetime_ms)
        self.store.insert_key(record)
        return key

    async def _serve(self, listener: socket.socket) -> None:
        async with self._database.open(self._settings) as storage:
            self.app = create_app(storage, self._settings, now_ms=self._clock)
            self._server = LedgerServer(self.app, self._settings, self._listening.set)
            await self._server.serve(sockets=[listener])

    def __enter__(self) -> ServedLedger:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
