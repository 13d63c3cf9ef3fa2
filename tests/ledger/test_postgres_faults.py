"""The PostgreSQL store when a connection breaks: the truth, or 503, and never a second grant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from tests.helpers.postgres import PostgresServer
from tests.helpers.postgres_nodes import Node, node_on, trail, until_somebody_waits
from tests.helpers.postgres_relay import PostgresRelay
from tests.helpers.store_calls import Caller

GRANT, COMMIT, LOOK, CHANGE = "INSERT INTO effects", "WITH committed AS", "LEFT JOIN effects", "changed AS"


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's."""
    return "asyncio"


@pytest.fixture
async def relay(postgres_url: str) -> AsyncIterator[PostgresRelay]:
    async with PostgresRelay(postgres_url) as relay:
        yield relay


@pytest.fixture
async def node(relay: PostgresRelay) -> AsyncIterator[Node]:
    async with node_on(relay.url) as node:
        await node.warm_up()
        yield node


@pytest.fixture
async def other(postgres_url: str) -> AsyncIterator[Node]:
    """Another node, whose connections hold."""
    async with node_on(postgres_url) as node:
        yield node


FAULTS = ("request", "answer", "ready")


@pytest.mark.parametrize("key", ["one-request", None])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_lease_whose_answer_is_lost_is_granted_once(
    node: Node, other: Node, relay: PostgresRelay, sql: Any, fault: str, key: str | None
) -> None:
    relay.plan(fault, GRANT)
    lease = await node("lease", {"effectKey": "k"}, key=key)
    assert (lease["status"], lease["fenceToken"], relay.seen) == ("granted", 1, [fault])
    assert await other.code("lease", {"effectKey": "k"}, key="somebody else's") == (409, "lease_conflict")
    if key:
        assert await other("lease", {"effectKey": "k"}, key=key) == lease
    assert (await other("commit", {**Caller.tokens(lease), "result": 1}))["status"] == "accepted"
    assert await trail(sql, "k") == ["LEASE_GRANTED", "COMMITTED"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_commit_whose_answer_is_lost_is_told_the_truth(
    node: Node, other: Node, relay: PostgresRelay, sql: Any, fault: str
) -> None:
    lease = await node("lease", {"effectKey": "k"})
    relay.plan(fault, COMMIT)
    body = {**Caller.tokens(lease), "result": {"id": 7}}
    committed = await node("commit", body)
    assert committed["status"] == ("accepted" if fault == "request" else "already_committed")
    assert relay.seen == [fault]
    assert (await other("lease", {"effectKey": "k"}))["cachedResult"] == {"id": 7}
    assert await trail(sql, "k") == ["LEASE_GRANTED", "COMMITTED"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", ["fail", "renew", "release", "reset", "forced reset of what was seen"])
async def test_a_change_whose_answer_is_lost_is_told_the_truth(
    node: Node, relay: PostgresRelay, sql: Any, operation: str, fault: str
) -> None:
    tokens = Caller.tokens(await node("lease", {"effectKey": "k"}))
    await sql.execute("UPDATE effects SET lease_expires_at = 0")
    body, once, again, events = {
        "fail": ({**tokens, "error": "declined"}, "recorded", "already_failed", ["FAILED"]),
        "renew": (tokens, "renewed", "renewed", ["LEASE_RENEWED"]),
        "release": ({**tokens, "acted": "unknown"}, "released", "already_released", ["LEASE_RELEASED"]),
        "reset": ({"effectKey": "k"}, "reset", "already_reset", ["RESET"]),
        "forced reset of what was seen": (
            {"effectKey": "k", "force": True, "expectedFence": 1}, "reset", "already_reset", ["RESET"],
        ),
    }[operation]  # fmt: skip
    relay.plan(fault, CHANGE)
    answer = await node("reset" if "reset" in operation else operation, body)
    assert answer["status"] == (once if fault == "request" else again)
    twice = operation == "renew" and fault != "request"  # the same lease, for longer
    assert await trail(sql, "k") == ["LEASE_GRANTED", *events, *(events * twice)]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_forced_reset_whose_answer_is_lost_is_not_asked_again(
    node: Node, other: Node, relay: PostgresRelay, sql: Any, fault: str
) -> None:
    """By then the lease may be somebody else's, who was told so, and acts."""
    await node("lease", {"effectKey": "k"})
    relay.plan(fault, CHANGE)
    answer = await node.ask("reset", {"effectKey": "k", "force": True})
    assert answer.status == 503
    assert b"Send it again." not in answer.body
    events = [] if fault == "request" else ["RESET"]
    assert await trail(sql, "k") == ["LEASE_GRANTED", *events]
    if events:
        lease = await other("lease", {"effectKey": "k"})
        assert (await other("commit", {**Caller.tokens(lease), "result": 1}))["status"] == "accepted"


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_take_over_whose_answer_is_lost_is_granted_once(
    node: Node, other: Node, relay: PostgresRelay, sql: Any, fault: str
) -> None:
    first = await node("lease", {"effectKey": "k", "leaseDurationMs": 5000})
    await sql.execute("UPDATE effects SET lease_expires_at = 0")
    relay.plan(fault, CHANGE)
    second = await node("lease", {"effectKey": "k"})
    assert (second["fenceToken"], second["priorState"], relay.seen) == (2, "expired", [fault])
    assert await other.code("commit", {**Caller.tokens(first), "result": 1}) == (409, "stale_fence")
    assert await other.code("lease", {"effectKey": "k"}) == (409, "lease_conflict")
    assert await trail(sql, "k") == ["LEASE_GRANTED", "LEASE_EXPIRED", "LEASE_GRANTED"]


@pytest.mark.parametrize(("fault", "events"), [("request", 1), ("answer", 2)])
async def test_lost_twice_is_503_and_the_next_call_has_the_truth(
    node: Node, relay: PostgresRelay, sql: Any, fault: str, events: int
) -> None:
    lease = await node("lease", {"effectKey": "k"})
    relay.plan(fault, COMMIT)
    relay.plan("request", LOOK)
    body = {**Caller.tokens(lease), "result": 1}
    answer = await node.ask("commit", body)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert b"unknown" in answer.body
    assert len(await trail(sql, "k")) == events
    assert (await node("commit", body))["status"] == ("accepted" if events == 1 else "already_committed")


@pytest.mark.parametrize("statement", [GRANT, COMMIT, CHANGE])
async def test_a_statement_that_arrives_late_changes_nothing(
    node: Node, other: Node, relay: PostgresRelay, sql: Any, statement: str
) -> None:
    """What was taken for lost may still be carried out, long after the call was answered on another connection."""
    lease = None if statement == GRANT else await node("lease", {"effectKey": "k"})
    relay.plan("late", statement)
    if lease is None:
        lease = await node("lease", {"effectKey": "k"}, key="mine")
    elif statement == COMMIT:
        await node("commit", {**Caller.tokens(lease), "result": 1})
    else:
        await node("fail", {**Caller.tokens(lease), "error": 1})
    before = await sql.fetch("SELECT * FROM effects"), await sql.fetch("SELECT * FROM events")
    await relay.deliver()
    found = "SELECT 1" if statement == CHANGE else "SELECT 0"
    assert relay.seen == ["late", found], "it was carried out, and found nothing to do"
    assert (await sql.fetch("SELECT * FROM effects"), await sql.fetch("SELECT * FROM events")) == before
    assert await other("lease", {"effectKey": "k"}, key="mine") if statement == GRANT else True


async def test_a_database_without_a_connection_left_keeps_no_lease_from_its_renewal(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """Whoever granted has a connection open. It is used, where a new one can't be had."""
    name = postgres_url.rpartition("/")[2]
    role = f"role_of_{name}"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN")
    postgres_server.execute(f"ALTER DATABASE {name} OWNER TO {role}")
    async with node_on(postgres_url.replace("postgres@", f"{role}@")) as node:
        lease = await node("lease", {"effectKey": "k"})
        postgres_server.execute(f"ALTER ROLE {role} CONNECTION LIMIT 1")  # those that are open stay
        for _ in range(3):
            assert (await node("renew", Caller.tokens(lease)))["status"] == "renewed"


async def test_a_broken_batch_answers_each_of_its_calls(node: Node, relay: PostgresRelay, sql: Any) -> None:
    keys = [f"k{number}" for number in range(50)]
    relay.plan("answer", GRANT)
    leases = await asyncio.gather(*(node("lease", {"effectKey": key}) for key in keys))
    assert {lease["fenceToken"] for lease in leases} == {1}
    relay.plan("ready", COMMIT)
    bodies = [{**Caller.tokens(lease), "result": lease["effectKey"]} for lease in leases]
    statuses = {answer["status"] for answer in await asyncio.gather(*(node("commit", body) for body in bodies))}
    assert statuses == {"already_committed"}
    for key in keys:
        assert await trail(sql, key) == ["LEASE_GRANTED", "COMMITTED"]


async def test_a_caller_that_leaves_takes_nobody_with_it(node: Node, sql: Any) -> None:
    lease = await node("lease", {"effectKey": "locked"})
    async with sql.transaction():
        await sql.execute("SELECT FROM effects WHERE effect_key = 'locked' FOR UPDATE")
        leaving = asyncio.ensure_future(node("commit", {**Caller.tokens(lease), "result": 1}))
        await until_somebody_waits(sql)
        waiting = asyncio.ensure_future(node("lease", {"effectKey": "other"}))
        staying = asyncio.ensure_future(node("commit", {**Caller.tokens(lease), "result": 2}))
        await waiting
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    assert (await staying)["status"] == "already_committed", "the one that left had been sent"
    assert (await node("lease", {"effectKey": "locked"}))["cachedResult"] == 1


async def test_what_no_standby_has_confirmed_is_let_through_neither_by_giving_up_nor_by_a_crash() -> None:
    """PostgreSQL ends its wait for a standby when a statement is cancelled, and then shows what that one lacks. After a
    crash it shows all that its own log has.
    """
    with PostgresServer() as server:
        url = server.create_database()
        database = url.rpartition("/")[2]
        async with node_on(url, statement_timeout_s=0.2) as node:
            leases = [await node("lease", {"effectKey": f"k{number}"}) for number in range(50)]
            server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            server.execute("SELECT pg_reload_conf()")
            bodies = [{**Caller.tokens(lease), "result": 1} for lease in leases]
            while (await node.ask("commit", bodies[0])).status == 200:  # until the server has read its settings
                del bodies[0]
            effect = {"effectKey": bodies[0]["effectKey"]}
            assert await node.code("commit", bodies[0]) == (503, "unavailable")
            assert await node.code("lease", effect) == (409, "lease_conflict"), "it is not there for anybody yet"
            server.kill()
            server.start()
            assert server.query("SELECT count(*) FROM effects WHERE status = 'COMMITTED'", database) == [
                (51 - len(bodies),)
            ]
            for operation, body in (("commit", bodies[0]), ("lease", effect)):
                assert await node.code(operation, body) == (503, "unavailable")
            server.execute("ALTER SYSTEM RESET synchronous_standby_names")
            server.execute("SELECT pg_reload_conf()")
            with anyio.fail_after(60):
                while (answer := await node.ask("commit", bodies[0])).status != 200:
                    assert answer.status == 503
            assert json.loads(answer.body)["status"] == "already_committed"
