"""The PostgreSQL store where a standby has to confirm commits, and its wait is cut off: nothing is told as done.

No standby ever comes here; tests/failover has real ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import asyncpg
import pytest

from tests.helpers.postgres import PostgresServer
from tests.helpers.postgres_nodes import Node, node_on
from tests.helpers.store_calls import Caller
from verity._store.interface import StorageError
from verity._store.postgres.database import Database, connect
from verity._store.postgres.migrations import SCHEMA_VERSION, migrate
from verity.server.api_keys import issue

CUT_OFF = "SELECT pg_{how}_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
CANCEL, TERMINATE = "cancel", "terminate"
both_ways = pytest.mark.parametrize("how", [CANCEL, TERMINATE])


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's."""
    return "asyncio"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


class Standbys:
    """Says whether commits wait, and cuts waits off."""

    def __init__(self, server: PostgresServer, connection: Any, url: str) -> None:
        self.url = url
        self._server = server
        self._connection = connection

    async def require(self, names: str) -> None:
        """Returns when the server has taken note."""
        await self._connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await self._connection.execute("SELECT pg_reload_conf()")
        probe = await asyncpg.connect(self._server.url(), ssl=False)
        with anyio.fail_after(60):
            while (await self._waits(probe)) != bool(names):
                pass
        probe.terminate()

    async def _waits(self, probe: Any) -> bool:
        writing = asyncio.ensure_future(probe.execute("SELECT pg_logical_emit_message(true, 'probe', '')"))
        while not writing.done():
            await asyncio.sleep(0.01)
            waiting = await self._connection.fetch(CUT_OFF.format(how=CANCEL) + " AND query LIKE '%probe%'")
            if waiting:
                await writing
                return True
        return False

    async def while_cut_off(self, how: str, work: Awaitable[Any]) -> Any:
        """What work comes to, while each wait for a standby is cut off."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await self._connection.execute(CUT_OFF.format(how=how))
            await asyncio.sleep(0.005)
        return await task

    async def execute(self, sql: str) -> None:
        await self._connection.execute(sql)


@pytest.fixture
async def standbys(server: PostgresServer) -> AsyncIterator[Standbys]:
    url = server.create_database()
    connection = await asyncpg.connect(url, ssl=False)
    await connection.execute("SET synchronous_commit = local")
    standbys = Standbys(server, connection, url)
    yield standbys
    await standbys.require("")
    await connection.close()
    server.drop_database(url)


@pytest.fixture
async def node(standbys: Standbys) -> AsyncIterator[Node]:
    async with node_on(standbys.url, statement_timeout_s=0.2) as node:
        await node.warm_up()
        yield node


@pytest.fixture
async def other(standbys: Standbys) -> AsyncIterator[Node]:
    async with node_on(standbys.url, statement_timeout_s=0.2) as node:
        yield node


def unavailable(answer: Any) -> bool:
    return (answer.status, answer.headers.get("retry-after")) == (503, "1")


@both_ways
@pytest.mark.parametrize("operation", ["lease", "commit", "fail", "renew", "reset"])
async def test_a_write_whose_wait_was_cut_off_is_no_success(
    node: Node, other: Node, standbys: Standbys, operation: str, how: str
) -> None:
    lease = Caller.tokens(await node("lease", {"effectKey": "k"}))
    body: dict[str, Any] = {
        "lease": {"effectKey": "new"},
        "commit": {**lease, "result": 1},
        "fail": {**lease, "error": 1},
        "renew": lease,
        "reset": {"effectKey": "k", "force": True},
    }[operation]
    await standbys.require("nobody")
    assert unavailable(await standbys.while_cut_off(how, node.ask(operation, body, key="mine")))
    if operation in ("commit", "fail"):  # it is there for everybody now
        for each in (node, other):
            for asked in (("lease", {"effectKey": "k"}), (operation, body)):
                assert unavailable(await standbys.while_cut_off(how, each.ask(*asked)))
    await standbys.require("")
    status = json.loads((await other.ask(operation, body, key="mine")).body).get("status")
    assert status in ("granted", "already_committed", "already_failed", "renewed", "already_reset")


async def test_what_others_read_waits_for_the_standby_even_if_it_comes_to_be_required_later(
    node: Node, other: Node, standbys: Standbys
) -> None:
    lease = Caller.tokens(await node("lease", {"effectKey": "k"}))
    await node("commit", {**lease, "result": 1})
    await standbys.require("nobody")
    assert unavailable(await other.ask("lease", {"effectKey": "k"}))
    assert unavailable(await other.ask("commit", {**lease, "result": 1}))
    assert await other.code("commit", {**lease, "effectKey": "nothing", "result": 1}) == (404, "effect_not_found")
    await standbys.require("")
    assert (await other("lease", {"effectKey": "k"}))["cachedResult"] == 1


async def test_a_cut_off_proof_proves_nothing(node: Node, standbys: Standbys) -> None:
    lease = Caller.tokens(await node("lease", {"effectKey": "k"}))
    await node("commit", {**lease, "result": 1})
    await standbys.require("nobody")
    for how in (CANCEL, TERMINATE):
        assert unavailable(await standbys.while_cut_off(how, node.ask("lease", {"effectKey": "k"})))


async def test_a_write_of_the_same_batch_that_wrote_nothing_proves_nothing(node: Node, standbys: Standbys) -> None:
    failed, locked = [{**Caller.tokens(await node("lease", {"effectKey": key})), "error": 1} for key in ("f", "l")]
    await node("fail", failed)
    locker = await asyncpg.connect(standbys.url, ssl=False)
    await locker.execute("SET synchronous_commit = local")
    async with locker.transaction():
        await locker.execute("SELECT FROM effects WHERE effect_key = 'l' FOR UPDATE")
        await standbys.require("nobody")
        answers = await asyncio.gather(node.ask("fail", failed), node.ask("fail", locked))
        assert [unavailable(answer) for answer in answers] == [True, True]
    await locker.close()


async def test_a_live_lease_is_a_conflict_without_any_proof(node: Node, other: Node, standbys: Standbys) -> None:
    """Whoever polls for it costs the log nothing."""
    await node("lease", {"effectKey": "k"})
    await standbys.require("nobody")
    assert await other.code("lease", {"effectKey": "k"}) == (409, "lease_conflict")


async def test_the_servers_warning_is_heard_whatever_the_databases_settings(standbys: Standbys) -> None:
    name = standbys.url.rpartition("/")[2]
    await standbys.execute(f"ALTER DATABASE {name} SET client_min_messages = error")
    async with node_on(standbys.url, statement_timeout_s=0.2) as node:
        lease = Caller.tokens(await node("lease", {"effectKey": "k"}))
        await standbys.require("nobody")
        assert unavailable(await standbys.while_cut_off(CANCEL, node.ask("commit", {**lease, "result": 1})))


async def test_a_warning_of_the_owners_own_function_means_nothing(node: Node, standbys: Standbys) -> None:
    lease = Caller.tokens(await node("lease", {"effectKey": "k"}))
    await standbys.execute(
        "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE WARNING 'look out'; RETURN NEW; END $$;"
        "CREATE TRIGGER warn BEFORE UPDATE ON effects FOR EACH ROW EXECUTE FUNCTION warn()"
    )
    assert (await node("commit", {**lease, "result": 1}))["status"] == "accepted"


@both_ways
async def test_a_key_is_made_and_revoked_where_it_has_to_be(node: Node, standbys: Standbys, how: str) -> None:
    store = node.store
    _, first = issue("test", "agent", now=0)
    _, second = issue("test", "agent", now=0)
    await store.insert_key(first)
    await standbys.require("nobody")
    with pytest.raises(StorageError):
        await standbys.while_cut_off(how, store.insert_key(second))
    for _ in range(2):  # the second time it finds it revoked
        with pytest.raises(StorageError):
            await standbys.while_cut_off(how, store.revoke_key(first.id, 1))
    await standbys.require("")
    assert await store.revoke_key(first.id, 2)
    found = await store.find_key(first.sha256)
    assert found is not None
    assert found.revoked_at == 1


@asynccontextmanager
async def _database(url: str) -> AsyncIterator[Database]:
    database = await connect(url, statement_timeout_s=0.2)
    yield database
    await database.close()


async def test_a_migration_without_its_standby_ends_with_an_error_and_can_be_repeated(
    server: PostgresServer, node: Node, standbys: Standbys
) -> None:
    fresh = server.create_database()
    await standbys.require("nobody")
    for url in (fresh, standbys.url):  # one that has all to do, and one that has nothing to do
        async with _database(url) as database:
            with pytest.raises(StorageError):
                await standbys.while_cut_off(CANCEL, migrate(database))
    await standbys.require("")
    async with _database(fresh) as database:
        await migrate(database)
        assert (await migrate(database)) == (SCHEMA_VERSION, SCHEMA_VERSION)
    server.drop_database(fresh)
