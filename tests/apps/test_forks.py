"""One client, made and used before a fork, used on in the parent and in its children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.apps import forking
from tests.helpers.http_relay import Relay
from tests.helpers.new_ledger_notice import without_new_ledger_notice
from tests.helpers.served_ledger import ServedLedger

ROOT = Path(__file__).parents[2]
# What Python 3.12 and later say of every fork of a process with threads; that it works here is what is tested.
FORK_WARNING = "ignore:This process:DeprecationWarning"


@pytest.fixture(params=["hooks", "C"])
def fork(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the program forks: as Python does, or as code in C that runs no hooks (uWSGI's)."""
    monkeypatch.setenv("FORK", request.param)


class Ledger:
    """Where the program's ledger is; the relay before it, if it is served."""

    def __init__(self, environment: dict[str, str], relay: Relay | None = None) -> None:
        self.environment = environment
        self.relay = relay


@pytest.fixture(params=["embedded", "http"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "embedded":
        yield Ledger({"VERITY_BASE_URL": f"sqlite:///{tmp_path}/verity.db"})
        return
    with ServedLedger() as served, Relay(served.base_url) as relay:
        yield Ledger({"VERITY_BASE_URL": relay.base_url, "VERITY_API_KEY": served.create_key()}, relay)


class Records:
    """What the processes wrote, and what holds in every scenario."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self._lines = lines
        results: dict[str, set[str]] = {}
        for each in self.of("result"):
            results.setdefault(each["key"], set()).add(each["result"])
        acts = Counter(each["key"] for each in self.of("act"))
        assert acts == dict.fromkeys(results, 1)
        assert [key for key, values in results.items() if len(values) > 1] == []

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self._lines if line["kind"] == kind]

    def calls(self) -> int:
        return len(self.of("result"))

    def check_no_socket_is_shared(self, processes: int, *, some: bool) -> None:
        sockets = [set(each["sockets"]) for each in self.of("process")]
        assert len(sockets) == processes
        assert [one & other for one, other in combinations(sockets, 2) if one & other] == []
        assert all(bool(each) is some for each in sockets)


def run(scenario: str, records: Path, environment: dict[str, str]) -> Records:
    """Run the program with all warnings as errors; it must end well and say nothing."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-W", FORK_WARNING, "-m", "tests.apps.forking", scenario],
        cwd=ROOT,
        env={**os.environ, **environment, "RECORDS": str(records)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, without_new_ledger_notice(done.stderr), done.stdout) == (0, "", "")
    return Records([json.loads(line) for line in records.read_text().splitlines()])


@pytest.mark.parametrize(("scenario", "fork"), [("raw", "hooks"), ("raw", "C"), ("with_multiprocessing", "hooks")])
def test_parent_and_children_at_once(
    scenario: str, fork: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORK", fork)
    records = run(scenario, tmp_path / "records", ledger.environment)
    processes = forking.CHILDREN + 1
    assert records.calls() == processes * (forking.EFFECTS + forking.SHARED_EFFECTS) + 2
    records.check_no_socket_is_shared(processes, some=ledger.relay is not None)
    run_ids = [run_id for each in records.of("process") for run_id in each["run_ids"]]
    assert len(set(run_ids)) == len(run_ids) == processes * 3
    assert [(each["timer_fired"], each["timer_threads"]) for each in records.of("process")] == [(True, 1)] * processes
    if ledger.relay is not None:  # repeated while another holder is at it, but never used for two calls
        assert len(set(ledger.relay.idempotency_keys())) == records.calls()


def test_a_server_of_many_workers(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORK", "C")
    records = run("many", tmp_path / "records", ledger.environment)
    assert len({each["pid"] for each in records.of("act")}) == forking.MANY_CHILDREN + 1
    assert records.calls() == 2 + 3 * forking.MANY_CHILDREN + 1
    assert [each["sockets"] for each in records.of("begun")] == [[]] * forking.MANY_CHILDREN
    records.check_no_socket_is_shared(forking.MANY_CHILDREN + 1, some=ledger.relay is not None)


def test_forks_while_other_threads_are_busy(ledger: Ledger, tmp_path: Path) -> None:
    if ledger.relay is not None:
        ledger.relay.hold = forking.BUSY_THREADS  # no thread is still connecting when the first fork comes
    records = run("while_busy", tmp_path / "records", ledger.environment)
    assert len({each["pid"] for each in records.of("act")}) == forking.BUSY_CHILDREN + 1
    records.check_no_socket_is_shared(forking.BUSY_CHILDREN + 1, some=ledger.relay is not None)


def test_forks_while_other_threads_open_ledgers(tmp_path: Path) -> None:
    records = run("while_opening", tmp_path / "records", {"VERITY_BASE_URL": f"sqlite:///{tmp_path}/verity.db"})
    assert len({each["pid"] for each in records.of("act")}) == forking.BUSY_CHILDREN + 1


def test_forks_while_other_threads_read(tmp_path: Path) -> None:
    records = run("while_reading", tmp_path / "records", {"VERITY_BASE_URL": f"sqlite:///{tmp_path}/verity.db"})
    assert [each["files"] for each in records.of("process")] == [[]] * forking.BUSY_CHILDREN


@pytest.mark.usefixtures("fork")
def test_a_fork_while_another_thread_waits_for_the_ledger(tmp_path: Path) -> None:
    with ServedLedger() as served, Relay(served.base_url) as relay:
        relay.hold = 2
        environment = {"VERITY_BASE_URL": relay.base_url, "VERITY_API_KEY": served.create_key()}
        records = run("while_waiting", tmp_path / "records", environment)
    assert sorted(each["key"] for each in records.of("act")) == ["in the child", "in the parent"]
    records.check_no_socket_is_shared(2, some=True)


@pytest.mark.usefixtures("fork")
def test_a_fork_while_another_thread_acts(ledger: Ledger, tmp_path: Path) -> None:
    records = run("while_acting", tmp_path / "records", ledger.environment)
    assert [each["result"] for each in records.of("result")] == ["done by the parent"] * 2
    (conflict,) = records.of("conflict")
    (child,) = records.of("process")
    assert conflict["pid"] == child["pid"]
    assert child["timers"] == 0  # the parent's lease is not the child's to renew


@pytest.mark.usefixtures("fork")
def test_a_child_that_leaves_a_call_says_nothing_about_the_parents_lease(ledger: Ledger, tmp_path: Path) -> None:
    """Otherwise another caller would act while the parent's act still runs, or is about to."""
    records = run("in_the_callers_code", tmp_path / "records", ledger.environment)
    told = [each["types"] for each in records.of("events")]
    assert len(told) == records.calls() == 18
    assert told == [["LEASE_GRANTED", "OBSERVE_MISS", "COMMITTED"]] * len(told)


@pytest.mark.usefixtures("fork")
def test_a_ledger_in_memory_stays_with_the_parent(tmp_path: Path) -> None:
    records = run("in_memory", tmp_path / "records", {})
    (error,) = records.of("error")
    assert error["type"] == "VerityConfigError"
    assert "memory" in error["message"]
    assert "fork" in error["message"]


@pytest.mark.usefixtures("fork")
def test_the_async_client(ledger: Ledger, tmp_path: Path) -> None:
    records = run("async_client", tmp_path / "records", ledger.environment)
    processes = forking.CHILDREN + 2
    assert len(records.of("process")) == processes
    assert records.calls() == processes * (forking.EFFECTS + forking.SHARED_EFFECTS) + 2
    if ledger.relay is not None:
        assert len(set(ledger.relay.idempotency_keys())) == records.calls()
