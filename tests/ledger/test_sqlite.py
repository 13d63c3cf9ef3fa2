"""What only the SQLite store does: files, locks, one transaction for a batch, a clock of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.helpers.served_ledger import TestClock
from tests.helpers.store_calls import Caller
from verity import VerityConfigError
from verity._store.sqlite.connection import connect
from verity._store.sqlite.location import read_location
from verity._store.sqlite.migrations import SCHEMA_VERSION
from verity._store.sqlite.registry import open_ledger
from verity._store.sqlite.store import SqliteStore


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: TestClock) -> Iterator[SqliteStore]:
    store = SqliteStore(str(tmp_path / "v.db") if request.param == "file" else None, clock=clock)
    yield store
    store.close()


@pytest.fixture
def call(store: SqliteStore) -> Caller:
    return Caller(store)


def test_one_bad_call_leaves_the_rest_of_its_batch_alone(store: SqliteStore, call: Caller) -> None:
    big = {"effectKey": "big", "inputJson": "x" * 65_535}
    requests = [
        call.request("lease_effect", {"effectKey": "a"}),
        call.request("lease_effect", {}),
        call.request("lease_effect", big),
        call.request("commit_effect", {"effectKey": "b", "fenceToken": 1, "leaseToken": "x", "result": 1}),
        call.request("lease_effect", {"effectKey": "a"}),
        call.request("lease_effect", {"effectKey": "c"}),
    ]
    before = store.transactions
    answers = store.answer_batch(requests)
    assert [answer.status for answer in answers] == [200, 400, 413, 404, 409, 200]
    assert store.transactions == before + 1
    assert json.loads(answers[1].body)["error"]["details"][0]["path"] == "/effectKey"


def test_a_clock_that_is_set_back_makes_no_process_take_a_live_lease_for_run_out(tmp_path: Path) -> None:
    """As a process would that saw the later time and held on to it, while the others did not see it."""
    clock = TestClock()
    one, other = (SqliteStore(str(tmp_path / "v.db"), clock=clock) for _ in range(2))
    clock.advance(3_600_000)
    Caller(one).commit("before")
    clock.advance(-3_600_000)
    lease = Caller(other)("lease_effect", {"effectKey": "k", "leaseDurationMs": 5000})
    clock.advance(4_999)
    assert Caller(one).refused("lease_effect", {"effectKey": "k"}) == (409, "lease_conflict")
    clock.advance(1)
    assert Caller(one)("lease_effect", {"effectKey": "k"})["priorState"] == "expired"
    assert Caller(other).refused("commit_effect", {**Caller.tokens(lease), "result": 1}) == (409, "stale_fence")
    for store in (one, other):
        store.close()


# --- storage that fails ---


def test_a_locked_file_is_503_for_all_and_success_for_none(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "v.db"))
    call = Caller(store)
    call.commit("before")
    blocker = apsw.Connection(str(tmp_path / "v.db"))
    blocker.execute("BEGIN IMMEDIATE")
    store._connected().set_busy_timeout(1)
    answers = store.answer_batch([call.request("lease_effect", {"effectKey": f"k{n}"}) for n in range(3)])
    assert [answer.status for answer in answers] == [503] * 3
    assert answers[0].headers["retry-after"] == "1"
    assert json.loads(answers[0].body)["error"]["code"] == "unavailable"
    blocker.execute("ROLLBACK")
    blocker.close()
    assert call("lease_effect", {"effectKey": "k0"})["fenceToken"] == 1
    store.close()


def test_a_full_disk_is_503_and_the_store_recovers(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "v.db"))
    call = Caller(store)
    call.commit("before")
    connection = store._connected()
    pages: Any = connection.execute("PRAGMA page_count").get
    connection.execute(f"PRAGMA max_page_count = {pages}")
    statuses = {call.ask("lease_effect", {"effectKey": f"k{n}", "inputJson": "x" * 60_000}).status for n in range(3)}
    assert statuses == {503}
    connection.execute("PRAGMA max_page_count = 1000000")
    assert call("lease_effect", {"effectKey": "k0"})["status"] == "granted"
    assert call("lease_effect", {"effectKey": "before"})["status"] == "cached_completed"
    store.close()


def test_a_file_that_was_removed_or_replaced_takes_no_more_calls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, aside, copy = (tmp_path / name for name in ("v.db", "aside.db", "copy.db"))
    store = SqliteStore(str(file))
    call = Caller(store)
    call.commit("before")
    file.rename(aside)
    assert call.refused("lease_effect", {"effectKey": "k"}) == (503, "unavailable"), "removed"
    assert "removed or replaced" in caplog.text
    with pytest.raises(apsw.Error, match="removed or replaced"):
        store.find_key(b"")
    aside.rename(file)
    assert call("lease_effect", {"effectKey": "before"})["status"] == "cached_completed", "put back"
    copy.write_bytes(file.read_bytes())
    copy.replace(file)
    assert call.refused("lease_effect", {"effectKey": "k"}) == (503, "unavailable"), "replaced"
    store.close()


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_log_that_was_removed_takes_no_more_calls(suffix: str, tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "v.db"))
    call = Caller(store)
    call.commit("before")
    file = tmp_path / f"v.db{suffix}"
    file.rename(tmp_path / "aside")
    assert call.refused("lease_effect", {"effectKey": "k"}) == (503, "unavailable")
    (tmp_path / "aside").rename(file)
    assert call("lease_effect", {"effectKey": "before"})["status"] == "cached_completed"
    store.close()
    assert call("lease_effect", {"effectKey": "k"})["status"] == "granted", "opened anew, it has another log"
    store.close()


def test_a_removed_file_is_not_made_anew_as_an_empty_ledger(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "v.db"))
    Caller(store).commit("k")
    store.before_fork()
    (tmp_path / "v.db").unlink()
    store.after_fork_in_parent()
    assert Caller(store).refused("lease_effect", {"effectKey": "k"}) == (503, "unavailable")
    assert not list(tmp_path.iterdir())
    store.close()


def test_a_bug_in_one_operation_rolls_the_batch_back(store: SqliteStore, call: Caller) -> None:
    nobody: Any = None
    broken = replace(call.request("lease_effect", {"effectKey": "k"}), scope=nobody)
    with pytest.raises(AttributeError):
        store.answer_batch([call.request("lease_effect", {"effectKey": "k"}), broken])
    assert call.refused("get_effect", effectKey="k") == (404, "effect_not_found")


# --- opening ---


def test_what_was_answered_is_there_after_reopening(tmp_path: Path) -> None:
    path = str(tmp_path / "v.db")
    store = SqliteStore(path)
    Caller(store).commit("k", 7)
    store.close()
    store.close()
    assert Caller(store)("lease_effect", {"effectKey": "k"})["cachedResult"] == 7
    store.close()
    again = SqliteStore(path)
    assert Caller(again)("lease_effect", {"effectKey": "k"})["cachedResult"] == 7
    again.close()


def test_every_commit_is_synced(tmp_path: Path) -> None:
    connection = connect(str(tmp_path / "v.db"))
    assert connection.execute("PRAGMA journal_mode").get == "wal"
    assert connection.execute("PRAGMA synchronous").get == 2, "FULL"
    connection.close()
    assert apsw.sqlite_lib_version() >= "3.51.3"


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is a letter, not a database" * 100)
    foreign = apsw.Connection(str(tmp_path / "foreign.db"))
    foreign.execute("CREATE TABLE letters (id)")
    foreign.close()
    newer = connect(str(tmp_path / "newer.db"))
    newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    (tmp_path / "directory.db").mkdir()
    for name, said in {
        "text.db": "cannot be opened as a database",
        "foreign.db": "another program",
        "newer.db": "newer Verity",
        "directory.db": "is a directory",
        "no/such/v.db": "does not exist",
    }.items():
        with pytest.raises(VerityConfigError, match=said) as caught:
            open_ledger(f"sqlite:///{tmp_path}/{name}")
        assert caught.value.parameter == "base_url"
        assert name.partition("/")[0] in str(caught.value)


@pytest.mark.parametrize(
    "url", ["sqlite:", "sqlite:/v.db", "sqlite:v.db", "sqlite:///", "sqlite:///v.db?mode=ro", "sqlite://host/v.db"]
)
def test_a_wrong_url_says_how_it_is_written(url: str) -> None:
    with pytest.raises(VerityConfigError, match=r"sqlite:///relative\.db"):
        read_location(url)


def test_a_file_is_opened_once_in_a_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/v.db"
    one, two = open_ledger(url), open_ledger(url)
    assert one is two
    one.close()
    assert Caller(two.store)("lease_effect", {"effectKey": "k"})
    two.close()
    three = open_ledger(url)
    assert three is not one
    three.close()
    memory = open_ledger("sqlite://"), open_ledger("sqlite://")
    assert memory[0] is not memory[1]
    for ledger in memory:
        ledger.close()
