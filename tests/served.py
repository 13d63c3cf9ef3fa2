"""A real ledger for tests: uvicorn on a free loopback port, in a thread of the test's process, on a real store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from verity._ledger.calls import Environment
from verity._store.api_keys import Role
from verity._store.registry import open_ledger
from verity.server.api_keys import issue
from verity.server.app import create_app
from verity.server.serving import LedgerServer, base_url, listen, run
from verity.server.settings import ServerSettings
from verity.server.storage import SqliteStorage

_START_WITHIN_S = 30.0


class TestClock:
    """A clock that stands still until it is told otherwise. Call it for ms since 1970."""

    __test__ = False

    def __init__(self, now_ms: int = 1_770_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: int) -> None:
        self.now_ms += ms


class ServedLedger:
    """Serve a ledger from `start()` to `stop()`, or as a context manager.

    Args:
        database: `sqlite:///file.db`; in memory by default.
        clock: ms since 1970; decides when leases and API keys run out. The real clock by default.
        settings: by default those of `verity serve`, except that a looked-up API key is not trusted for a moment.

    Attributes:
        base_url: what a client is given, with `/v1`. From `start()` on.
    """

    def __init__(
        self,
        database: str = "sqlite://",
        *,
        clock: Callable[[], int] | None = None,
        settings: ServerSettings | None = None,
    ) -> None:
        self.base_url = ""
        self.ledger = open_ledger(database, clock=clock)
        self._clock = clock or (lambda: time.time_ns() // 1_000_000)
        self._settings = settings or ServerSettings(key_cache_s=0.0)
        self._listening = threading.Event()
        self._thread: threading.Thread | None = None
        self._server: LedgerServer | None = None

    def start(self) -> ServedLedger:
        """Listen; returns when requests are answered."""
        listener = listen("127.0.0.1", 0)
        self.base_url = base_url(listener)
        app = create_app(SqliteStorage(self.ledger), self._settings, now_ms=self._clock)
        self._server = LedgerServer(app, self._settings, self._listening.set)
        self._thread = threading.Thread(
            target=run, args=[self._server.serve(sockets=[listener])], name="served-ledger", daemon=True
        )
        self._thread.start()
        if not self._listening.wait(_START_WITHIN_S):
            raise RuntimeError("the served ledger did not start")
        return self

    def stop(self) -> None:
        """Answer what has begun, then end the server and close the store. Idempotent."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
            self._thread = None
            self.ledger.close()

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
        self.ledger.store.insert_key(record)
        return key

    def __enter__(self) -> ServedLedger:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
