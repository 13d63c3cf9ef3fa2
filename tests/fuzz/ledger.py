"""A ledger to throw things at: `verity serve` in a process of its own, on either store, and whether it stays well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.helpers.new_ledger_notice import NEW_LEDGER_NOTICE
from tests.helpers.postgres import PostgresServer
from tests.helpers.verity_process import ServeProcess, run_verity, serving

_NO_FAULTS = ("Invalid HTTP request received", NEW_LEDGER_NOTICE)


class Target:
    """A served ledger with its keys."""

    def __init__(self, process: ServeProcess, database: str) -> None:
        self.base_url = process.base_url
        self.port = process.port
        self._process = process
        self.admin, self.agent, self.bound, self.live = (
            self._create_key(database, *options)
            for options in (
                ("--environment", "test", "--role", "org_admin"),
                ("--environment", "test", "--role", "agent"),
                ("--environment", "test", "--role", "agent", "--namespace", "payments"),
                ("--environment", "live", "--role", "org_admin"),
            )
        )
        self._round = 0

    @staticmethod
    def _create_key(database: str, *options: str) -> str:
        return run_verity("keys", "create", "--database", database, *options).stdout.strip()

    def check_health(self) -> None:
        """Fail unless the ledger carries out calls, has held on to no connection, and has logged no fault."""
        self._round += 1
        with httpx.Client(base_url=self.base_url, headers={"Authorization": f"Bearer {self.admin}"}) as http:
            assert http.get(self.base_url.replace("/v1", "/readyz")).status_code == 200
            granted = http.post("/effects/health/lease", json={"effectKey": f"round {self._round}"}).json()
            body = {name: granted[name] for name in ("effectKey", "fenceToken", "leaseToken")}
            assert http.post("/effects/health/commit", json={**body, "result": None}).json()["status"] == "accepted"
        assert self._process.process.poll() is None
        lines = self._process.log.splitlines()
        faults = [line for line in lines if not any(text in line for text in _NO_FAULTS)]
        assert faults == [], faults


@contextmanager
def serve(store: str, directory: Path, server: PostgresServer | None = None) -> Iterator[Target]:
    """Serve an empty ledger on this kind of store; with `server` in a PostgreSQL that is there."""
    with ExitStack() as stack:
        database = f"sqlite:///{directory}/verity.db"
        if store == "postgres":
            database = (server or stack.enter_context(PostgresServer())).create_database()
        process = stack.enter_context(serving(directory, "--database", database))
        yield Target(process, database)
