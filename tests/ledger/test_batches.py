"""Batches of PostgreSQL's store: their order, and ids that meet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.postgres_nodes import node_on
from tests.helpers.store_calls import Caller
from verity._ledger.codec import read_call
from verity._ledger.effect import to_row
from verity._store.postgres import batches
from verity._store.postgres.pending import Ids, PendingCall


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Recorder:
    """Stands for a session, and answers with what a test hands in."""

    def __init__(self, found: Sequence[Sequence[Any]] = ()) -> None:
        self.sent: dict[str, list[tuple[Any, ...]]] = {}
        self._found = found

    async def fetch(self, sql: str, *arrays: Sequence[Any]) -> Any:
        self.sent.setdefault(sql, []).extend(zip(*arrays, strict=False))  # of a change: as many as there are effects
        return self._found if sql == "read" else []


def calls_of(operation: str, **body: Any) -> list[PendingCall]:
    """Calls on ten effects, in the opposite order of their names."""
    caller = Caller(None)
    calls = [
        PendingCall(read_call(caller.request(operation, {"effectKey": f"k{number}", **body})), Ids())
        for number in range(10)
    ]
    for call in calls:
        call.start_attempt()
    return sorted(calls, key=lambda call: call.name, reverse=True)


async def test_two_nodes_batches_lock_in_the_same_order() -> None:
    """Whatever the order in which their calls came: else each may wait for what the other has locked."""
    sql: Any = SimpleNamespace(read="read", grant="grant", commit="commit", change="change")
    no_outages: Any = SimpleNamespace(outages=lambda *_: ())
    leases = calls_of("lease_effect")
    commits = calls_of("commit_effect", result=1, fenceToken=1, leaseToken="t")
    names = sorted(call.name for call in leases)

    session: Any = Recorder()
    await batches.grant(session, sql, [*leases, *leases])
    assert [row[:3] for row in session.sent["grant"]] == names

    session = Recorder()
    await batches.commit(session, sql, [*commits, *commits])
    assert [row[1:4] for row in session.sent["commit"]] == names

    expired = [call.decide(None, now=0).effect for call in sorted(leases, key=lambda call: call.name)]
    found = [
        (number, 10**12, False, 0, None, None, *to_row(effect))
        for number, effect in enumerate(expired, 1)
        if effect is not None
    ]
    session = Recorder(found)
    await batches.decide(session, sql, leases, heartbeat=no_outages)
    assert [row[:3] for row in session.sent["read"]] == names
    assert [row[1:4] for row in session.sent["change"]] == names

    absent = [(number, 10**12, False, 0, None, None, None) for number in range(1, 11)]
    session = Recorder(absent)
    await batches.decide(session, sql, leases, heartbeat=no_outages)
    assert [row[:3] for row in session.sent["grant"]] == names


class Meeting(Ids):
    """Ids of a node whose first ones are there already."""

    def __init__(self, *ids: int) -> None:
        super().__init__()
        self._ids: Iterator[int] = iter(ids)

    def new(self) -> int:
        return next(self._ids)


async def test_an_id_that_is_there_already_is_made_anew(postgres_url: str) -> None:
    """Two nodes made the same one at the same time: the second lease is granted all the same, under another."""
    async with node_on(postgres_url, ids=Meeting(7)) as node, node_on(postgres_url, ids=Meeting(7, 7, 8, 9)) as other:
        first = await node("lease", {"effectKey": "one"})
        second = await other("lease", {"effectKey": "two"})
        assert (first["status"], second["status"]) == ("granted", "granted")
        assert first["effectId"] != second["effectId"]
        for caller, lease in ((other, first), (node, second)):
            done = json.loads((await caller.ask("commit", {**Caller.tokens(lease), "result": 1})).body)
            assert (done["status"], done["effectId"]) == ("accepted", lease["effectId"])
