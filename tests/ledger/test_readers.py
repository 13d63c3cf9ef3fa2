"""Reads beside the writer of a SQLite file: neither waits for the other, and no read lasts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from tests.helpers.concurrency import SyncBackground, async_until, sync_until
from tests.helpers.served_ledger import TestClock
from tests.helpers.slow_reads import endless_reads, held_searches
from tests.helpers.store_calls import Caller
from verity._store.lease_states import EffectName
from verity._store.purging import Purge
from verity._store.reads import READ_WITHIN_S
from verity._store.sqlite.readers import MOST_READERS, Readers, ReadTooLong
from verity._store.sqlite.registry import OpenLedger
from verity._store.sqlite.store import SqliteStore
from verity.server.api_keys import issue

SEARCH = {"search": "k"}
ENDLESS = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n FROM n) SELECT count(*) FROM n"


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def store(tmp_path: Path, clock: TestClock) -> Iterator[SqliteStore]:
    store = SqliteStore(str(tmp_path / "v.db"), clock=clock)
    yield store
    store.close()


def count_effects(connection: apsw.Connection) -> Any:
    return connection.execute("SELECT count(*) FROM effects").get


def test_nobody_waits_for_reads_that_are_under_way(store: SqliteStore, clock: TestClock) -> None:
    call = Caller(store)
    call.commit("before")
    _, record = issue("test", "agent", now=clock())
    with SyncBackground() as background, held_searches() as gate:
        for _ in range(MOST_READERS):
            background.start(lambda: call("list_effects", **SEARCH))
        sync_until(lambda: gate.reached == MOST_READERS)
        lease = call("lease_effect", {"effectKey": "k", "leaseDurationMs": 5000})
        assert call("renew_effect", call.tokens(lease))["status"] == "renewed"
        store.insert_key(record)
        assert store.find_key(record.sha256) == record
        assert store.lease_states([EffectName("test", "payments", "k")])[0].remaining_ms > 0
        clock.advance(60_000)
        assert store.expired_for_ms() == {"test": 55_000}
        assert call("commit_effect", {**call.tokens(lease), "result": 1})["status"] == "accepted"
        assert not background.outcomes, "all of that while they were under way"
        gate.open()
    assert [len(outcome["items"]) for outcome in background.outcomes] == [1] * MOST_READERS, "as it was when they began"


def test_reads_do_not_wait_for_the_writer(store: SqliteStore, tmp_path: Path) -> None:
    """As where another process holds the file's lock, or the disk takes its time."""
    call = Caller(store)
    call.commit("before")
    other = apsw.Connection(str(tmp_path / "v.db"))
    other.execute("BEGIN IMMEDIATE")
    with SyncBackground() as background:
        background.start(lambda: call.ask("lease_effect", {"effectKey": "k"}).status)
        sync_until(store._lock.locked)
        assert [effect["effectKey"] for effect in call("list_effects")["items"]] == ["before"]
        assert call("get_effect", effectKey="before")["status"] == "COMMITTED"
        assert store.find_key(b"") is None
        assert store.list_keys() == []
        assert store.lease_states([EffectName("test", "payments", "before")])[0].is_decided
        assert store.purge(Purge("test", 0, dry_run=True)).done
        assert store._lock.locked()
        other.execute("ROLLBACK")
    other.close()
    assert background.outcomes == [200]


def test_a_read_sees_what_another_process_wrote(store: SqliteStore, tmp_path: Path, clock: TestClock) -> None:
    call = Caller(store)
    assert call("list_effects")["items"] == []
    other = SqliteStore(str(tmp_path / "v.db"), clock=clock)
    Caller(other).commit("k")
    assert [effect["effectKey"] for effect in call("list_effects")["items"]] == ["k"]
    other.close()


def test_a_store_that_was_closed_reads_again(store: SqliteStore) -> None:
    call = Caller(store)
    call.commit("k")
    for _ in range(2):
        store.close()
        assert [len(call("list_effects")["items"]) for _ in range(3)] == [1] * 3


# --- its time ---


def test_a_read_that_takes_too_long_is_given_up_and_the_next_one_answered(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "v.db"))
    call = Caller(store)
    call.commit("k")
    store.read_within_s = 0.05
    with endless_reads():
        answer = store.answer(call.request("get_stats"))
        store.read_within_s = READ_WITHIN_S
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    problem = json.loads(answer.body)["error"]
    assert problem["code"] == "unavailable"
    assert "too long" in problem["message"]
    assert "Ask for less" in problem["message"]
    assert call("get_stats")["byStatus"]["COMMITTED"] == 1
    store.close()


def test_in_memory_a_read_is_given_up_as_well(clock: TestClock) -> None:
    store = SqliteStore(None, clock=clock)
    call = Caller(store)
    call.commit("k")
    with pytest.raises(ReadTooLong):
        store._reads.run(lambda connection: connection.execute(ENDLESS).get, within_s=0.05)
    assert call("get_effect", effectKey="k")["status"] == "COMMITTED"
    assert call("lease_effect", {"effectKey": "other"})["status"] == "granted"


def test_a_read_that_nobody_waits_for_any_more_ends(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "v.db"))
    Caller(store).commit("k")
    store.read_within_s = 60
    asked: list[bool] = []

    def is_wanted() -> bool:
        asked.append(len(asked) < 3)
        return asked[-1]

    with endless_reads():
        answer = store.read(Caller(store).request("get_stats"), is_wanted=is_wanted)
    assert answer.status == 503
    store.close()


def test_a_read_waits_for_a_free_connection_no_longer_than_it_may_take(store: SqliteStore) -> None:
    readers = Readers(str(store._path), most=1)
    with pytest.raises(ReadTooLong):
        readers.run(lambda _connection: readers.run(count_effects, within_s=0.05))
    assert readers.run(count_effects) == 0
    readers.close()


def test_a_reader_can_not_write(store: SqliteStore) -> None:
    with pytest.raises(apsw.ReadOnlyError):
        store._reads.run(lambda connection: connection.execute("DELETE FROM api_keys"))


def test_an_interrupted_thread_keeps_no_connection(store: SqliteStore) -> None:
    def interrupt(_connection: apsw.Connection) -> None:
        raise KeyboardInterrupt

    for _ in range(2 * MOST_READERS):
        with pytest.raises(KeyboardInterrupt):
            store._reads.run(interrupt)
    assert store._reads.run(count_effects) == 0


# --- the file ---


def test_a_file_that_was_removed_or_replaced_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, aside, copy = (tmp_path / name for name in ("v.db", "aside.db", "copy.db"))
    store = SqliteStore(str(file))
    call = Caller(store)
    for has_readers in (False, True):
        call.commit(f"before {has_readers}")
        assert not has_readers or call("list_effects")
        file.rename(aside)
        assert call.refused("list_effects") == (503, "unavailable"), "removed"
        assert b"did not answer the read; nothing was changed" in call.ask("list_effects").body
        assert "removed or replaced" in caplog.text
        with pytest.raises(apsw.Error, match="removed or replaced"):
            store.find_key(b"")
        aside.rename(file)
        assert len(call("list_effects")["items"]) == has_readers + 1, "put back"
    copy.write_bytes(file.read_bytes())
    copy.replace(file)
    assert call.refused("list_effects") == (503, "unavailable"), "replaced"
    store.close()


def test_the_log_is_begun_anew_although_somebody_always_reads(tmp_path: Path) -> None:
    """A reader that begins before another one ends keeps SQLite from doing so by itself."""
    store = SqliteStore(str(tmp_path / "v.db"))
    call = Caller(store)
    limit = 1_000_000
    readers = store._reads = Readers(str(tmp_path / "v.db"), shorten_log=store._shorten_log, long_log_bytes=limit)
    ended: list[threading.Event] = []

    def read(connection: apsw.Connection) -> None:
        count_effects(connection)
        mine = threading.Event()
        ended.append(mine)
        assert mine.wait(30)

    with SyncBackground() as background:
        for number in range(120):
            background.start(lambda: readers.run(read, within_s=30))
            sync_until(lambda number=number: len(ended) > number or not readers._busy)  # type: ignore[misc]
            call.ask("lease_effect", {"effectKey": f"k{number}", "inputJson": "x" * 60_000})
            if len(ended) > 1:
                ended[-2].set()
            if readers._has_long_log():
                for each in ended:
                    each.set()
                sync_until(lambda number=number: len(ended) == number + 1 or not readers._has_long_log())  # type: ignore[misc]
        for each in ended:
            each.set()
        sync_until(lambda: len(background.outcomes) == 120)
    assert background.outcomes == [None] * 120
    readers.run(count_effects)
    assert (tmp_path / "v.db-wal").stat().st_size <= limit
    assert call("list_effects", limit="1")["items"][0]["effectKey"] == "k119"
    store.close()


# --- forks ---


def test_a_read_that_a_fork_stops_begins_anew(store: SqliteStore) -> None:
    began: list[apsw.Connection] = []

    def read(connection: apsw.Connection) -> Any:
        began.append(connection)
        if len(began) == 1:
            return connection.execute(ENDLESS).get
        return count_effects(connection)

    with SyncBackground() as background:
        background.start(lambda: store._reads.run(read, within_s=60))
        sync_until(lambda: bool(began))
        store.before_fork()
        assert not store._reads._idle  # type: ignore[union-attr] # a file has readers
        with pytest.raises(apsw.ConnectionClosedError):
            began[0].execute("SELECT 1")
        store.after_fork_in_parent()
    assert background.outcomes == [0]


# --- event loops ---


async def test_a_cancelled_read_stops_and_closing_gives_reads_up(tmp_path: Path, anyio_backend: str) -> None:
    before = threading.enumerate()
    ledger = OpenLedger(SqliteStore(str(tmp_path / "v.db")))
    call = Caller(ledger.store)
    call.commit("k")
    ledger.store.read_within_s = 60
    threads = ledger.reads._searches
    with endless_reads():
        async with anyio.create_task_group() as group:
            group.start_soon(ledger.answer, call.request("get_stats"))
            await async_until(lambda: bool(threads._working))
            group.cancel_scope.cancel()
        await async_until(lambda: not threads._working)
        answers: list[Any] = []

        async def read() -> None:
            answers.append((await ledger.answer(call.request("get_stats"))).status)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(read)
            await async_until(lambda: len(threads._working) + len(threads._waiting) == 5)
            ledger.close()
    assert answers == [503] * 5
    began = [thread for thread in threading.enumerate() if thread not in before]
    assert not [thread for thread in began if thread.name.startswith("verity-ledger-")]


async def test_what_looks_at_one_effect_or_for_the_node_does_not_queue_behind_searches(
    tmp_path: Path, anyio_backend: str
) -> None:
    ledger = OpenLedger(SqliteStore(str(tmp_path / "v.db")))
    call = Caller(ledger.store)
    call.commit("k")
    with held_searches() as gate:
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ledger.answer, call.request("list_effects", **SEARCH))
            await async_until(lambda: gate.reached == 2)
            with anyio.fail_after(30):
                assert (await ledger.answer(call.request("get_effect", effectKey="k"))).status == 200
                assert await ledger.reads.run_for_node(lambda: ledger.store.find_key(b"")) is None
                assert (await ledger.answer(call.request("lease_effect", {"effectKey": "k"}))).status == 200
            assert gate.reached == 2, "few at a time"
            gate.open()
    ledger.close()
