"""Purges beside everything else that goes on, on every kind of store."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.helpers.concurrency import OF_PROCESSES_S, sync_until
from tests.helpers.postgres import PostgresServer
from tests.helpers.store_calls import Caller
from tests.helpers.stores import Bench
from verity._store.postgres.store import PostgresStore
from verity._store.purging import BATCH, Purge
from verity._store.sqlite.store import SqliteStore

pytestmark = pytest.mark.parametrize("bench", ["file", "postgres"], indirect=True)


def open_again(bench: Bench) -> Any:
    """Another store on the same database, as another process has one."""
    return PostgresStore(bench.url) if bench.kind == "postgres" else SqliteStore(bench.store._path)


def decide(bench: Bench, keys: list[str], *, failed: bool = False, namespace: str = "payments") -> None:
    """Many at once."""
    call = Caller(bench.store, namespace=namespace)
    leases = [
        json.loads(answer.body)
        for answer in bench.store.answer_batch([call.request("lease_effect", {"effectKey": key}) for key in keys])
    ]
    operation, field = ("fail_effect", "error") if failed else ("commit_effect", "result")
    requests = [call.request(operation, {**call.tokens(lease), field: 1}) for lease in leases]
    assert {answer.status for answer in bench.store.answer_batch(requests)} == {200}


def run(bench: Bench, **options: Any) -> list[Purge]:
    """The purge after each of its batches."""
    purge = Purge("test", before=bench.clock.now_ms, **options)
    passed = []
    while not purge.done:
        purge = bench.store.purge(purge)
        passed.append(purge)
    return passed


def test_it_goes_no_further_than_to_what_is_younger(bench: Bench) -> None:
    decide(bench, ["old 1", "old 2"], namespace="b")
    decide(bench, ["old 1", "old 2", "old 3"], namespace="a")
    bench.clock.advance(1)
    before = bench.clock.now_ms
    for _ in range(4):
        decide(bench, [f"young {bench.clock.now_ms} {number}" for number in range(BATCH)], namespace="a")
        bench.clock.advance(1)
    purge, batches = Purge("test", before=before), 0
    while not purge.done:
        purge, batches = bench.store.purge(purge), batches + 1
    assert (purge.purged, batches) == (5, 3), "in a second batch all are younger: it goes on behind them"
    assert bench.store.purge(Purge("test", before=before, dry_run=True)).purged == 0


def test_what_was_undecided_is_purged_later(bench: Bench) -> None:
    call = Caller(bench.store)
    lease = call("lease_effect", {"effectKey": "slow", "leaseDurationMs": 5000})
    decide(bench, ["quick"])
    bench.clock.advance(10_000)
    assert run(bench)[-1].purged == 1
    call("commit_effect", {**call.tokens(lease), "result": 1})
    assert run(bench)[-1].purged == 0
    bench.clock.advance(1)
    assert run(bench)[-1].purged == 1
    assert call.refused("lease_effect", {"effectKey": "slow"}) == (410, "effect_purged")


def test_a_dry_run_counts_what_a_purge_does(bench: Bench) -> None:
    decide(bench, [f"k{number}" for number in range(BATCH + 1)])
    bench.clock.advance(1)
    assert [each.purged for each in run(bench, dry_run=True)] == [BATCH + 1]
    assert [each.purged for each in run(bench)] == [BATCH, BATCH + 1]


RESET = (
    "UPDATE effects SET status = 'IDLE', lease_token = NULL, prior_state = 'reset', error_text = NULL,"
    " error_sha256 = NULL, source = NULL, event_count = event_count + 1"
)


def told_of_reset(bench: Bench) -> str:
    values = {"sequence": "sequence + 1", "type": "'RESET'", "detail": "'{}'"}
    columns = ", ".join(values.get(name, name) for name in bench.columns_of("events"))
    return f"INSERT INTO events SELECT {columns} FROM events WHERE sequence = 2"


def test_what_changes_after_it_was_looked_at_stays(bench: Bench, request: pytest.FixtureRequest) -> None:
    """An admin's reset is under way in another transaction, and is done when the purge gets to write."""
    decide(bench, ["k"], failed=True)
    bench.clock.advance(1)
    statements = (RESET, told_of_reset(bench))
    if bench.kind == "file":
        purged = _purge_beside_sqlite(bench, statements)
    else:
        purged = _purge_beside_postgres(bench, statements, request.getfixturevalue("postgres_server"))
    assert purged == 0
    assert Caller(bench.store)("lease_effect", {"effectKey": "k"})["priorState"] == "reset"


def _purge_beside_sqlite(bench: Bench, statements: tuple[str, ...]) -> int:
    other = SqliteStore(bench.store._path)._connected()
    other.execute("BEGIN IMMEDIATE")
    for each in statements:
        other.execute(each)
    waits: list[int] = []

    def end(number: int) -> bool:
        waits.append(number)
        other.execute("COMMIT")
        return True

    bench.store._connected().set_busy_handler(end)
    purged = run(bench)[-1].purged
    assert waits == [0], "the purge had looked, and waited to write"
    other.close()
    return purged


def _purge_beside_postgres(bench: Bench, statements: tuple[str, ...], server: PostgresServer) -> int:
    other = PostgresStore(bench.url)

    async def hold(is_blocked: Callable[[], bool]) -> None:
        async with other._database.connection() as connection, connection.transaction():
            for each in statements:
                await connection.execute(each)
            purging.set()
            sync_until(is_blocked, OF_PROCESSES_S)

    purging = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(other._run, hold(lambda: bool(server.query("SELECT FROM pg_locks WHERE NOT granted"))))
        assert purging.wait(60)
        purged = run(bench)[-1].purged
        holding.result(60)
    other.close()
    return purged


def test_resets_and_purges_at_once_leave_each_effect_whole(bench: Bench) -> None:
    keys = [f"k{number}" for number in range(2 * BATCH)]
    for start in (0, BATCH):
        decide(bench, keys[start : start + BATCH], failed=True)
    bench.clock.advance(1)
    other = open_again(bench)
    call = Caller(other)
    with ThreadPoolExecutor(1) as threads:
        purging = threads.submit(run, bench)
        answers = []
        for start in range(0, len(keys), 20):
            requests = [call.request("reset_effect", {"effectKey": key}) for key in reversed(keys[start : start + 20])]
            answers += other.answer_batch(requests)
        purged = purging.result(60)[-1].purged
    statuses = [answer.status for answer in answers]
    assert set(statuses) <= {200, 410}
    assert purged == statuses.count(410), "what was reset is not purged, and what was purged is not reset"
    events = {effect for (effect,) in bench.execute("SELECT DISTINCT effect FROM events")}
    for effect, status, purged_at in bench.execute("SELECT id, status, purged_at FROM effects"):
        assert (status == "FAILED") == (purged_at is not None) == (effect not in events)
    other.close()


def test_two_purges_at_once_count_each_effect_once(bench: Bench) -> None:
    for number in range(4):
        decide(bench, [f"{number} {each}" for each in range(BATCH)])
    bench.clock.advance(1)
    other = open_again(bench)
    purge = Purge("test", before=bench.clock.now_ms)

    def to_the_end(store: Any) -> int:
        passed = purge
        while not passed.done:
            passed = store.purge(passed)
        return passed.purged

    with ThreadPoolExecutor(2) as threads:
        counts = list(threads.map(to_the_end, [bench.store, other]))
    assert sum(counts) == 4 * BATCH
    assert bench.execute("SELECT count(*) FROM events") == [(0,)]
    other.close()
