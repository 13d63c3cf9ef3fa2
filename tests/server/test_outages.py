"""Real nodes that were away: leases that expired meanwhile are their holders' for a while."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.helpers.concurrency import OF_PROCESSES_S, sync_until
from tests.helpers.postgres import PostgresServer
from tests.helpers.verity_process import ServeProcess, run_verity, serving

LEASE = {"effectKey": "k", "leaseDurationMs": 5_000}
OUTLIVED = {"effectKey": "expired before", "leaseDurationMs": 5_000}
AGE_THE_FILE = """
import sys, apsw
ledger = apsw.Connection(sys.argv[1])
ledger.execute("UPDATE effects SET lease_expires_at = lease_expires_at - 7000, updated_at = updated_at - 7000")
ledger.execute("UPDATE effects SET lease_expires_at = lease_expires_at - 7000 WHERE effect_key = 'expired before'")
ledger.execute("UPDATE heartbeat SET alive_at = alive_at - 7000")
"""
"""As if the node had been away for seven seconds. In another process: see docs/ledger.md."""
NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"


@contextmanager
def calls_to(server: ServeProcess, key: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"{server.base_url}/effects/payments", headers=headers, timeout=30) as client:
        yield client


def make_key(database: str) -> str:
    made = run_verity("keys", "create", "--database", database, "--environment", "test")
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def grant(client: httpx.Client, request: dict[str, Any]) -> dict[str, Any]:
    lease = client.post("/lease", json=request).json()
    assert lease["status"] == "granted"
    return {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}


def check_grace(server: ServeProcess, client: httpx.Client, tokens: dict[str, Any]) -> None:
    """A rival that comes first is refused, and the holder renews."""
    refused = client.post("/lease", json=LEASE)
    while refused.status_code == 503:
        refused = client.post("/lease", json=LEASE)
    assert (refused.status_code, refused.json()["error"]["details"].get("grace")) == (409, True), refused.text
    assert client.post("/renew", json=tokens).status_code == 200
    assert client.post("/commit", json={**tokens, "result": 1}).json()["status"] == "accepted"
    sync_until(lambda: "No holder could renew" in server.log, OF_PROCESSES_S)
    metrics = httpx.get(server.base_url.replace("/v1", "/metrics")).text
    for line in ("verity_outages_total 1.0", "verity_grace_conflicts_total 1.0"):
        assert line in metrics
    assert 'verity_conflicts_total{code="lease_conflict"} 1.0' in metrics


def test_a_node_on_sqlite_that_was_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        key = make_key(f"sqlite:///{tmp_path}/verity.db")
        with calls_to(server, key) as client:
            grant(client, OUTLIVED)
            tokens = grant(client, LEASE)
        server.send(signal.SIGKILL)
        server.wait()
    subprocess.run([sys.executable, "-c", AGE_THE_FILE, str(tmp_path / "verity.db")], check=True, timeout=60)
    with serving(tmp_path) as server, calls_to(server, key) as client:
        check_grace(server, client, tokens)
        assert client.post("/lease", json=OUTLIVED).json()["priorState"] == "expired"


def test_a_node_on_postgres_that_was_frozen(tmp_path: Path, postgres_server: PostgresServer, postgres_url: str) -> None:
    with serving(tmp_path, "--database", postgres_url) as server, calls_to(server, make_key(postgres_url)) as client:
        tokens = grant(client, LEASE)
        server.send(signal.SIGSTOP)
        wait_until_expired(postgres_server, postgres_url)
        server.send(signal.SIGCONT)
        check_grace(server, client, tokens)


def test_a_postgres_that_was_away(tmp_path: Path) -> None:
    with PostgresServer() as postgres:
        url = postgres.create_database()
        with serving(tmp_path, "--database", url) as server, calls_to(server, make_key(url)) as client:
            tokens = grant(client, LEASE)
            wait_until_expired(postgres, url, away=True)
            check_grace(server, client, tokens)


def wait_until_expired(postgres: PostgresServer, url: str, *, away: bool = False) -> None:
    """Let the lease expire in two seconds, and wait for that; meanwhile the database may be away."""
    sql = f"UPDATE effects SET lease_expires_at = {NOW} + 2000 RETURNING lease_expires_at"
    ((expires_at,),) = postgres.query(sql, url.rpartition("/")[2])
    if away:
        postgres.kill()
    sync_until(lambda: time.time() * 1000 > expires_at, OF_PROCESSES_S)
    if away:
        postgres.start()
