"""The SQLite store when the disk fails while a commit is synced."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.helpers.store_calls import Caller
from verity._store.sqlite.store import SqliteStore
from verity.errors import VerityConfigError


class FailingDisk(apsw.VFS):
    """Syncs of the files whose names end so fail."""

    def __init__(self) -> None:
        self.fails = ""
        super().__init__("failing-disk", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's name
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._name = name if isinstance(name, str) or name is None else name.filename()
        super().__init__("unix", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        if self._disk.fails and str(self._name).endswith(self._disk.fails):
            raise apsw.IOError("the disk does not sync")
        super().xSync(flags)


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    disk = FailingDisk()
    yield disk
    disk.unregister()


@pytest.fixture
def store(disk: FailingDisk, tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(str(tmp_path / "v.db"))
    yield store
    store.close()


def crash(directory: Path) -> SqliteStore:
    """The ledger as it is found after its process was killed."""
    there = directory / "after"
    there.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(directory / f"v.db{suffix}", there / f"v.db{suffix}")
    return SqliteStore(str(there / "v.db"))


def test_a_commit_that_could_not_be_synced_is_unknown_and_the_store_recovers(
    store: SqliteStore, disk: FailingDisk
) -> None:
    call = Caller(store)
    body = {**call.tokens(call("lease_effect", {"effectKey": "k"})), "result": 1}
    disk.fails = "-wal"
    for _ in range(2):
        answer = call.ask("commit_effect", body)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert b"is unknown. Send it again." in answer.body
    reset = call.ask("reset_effect", {"effectKey": "k", "force": True})
    assert (reset.status, b"is unknown. Look at the effect before" in reset.body) == (503, True)
    disk.fails = ""
    assert call("commit_effect", body)["status"] in ("accepted", "already_committed")
    assert call("lease_effect", {"effectKey": "k"})["cachedResult"] == 1


def test_what_is_found_after_a_failed_sync_is_written_down_before_it_is_told(
    store: SqliteStore, disk: FailingDisk, tmp_path: Path
) -> None:
    """Read from the log alone, it could be in the system's cache and not on disk."""
    call = Caller(store)
    body = {**call.tokens(call("lease_effect", {"effectKey": "k"})), "result": 1}
    disk.fails = "-wal"
    assert call.ask("commit_effect", body).status == 503
    disk.fails = ""
    recovered = crash(tmp_path)
    told = Caller(recovered)("get_effect", effectKey="k")["status"]
    assert told == "COMMITTED"
    shutil.copy(tmp_path / "after" / "v.db", tmp_path / "alone.db")
    recovered.close()
    alone = SqliteStore(str(tmp_path / "alone.db"))
    assert Caller(alone)("get_effect", effectKey="k")["status"] == told
    alone.close()


def test_a_log_that_can_not_be_written_down_is_not_told(store: SqliteStore, disk: FailingDisk, tmp_path: Path) -> None:
    call = Caller(store)
    body = {**call.tokens(call("lease_effect", {"effectKey": "k"})), "result": 1}
    disk.fails = "-wal"
    assert call.ask("commit_effect", body).status == 503
    disk.fails = ".db"
    with pytest.raises(VerityConfigError, match="does not sync"):
        crash(tmp_path)
    assert {call.ask(*asked).status for asked in (("commit_effect", body), ("lease_effect", {"effectKey": "k"}))} == {
        503
    }
    disk.fails = ""
    assert call("commit_effect", body)["status"] in ("accepted", "already_committed")
