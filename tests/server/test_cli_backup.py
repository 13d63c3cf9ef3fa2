"""`verity backup`: a copy that is whole, of a ledger that is at work."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from pathlib import Path

import apsw
import pytest

from tests.helpers.store_calls import Caller
from tests.helpers.verity_process import run_verity
from verity import VerityConfigError
from verity._store.sqlite.backup import _name, back_up
from verity._store.sqlite.migrations import SCHEMA_VERSION
from verity._store.sqlite.store import SqliteStore


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """With one effect."""
    file = tmp_path / "ledger.db"
    store = SqliteStore(str(file))
    Caller(store).commit("first")
    store.close()
    return file


def test_a_ledger_at_work_is_copied_with_all_that_was_answered_before(ledger: Path, tmp_path: Path) -> None:
    store, enough, copy = SqliteStore(str(ledger)), threading.Event(), tmp_path / "copy.db"
    Caller(store).commit("only in the log")

    def work() -> None:
        number = 0
        while not enough.is_set():
            number += 1
            Caller(store).commit(f"{number}")

    thread = threading.Thread(target=work)
    thread.start()
    done = run_verity("backup", "--database", f"sqlite:///{ledger}", str(copy), "--json")
    enough.set()
    thread.join()
    store.close()
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told == {"path": str(copy), "sizeBytes": copy.stat().st_size, "effects": told["effects"]}
    assert told["effects"] >= 2
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert copy.stat().st_nlink == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy.db", "ledger.db"]
    of_copy = SqliteStore(str(copy))
    for key in ("first", "only in the log"):
        assert Caller(of_copy)("lease_effect", {"effectKey": key})["status"] == "cached_completed"
    of_copy.close()


def test_the_ledgers_log_is_free_while_the_copy_is_checked(ledger: Path, tmp_path: Path) -> None:
    writer, seen = apsw.Connection(str(ledger)), []

    def before_statement(_cursor: object, sql: str, _bindings: object) -> bool:
        if "integrity_check" in sql:
            writer.execute("CREATE TABLE later (id)")
            writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)  # BusyError while somebody reads
            seen.append(Path(f"{ledger}-wal").stat().st_size)
        return True

    def trace(connection: apsw.Connection) -> None:
        connection.exec_trace = before_statement

    apsw.connection_hooks.append(trace)
    try:
        back_up(str(ledger), str(tmp_path / "copy.db"))
    finally:
        apsw.connection_hooks.remove(trace)
        writer.close()
    assert seen == [0]


def test_an_older_schema_is_copied_as_it_is(ledger: Path, tmp_path: Path) -> None:
    connection = apsw.Connection(str(ledger))
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    done = run_verity("backup", "--database", f"sqlite:///{ledger}", str(tmp_path / "copy.db"))
    assert done.stdout.startswith(f"Copied 1 effect to {tmp_path}/copy.db (")
    assert (tmp_path / "copy.db").read_bytes()[18:20] == b"\1\1", "one file, without a log"
    connection = apsw.Connection(str(tmp_path / "copy.db"))
    assert connection.execute("PRAGMA user_version").get == 1
    connection.close()


@pytest.mark.parametrize("taken", ["file", "link"])
def test_a_name_that_is_taken_is_refused(ledger: Path, tmp_path: Path, taken: str) -> None:
    copy = tmp_path / "copy.db"
    if taken == "file":
        copy.write_text("a letter")
    else:
        copy.symlink_to(tmp_path / "nowhere")
    done = run_verity("backup", "--database", f"sqlite:///{ledger}", str(copy))
    assert done.returncode == 3
    assert done.stderr == f"Error: {str(copy)!r} is there already: name a new file.\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy.db", "ledger.db"]


def test_a_name_that_is_taken_meanwhile_is_refused(tmp_path: Path) -> None:
    part, copy = tmp_path / "part", tmp_path / "copy.db"
    part.write_text("the copy")
    copy.write_text("a letter")
    with pytest.raises(VerityConfigError, match="is there already"):
        _name(part, copy)
    assert copy.read_text() == "a letter"


def test_what_is_no_ledger_is_refused_and_nothing_is_made(ledger: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_text("this is a letter, not a database" * 100)
    (tmp_path / "empty.db").touch()
    connection = apsw.Connection(str(ledger))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    connection = apsw.Connection(str(tmp_path / "other.db"))
    connection.execute("CREATE TABLE letters (id)")
    connection.close()
    (tmp_path / "second.db").write_bytes(b"x")
    (tmp_path / "link.db").hardlink_to(tmp_path / "second.db")
    before = sorted(each.name for each in tmp_path.iterdir())
    for name, said in {
        "none.db": "There is no ledger at",
        "letter.db": "The ledger was not copied (NotADBError",
        "empty.db": "There is no ledger at",
        "other.db": "is not a ledger",
        "link.db": "a hard link",
        "ledger.db": "a newer Verity",
    }.items():
        done = run_verity("backup", "--database", f"sqlite:///{tmp_path}/{name}", str(tmp_path / "copy.db"))
        assert (done.returncode, said in done.stderr, str(tmp_path) in done.stderr or "NotADB" in said) == (
            3,
            True,
            True,
        )
    done = run_verity("backup", "--database", f"sqlite:///{ledger}", str(tmp_path / "no" / "copy.db"))
    assert (done.returncode, "does not exist" in done.stderr) == (3, True)
    assert sorted(each.name for each in tmp_path.iterdir()) == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full's error from a real file system")
def test_a_copy_that_can_not_be_written_leaves_nothing(ledger: Path, tmp_path: Path) -> None:
    if os.getuid() == 0:
        target = Path("/proc/copy.db")
    else:
        (tmp_path / "closed").mkdir(mode=0o500)
        target = tmp_path / "closed" / "copy.db"
    done = run_verity("backup", "--database", f"sqlite:///{ledger}", str(target))
    assert done.returncode == 3
    assert done.stderr.startswith("Error: The ledger was not copied (")
    assert not os.path.lexists(target)


def test_a_damaged_ledger_is_told_and_not_copied(ledger: Path, tmp_path: Path) -> None:
    damaged = bytearray(ledger.read_bytes())
    connection = apsw.Connection(str(ledger))
    root: int = connection.execute("SELECT rootpage FROM sqlite_schema WHERE type = 'index' LIMIT 1").get
    size: int = connection.execute("PRAGMA page_size").get
    connection.close()
    damaged[(root - 1) * size : root * size] = bytes(size)
    ledger.write_bytes(damaged)
    done = run_verity("backup", "--database", f"sqlite:///{ledger}", str(tmp_path / "copy.db"))
    assert done.returncode == 3
    assert "is damaged" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["ledger.db"]


def test_postgresql_has_its_own(tmp_path: Path) -> None:
    done = run_verity("backup", "--database", "postgresql://nobody@127.0.0.1:9/none", str(tmp_path / "copy.db"))
    assert done.returncode == 2
    assert "pg_dump or pg_basebackup" in done.stderr
