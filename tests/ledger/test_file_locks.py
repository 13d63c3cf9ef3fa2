"""Locks of our own: what holds when a part of the same process opens and closes the ledger's file by other means."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from tests.helpers.concurrency import SyncBackground, sync_until
from tests.helpers.store_calls import Caller
from verity._ledger.calls import Scope
from verity._store.sqlite import file_locks
from verity._store.sqlite.file_locks import FileLocks, LockTimeout
from verity._store.sqlite.store import SqliteStore
from verity.errors import VerityConfigError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="open file description locks are Linux's")

OTHER = """
import sys
from tests.helpers.store_calls import Caller
from verity._store.sqlite.store import SqliteStore
store = SqliteStore(sys.argv[1])
print("open", flush=True)
for line in sys.stdin:
    print(Caller(store).ask("lease_effect", {"effectKey": line.strip()}).status, flush=True)
store.close()
"""
WRITER = """
import sys
from pathlib import Path
from tests.helpers.store_calls import Caller
from verity._store.sqlite.store import SqliteStore
drops = sys.argv[2:]
def clock():
    if drops and drops.pop():
        Path(sys.argv[1] + "-shm").read_bytes()
    print("writes", flush=True)
    sys.stdin.readline()
    return 1_000_000
Caller(SqliteStore(sys.argv[1], clock=clock)).commit("k")
"""


class Other:
    """Another process that has the ledger's file open."""

    def __init__(self, path: str, program: str = OTHER, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, path, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.hear()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "v.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    Caller(store).commit("before")
    yield store
    store.close()


def look_by_other_means(path: str) -> None:
    """Drops all of SQLite's locks that this process has on the database and on the log's index."""
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM effects").fetchone() == (1,)
    connection.close()
    Path(f"{path}-shm").read_bytes()


def test_a_look_by_other_means_takes_no_file_away(store: SqliteStore, path: str) -> None:
    """Not when it ends, nor when another process opens the file, nor when that one closes it as if it were the last."""
    files = [Path(f"{path}{suffix}").stat().st_ino for suffix in ("", "-wal", "-shm")]
    look_by_other_means(path)
    with Path(f"{path}-shm").open("r+b") as index:  # bytes that SQLite does not use
        index.seek(132)
        index.write(b"mark")
    other = Other(path)
    index_now = Path(f"{path}-shm").read_bytes()
    assert index_now[132:136] == b"mark", "cut short under a process that has it mapped, it ends with SIGBUS"
    other.end()
    assert [Path(f"{path}{suffix}").stat().st_ino for suffix in ("", "-wal", "-shm")] == files
    assert Caller(store)("lease_effect", {"effectKey": "after"})["status"] == "granted"
    assert Caller(store)("lease_effect", {"effectKey": "before"})["status"] == "cached_completed"


def test_two_processes_never_write_at_once_when_the_locks_were_dropped(store: SqliteStore, path: str) -> None:
    """The clock is read in the middle of a transaction: there the other process drops its own."""
    other = Other(path, WRITER, "drops")
    assert store._locks is not None
    store._locks.close()
    store._locks = FileLocks(path, wait_s=0.0)
    assert Caller(store).refused("lease_effect", {"effectKey": "k"}) == (503, "unavailable")
    other.say("go on")
    assert other.hear() == "writes", "it notices, and carries the transaction out anew"
    other.end()
    assert Caller(store)("lease_effect", {"effectKey": "k"})["status"] == "cached_completed"


def test_a_transaction_whose_locks_were_dropped_is_carried_out_anew(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    SqliteStore(path).close()
    times: list[int] = []

    def clock() -> int:
        times.append(1_000_000)
        if len(times) <= drops:
            Path(f"{path}-shm").read_bytes()
        return times[-1]

    drops = 2
    store = SqliteStore(path, clock=clock)
    assert Caller(store)("lease_effect", {"effectKey": "k"})["status"] == "granted"
    assert len(times) == 3, "the first two transactions were taken back"
    drops = 6
    assert Caller(store).refused("lease_effect", {"effectKey": "l"}) == (503, "unavailable")
    told = [each for each in caplog.records if "without Verity" in each.getMessage()]
    assert [each.levelno for each in told] == [logging.ERROR] * 2, "once for the store, once for the call that failed"
    assert path in told[0].getMessage()
    assert "`verity backup`" in told[0].getMessage()
    assert Caller(store)("lease_effect", {"effectKey": "l"})["fenceToken"] == 1
    store.close()


def test_two_stores_of_one_process_exclude_each_other_and_close_one_by_one(store: SqliteStore, path: str) -> None:
    another = SqliteStore(path)
    Caller(another).commit("theirs")
    another.close()
    assert store._locks is not None
    assert store._locks.are_intact(), "its descriptors stay open"
    Path(f"{path}-shm").read_bytes()
    assert not store._locks.are_intact()
    assert Caller(store)("lease_effect", {"effectKey": "theirs"})["status"] == "cached_completed"


def test_a_store_that_is_closed_while_it_writes_keeps_nobody_from_writing(store: SqliteStore, path: str) -> None:
    """As after a disk's error; a reader of this process keeps the descriptors open."""
    Caller(store).ask("get_effect", effectKey="before")
    assert store._locks is not None
    store._locks.acquire()
    store._close_file()
    other = Other(path)
    other.say("k")
    assert other.hear() == "200"
    other.end()


def test_the_last_one_to_close_the_file_leaves_one_file(path: str, tmp_path: Path) -> None:
    one, two = SqliteStore(path), SqliteStore(path)
    Caller(one).commit("k")
    Caller(two).ask("get_effect", effectKey="k")
    before = len(list(Path("/proc/self/fd").iterdir()))
    one.close()
    two.close()
    assert [each.name for each in tmp_path.iterdir()] == ["v.db"]
    assert len(list(Path("/proc/self/fd").iterdir())) < before


def test_the_log_is_not_begun_anew_while_another_process_writes(store: SqliteStore, path: str) -> None:
    """Not even where that one lost SQLite's locks: it would write into the middle of nowhere."""
    other = Other(path, WRITER, "drops")
    size = Path(f"{path}-wal").stat().st_size
    store._shorten_log()
    assert Path(f"{path}-wal").stat().st_size == size > 0
    other.end()
    store._shorten_log()
    assert Path(f"{path}-wal").stat().st_size == 0


@pytest.mark.parametrize("actor", ["embedded", "key"])
def test_who_waits_for_a_stopped_process_is_told_which(
    store: SqliteStore, path: str, actor: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = Other(path, WRITER)
    other.process.send_signal(signal.SIGSTOP)
    sync_until(lambda: Path(f"/proc/{other.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
    locks = FileLocks(path, wait_s=0.0)
    who = f"process {other.process.pid} (python"
    with pytest.raises(LockTimeout, match="which is stopped") as caught:
        locks.acquire()
    assert who in str(caught.value)
    store._locks = locks
    call = Caller(store)
    call.scope = Scope("test", actor=actor)
    answer = call.ask("lease_effect", {"effectKey": "k"})
    assert answer.status == 503
    assert (who in answer.body.decode()) is (actor == "embedded"), "a caller over HTTP learns nothing of processes"
    assert who in caplog.text
    other.process.send_signal(signal.SIGCONT)
    other.end()
    assert Caller(store)("lease_effect", {"effectKey": "k"})["status"] == "cached_completed"


def test_who_holds_only_our_lock_is_told_with_the_time(store: SqliteStore, path: str) -> None:
    """Where SQLite's was dropped."""
    other = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, apsw; from verity._store.sqlite.file_locks import FileLocks;"
            "from verity._store.sqlite.connection import *;"
            "connection = connect(sys.argv[1]); locks = FileLocks(sys.argv[1], wait_s=1); locks.acquire();"
            "print('taken', flush=True); sys.stdin.read()",
            path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    other.stdout.readline()
    locks = FileLocks(path, wait_s=0.0)
    with pytest.raises(LockTimeout, match=rf"process {other.pid} \(python\S*\), since 20\d\d-\d\d-\d\dT.*Z"):
        locks.acquire()
    locks.close()
    other.communicate()


def test_who_waits_goes_on_when_the_other_is_done(store: SqliteStore, path: str) -> None:
    other = Other(path, WRITER)
    with SyncBackground() as background:
        background.start(lambda: Caller(store)("lease_effect", {"effectKey": "mine"})["status"])
        other.end()
    assert background.outcomes == ["granted"]


def test_a_program_without_our_locks_is_excluded_by_sqlites(store: SqliteStore, path: str) -> None:
    """An older Verity, for one."""
    older = apsw.Connection(path)
    older.execute("BEGIN IMMEDIATE")
    store._connected().set_busy_timeout(1)
    assert Caller(store).refused("lease_effect", {"effectKey": "k"}) == (503, "unavailable")
    older.execute("ROLLBACK")
    older.close()
    assert Caller(store)("lease_effect", {"effectKey": "k"})["status"] == "granted"


def is_somebody_next(path: str) -> bool:
    with Path(path).open("r+b") as file:
        return file_locks._find(file.fileno(), file_locks._NEXT_AT, 1) is not None


def test_who_has_written_lets_those_who_wait_write_first(store: SqliteStore, path: str) -> None:
    """Or one that is busy would keep all others waiting, who look only now and then whether the file is free."""
    busy, other = (FileLocks(path, wait_s=60, turn_s=60) for _ in range(2))
    order: list[str] = []

    def write(locks: FileLocks, name: str) -> None:
        locks.acquire()
        order.append(name)
        locks.release()

    busy.acquire()
    with SyncBackground() as background:
        background.start(lambda: write(other, "other"))
        sync_until(lambda: is_somebody_next(path))
        busy.release()
        write(busy, "busy")
    assert (order, background.outcomes) == (["other", "busy"], [None])
    assert not is_somebody_next(path)
    for locks in (busy, other):
        locks.close()
    assert Caller(store)("lease_effect", {"effectKey": "k"})["status"] == "granted"


def test_who_is_next_and_frozen_keeps_nobody_from_writing(store: SqliteStore, path: str) -> None:
    frozen, locks = FileLocks(path, wait_s=0), FileLocks(path, wait_s=60, turn_s=0.01)
    frozen._be_next()
    for _ in range(3):
        locks.acquire()
        with pytest.raises(LockTimeout):
            frozen.acquire()
        locks.release()
    for each in (frozen, locks):
        each.close()
    assert Caller(store)("lease_effect", {"effectKey": "k"})["status"] == "granted"


@pytest.fixture
def descriptors() -> Iterator[Callable[[int], None]]:
    """Leaves a process with so many free file descriptors; afterwards it has what it had."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def leave(free: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        taken = [os.dup(0) for _ in range(64)]  # the gaps between those that are in use
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[free], before[1]))

    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_store_that_finds_no_descriptor_for_its_locks_answers_503(
    store: SqliteStore, path: str, descriptors: Callable[[int], None]
) -> None:
    call, statuses = Caller(store), []
    for free in range(8):
        store.close()
        descriptors(free)
        statuses.append(call.ask("lease_effect", {"effectKey": "k"}, key="one request").status)
        if statuses[-1] == 503:
            with pytest.raises(apsw.Error):
                store.revoke_key("none", 0)
    assert set(statuses[:4]) == {503}
    assert statuses == sorted(statuses, reverse=True)
    assert statuses[-1] == 200


def test_a_store_whose_descriptor_somebody_closed_answers_503_and_opens_the_file_anew(store: SqliteStore) -> None:
    assert isinstance(store._locks, FileLocks)
    os.close(store._locks._database)
    call = Caller(store)
    assert call.ask("lease_effect", {"effectKey": "k"}).status == 503
    assert call("lease_effect", {"effectKey": "k"})["status"] == "granted"


def test_a_client_that_finds_no_descriptor_for_its_locks_is_told(path: str, descriptors: Callable[[int], None]) -> None:
    for free in range(8):
        descriptors(free)
        with suppress(VerityConfigError):
            SqliteStore(path).close()
            return
    pytest.fail("there were descriptors enough in the end")
