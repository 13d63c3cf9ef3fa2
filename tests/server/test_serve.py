"""`verity serve` as its own process: how it starts, stops, and dies."""

from __future__ import annotations

import json
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import httpx
import pytest

from tests.helpers.concurrency import OF_PROCESSES_S, sync_until
from tests.helpers.new_ledger_notice import without_new_ledger_notice
from tests.helpers.verity_process import run_verity, serving
from verity._store.sqlite.registry import open_ledger
from verity.server.api_keys import issue


def new_key(directory: Path) -> str:
    key, record = issue("test", "agent", now=0)
    ledger = open_ledger(f"sqlite:///{directory}/verity.db")
    ledger.store.insert_key(record)
    ledger.close()
    return key


def client_of(base_url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def lease(client: httpx.Client, key: str) -> dict[str, object]:
    granted = client.post("/effects/payments/lease", json={"effectKey": key}).raise_for_status().json()
    return {"effectKey": key, "fenceToken": granted["fenceToken"], "leaseToken": granted["leaseToken"]}


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:  # refused, or reset as the listening socket closed
        return False
    return True


def committed_keys(directory: Path) -> set[str]:
    connection = apsw.Connection(f"{directory}/verity.db")
    rows = connection.execute("SELECT effect_key FROM effects WHERE status = 'COMMITTED'")
    return {str(key) for (key,) in rows}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_with_0(number: signal.Signals, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert httpx.get(server.base_url.replace("/v1", "/readyz")).status_code == 200
        server.send(number)
        assert server.wait() == 0
        assert without_new_ledger_notice(server.log) == ""
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""


def test_sigterm_finishes_the_commit_under_way(tmp_path: Path) -> None:
    key = new_key(tmp_path)
    with serving(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port), timeout=60) as commit:
        with client_of(server.base_url, key) as client:
            body = json.dumps({**lease(client, "slow"), "result": "done"})
        writer = apsw.Connection(f"{tmp_path}/verity.db")
        writer.execute("BEGIN IMMEDIATE")  # another process writes: the commit waits for it
        commit.sendall(
            f"POST /v1/effects/payments/commit HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        # What came later is answered: so the server has begun the commit, whose bytes were there before.
        assert httpx.get(server.base_url.replace("/v1", "/healthz")).status_code == 200
        server.send(signal.SIGTERM)
        sync_until(lambda: not accepts(server.port), OF_PROCESSES_S)
        commit.settimeout(0.5)
        with pytest.raises(TimeoutError):
            commit.recv(1)  # it is waited for; and nothing is answered before it is on disk
        writer.execute("ROLLBACK")
        commit.settimeout(60)
        with commit.makefile("rb") as answer:
            said = answer.read()  # until the server closes the connection
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b'"accepted"' in said
        assert server.wait() == 0
    assert committed_keys(tmp_path) == {"slow"}


def test_a_killed_server_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    key = new_key(tmp_path)
    acknowledged: set[str] = set()
    enough = threading.Event()

    with serving(tmp_path) as server:

        def work(worker: int) -> None:
            with client_of(server.base_url, key) as client:
                for number in range(10_000):
                    name = f"{worker}:{number}"
                    try:
                        grant = lease(client, name)
                        response = client.post("/effects/payments/commit", json={**grant, "result": name})
                    except httpx.TransportError:
                        return
                    assert response.status_code == 200
                    acknowledged.add(name)
                    if len(acknowledged) >= 200:
                        enough.set()

        with ThreadPoolExecutor(16) as threads:
            workers = [threads.submit(work, worker) for worker in range(16)]
            assert enough.wait(60)
            server.send(signal.SIGKILL)
            for each in workers:
                each.result(timeout=60)
        assert server.wait() == -signal.SIGKILL
    assert acknowledged <= committed_keys(tmp_path)
    with serving(tmp_path) as server, client_of(server.base_url, key) as client:
        for name in sorted(acknowledged)[:20]:
            cached = client.post("/effects/payments/lease", json={"effectKey": name}).json()
            assert (cached["status"], cached["cachedResult"]) == ("cached_completed", name)


def test_a_server_that_loses_its_storage_says_so_and_recovers(tmp_path: Path) -> None:
    """Storage that fails: here its table is gone for a while."""
    key = new_key(tmp_path)
    with serving(tmp_path) as server, client_of(server.base_url, key) as client:
        writer = apsw.Connection(f"{tmp_path}/verity.db")
        writer.execute("ALTER TABLE effects RENAME TO gone")
        broken = client.post("/effects/payments/lease", json={"effectKey": "a"})
        assert (broken.status_code, broken.json()["error"]["code"]) == (503, "unavailable")
        assert int(broken.headers["retry-after"]) >= 1
        writer.execute("ALTER TABLE gone RENAME TO effects")
        assert client.post("/effects/payments/lease", json={"effectKey": "a"}).status_code == 200


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_logs_hold_request_ids_and_no_secrets(log_format: str, tmp_path: Path) -> None:
    key = new_key(tmp_path)
    with serving(tmp_path, "--access-log", "--log-format", log_format) as server:
        with client_of(server.base_url, key) as client:
            grant = lease(client, "effect-of-the-log")
            client.post("/effects/payments/commit", json={**grant, "result": "payload-of-the-log"})
            bad = client.post(
                "/effects/payments/commit", json={**grant, "result": "payload-of-the-log", "fenceToken": 0}
            )
            client.get(f"/effects/{key}/nowhere?key={key}", headers={"X-Request-Id": "mine-1"})
        server.send(signal.SIGTERM)
        assert server.wait() == 0
        lines = server.log.splitlines()
        assert len(lines) == 4
        for secret in (key, str(grant["leaseToken"]), "payload-of-the-log", "effect-of-the-log"):
            assert secret not in server.log
        assert bad.json()["requestId"] in lines[2]
        assert "mine-1" in lines[3]
        if log_format == "json":
            assert [json.loads(line)["message"] for line in lines] == ["POST 200", "POST 200", "POST 400", "GET 404"]


def one_line(stderr: str) -> str:
    said = without_new_ledger_notice(stderr)
    assert said.startswith("Error: ")
    assert said.count("\n") == 1, said
    return said


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_verity("serve", "--database", f"sqlite:///{tmp_path}/v.db", "--port", port)
    assert done.returncode == 4
    assert port in one_line(done.stderr)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg://v:hunter2@db/v", "is not a ledger's URL"),
        ("postgresql://v:hunter2/x@127.0.0.1:9/v", "special characters"),
        ("sqlite:///{}/missing/v.db", "does not exist"),
        ("sqlite:///{}", "is a directory"),
        ("sqlite:///{}/text.txt", "cannot be opened as a database"),
        ("sqlite://", "in memory"),
    ],
)
def test_a_database_that_cannot_be_used(url: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("This is a letter, not a database.\n" * 100)
    done = run_verity("serve", VERITY_DATABASE=url.format(tmp_path), VERITY_PORT="0")
    assert (done.returncode, done.stdout) == (3, "")
    assert says in one_line(done.stderr)
    assert "hunter2" not in done.stderr


def test_usage_errors() -> None:
    assert run_verity("serve").returncode == 2
    assert run_verity("serve", "--database", "sqlite:///x.db", "--port", "70000").returncode == 2
    assert run_verity("nonsense").returncode == 2
