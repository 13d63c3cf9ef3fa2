"""An event loop ends while acts run: what was done is committed, nothing else is recorded, and the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.served_ledger import ServedLedger
from verity import SyncVerityClient

ROOT = Path(__file__).parents[2]
ACTS = 10
INTERRUPTED = {1, -2, 130}


@pytest.fixture(params=["embedded", "served"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SyncVerityClient]:
    """Of the same ledger as the program's, with its environment."""
    if request.param == "embedded":
        environment = {"VERITY_BASE_URL": f"sqlite:///{tmp_path}/verity.db"}
        with SyncVerityClient(environment["VERITY_BASE_URL"], namespace="ending") as client:
            request.node.environment = environment
            yield client
        return
    with ServedLedger() as served:
        key = served.create_key()
        request.node.environment = {"VERITY_BASE_URL": served.base_url, "VERITY_API_KEY": key}
        with SyncVerityClient(served.base_url, key, "ending") as client:
            yield client


def _run(request: pytest.FixtureRequest, records: Path, *scenario: str) -> tuple[int, str]:
    """The exit code and what it recorded; a process that does not end is a failure."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.ending", *scenario],
        cwd=ROOT,
        env={**os.environ, **request.node.environment, "RECORDS": str(records)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, records.read_text(encoding="utf-8") if records.exists() else ""


@pytest.mark.parametrize(
    "scenario",
    [
        "returns",
        "raises",
        "is_interrupted",
        "takes_too_long",
        "has_a_failing_sibling",
        "trio_is_cancelled",
        "trio_is_interrupted",
    ],
)
def test_every_act_that_began_is_committed(
    scenario: str, client: SyncVerityClient, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    code, records = _run(request, tmp_path / "records", scenario)
    assert records.count("began") == records.count("ended") == ACTS
    leases = [client.request_lease("ending", {"effectKey": f"k{number}"}) for number in range(ACTS)]
    assert [(lease.status, lease.cached_result) for lease in leases] == [("cached_completed", "done")] * ACTS
    assert code in INTERRUPTED if "interrupted" in scenario else code in {0, 1}


@pytest.mark.parametrize("client", ["embedded"], indirect=True)
@pytest.mark.parametrize(
    ("error", "where", "in_a_task"),
    [
        ("exit", "act", "task"),
        ("exit", "act", "main"),
        ("exit", "async-act", "task"),
        ("exit", "observe", "task"),
        ("exit", "on_lease", "main"),
        ("exit", "twice", "task"),
        ("exit", "gathered", "main"),
        ("interrupt", "act", "task"),
        ("interrupt", "async-act", "main"),
        ("interrupt", "observe", "main"),
        ("interrupt", "twice", "main"),
        ("interrupt", "gathered", "task"),
        ("own", "act", "task"),
        ("own", "observe", "main"),
        ("own", "async-act", "task"),
    ],
)
def test_what_ends_a_program_ends_it_and_records_nothing(
    error: str, where: str, in_a_task: str, client: SyncVerityClient, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    code, records = _run(request, tmp_path / "records", "exits", error, where, in_a_task)
    assert code in {"exit": {7}, "interrupt": INTERRUPTED, "own": {1}}[error]
    assert records.count("began") == (2 if where == "twice" else 1)
    if where == "twice":  # the third act went on for longest
        assert client.request_lease("ending", {"effectKey": "k2"}).cached_result == "done"
    assert client.effects.get("k0").status == ("IDLE" if where in ("observe", "on_lease") else "EXPIRED")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_interrupt_lets_a_commit_finish(
    backend: str, client: SyncVerityClient, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """trio raises it in whatever the main task waits for, past every shield."""
    code, records = _run(request, tmp_path / "records", "interrupted_in_the_commit", backend)
    assert code in INTERRUPTED
    assert not records
    assert client.request_lease("ending", {"effectKey": "k0"}).cached_result == "done"
