"""Where a SQLite ledger is: one file, one name, and no new ledger in the place of one that is missing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.helpers.store_calls import Caller
from tests.helpers.verity_process import run_verity
from verity import SyncVerityClient, VerityConfigError
from verity._store.sqlite.location import check_file, read_location
from verity._store.sqlite.registry import open_ledger
from verity._store.sqlite.store import SqliteStore

MISSING = "no ledger at"


def url_of(file: Path, parameters: str = "") -> str:
    return f"sqlite:///{file}{parameters}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A ledger with one effect."""
    file = tmp_path / "v.db"
    store = SqliteStore(str(file))
    Caller(store).commit("before")
    store.close()
    return file


# --- one file by two names ---


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_file_with_a_hard_link_is_not_opened_by_either_name(file: Path, suffix: str) -> None:
    other = file.with_name("other.db")
    part = Path(f"{file}{suffix}")
    part.touch()
    Path(f"{other}{suffix}").hardlink_to(part)
    for each in (file, other):
        with pytest.raises(VerityConfigError, match=r"hard link.*Remove the link") as caught:
            open_ledger(url_of(each)) if not suffix or each == file else check_file(str(each), must_exist=False)
        assert caught.value.parameter == "base_url"
        assert str(each) in str(caught.value)
    Path(f"{other}{suffix}").unlink()
    ledger = open_ledger(url_of(file))
    assert Caller(ledger.store)("lease_effect", {"effectKey": "before"})["status"] == "cached_completed"
    ledger.close()


@pytest.mark.parametrize("command", [["keys", "list"], ["effects", "list"], ["migrate"], ["serve", "--port", "0"]])
def test_no_command_opens_a_file_with_a_hard_link(file: Path, command: list[str]) -> None:
    file.with_name("other.db").hardlink_to(file)
    done = run_verity(*command, "--database", url_of(file))
    assert (done.returncode, done.stdout) == (3, "")
    assert "hard link" in done.stderr


def test_a_file_that_is_mounted_alone_is_not_opened(tmp_path: Path) -> None:
    """As `docker run --volume ./verity.db:/data/verity.db` does."""
    file = tmp_path / "a ledger.db"
    file.touch()
    mounts = tmp_path / "mountinfo"
    line = "63 43 254:0 /host/verity.db {} rw,relatime - ext4 /dev/vda rw\n"
    written = str(file).replace(" ", "\\040")
    mounts.write_text(line.format("/proc") + line.format(written))
    with pytest.raises(VerityConfigError, match=r"a ledger\.db' is mounted alone.*Mount the file's directory"):
        check_file(str(file), must_exist=False, mounts=mounts)
    mounts.write_text(line.format("/proc") + line.format(str(tmp_path)))
    check_file(str(file), must_exist=False, mounts=mounts)
    check_file(str(file), must_exist=False, mounts=tmp_path / "not on this system")


def test_a_link_that_leads_elsewhere_by_now_is_a_moved_file(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link, other = tmp_path / "link.db", tmp_path / "other.db"
    link.symlink_to(file)
    ledger = open_ledger(url_of(link))
    call = Caller(ledger.store)
    assert call("lease_effect", {"effectKey": "k"})["status"] == "granted"
    other.touch()
    link.unlink()
    link.symlink_to(other)
    assert call.refused("lease_effect", {"effectKey": "k2"}) == (503, "unavailable")
    assert "leads to another file by now" in caplog.text
    link.unlink()
    link.symlink_to(file)
    assert call("lease_effect", {"effectKey": "k2"})["status"] == "granted"
    ledger.close()


def test_a_directory_s_link_that_leads_elsewhere_is_one_too(file: Path, tmp_path: Path) -> None:
    release, link = tmp_path / "release", tmp_path / "current"
    release.mkdir()
    link.symlink_to(tmp_path)
    ledger = open_ledger(url_of(link / file.name))
    call = Caller(ledger.store)
    link.unlink()
    link.symlink_to(release)
    assert call.refused("lease_effect", {"effectKey": "k"}) == (503, "unavailable")
    ledger.close()


def test_two_spellings_of_a_path_are_one_store(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(file)
    ledgers = [open_ledger(url) for url in (url_of(file), url_of(link), url_of(tmp_path / "." / "v.db", "?mode=rw"))]
    assert ledgers[0] is ledgers[1] is ledgers[2]
    for ledger in ledgers:
        ledger.close()


# --- a file that is not there ---


def test_a_new_ledger_is_told_once_with_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with SyncVerityClient(url_of(tmp_path / "v.db"), namespace="n") as client:
            assert client.protect("k", act=lambda: 1) == 1
    (told,) = caplog.records
    assert (told.levelno, told.name) == (logging.WARNING, "verity.ledger")
    assert str(tmp_path / "v.db") in told.getMessage()
    caplog.clear()
    SyncVerityClient("sqlite://").close()
    assert not caplog.records, "one in memory is always new"


@pytest.mark.parametrize("is_there", [False, True], ids=["missing", "empty"])
def test_a_ledger_that_must_exist_is_not_made(tmp_path: Path, *, is_there: bool) -> None:
    file = tmp_path / "v.db"
    if is_there:
        file.touch()
    with pytest.raises(VerityConfigError, match=MISSING) as caught:
        SyncVerityClient(url_of(file, "?mode=rw"))
    assert str(file) in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["v.db"] * is_there
    SyncVerityClient(url_of(file, "?mode=rwc")).close()
    SyncVerityClient(url_of(file, "?mode=rw")).close()


def test_a_server_told_so_makes_no_ledger(tmp_path: Path) -> None:
    file = tmp_path / "v.db"
    for options, variables in ((["--existing"], {}), ([], {"VERITY_EXISTING": "1"})):
        done = run_verity("serve", "--port", "0", "--database", url_of(file), *options, **variables)
        assert done.returncode == 3
        assert MISSING in done.stderr
    assert not file.exists()


@pytest.mark.parametrize(
    "command",
    [["keys", "list"], ["keys", "revoke", "key_1"], ["effects", "list"], ["purge", "--older-than", "90d", "--dry-run"]],
)
def test_a_command_that_only_looks_makes_no_ledger(tmp_path: Path, command: list[str]) -> None:
    done = run_verity(*command, "--database", url_of(tmp_path / "v.db"))
    assert done.returncode == 3, done.stderr
    assert MISSING in done.stderr
    assert not list(tmp_path.iterdir())


# --- URLs ---


@pytest.mark.parametrize("parameters", ["?", "?mode=ro", "?mode=", "?cache=shared", "?mode=rw&mode=rwc", "?MODE=rw"])
def test_a_parameter_that_is_not_known_is_refused_by_name(tmp_path: Path, parameters: str) -> None:
    with pytest.raises(VerityConfigError, match="mode=rwc") as caught:
        read_location(url_of(tmp_path / "v.db", parameters))
    assert repr(parameters) in str(caught.value)


def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop.db"
    loop.symlink_to(loop)
    for url in (url_of(loop), "sqlite:///~nobody-of-this-name/v.db"):
        with pytest.raises(VerityConfigError, match=r"leads nowhere|cannot be opened"):
            open_ledger(url)
    with pytest.raises(VerityConfigError, match="in memory takes no mode"):
        read_location("sqlite://?mode=rw")
