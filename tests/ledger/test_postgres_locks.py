"""The PostgreSQL store when somebody else holds a lock, or a row is slow: nothing else waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.helpers.postgres import PostgresServer
from tests.helpers.postgres_nodes import Node, node_on, trail
from tests.helpers.store_calls import Caller
from verity._store.postgres.database import SPARE, STATEMENT_TIMEOUT_S, Use, limits_for

HOLDERS = 12
_SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM {what}; RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE UPDATE ON effects FOR EACH ROW WHEN (OLD.effect_key = 'k0') EXECUTE FUNCTION slow();
"""


_STUCK = """
CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WHILE NOT EXISTS (SELECT FROM released) LOOP PERFORM pg_sleep(0.02); END LOOP;
    RETURN NEW;
END $$;
CREATE TRIGGER stuck BEFORE UPDATE ON effects FOR EACH ROW WHEN (NEW.status = 'FAILED') EXECUTE FUNCTION stuck();
"""
_SLEEPERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's."""
    return "asyncio"


@pytest.fixture
async def node(postgres_url: str) -> AsyncIterator[Node]:
    async with node_on(postgres_url, statement_timeout_s=2) as node:
        await node.warm_up()
        yield node


@pytest.fixture
async def locker(postgres_url: str) -> AsyncIterator[Any]:
    """A session in a transaction that nobody ends before the test does."""
    connection = await asyncpg.connect(postgres_url, ssl=False)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


async def leases_of(node: Node, count: int = HOLDERS, duration_ms: int = 60_000) -> list[dict[str, Any]]:
    keys = [f"k{number}" for number in range(count)]
    bodies = [{"effectKey": key, "leaseDurationMs": duration_ms} for key in keys]
    return [Caller.tokens(lease) for lease in await asyncio.gather(*(node("lease", body) for body in bodies))]


async def statuses(node: Node, operation: str, bodies: list[dict[str, Any]]) -> list[int]:
    return [answer.status for answer in await asyncio.gather(*(node.ask(operation, body) for body in bodies))]


async def lock(locker: Any, *keys: str) -> None:
    await locker.execute("SELECT FROM effects WHERE effect_key = ANY ($1) FOR UPDATE", keys)


@pytest.mark.parametrize("rows", [1, HOLDERS - 2])
async def test_locked_rows_keep_no_other_lease_from_its_renewal(node: Node, locker: Any, rows: int) -> None:
    """Others that went out in the same batch, and those that came later, are renewed while the lock is held."""
    holders = await leases_of(node)
    await lock(locker, *(f"k{number}" for number in range(rows)))
    held = [asyncio.ensure_future(node.ask("renew", body)) for body in holders[:rows]]
    for _ in range(3):
        assert await statuses(node, "renew", holders[rows:]) == [200] * (HOLDERS - rows)
    assert not any(task.done() for task in held), "the lock was held all the time"
    answers = await asyncio.gather(*held)
    assert {(answer.status, answer.headers["retry-after"]) for answer in answers} == {(503, "1")}
    assert all(b"nothing was carried out" in answer.body for answer in answers)
    assert await trail(locker, "k0") == ["LEASE_GRANTED"]


@pytest.mark.parametrize("operation", ["commit", "fail"])
async def test_a_locked_row_holds_up_no_other_call(node: Node, locker: Any, operation: str) -> None:
    holders = await leases_of(node)
    bodies = [{**body, "result" if operation == "commit" else "error": 1} for body in holders]
    await lock(locker, "k0")
    held = asyncio.ensure_future(node.ask(operation, bodies[0]))
    assert await statuses(node, operation, bodies[1:]) == [200] * (HOLDERS - 1)
    assert not held.done()
    assert (await held).status == 503


async def test_a_call_goes_through_as_soon_as_the_lock_is_gone(node: Node, postgres_url: str) -> None:
    (lease,) = await leases_of(node, 1)
    other = await asyncpg.connect(postgres_url, ssl=False)
    async with other.transaction():
        await lock(other, "k0")
        commits = [asyncio.ensure_future(node("commit", {**lease, "result": number})) for number in range(3)]
        for _ in range(20):
            assert await leases_of(node, 0) == []
            await node.ask("lease", {"effectKey": "another"})
    await other.close()
    answers = [answer["status"] for answer in await asyncio.gather(*commits)]
    assert sorted(answers) == ["accepted", "already_committed", "already_committed"]


async def test_a_row_that_somebody_inserts_holds_up_no_other_lease(node: Node, locker: Any) -> None:
    """The same key, in a transaction that is not over: whether it will be there is not known yet."""
    await node("lease", {"effectKey": "pattern"})
    columns = await locker.fetch("SELECT attname FROM pg_attribute WHERE attrelid = 'effects'::regclass AND attnum > 0")
    names = [name for (name,) in columns]
    # What the node would insert, by the hash of its name.
    name = node.name_of("k0")
    values = ", ".join({"key_hash": "$1", "id": "id + 1", "effect_key": "'k0'"}.get(name, name) for name in names)
    await locker.execute(f"INSERT INTO effects SELECT {values} FROM effects WHERE effect_key = 'pattern'", name[2])
    held = asyncio.ensure_future(node.ask("lease", {"effectKey": "k0"}))
    for number in range(1, 5):
        assert (await node("lease", {"effectKey": f"k{number}"}))["status"] == "granted"
    others = [{"effectKey": f"m{number}"} for number in range(HOLDERS)]
    held_too = asyncio.ensure_future(node.ask("lease", {"effectKey": "k0"}))
    assert await statuses(node, "lease", others) == [200] * HOLDERS
    assert not held.done()
    assert (await held).status == 503
    assert (await held_too).status == 503


async def test_a_locked_table_is_503_in_time_and_forgotten_afterwards(node: Node, postgres_url: str) -> None:
    holders = await leases_of(node, 10 * HOLDERS)
    other = await asyncpg.connect(postgres_url, ssl=False)
    async with other.transaction():
        await other.execute("LOCK TABLE effects IN SHARE MODE")  # what CREATE INDEX takes
        assert set(await statuses(node, "renew", holders)) == {503}
    await other.close()
    assert set(await statuses(node, "renew", holders)) == {200}


@pytest.mark.parametrize("what", ["pg_sleep(600)", "pg_advisory_xact_lock(1)"])
async def test_a_slow_row_holds_up_nobody_else(node: Node, locker: Any, sql: Any, what: str) -> None:
    await locker.execute("SELECT pg_advisory_xact_lock(1)")
    holders = await leases_of(node)
    await sql.execute(_SLOW.format(what=what))
    held = asyncio.ensure_future(node.ask("renew", holders[0]))
    assert await statuses(node, "renew", holders[1:]) == [200] * (HOLDERS - 1)
    commits = [{**body, "result": 1} for body in holders]
    held_too = asyncio.ensure_future(node.ask("commit", commits[0]))
    await asyncio.sleep(0)
    assert await statuses(node, "commit", commits[1:4]) == [200] * 3
    assert await statuses(node, "commit", commits[4:]) == [200] * (HOLDERS - 4)
    assert (await held).status == 503
    assert (await held_too).status == 503


async def test_a_forced_reset_that_may_have_happened_is_not_to_be_sent_again(postgres_url: str, sql: Any) -> None:
    """Nor where an earlier call has shown that its row is slow."""
    async with node_on(postgres_url, statement_timeout_s=0.3) as node:
        (lease,) = await leases_of(node, 1)
        await sql.execute(_SLOW.format(what="pg_sleep(600)"))
        assert await statuses(node, "renew", [lease]) == [503]
        answer = await node.ask("reset", {"effectKey": "k0", "force": True})
        assert answer.status == 503
        assert b"is unknown. Look at the effect before" in answer.body


async def test_renewals_stand_behind_no_other_calls(
    postgres_server: PostgresServer, postgres_url: str, sql: Any
) -> None:
    """Not even when all the connections that other calls may have are taken."""
    given_up = "canceling statement due to statement timeout"
    before = postgres_server.log.count(given_up)
    async with node_on(postgres_url) as node:
        holders = await leases_of(node)
        await sql.execute("CREATE TABLE released (); " + _STUCK)
        held = []
        for number in range(1 + SPARE):
            held.append(asyncio.ensure_future(node.ask("fail", {**holders[number], "error": 1})))
            while await sql.fetchval(_SLEEPERS) <= number:
                assert not held[number].done()
        assert await statuses(node, "renew", holders[-3:]) == [200] * 3
        assert postgres_server.log.count(given_up) == before, "they are all under way still"
        await sql.execute("INSERT INTO released DEFAULT VALUES")
        assert [answer.status for answer in await asyncio.gather(*held)] == [200] * (1 + SPARE)


def test_no_lock_is_waited_for_as_long_as_the_shortest_lease_lasts() -> None:
    limits = limits_for(1, 4, STATEMENT_TIMEOUT_S)
    assert all(0 < limits[use].lock_timeout_s <= 0.5 for use in (Use.CALLS, Use.RENEWALS, Use.SINGLES, Use.PATIENT))
    assert limits[Use.RENEWALS].statement_timeout_s <= 1


async def test_the_limits_hold_on_the_connections(node: Node) -> None:
    async with node.store._database.connection(Use.RENEWALS) as session:
        assert await session.fetchval("SHOW lock_timeout") == "250ms"
        assert await session.fetchval("SHOW statement_timeout") == "1s"


async def test_what_is_refused_holds_up_nobody_else(node: Node, sql: Any) -> None:
    """Each is tried alone, in another queue: a renewal that was in the batch does not stand behind the refusals."""
    holders = await leases_of(node)
    await sql.execute(
        "ALTER TABLE events ADD CONSTRAINT odd CHECK (effect % 2 = 0 OR type = 'LEASE_GRANTED') NOT VALID"
    )
    answers = await statuses(node, "renew", holders)
    assert set(answers) <= {200, 500}
    even = [row[0] % 2 == 0 for row in await sql.fetch("SELECT id FROM effects WHERE effect_key LIKE 'k%' ORDER BY id")]
    assert answers.count(200) == even.count(True)


async def test_a_lock_that_is_known_costs_no_batch_any_time_and_is_forgotten_afterwards(
    node: Node, postgres_server: PostgresServer, postgres_url: str, sql: Any
) -> None:
    (lease,) = await leases_of(node, 1)
    given_up = "canceling statement due to lock timeout"
    other = await asyncpg.connect(postgres_url, ssl=False)
    async with other.transaction():
        await lock(other, "k0")
        assert await statuses(node, "commit", [{**lease, "result": 1}]) == [503]
        known = postgres_server.log.count(given_up)
        assert known
        assert await statuses(node, "commit", [{**lease, "result": 1}]) == [503]
        assert postgres_server.log.count(given_up) == known
    await other.close()
    assert (await node("commit", {**lease, "result": 1}))["status"] == "accepted"
    assert not node.store._calls._detours
    assert (await node("lease", {"effectKey": "k0"}))["cachedResult"] == 1
    assert await trail(sql, "k0") == ["LEASE_GRANTED", "COMMITTED"]
