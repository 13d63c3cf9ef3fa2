"""The PostgreSQL store when the database refuses, collides, hangs on a lock, or is full."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from tests.helpers.postgres import PostgresServer
from tests.helpers.postgres_nodes import Node, node_on, trail, until_somebody_waits
from tests.helpers.store_calls import Caller
from verity._store.interface import StorageError
from verity._store.lease_states import EffectName
from verity._store.postgres.database import Use, connect, find_dangers
from verity._store.postgres.dispatch import MAX_COLLISIONS
from verity._store.postgres.pending import Ids
from verity._store.postgres.statements import CLOCK
from verity.errors import VerityConfigError

_REFUSE = """
CREATE SEQUENCE refusals;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('refusals') <= {times} THEN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE {event} ON effects FOR EACH STATEMENT EXECUTE FUNCTION refuse();
"""
SERIALIZATION, DEADLOCK, LOCKED, UNKNOWN = "40001", "40P01", "55P03", "40003"
FULL, READ_ONLY, SHUTDOWN, IO = "53100", "25006", "57P01", "58030"


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's."""
    return "asyncio"


@pytest.fixture
async def node(postgres_url: str) -> AsyncIterator[Node]:
    async with node_on(postgres_url) as node:
        await node.warm_up()
        yield node


async def refuse(sql: Any, code: str, times: int, event: str = "UPDATE") -> None:
    """The next statements fail; a sequence counts them, which no rollback takes back."""
    await sql.execute(_REFUSE.format(code=code, times=times, event=event))


@pytest.mark.parametrize("code", [SERIALIZATION, DEADLOCK, LOCKED])
async def test_a_collision_is_tried_again(node: Node, sql: Any, code: str) -> None:
    leases = [await node("lease", {"effectKey": f"k{number}"}) for number in range(5)]
    await refuse(sql, code, times=3)
    bodies = [{**Caller.tokens(lease), "result": 1} for lease in leases]
    answers = await asyncio.gather(*(node("commit", body) for body in bodies))
    assert [answer["status"] for answer in answers] == ["accepted"] * 5
    for number in range(5):
        assert await trail(sql, f"k{number}") == ["LEASE_GRANTED", "COMMITTED"]


async def test_too_many_collisions_are_503(node: Node, sql: Any) -> None:
    lease = await node("lease", {"effectKey": "k"})
    await refuse(sql, SERIALIZATION, times=MAX_COLLISIONS + 1)
    body = {**Caller.tokens(lease), "result": 1}
    answer = await node.ask("commit", body)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert (await node("commit", body))["status"] == "accepted"


async def test_a_call_that_loses_every_race_for_its_effect_is_503(node: Node, sql: Any) -> None:
    """A trigger skips each update, as if another call had always changed the effect before."""
    lease = await node("lease", {"effectKey": "k"})
    await sql.execute(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER skip BEFORE UPDATE ON effects FOR EACH ROW EXECUTE FUNCTION skip()"
    )
    body = {**Caller.tokens(lease), "result": 1}
    answer = await node.ask("commit", body)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert b"Too many others" in answer.body
    await sql.execute("DROP TRIGGER skip ON effects")
    assert (await node("commit", body))["status"] == "accepted"


@pytest.mark.parametrize("code", [UNKNOWN, FULL, READ_ONLY, SHUTDOWN, IO])
async def test_a_statement_that_fails_for_the_databases_sake_is_looked_up(node: Node, sql: Any, code: str) -> None:
    lease = await node("lease", {"effectKey": "k"})
    body = {**Caller.tokens(lease), "result": 1}
    await refuse(sql, code, times=3)
    answer = await node.ask("commit", body)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert b"unknown" in answer.body
    assert (await node("commit", body))["status"] == "accepted", "the third one failed, and was looked up"


@pytest.mark.parametrize("code", [FULL, READ_ONLY])
async def test_a_grant_that_failed_is_granted_once(node: Node, sql: Any, code: str) -> None:
    await refuse(sql, code, times=1, event="INSERT")
    lease = await node("lease", {"effectKey": "k"})
    assert (await node("commit", {**Caller.tokens(lease), "result": 1}))["status"] == "accepted"
    assert await trail(sql, "k") == ["LEASE_GRANTED", "COMMITTED"]


async def test_nothing_is_said_to_be_undone_whose_first_try_is_unknown(node: Node, sql: Any) -> None:
    lease = await node("lease", {"effectKey": "k"})
    await sql.execute(_REFUSE.format(code=UNKNOWN, times=1, event="UPDATE"))
    await sql.execute("ALTER TABLE events ADD CONSTRAINT none CHECK (type <> 'COMMITTED') NOT VALID")
    answer = await node.ask("commit", {**Caller.tokens(lease), "result": 1})
    assert answer.status == 503
    assert b"unknown" in answer.body


async def test_what_the_database_refuses_for_good_takes_nobody_with_it(node: Node, sql: Any) -> None:
    leases = [await node("lease", {"effectKey": f"k{number}"}) for number in range(3)]
    await sql.execute("ALTER TABLE effects ADD CONSTRAINT no_k1 CHECK (effect_key <> 'k1') NOT VALID")
    bodies = [{**Caller.tokens(lease), "result": 1} for lease in leases]
    answers = await asyncio.gather(*(node.ask("commit", body) for body in bodies))
    assert [answer.status for answer in answers] == [200, 500, 200]
    assert b"nothing was carried out" in answers[1].body


@pytest.mark.parametrize(("code", "logged"), [(UNKNOWN, "broke off"), ("23514", "refused")])
async def test_a_fault_while_a_failure_is_dealt_with_leaves_nobody_waiting(
    node: Node, sql: Any, code: str, logged: str
) -> None:
    def fail(record: logging.LogRecord) -> bool:
        if logged in record.msg:
            raise ZeroDivisionError
        return True

    lease = await node("lease", {"effectKey": "k"})
    await refuse(sql, code, times=1)
    logger = logging.getLogger("verity.server")
    logger.addFilter(fail)
    try:
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(node.ask("commit", {**Caller.tokens(lease), "result": 1}), 10)
    finally:
        logger.removeFilter(fail)
    assert (await node("commit", {**Caller.tokens(lease), "result": 1}))["status"] == "accepted"


async def test_two_sessions_in_each_others_way(node: Node, sql: Any) -> None:
    """A deadlock, for which the database makes the node the one that gives way."""
    leases = [await node("lease", {"effectKey": f"k{number}"}) for number in range(2)]
    rows = await sql.fetch("SELECT key_hash FROM effects WHERE effect_key LIKE 'k%' ORDER BY key_hash")
    bodies = [{**Caller.tokens(lease), "result": 1} for lease in leases]
    await sql.execute("SET deadlock_timeout = '60s'")
    async with sql.transaction():
        await sql.execute("SELECT FROM effects WHERE key_hash = $1 FOR UPDATE", rows[1][0])
        commits = [asyncio.ensure_future(node("commit", body)) for body in bodies]
        await until_somebody_waits(sql)
        await sql.execute("SELECT FROM effects WHERE key_hash = $1 FOR UPDATE", rows[0][0])
    assert {answer["status"] for answer in await asyncio.gather(*commits)} == {"accepted"}


async def test_a_lock_that_nobody_lets_go_of_is_503(postgres_url: str, sql: Any) -> None:
    async with node_on(postgres_url, statement_timeout_s=0.2) as node:
        lease = await node("lease", {"effectKey": "k"})
        body = {**Caller.tokens(lease), "result": 1}
        async with sql.transaction():
            await sql.execute("SELECT FROM effects WHERE effect_key = 'k' FOR UPDATE")
            answer = await node.ask("commit", body)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (await node("lease", {"effectKey": "another"}))["status"] == "granted"
        assert (await node("commit", body))["status"] == "accepted"


async def test_no_connection_to_be_had_is_503_at_once(postgres_url: str, sql: Any) -> None:
    """The database takes no more connections."""
    name = postgres_url.rpartition("/")[2]
    await sql.execute(f"CREATE ROLE {name} LOGIN")
    await sql.execute(f"ALTER DATABASE {name} OWNER TO {name}; ALTER SCHEMA public OWNER TO {name}")
    async with node_on(postgres_url.replace("postgres@", f"{name}@")) as limited:
        lease = await limited("lease", {"effectKey": "k"})
        body = {**Caller.tokens(lease), "result": 1}
        await sql.execute(f"ALTER ROLE {name} CONNECTION LIMIT 0")
        await sql.execute(f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = '{name}'")
        answer = await limited.ask("commit", body)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        await sql.execute(f"ALTER ROLE {name} CONNECTION LIMIT -1")
        assert await _answered(limited, "commit", body) == "accepted"
    await sql.execute(f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}; DROP ROLE {name}")


async def _answered(node: Node, operation: str, body: Any) -> str:
    """Ask until it is not 503 any more."""
    with anyio.fail_after(60):
        while (answer := await node.ask(operation, body)).status == 503:
            pass
    return str(json.loads(answer.body)["status"])


async def test_a_schema_that_changes_under_a_node(node: Node, sql: Any) -> None:
    """A node of the older version goes on while a newer one migrates: its statements are prepared anew."""
    lease = await node("lease", {"effectKey": "k"})
    await sql.execute("ALTER TABLE effects ADD COLUMN newer text DEFAULT 'x', ALTER COLUMN agent_id TYPE varchar(300)")
    await sql.execute("ALTER TABLE events ADD COLUMN newer text")
    assert await node.code("lease", {"effectKey": "k"}) == (409, "lease_conflict")
    assert (await node("renew", Caller.tokens(lease)))["status"] == "renewed"
    assert (await node("commit", {**Caller.tokens(lease), "result": 1}))["status"] == "accepted"
    assert (await node("lease", {"effectKey": "another"}))["status"] == "granted"


async def test_the_databases_defaults_endanger_nothing(node: Node, postgres_url: str, sql: Any) -> None:
    """What is acknowledged is on disk, and decided on what is there, whatever is set for the database."""
    name = postgres_url.rpartition("/")[2]
    for setting in (
        "synchronous_commit = off",
        "default_transaction_isolation = 'repeatable read'",
        "lock_timeout = 1",
    ):
        await sql.execute(f"ALTER DATABASE {name} SET {setting}")
    async with node_on(postgres_url) as fresh:
        pool = fresh.store._database._pools[Use.RENEWALS].pool
        async with pool.acquire() as connection:
            assert await connection.fetchval("SHOW synchronous_commit") == "on"
            assert await connection.fetchval("SHOW transaction_isolation") == "read committed"
        lease = await fresh("lease", {"effectKey": "k"})
        assert (await fresh("commit", {**Caller.tokens(lease), "result": 1}))["status"] == "accepted"


async def test_what_a_node_asks_for_itself_and_is_refused_is_no_answer(node: Node, sql: Any) -> None:
    """So a node that has lost its tables says 503, to `/readyz` too, and whoever waits for an effect survives it."""
    await sql.execute("ALTER TABLE effects RENAME TO elsewhere; ALTER TABLE api_keys RENAME TO nowhere")
    with pytest.raises(StorageError):
        await node.store.lease_states([EffectName("test", "payments", "k")])
    with pytest.raises(StorageError):
        await node.store.find_key(bytes(32))
    with pytest.raises(StorageError):
        await node.store.expired_for_s()


async def test_a_nodes_clock_decides_nothing(postgres_url: str, sql: Any) -> None:
    """Of two nodes one is years behind, and one years ahead."""
    async with (
        node_on(postgres_url, ids=Ids(lambda: 0)) as behind,
        node_on(postgres_url, ids=Ids(lambda: 4_000_000_000_000)) as ahead,
    ):
        for first, second in ((behind, ahead), (ahead, behind)):
            key = f"k{first is ahead}"
            lease = await first("lease", {"effectKey": key})
            left_ms = await sql.fetchval(  # in the ledger's whole ms: the time between them may be rounded up
                f"SELECT (extract(epoch FROM $1::text::timestamptz) * 1000)::bigint - {CLOCK}", lease["leaseExpiresAt"]
            )
            assert 0 < left_ms <= 30_000
            assert await second.code("lease", {"effectKey": key}) == (409, "lease_conflict")
            await sql.execute("UPDATE effects SET lease_expires_at = 0 WHERE status = 'RUNNING'")
            taken_over = await second("lease", {"effectKey": key})
            assert (taken_over["fenceToken"], taken_over["effectId"]) == (2, lease["effectId"])
            assert await first.code("commit", {**Caller.tokens(lease), "result": 1}) == (409, "stale_fence")
            assert (await first("commit", {**Caller.tokens(taken_over), "result": 1}))["status"] == "accepted"


async def test_a_standby_is_never_asked(postgres_server: PostgresServer, postgres_url: str, sql: Any) -> None:
    """A database that takes no writes may be behind: what it says of a lease may be long past."""
    name = postgres_url.rpartition("/")[2]
    await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(VerityConfigError, match="TargetServerAttributeNotMatched"):
        await connect(postgres_url)


async def test_dangers_are_found() -> None:
    with PostgresServer(fsync="off", full_page_writes="off") as careless:
        database = await connect(careless.url())
        dangers = await find_dangers(database)
        await database.close()
    assert [danger.split()[0] for danger in dangers] == ["fsync", "full_page_writes"]


async def test_who_reads_can_not_write(node: Node) -> None:
    for use in (Use.READS, Use.NODE_READS):
        with pytest.raises(StorageError, match="ReadOnly"):
            async with node.store._database.reading(use) as connection:
                await connection.execute("DELETE FROM api_keys")
