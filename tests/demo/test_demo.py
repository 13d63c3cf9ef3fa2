"""`verity demo` as a person runs it: real processes, real kills. What it claims is counted a second time here."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.helpers.new_ledger_notice import NEW_LEDGER_NOTICE
from verity import SyncVerityClient
from verity.cli.demo import demo
from verity.demo.audit import audit
from verity.demo.orders import read_orders
from verity.demo.supervisor import Job, Tally
from verity.demo.worker import STEPS, Mode, ledger_url

ORDERS, KILLS = 6, 3
COMMAND = [sys.executable, "-c", "from verity.cli import main; main()", "demo"]
OPTIONS = [f"--orders={ORDERS}", f"--kills={KILLS}", "--seed=3"]


def start(*options: str, temporary: Path, warnings: str = "error") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONWARNINGS": warnings, "PYTHONIOENCODING": "utf-8", "TMPDIR": str(temporary)},
    )


def processes_about(directory: Path) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(directory) in line]


@dataclass
class Finished:
    code: int
    output: str
    errors: str
    directory: Path

    def row(self, name: str) -> list[str]:
        found = re.search(rf"│ {re.escape(name)}\s*│([^│]*)│([^│]*)│", self.output)
        assert found, self.output
        return [cell.strip() for cell in found.groups()]

    def record(self, run: str, column: str, table: str) -> Counter[str]:
        with closing(sqlite3.connect(self.directory / run / "payments.db")) as database:
            return Counter(value for (value,) in database.execute(f'SELECT "{column}" FROM {table}'))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Finished]]:
    """The demo as it is, and with an observe that never finds anything: side by side, both wait for leases."""
    kept = tmp_path_factory.mktemp("kept") / "run"
    temporary = tmp_path_factory.mktemp("temporary")
    whole = start(*OPTIONS, "--keep", str(kept), temporary=temporary)
    broken = start(*OPTIONS, "--broken-observe", "--keep", temporary=temporary)
    finished = {}
    for name, process in (("whole", whole), ("broken", broken)):
        output, errors = process.communicate(timeout=120)
        directory = kept if name == "whole" else next(temporary.glob("verity-demo-*"))
        finished[name] = Finished(process.returncode, output, errors, directory)
    yield finished
    shutil.rmtree(temporary)


@pytest.fixture
def whole(runs: dict[str, Finished]) -> Finished:
    return runs["whole"]


@pytest.fixture
def broken(runs: dict[str, Finished]) -> Finished:
    return runs["broken"]


def test_every_order_is_refunded_once_and_the_exit_code_says_so(whole: Finished) -> None:
    charges = [order.charge_id for order in read_orders(ORDERS)]

    assert (whole.code, whole.errors) == (0, "")
    assert whole.record("verity", "charge", "refunds") == Counter(charges)
    assert len(whole.record("verity", "refund", "receipts")) == ORDERS
    assert "Not shown" not in whole.output


def test_plain_retry_refunds_as_many_orders_twice_as_it_was_killed(whole: Finished) -> None:
    per_charge = whole.record("plain", "charge", "refunds")

    assert sorted(per_charge.values()) == [1] * (ORDERS - KILLS) + [2] * KILLS


def test_the_table_says_what_the_payments_service_recorded(whole: Finished) -> None:
    plain, verity = (whole.record(run, "charge", "refunds") for run in ("plain", "verity"))

    assert whole.row("Orders") == [str(ORDERS)] * 2
    assert whole.row("Kills between refund and commit") == [str(KILLS)] * 2
    assert whole.row("Attempts (worker starts)") == [str(KILLS + 1)] * 2
    assert whole.row("Refunds made") == [str(plain.total()), str(verity.total())]
    assert whole.row("Double refunds") == [str(plain.total() - len(plain)), str(verity.total() - len(verity))]
    assert whole.row("Notifications sent") == [
        str(whole.record(run, "id", "receipts").total()) for run in ("plain", "verity")
    ]


def test_the_worker_and_the_service_had_nothing_to_complain_of(whole: Finished) -> None:
    lines = [line for log in sorted(whole.directory.glob("*/*.log")) for line in log.read_text().splitlines()]
    assert len(lines) == 1, lines
    assert NEW_LEDGER_NOTICE in lines[0], "what the first worker with Verity says of its ledger"
    assert len(list(whole.directory.glob("*/*.log"))) == 4


def test_the_kept_ledger_gives_the_results_back_without_acting(whole: Finished) -> None:
    acted: list[str] = []
    with SyncVerityClient(ledger_url(whole.directory / "verity")) as verity:
        for order in read_orders(ORDERS):
            run = verity.workflow("refund_flow").case(order.order_id).run()
            results: dict[str, Any] = {step: run.protect(step, act=lambda: acted.append("again")) for step in STEPS}
            assert results["process_refund"]["charge"] == order.charge_id
            assert results["notify_customer"]["refund"] == results["process_refund"]["id"]

    assert acted == []


def test_the_command_that_the_demo_prints_asks_the_ledger(whole: Finished) -> None:
    command = whole.output[whole.output.index(f"  {sys.executable} -c") :]

    answer = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout

    assert read_orders(1)[0].charge_id in answer
    assert "acted again" not in answer


@pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 37), reason="this SQLite can't read the ledger's tables")
def test_the_query_that_the_demo_prints_shows_the_kills(whole: Finished) -> None:
    found = re.search(r"  sqlite3 (\S+) '([^']+)'", whole.output)
    assert found
    with closing(sqlite3.connect(found[1])) as ledger:
        effects = ledger.execute(found[2]).fetchall()

    assert len(effects) == ORDERS * len(STEPS)
    assert {status for _, status, _, _ in effects} == {"COMMITTED"}
    # An order that was caught between refund and commit was found by observe, under a later fence.
    assert [fence > 1 for _, _, source, fence in effects if source == "observed"] == [True] * KILLS


def test_without_a_working_observe_refunds_are_made_twice_and_the_demo_says_so(broken: Finished) -> None:
    per_charge = broken.record("verity", "charge", "refunds")

    assert broken.code == 1
    assert per_charge.total() == ORDERS + KILLS
    assert broken.row("Double refunds") == [str(KILLS), str(KILLS)]
    assert "Not shown" in broken.output
    assert broken.errors == ""


def test_no_process_is_left(runs: dict[str, Finished]) -> None:
    assert [processes_about(run.directory) for run in runs.values()] == [[], []]


@pytest.mark.parametrize(
    ("tampering", "problem"),
    [
        ("DELETE FROM refunds WHERE rowid = 1", "0 refunds"),
        ("INSERT INTO refunds SELECT 're_x', charge, amount, currency, \"order\" FROM refunds LIMIT 1", "2 refunds"),
        ("UPDATE refunds SET amount = amount * 10 WHERE rowid = 1", "1 refunds"),
        ("UPDATE refunds SET id = 're_x' WHERE rowid = 1", "another refund"),
        ("INSERT INTO receipts SELECT 'rc_x', refund, email, \"order\" FROM receipts LIMIT 1", "2 notifications"),
        ("DELETE FROM receipts WHERE rowid = 1", "0 notifications"),
    ],
)
def test_the_audit_finds_what_is_wrong_in_the_records(
    whole: Finished, tmp_path: Path, tampering: str, problem: str
) -> None:
    job = copied_run(whole, tmp_path)
    with closing(sqlite3.connect(job.records_file, isolation_level=None)) as database:
        database.execute(tampering)

    found = audit(job, read_orders(ORDERS), Tally()).problems

    assert found
    assert problem in found[0] or problem in found[-1]


def test_the_audit_finds_nothing_wrong_in_an_untouched_run(whole: Finished, tmp_path: Path) -> None:
    assert audit(copied_run(whole, tmp_path), read_orders(ORDERS), Tally()).problems == ()


def test_the_audit_finds_what_is_not_in_the_ledger(whole: Finished, tmp_path: Path) -> None:
    job = copied_run(whole, tmp_path)
    for file in job.directory.glob("ledger.db*"):
        file.unlink()

    problems = audit(job, read_orders(ORDERS), Tally()).problems

    assert len(problems) == ORDERS * len(STEPS)
    assert all(problem.endswith("not committed in the ledger") for problem in problems)


def copied_run(run: Finished, directory: Path, mode: Mode = "verity") -> Job:
    shutil.copytree(run.directory / "verity", directory / "copy")
    return Job(mode, directory / "copy", ORDERS, frozenset())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_ends_all_and_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    # A file that is being opened at the very moment of Ctrl-C is closed by the interpreter, with a warning.
    with start(*OPTIONS, temporary=tmp_path, warnings="error,ignore::ResourceWarning") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == code
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    assert processes_about(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--orders=4", "--kills=5"], "at most one for each of the 4 orders"),
        (["--orders=999"], "the file has 40 orders"),
        (["--orders=0"], "--orders"),
        (["--keep=HERE"], "is not empty"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: list[str], words: str) -> None:
    (tmp_path / "something").touch()

    result = CliRunner().invoke(demo, [option.replace("HERE", str(tmp_path)) for option in options])

    assert result.exit_code == 2
    assert words in result.output
