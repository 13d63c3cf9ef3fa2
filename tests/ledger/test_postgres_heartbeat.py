"""Which outages the nodes of a PostgreSQL database notice, by a database's clock that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from tests.helpers.postgres import execute
from tests.helpers.postgres_nodes import Node, node_on
from tests.helpers.served_ledger import DATABASE_CLOCK, DatabaseClock
from tests.helpers.store_calls import Caller
from verity._ledger.outages import Outage
from verity._store.lease_states import EffectName
from verity._store.postgres.async_store import AsyncPostgresStore
from verity._store.postgres.database import connect

LEASE = {"effectKey": "k", "leaseDurationMs": 5_000}
GRANTED, IN_GRACE = (200, "granted"), (409, "lease_conflict")


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's."""
    return "asyncio"


class Nodes:
    """Nodes whose heart beats when the test says so."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.clock = DatabaseClock(lambda script: execute(url, script))
        self.outages: list[Outage] = []
        self._url = url
        self._stack = stack

    async def start(self) -> Node:
        node = await self._stack.enter_async_context(node_on(self._url, clock=DATABASE_CLOCK))
        node.store.watch_outages(self.outages.append)
        await self.beat(node)
        return node

    async def beat(self, node: Node) -> None:
        await node.store._heartbeat.beat()

    async def pass_time(self, ms: int, *nodes: Node) -> None:
        """Time passes, and these nodes beat."""
        for _ in range(ms // 500):
            self.clock.advance(500)
            for node in nodes:
                await self.beat(node)


@pytest.fixture
async def nodes(postgres_url: str) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        yield Nodes(postgres_url, stack)


async def lease(node: Node, key: str = "k") -> tuple[int, str]:
    answer = await node.ask("lease", {**LEASE, "effectKey": key})
    return answer.status, answer.outcome[0]


async def test_a_node_that_beats_lets_leases_expire(nodes: Nodes) -> None:
    node = await nodes.start()
    assert await lease(node) == GRANTED
    await nodes.pass_time(5_000, node)
    assert await lease(node) == GRANTED
    assert nodes.outages == []


async def test_a_lease_request_before_the_first_heartbeat_after_an_outage_is_refused(nodes: Nodes) -> None:
    """The database was away, or all nodes were frozen, or the database's clock jumped."""
    node = await nodes.start()
    assert await lease(node) == GRANTED
    assert await lease(node, "other") == GRANTED
    nodes.clock.advance(7_000)
    answer = await node.ask("lease", LEASE)
    assert (answer.status, answer.outcome) == (409, ("lease_conflict", "grace"))
    for operation, body in (("reset", {}), ("resolve", {"result": 1})):
        assert await node.code(operation, {"effectKey": "k", **body}) == IN_GRACE
    (state,) = await node.store.lease_states([EffectName("test", "payments", "k")])
    assert state.remaining_ms == 5_000
    assert nodes.outages == []
    await nodes.beat(node)
    assert nodes.outages == [Outage(nodes.clock() - 7_000, nodes.clock())]
    assert await lease(node) == IN_GRACE
    (state,) = await node.store.lease_states([EffectName("test", "payments", "k")])
    assert state.remaining_ms == 5_000
    await nodes.pass_time(4_500, node)
    assert await lease(node) == IN_GRACE
    await nodes.pass_time(500, node)
    assert await lease(node) == GRANTED
    assert await lease(node, "other") == GRANTED
    assert len(nodes.outages) == 1


async def test_time_that_the_clock_jumped_over_is_no_settle_time(nodes: Nodes) -> None:
    node = await nodes.start()
    held = await node("lease", LEASE)
    await node("release", {**Caller.tokens(held), "acted": "unknown", "settleMs": 30_000})
    nodes.clock.advance(60_000)
    for _ in range(2):  # before and after the outage is recorded
        assert await node.code("lease", LEASE) == (409, "lease_conflict")
        (state,) = await node.store.lease_states([EffectName("test", "payments", "k")])
        assert state.remaining_ms == 30_000
        await nodes.beat(node)
    await nodes.pass_time(29_500, node)
    assert await node.code("lease", LEASE) == (409, "lease_conflict")
    await nodes.pass_time(500, node)
    assert await lease(node) == GRANTED


async def test_the_outage_of_all_nodes_is_recorded_by_the_first_that_starts(nodes: Nodes) -> None:
    one = await nodes.start()
    assert await lease(one) == GRANTED
    nodes.clock.advance(7_000)
    two = await nodes.start()
    assert len(nodes.outages) == 1
    for node in (one, two):
        assert await lease(node) == IN_GRACE
    await nodes.pass_time(5_000, two)
    assert await lease(one) == GRANTED
    assert len(nodes.outages) == 1


async def test_one_node_of_several_is_no_outage(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    assert await lease(one) == GRANTED
    await nodes.pass_time(5_000, two)
    assert await lease(one) == GRANTED
    assert nodes.outages == []


async def test_several_nodes_write_as_often_as_one(nodes: Nodes, sql: Any) -> None:
    some = [await nodes.start() for _ in range(3)]
    before = await sql.fetchval("SELECT xmin::text FROM heartbeat")
    for node in some:
        await nodes.beat(node)
    assert await sql.fetchval("SELECT xmin::text FROM heartbeat") == before
    nodes.clock.advance(500)
    for node in some:
        await nodes.beat(node)
    once = await sql.fetchval("SELECT xmin::text FROM heartbeat")
    assert once != before


async def set_standbys(sql: Any, names: str) -> None:
    await sql.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    await sql.execute("SELECT pg_reload_conf()")
    with anyio.fail_after(30):
        while await sql.fetchval("SHOW synchronous_standby_names") != names:
            await anyio.lowlevel.checkpoint()


async def test_a_heartbeat_does_not_wait_for_a_standby(nodes: Nodes, sql: Any) -> None:
    node = await nodes.start()
    async with node.store._database.connection() as session:
        before = await session.fetchval("SELECT current_setting('synchronous_commit')")
    nodes.clock.advance(500)
    try:
        await set_standbys(sql, "nobody")
        with anyio.fail_after(30):
            await nodes.beat(node)
        assert await sql.fetchval("SELECT alive_at FROM heartbeat") == nodes.clock()
    finally:
        await set_standbys(sql, "")
    async with node.store._database.connection() as session:
        assert await session.fetchval("SELECT current_setting('synchronous_commit')") == before


async def test_a_heartbeat_that_the_database_refuses_is_no_outage_without_an_end(
    nodes: Nodes, sql: Any, caplog: pytest.LogCaptureFixture
) -> None:
    node = await nodes.start()
    assert await lease(node) == GRANTED
    await sql.execute(
        "CREATE TRIGGER refuses BEFORE UPDATE ON heartbeat FOR EACH ROW EXECUTE FUNCTION verity_refuse('no')"
    )
    await nodes.pass_time(3_000, node)
    assert await lease(node) == (409, "lease_conflict"), "it is live"
    await nodes.pass_time(2_000, node)
    assert await lease(node) == GRANTED
    await sql.execute("DROP TRIGGER refuses ON heartbeat")
    assert [line for line in caplog.messages if "refuses this node's heartbeat" in line] == [
        "the database refuses this node's heartbeat, so outages are not noticed: IntegrityConstraintViolationError"
    ]
    await nodes.beat(node)
    assert len(nodes.outages) == 1, "nobody knows better"
    await nodes.pass_time(5_000, node)
    assert await lease(node) == GRANTED


async def test_a_lock_that_keeps_holders_from_renewing_is_an_outage(nodes: Nodes, sql: Any) -> None:
    node = await nodes.start()
    assert await lease(node) == GRANTED
    async with sql.transaction():
        await sql.execute("LOCK TABLE effects IN SHARE MODE")  # as CREATE INDEX does
        await nodes.pass_time(5_000, node)
    await nodes.beat(node)
    assert len(nodes.outages) == 1
    assert await lease(node) == IN_GRACE
    await nodes.pass_time(5_000, node)
    assert await lease(node) == GRANTED


async def test_a_clock_that_is_set_back_is_no_outage(nodes: Nodes) -> None:
    node = await nodes.start()
    nodes.clock.advance(-3_600_000)
    await nodes.beat(node)
    assert await lease(node) == GRANTED
    await nodes.pass_time(5_000, node)
    assert await lease(node) == GRANTED
    assert nodes.outages == []


async def test_a_command_counts_recorded_outages_alone(nodes: Nodes, postgres_url: str) -> None:
    """While no node runs, an admin can resolve what is stuck."""
    node = await nodes.start()
    assert await lease(node) == GRANTED
    nodes.clock.advance(7_000)
    database = await connect(postgres_url)
    command = Node(AsyncPostgresStore(database, clock=DATABASE_CLOCK))
    assert (await command("resolve", {"effectKey": "k", "result": 1}))["status"] == "resolved"
    await database.close()


async def test_the_silence_of_older_nodes_is_one_outage_that_ends(nodes: Nodes, postgres_url: str) -> None:
    """A rolling upgrade that was rolled back for an hour: nodes without a heartbeat worked on the database."""
    one = await nodes.start()
    older = await nodes._stack.enter_async_context(node_on(postgres_url, clock=DATABASE_CLOCK))
    nodes.clock.advance(3_598_000)
    assert await lease(older) == GRANTED
    nodes.clock.advance(5_000)
    await nodes.beat(one)
    assert len(nodes.outages) == 1
    assert await lease(one) == IN_GRACE
    await nodes.pass_time(5_000, one)
    assert await lease(one) == GRANTED
    assert len(nodes.outages) == 1


async def test_a_database_that_is_away_does_not_end_the_heartbeat(nodes: Nodes, postgres_url: str) -> None:
    await nodes.start()
    database = await connect(postgres_url)
    store = AsyncPostgresStore(database, clock=DATABASE_CLOCK)
    await store._heartbeat.beat()
    await database.close()
    await store._heartbeat.beat()
    assert store._heartbeat.is_beating
