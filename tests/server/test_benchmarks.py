"""What the benchmarks send and store is what a ledger takes: they must not measure refusals."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from benchmarks.fill import fill_postgres, fill_sqlite
from benchmarks.load import drive
from tests.helpers.postgres import PostgresServer
from tests.helpers.served_ledger import ServedLedger
from verity._store.postgres.store import PostgresStore
from verity._store.sqlite.connection import connect

HELD = 50


def test_every_request_of_the_load_is_granted_and_committed(served: ServedLedger, admin: httpx.Client) -> None:
    port = httpx.URL(served.base_url).port
    assert port
    run = asyncio.run(drive([port], served.create_key(), 3, 0.02))
    held = admin.get("/effects", params={"limit": 100}).json()["items"]
    assert len(run["latencies_us"]) == len(held) >= 3
    assert {effect["status"] for effect in held} == {"COMMITTED"}


def test_a_refused_request_ends_the_load(served: ServedLedger) -> None:
    port = httpx.URL(served.base_url).port
    assert port
    with pytest.raises(RuntimeError, match="unauthenticated"):
        asyncio.run(drive([port], "nobody's key", 3, 0.05))


def test_a_filled_file_holds_committed_effects(tmp_path: Path) -> None:
    fill_sqlite(tmp_path / "filled.db", HELD)
    connection = connect(str(tmp_path / "filled.db"))
    assert connection.execute("SELECT status, count(*) FROM effects GROUP BY 1").fetchall() == [("COMMITTED", HELD)]
    assert connection.execute("SELECT count(*) FROM events").fetchall() == [(2 * HELD,)]
    connection.close()


def test_a_filled_database_holds_committed_effects(postgres_server: PostgresServer, postgres_url: str) -> None:
    PostgresStore(postgres_url).close()
    fill_postgres(postgres_server, postgres_url, HELD)
    database = postgres_url.rpartition("/")[2]
    counts = postgres_server.query("SELECT status, count(*) FROM effects GROUP BY 1", database)
    assert [tuple(row) for row in counts] == [("COMMITTED", HELD)]
    assert postgres_server.query("SELECT count(*) FROM events", database)[0][0] == 2 * HELD
