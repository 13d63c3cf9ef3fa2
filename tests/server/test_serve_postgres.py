"""`verity serve` on a PostgreSQL that dies, hangs, turns read-only or fails over: 503, and the truth afterwards."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.concurrency import OF_PROCESSES_S, sync_until
from tests.helpers.postgres import PostgresServer, find_binaries
from tests.helpers.store_calls import Caller
from tests.helpers.verity_process import ServeProcess, run_verity, serving
from verity._store.postgres.store import PostgresStore
from verity.server.api_keys import issue


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """One that tests may kill."""
    with PostgresServer() as server:
        yield server


class Client:
    """A client of a node. Each request is sent once."""

    def __init__(self, base_url: str, key: str) -> None:
        self._http = httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def ask(self, operation: str, body: Any) -> httpx.Response:
        return self._http.post(f"/effects/payments/{operation}", json=body)

    def __call__(self, operation: str, body: Any) -> Any:
        """The JSON of a success."""
        return self.ask(operation, body).raise_for_status().json()

    def unavailable(self, operation: str, body: Any) -> bool:
        """Whether it is answered with 503, and with when to come again."""
        answer = self.ask(operation, body)
        return (answer.status_code, answer.headers.get("retry-after")) == (503, "1")

    def until_answered(self, operation: str, body: Any) -> Any:
        """Ask until it is not 503 any more."""
        answers: list[httpx.Response] = []

        def is_answered() -> bool:
            answers.append(self.ask(operation, body))
            return answers[-1].status_code != 503

        sync_until(is_answered, OF_PROCESSES_S)
        return answers[-1].raise_for_status().json()

    def close(self) -> None:
        self._http.close()


def create_key(url: str) -> str:
    key, record = issue("test", "agent", now=0)
    store = PostgresStore(url)
    store.insert_key(record)
    store.close()
    return key


@contextmanager
def node_on(url: str, directory: Path, *options: str) -> Iterator[tuple[ServeProcess, Client]]:
    key = create_key(url)
    with serving(directory, "--database", url, *options) as node:
        client = Client(node.base_url, key)
        yield node, client
        client.close()
    assert "Traceback" not in node.log


def send(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)


@pytest.mark.parametrize("is_crash", [True, False])
def test_a_database_that_is_away_is_503_at_once_and_comes_back(
    postgres: PostgresServer, tmp_path: Path, is_crash: bool
) -> None:
    with node_on(postgres.create_database(), tmp_path) as (_, client):
        lease = client("lease", {"effectKey": "k"})
        body = {**Caller.tokens(lease), "result": 1}
        postgres.kill() if is_crash else postgres.stop()
        assert all(client.unavailable("commit", body) for _ in range(20))
        assert client.unavailable("lease", {"effectKey": "other"})
        postgres.start()
        assert client.until_answered("commit", body)["status"] == "accepted"
        assert client("lease", {"effectKey": "k"})["cachedResult"] == 1


def test_a_database_that_hangs_is_503_in_time(postgres: PostgresServer, tmp_path: Path) -> None:
    with node_on(postgres.create_database(), tmp_path, "--database-timeout", "0.3") as (_, client):
        lease = client("lease", {"effectKey": "k"})
        body = {**Caller.tokens(lease), "result": 1}
        frozen = postgres.processes()
        send(frozen, signal.SIGSTOP)
        try:
            assert client.unavailable("commit", body)
            assert client.unavailable("lease", {"effectKey": "other"})
        finally:
            send(frozen, signal.SIGCONT)
        # Whether it was done meanwhile is chance; that it is done once is not.
        assert client.until_answered("commit", body)["status"] in ("accepted", "already_committed")
        assert client.until_answered("lease", {"effectKey": "k"})["cachedResult"] == 1


def test_a_primary_that_takes_no_more_writes(postgres: PostgresServer, tmp_path: Path) -> None:
    with node_on(postgres.create_database(), tmp_path) as (_, client):
        lease = client("lease", {"effectKey": "k"})
        body = {**Caller.tokens(lease), "result": 1}
        postgres.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        postgres.execute("SELECT pg_reload_conf()")
        for _ in range(1_000):
            if client.unavailable("commit", body):
                break
            lease = client("lease", {"effectKey": f"{lease['effectKey']}."})  # it had not heard of it yet
            body = {**Caller.tokens(lease), "result": 1}
        assert client.unavailable("commit", body)
        postgres.execute("ALTER SYSTEM RESET default_transaction_read_only", database="postgres")
        postgres.execute("SELECT pg_reload_conf()")
        assert client.until_answered("commit", body)["status"] == "accepted"


def test_a_fail_over(tmp_path: Path) -> None:
    if not (find_binaries() / "pg_basebackup").exists():
        pytest.skip("this PostgreSQL comes without pg_basebackup")
    with PostgresServer() as primary, primary.standby() as standby:
        url = primary.create_database()
        name = url.rpartition("/")[2]
        both = f"postgresql://postgres@127.0.0.1:{standby.port},127.0.0.1:{primary.port}/{name}"
        with node_on(both, tmp_path) as (_, client):
            leases = [client("lease", {"effectKey": f"k{number}"}) for number in range(10)]
            for lease in leases:
                client("commit", {**Caller.tokens(lease), "result": lease["effectKey"]})
            running = client("lease", {"effectKey": "running"})
            primary.kill()
            assert client.unavailable("commit", {**Caller.tokens(running), "result": 1})
            standby.execute("SELECT pg_promote()")
            assert client.until_answered("commit", {**Caller.tokens(running), "result": 1})["status"] == "accepted"
            for lease in leases:
                assert client("lease", {"effectKey": lease["effectKey"]})["cachedResult"] == lease["effectKey"]


def test_a_host_that_is_silent_does_not_keep_the_others_from_their_turn(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """A server whose machine is gone answers nothing, not even that it is not there."""
    url = postgres.create_database()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        both = url.replace("127.0.0.1:", f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:")
        with node_on(both, tmp_path) as (_, client):
            assert client("lease", {"effectKey": "k"})["status"] == "granted"


def test_sigterm_finishes_what_has_begun(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.create_database()
    name = url.rpartition("/")[2]
    with node_on(url, tmp_path) as (node, client), ThreadPoolExecutor() as threads:
        leases = [client("lease", {"effectKey": f"k{number}"}) for number in range(20)]
        postgres.execute(
            "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END $$;"
            "CREATE TRIGGER pause BEFORE UPDATE ON effects FOR EACH STATEMENT EXECUTE FUNCTION pause()",
            name,
        )
        commits = [
            threads.submit(client.ask, "commit", {**Caller.tokens(lease), "result": lease["effectKey"]})
            for lease in leases
        ]
        under_way = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        sync_until(lambda: bool(postgres.query(under_way, name)), OF_PROCESSES_S)
        node.send(signal.SIGTERM)
        assert node.wait() == 0
        answers = [commit.exception() or commit.result() for commit in commits]
    committed = {row[0] for row in postgres.query("SELECT effect_key FROM effects WHERE status = 'COMMITTED'", name)}
    told = {lease["effectKey"] for lease, answer in zip(leases, answers, strict=True) if _is_success(answer)}
    assert told, "what had begun was answered"
    assert told <= committed
    assert all(_is_success(answer) or isinstance(answer, httpx.TransportError) for answer in answers)


def _is_success(answer: object) -> bool:
    return isinstance(answer, httpx.Response) and answer.status_code == 200


def test_a_database_that_can_not_be_used_ends_the_start(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.create_database()
    postgres.execute("CREATE ROLE nobody_much LOGIN")
    done = run_verity("serve", "--database", url.replace("postgres@", "nobody_much:secret@"), "--port", "0")
    assert (done.returncode, done.stdout) == (3, "")
    assert "permission denied" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("encoding", "exit_code"), [("LATIN1", 3), ("SQL_ASCII", 0)])
def test_a_database_that_can_not_hold_every_text(postgres: PostgresServer, encoding: str, exit_code: int) -> None:
    """It would refuse a result, after its act."""
    name = f"in_{encoding.lower()}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
    done = run_verity("migrate", "--database", postgres.url(name))
    assert done.returncode == exit_code
    assert ("ENCODING 'UTF8'" in done.stderr) == (exit_code == 3)
    if exit_code == 0:
        call = Caller(PostgresStore(postgres.url(name)))
        call.commit("Überweisung", "日本 \U0001f600")
        assert call("get_effect", effectKey="Überweisung")["result"] == "日本 \U0001f600"
        call.store.close()


def test_dangers_are_told_at_the_start(tmp_path: Path) -> None:
    with PostgresServer(fsync="off") as careless, node_on(careless.create_database(), tmp_path) as (node, _):
        assert "acknowledged commits are in danger: fsync is off" in node.log


def test_a_node_told_so_makes_no_ledger(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    done = run_verity("serve", "--port", "0", "--existing", "--database", url)
    assert done.returncode == 3
    assert "no ledger in the database" in done.stderr
    assert "not wanted" in done.stderr
    assert not postgres.query("SELECT 1 FROM pg_tables WHERE tablename = 'effects'", url.rpartition("/")[2])
