"""The last version before `release` was known, run from git: its client with the present ledger, and the reverse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.served_ledger import ServedLedger, TestClock
from tests.helpers.verity_process import serving
from verity import NotExecuted, OutcomeUnknownError, SyncVerityClient

OLDER = "87057b61e4fd"
REPOSITORY = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("older_client.py")
LEASE_MS = 5_000


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the code of the older version."""
    directory = tmp_path_factory.mktemp("older")
    archive = directory / "code.tar"
    asked = ["git", "archive", "--output", str(archive), OLDER, "verity", "generated"]
    try:
        subprocess.run(asked, cwd=REPOSITORY, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the older version comes from the history of git, which is not here")
    subprocess.run(["tar", "-xf", archive, "-C", directory], check=True)
    return directory


def paths(older: Path) -> list[str]:
    return [str(older), str(older / "generated")]


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def served(clock: TestClock) -> Iterator[ServedLedger]:
    with ServedLedger(clock=clock) as served:
        yield served


@pytest.fixture
def older_ledger(older: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The base URL and an API key of a ledger of the older version, on SQLite."""
    main = f"import sys; sys.path[:0] = {paths(older)}; from verity.cli import main; main()"
    verity = [sys.executable, "-W", "error", "-c", main]
    options = ["--database", f"sqlite:///{tmp_path}/verity.db", "--environment", "test", "--role", "agent"]
    made = subprocess.run([*verity, "keys", "create", *options], capture_output=True, text=True, check=True)
    with serving(tmp_path, verity=verity) as node:
        yield node.base_url, made.stdout.strip()


def run_older_client(older: Path, served: ServedLedger) -> Any:
    command = [sys.executable, "-W", "error", str(PROGRAM), str(older), served.base_url, served.create_key()]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths(older))}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_older_client_with_what_a_present_one_released(older: Path, served: ServedLedger) -> None:
    """Unlike a new client it does not know the release, and what it is told is right for it all the same."""
    in_doubt = ["in doubt, and it happened", "in doubt, and it did not"]
    with SyncVerityClient(served.base_url, served.create_key(), "payments") as client:
        for key, acted in [("new", "no"), ("together", "no"), *((key, "unknown") for key in in_doubt)]:
            lease = client.request_lease("payments", {"effectKey": key})
            body = {"effectKey": key, "fenceToken": 1, "leaseToken": lease["leaseToken"], "acted": acted, "settleMs": 0}
            assert client.release("payments", body).status == "released"
    told = run_older_client(older, served)
    assert told["acts"] == ["in doubt, and it did not", "new", "together"]
    assert [told["priorStates"][key] for key in ("new", "together")] == ["none"] * 2
    assert [told["priorStates"][key] for key in in_doubt] == ["expired"] * 2


def test_an_older_client_with_the_present_ledger(older: Path, served: ServedLedger, clock: TestClock) -> None:
    in_doubt = ["in doubt, and it happened", "in doubt, and it did not"]
    with SyncVerityClient(served.base_url, served.create_key(), "payments") as client:
        for key in in_doubt:
            client.request_lease("payments", {"effectKey": key, "leaseDurationMs": LEASE_MS})
    clock.advance(LEASE_MS)
    told = run_older_client(older, served)
    assert told["results"] == {
        "new": ["acted on new"] * 2,
        "failing": "EffectPreviouslyFailedError",
        "in doubt, and it happened": "observed",
        "in doubt, and it did not": "acted on in doubt, and it did not",
        "together": ["acted on together"] * 4,
    }
    assert told["acts"] == ["in doubt, and it did not", "new", "together"]
    assert [told["priorStates"][key] for key in in_doubt] == ["expired"] * 2


def test_the_present_client_with_an_older_ledger(older_ledger: tuple[str, str]) -> None:
    acts: list[str] = []

    def act() -> str:
        acts.append("act")
        return "done"

    def refuse() -> None:
        raise NotExecuted("the card has no number")

    def time_out() -> None:
        raise TimeoutError("no answer from the bank")

    with SyncVerityClient(*older_ledger, "payments") as client:
        assert [client.protect("new", act=act) for _ in range(2)] == ["done"] * 2
        assert len(acts) == 1
        client.request_lease("payments", {"effectKey": "in doubt", "leaseDurationMs": LEASE_MS})
        client.request_lease("payments", {"effectKey": "blocked", "leaseDurationMs": LEASE_MS})
        assert client.protect("in doubt", act=act, observe=lambda: "observed") == "observed", "it waits for the expiry"
        with pytest.raises(OutcomeUnknownError):
            client.protect("blocked", act=act)
        with pytest.raises(NotExecuted):
            client.protect("refused", act=refuse, lease_duration_ms=LEASE_MS)
        with pytest.raises(TimeoutError):
            client.protect("timed out", act=time_out, lease_duration_ms=LEASE_MS)
        for key in ("blocked", "refused", "timed out"):  # their leases expire by themselves
            assert client.protect(key, act=act, observe=lambda: "observed") == "observed"
        assert len(acts) == 1
