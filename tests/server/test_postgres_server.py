"""The PostgreSQL that other tests rely on: it is durable, private, and can crash."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.concurrency import OF_PROCESSES_S, sync_until
from tests.helpers.postgres import PostgresServer


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """One that a test may kill."""
    with PostgresServer(log_min_messages="log") as server:
        yield server


def test_what_was_committed_survives_a_crash(own_server: PostgresServer) -> None:
    own_server.execute("CREATE TABLE told (what text)")
    own_server.execute("INSERT INTO told VALUES ('committed')")
    port, processes = own_server.port, own_server.processes()
    assert len(processes) > 2

    own_server.kill()

    assert not own_server.is_running
    alive = subprocess.run(
        ["ps", "-o", "state=", "-p", ",".join(map(str, processes))], capture_output=True, check=False
    )
    assert set(alive.stdout.split()) <= {b"Z"}
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", port))

    own_server.start()
    assert own_server.port == port
    assert [row["what"] for row in own_server.query("SELECT what FROM told")] == ["committed"]
    assert "automatic recovery in progress" in own_server.log


def test_a_stop_in_order_needs_no_recovery(own_server: PostgresServer) -> None:
    own_server.execute("CREATE TABLE told AS SELECT 1 AS what")
    own_server.restart()
    assert own_server.query("SELECT what FROM told")[0]["what"] == 1
    assert "automatic recovery" not in own_server.log


def test_it_is_as_durable_as_one_in_production(postgres_server: PostgresServer) -> None:
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert postgres_server.query(f"SHOW {setting}")[0][0] == "on"
    assert postgres_server.query("SHOW listen_addresses")[0][0] == "127.0.0.1"
    assert postgres_server.query("SHOW unix_socket_directories")[0][0] == ""


def test_each_database_is_fresh(postgres_server: PostgresServer, postgres_url: str) -> None:
    other = postgres_server.create_database()
    assert other != postgres_url
    database = other.rpartition("/")[2]
    postgres_server.execute("CREATE TABLE here (what text)", database)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert [row[0] for row in postgres_server.query(tables, database)] == ["here"]
    assert postgres_server.query(tables, postgres_url.rpartition("/")[2]) == []
    postgres_server.drop_database(other)


def test_closed_it_leaves_nothing() -> None:
    with PostgresServer() as server:
        processes = server.processes()
        server.kill()
        server.start()
    listed = ["ps", "-o", "pid=", "-p", ",".join(map(str, processes))]
    sync_until(lambda: subprocess.run(listed, capture_output=True, check=False).stdout.split() == [])
    assert not server.directory.exists()


def test_it_ends_with_the_process_that_started_it() -> None:
    code = (
        "import os; from tests.helpers.postgres import PostgresServer; server = PostgresServer().start(); "
        "print(server.directory, server.port, flush=True); os._exit(1)"
    )
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    directory, port = started.stdout.split()
    sync_until(lambda: not Path(directory).exists(), OF_PROCESSES_S)
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", int(port)))


def test_a_start_that_fails_says_why() -> None:
    server = PostgresServer(shared_buffers="nonsense")
    with pytest.raises(RuntimeError, match="nonsense"):
        server.start()
    server.close()
