"""The spool's file: who may read it, what is refused, and what full disks, locks and other processes do to it."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import apsw
import pytest

from tests.helpers._async.virtual_runtime import AsyncVirtualRuntime
from tests.helpers._sync.virtual_runtime import SyncVirtualRuntime
from tests.helpers.concurrency import async_until, sync_gather
from tests.helpers.served_ledger import TestClock
from verity import CommitUncertainError, EffectPolicy, SyncVerityClient, VerityClient, VerityConfigError
from verity._clock import wall_clock_ns
from verity._spool import Entry, LedgerName, Spool, SpoolError, make_entry, name_ledger

ROOT = Path(__file__).parents[2]
LEDGER = LedgerName("https://ledger.example/v1", "live")


class Disk(apsw.VFS):
    """Calls `on_sync` with the name of each file that is synced, and `on_write` before each write."""

    def __init__(self) -> None:
        self.on_sync: Callable[[str], object] = bool
        self.on_write: Callable[[str], object] = bool
        super().__init__("spool-disk", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's name
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._name = str(name.filename() if isinstance(name, apsw.URIFilename) else name)
        super().__init__("unix", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.on_sync(self._name)
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.on_write(self._name)
        super().xWrite(data, offset)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.unregister()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "verity.spool")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    yield
    os.umask(before)


def entry(key: str = "k", token: str = "token", **fields: Any) -> Entry:
    options = {"fence": 1, "token": token, "result": {"refund": "re_1"}, "source": "acted", **fields}
    return make_entry(LEDGER, "payments", key, "committed", **options)


def mode(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def tokens(spool: Spool) -> list[str]:
    return [each.token for each in spool.read()]


# --- entries ---


def test_what_is_done_twice_is_done_once(path: str) -> None:
    spool = Spool(path)
    for _ in range(2):
        spool.add(entry())
    assert len(spool.read()) == 1
    for _ in range(2):
        spool.reject(entry(), "stale_fence")
    assert (spool.read(), len(spool.rejected())) == ([], 1)
    for _ in range(2):
        spool.remove(entry())
    assert [spool.drop_rejected(spool.rejected()[0].id), spool.drop_rejected(1)] == [True, False]


def test_entries_come_oldest_first_and_those_of_an_effect_the_latest_grant_first(path: str) -> None:
    spool = Spool(path)
    for number, fence in enumerate((2, 9, 3)):
        spool.add(entry(token=f"t{number}", fence=fence))
    spool.add(entry("other", token="t4"))
    assert tokens(spool) == ["t0", "t1", "t2", "t4"]
    assert [each.token for each in spool.read_effect(LEDGER, "payments", "k")] == ["t1", "t2", "t0"]
    assert [each.token for each in spool.read(LEDGER, after=2, limit=1)] == ["t2"]
    assert spool.read(LedgerName(LEDGER.base_url, "test")) == []


@pytest.mark.parametrize("value", [None, True, 0, 1.5e300, "é\U0001f600\x00", [], {"b": [1, {"a": None}], "a": "x"}])
def test_a_result_comes_back_as_it_is(path: str, value: Any) -> None:
    Spool(path).add(entry(result=value))
    (found,) = Spool(path).read()
    assert repr(found.value) == repr(value)
    assert found.has_result(value)
    assert not found.has_result("other")


def test_true_is_not_one() -> None:
    assert not entry(result={"n": 1}).has_result({"n": True})
    assert not entry(result={"n": 1}).has_result({"n": 1.0})


def test_no_payload_and_no_token_is_in_a_repr() -> None:
    shown = repr(entry(token="secret-token", lease_request={"inputJson": "secret-input"}, result="secret-result"))
    assert "secret" not in shown


def test_an_embedded_ledger_has_one_name_however_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = name_ledger("sqlite:///v.db", "live")
    assert name == name_ledger(f"sqlite:///{tmp_path}/v.db?mode=rwc", "live")
    assert name.base_url == f"sqlite:///{tmp_path.resolve()}/v.db"
    assert name_ledger("sqlite://", "live").base_url == "sqlite://"
    assert name_ledger("https://x/v1", "test") == ("https://x/v1", "test")


# --- who may read the file ---


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_only_the_owner_may_read_the_file_and_its_journal(path: str, disk: Disk, mask: int) -> None:
    modes: dict[str, int] = {}
    disk.on_sync = lambda name: modes.update({name: mode(name)})
    with umask(mask):
        spool = Spool(path)
        spool.add(entry())
        spool.reject(entry(), "stale_fence")
    assert modes == {path: 0o600, f"{path}-journal": 0o600}
    assert [each.name for each in Path(path).parent.iterdir()] == ["verity.spool"]


def test_a_file_that_others_could_read_is_closed_to_them_and_told(path: str, caplog: pytest.LogCaptureFixture) -> None:
    Spool(path).add(entry())
    Path(path).chmod(0o644)
    with caplog.at_level(logging.WARNING):
        Spool(path)
    assert mode(path) == 0o600
    assert f"Others could read the spool {path}" in caplog.text


def test_a_file_of_another_user_or_in_a_read_only_directory_is_refused() -> None:
    """As a user who is not root: root may do everything."""
    script = """if True:
        import os, sys
        from verity import VerityConfigError
        from verity._spool import Spool
        if os.geteuid() == 0:
            os.setgid(65534), os.setuid(65534)
        for path in sys.argv[1:]:
            try:
                Spool(path)
            except VerityConfigError as error:
                print(error.parameter, error)
        """
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        directory = Path(scratch)
        foreign = directory / "foreign.spool"
        Spool(str(foreign))
        foreign.chmod(0o666)
        directory.chmod(0o555)
        found = subprocess.run(
            [sys.executable, "-c", script, str(foreign), str(directory / "new.spool"), str(directory / "no" / "x")],
            capture_output=True,
            text=True,
            check=True,
        )
        directory.chmod(0o755)
    lines = found.stdout.splitlines()
    if os.geteuid() == 0:
        assert lines.pop(0) == f"spool The spool '{foreign}' cannot be used: it belongs to another user (uid 0)."
    assert "Permission denied" in lines[0]
    assert "No such file or directory" in lines[1]


def test_a_symbolic_link_is_refused_but_not_one_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    spool = Spool(str(tmp_path / "link" / "verity.spool"))
    assert spool.path == str((tmp_path / "real" / "verity.spool").resolve())
    for name, target in (("there", spool.path), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(VerityConfigError, match="it is a symbolic link; name the file itself"):
            Spool(str(tmp_path / name))
    assert not (tmp_path / "nowhere").exists()
    Path(spool.path).rename(tmp_path / "moved")
    Path(spool.path).symlink_to(tmp_path / "moved")
    with pytest.raises(SpoolError, match="symbolic link"):
        spool.add(entry())


def test_what_is_no_file_of_its_own_is_refused(tmp_path: Path) -> None:
    Spool(str(tmp_path / "one"))
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    os.mkfifo(tmp_path / "pipe")
    for name, why in (("one", "hard link"), ("two", "hard link"), ("pipe", "it is not a file"), (".", "not a file")):
        with pytest.raises(VerityConfigError, match=why) as caught:
            Spool(str(tmp_path / name))
        assert caught.value.parameter == "spool"


# --- what is in it ---


def test_a_file_of_something_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    with SyncVerityClient(f"sqlite:///{tmp_path}/ledger.db", namespace="n") as client:
        client.protect("k", act=lambda: 1)
    (tmp_path / "text").write_text("something else\n" * 100)
    newer = Spool(str(tmp_path / "newer"))
    with apsw.Connection(newer.path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    for name, why in (("ledger.db", "database of something else"), ("text", "NotADB"), ("newer", "it has version 2")):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).chmod(0o640)
        with pytest.raises(VerityConfigError, match=why):
            Spool(str(tmp_path / name))
        assert (tmp_path / name).read_bytes() == before
        assert mode(str(tmp_path / name)) == 0o640, "others go on using it"


def test_a_spool_is_no_ledger_and_stays_as_it_is(path: str) -> None:
    Spool(path).add(entry())
    before = Path(path).read_bytes()
    with pytest.raises(VerityConfigError, match="something else, such as a spool"):
        SyncVerityClient(f"sqlite:///{path}", namespace="n")
    assert Path(path).read_bytes() == before


def test_a_client_is_not_made_with_such_a_file_and_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("something else\n" * 100)
    with pytest.raises(VerityConfigError, match="cannot be used"):
        SyncVerityClient(f"sqlite:///{tmp_path}/ledger.db", spool=tmp_path / "text")
    assert not (tmp_path / "ledger.db").exists()


def test_a_damaged_file_is_an_error_and_no_crash(path: str) -> None:
    spool = Spool(path)
    for number in range(200):
        spool.add(entry(f"k{number}", result="x" * 1000))
    size = Path(path).stat().st_size
    with Path(path).open("r+b") as file:
        for place in range(4096, size, 4096):
            file.seek(place)
            file.write(os.urandom(2048))
    works: list[Callable[[], object]] = [spool.read, spool.rejected, lambda: spool.add(entry("new"))]
    for work in works:
        with pytest.raises(SpoolError, match="CorruptError"):
            work()


def test_a_file_that_is_deleted_is_made_anew(path: str) -> None:
    spool = Spool(path)
    spool.add(entry())
    Path(path).unlink()
    assert (spool.read(), spool.rejected(), spool.read_effect(LEDGER, "payments", "k")) == ([], [], [])
    spool.add(entry("k2"))
    assert [each.effect_key for each in spool.read()] == ["k2"]


# --- disks ---


def test_a_full_disk_is_an_error_and_what_was_there_stays(path: str, disk: Disk) -> None:
    spool = Spool(path)
    spool.add(entry("before"))

    def refuse(_name: str) -> None:
        raise apsw.FullError("database or disk is full")

    disk.on_write = refuse
    works: list[Callable[[], object]] = [
        lambda: spool.add(entry("new")),
        lambda: spool.reject(entry("before"), "stale_fence"),
    ]
    for work in works:
        with pytest.raises(SpoolError, match="FullError: database or disk is full"):
            work()
    disk.on_write = bool
    assert [each.effect_key for each in spool.read()] == ["before"]
    spool.add(entry("after"))
    assert [each.effect_key for each in spool.read()] == ["before", "after"]


def test_what_could_not_be_synced_is_no_success(path: str, disk: Disk) -> None:
    spool = Spool(path)

    def fail(_name: str) -> None:
        raise apsw.IOError("the disk does not sync")

    disk.on_sync = fail
    with pytest.raises(SpoolError, match="does not sync"):
        spool.add(entry())
    disk.on_sync = bool
    assert spool.read() == []


def test_an_entry_is_synced_before_it_counts_as_written(path: str, disk: Disk) -> None:
    spool = Spool(path)
    synced: list[str] = []
    disk.on_sync = synced.append
    spool.add(entry())
    assert path in synced
    assert f"{path}-journal" in synced


# --- others ---


def test_threads_share_a_file(path: str) -> None:
    def work(number: int) -> None:
        spool = Spool(path)
        for step in range(5):
            spool.add(entry(f"k{number}-{step}"))
        spool.reject(entry(f"k{number}-0"), "stale_fence")
        spool.remove(entry(f"k{number}-1"))

    assert sync_gather([lambda number=number: work(number) for number in range(8)]) == [None] * 8  # type: ignore[misc]
    assert (len(Spool(path).read()), len(Spool(path).rejected())) == (24, 8)


def test_a_write_waits_for_another_process(path: str) -> None:
    spool = Spool(path)
    other = apsw.Connection(path)
    other.execute("BEGIN EXCLUSIVE")
    writer = threading.Thread(target=spool.add, args=[entry()])
    writer.start()
    other.execute("COMMIT")
    other.close()
    writer.join(30)
    assert len(spool.read()) == 1


def test_what_a_spool_lacks_is_known_until_it_changes(path: str) -> None:
    """Without that, each call of a client with a spool would open the file."""
    spool = Spool(path)

    def look() -> bool:
        assert spool.read_effect(LEDGER, "payments", "k") == []
        return spool.is_known_to_lack(LEDGER, "payments", "k")

    spool.add(entry("other"))
    assert not look(), "what is written at this moment could have the same time stamp"
    long_ago = wall_clock_ns() - 60_000_000_000
    os.utime(path, ns=(long_ago, long_ago))
    assert look()
    assert not spool.is_known_to_lack(LEDGER, "payments", "other")
    Spool(path).add(entry())
    assert not spool.is_known_to_lack(LEDGER, "payments", "k")
    assert len(spool.read_effect(LEDGER, "payments", "k")) == 1
    spool.remove(entry())
    Path(path).unlink()
    assert not spool.is_known_to_lack(LEDGER, "payments", "k")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_spool_that_stays_locked_holds_up_one_call_and_not_each(
    path: str, tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = AsyncVirtualRuntime(TestClock())
    client = VerityClient(f"sqlite:///{tmp_path}/ledger.db", namespace="n", spool=path, _runtime=runtime)
    other = apsw.Connection(path)

    async def main() -> None:
        assert await client.protect("first", act=lambda: 1) == 1
        other.execute("BEGIN EXCLUSIVE")
        for number in range(20):
            assert await client.protect(f"k{number}", act=lambda: 1) == 1
        await client.close()

    with caplog.at_level(logging.WARNING, logger="verity"):
        anyio.run(main, backend=backend)
    other.close()
    assert caplog.text.count("can't be used") == 1


FORKS = """
import os, signal, sys, threading
from tests.apps.forking import _fork
from verity._spool import LedgerName, Spool, make_entry

LEDGER = LedgerName("https://ledger.example/v1", "live")
spool = Spool(sys.argv[1])
signal.alarm(60)

def write(who, count):
    for number in range(count):
        entry = make_entry(LEDGER, "n", f"{who}-{number}", "committed", fence=1, token="t", result=1, source="acted")
        spool.add(entry)
        assert spool.read_effect(LEDGER, "n", f"{who}-{number}")

COUNT = 0 if os.environ["FORK"] == "C" else 3  # code in C can not fork while other threads run; Python can
threads = [threading.Thread(target=write, args=[f"thread{n}", 60]) for n in range(COUNT)]
for each in threads:
    each.start()
children = []
for number in range(8):
    child = _fork()
    if not child:
        signal.alarm(60)
        write(f"child{number}", 10)
        os._exit(0)
    children.append(child)
for each in threads:
    each.join()
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
write("after", 5)
"""


@pytest.mark.parametrize("kind", ["hooks", "C"])
def test_one_spool_is_used_in_a_parent_its_threads_and_its_children(path: str, kind: str) -> None:
    subprocess.run(
        [sys.executable, "-c", FORKS, path], env={**os.environ, "FORK": kind}, cwd=ROOT, check=True, timeout=100
    )
    spool = Spool(path)
    found = spool.read(limit=1000)
    assert len(found) == (265 if kind == "hooks" else 85)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_locked_spool_does_not_block_the_event_loop(
    path: str, tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise no task could release the lock, and the write would give up."""
    client = VerityClient(f"sqlite:///{tmp_path}/ledger.db", namespace="n", spool=path, spool_when="always")
    other = apsw.Connection(path)
    acted: list[int] = []

    async def release() -> None:
        await async_until(lambda: bool(acted))
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        other.execute("COMMIT")

    async def act() -> int:
        other.execute("BEGIN EXCLUSIVE")
        acted.append(1)
        return 1

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(release)
            assert await client.protect("k", act=act) == 1
        await client.close()

    with caplog.at_level(logging.WARNING, logger="verity"):
        anyio.run(main, backend=backend)
    other.close()
    assert "can't be used" not in caplog.text


# --- an embedded ledger ---


def test_an_embedded_ledger_whose_file_is_away(path: str, tmp_path: Path) -> None:
    file, aside = tmp_path / "ledger.db", tmp_path / "aside.db"
    policy = EffectPolicy(on_unavailable="proceed", commit_patience_s=0)

    def act_while_it_is_away() -> int:
        file.rename(aside)
        return 1

    runtime = SyncVirtualRuntime(TestClock())
    with SyncVerityClient(f"sqlite:///{file}", None, "n", spool=path, policy=policy, _runtime=runtime) as client:
        with pytest.raises(CommitUncertainError) as caught:
            client.protect("k", act=act_while_it_is_away, lease_duration_ms=5000)
        assert caught.value.spooled
        assert client.protect("k", act=lambda: 2) == 1
        assert client.protect("k2", act=lambda: 3) == 3
        aside.rename(file)
        assert [client.protect(key, act=lambda: 4) for key in ("k", "k2")] == [1, 3]
        assert [client.effects.get(key).status for key in ("k", "k2")] == ["COMMITTED"] * 2
    assert Spool(path).read() == []
