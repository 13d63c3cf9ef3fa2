"""`verity purge` on both kinds of database."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.store_calls import Caller
from tests.helpers.stores import Bench
from tests.helpers.verity_process import VERITY, on_terminal, run_verity
from verity._store.purging import BATCH
from verity.cli.purge import LINE_EVERY

DAY_MS = 86_400_000


class Ledger:
    """A database with effects of 100 days ago."""

    def __init__(self, kind: str, directory: Path, make_url: Any) -> None:
        self.url = str(make_url()) if kind == "postgres" else f"sqlite:///{directory}/v.db"
        self.bench = Bench(kind, directory, lambda: self.url)
        self.now = time.time_ns() // 1_000_000
        self.call = Caller(self.bench.store)
        self.add({"test": ["a", "b"], "live": ["c"]}, days=100)
        self.call("lease_effect", {"effectKey": "never decided"})

    def add(self, keys: dict[Any, list[str]], *, days: int, namespace: str = "payments") -> None:
        """Commit effects, so many days ago."""
        self.bench.clock.now_ms = self.now - days * DAY_MS
        for environment, names in keys.items():
            call = Caller(self.bench.store, environment, namespace=namespace)
            leases = call.store.answer_batch([call.request("lease_effect", {"effectKey": name}) for name in names])
            bodies = [{**call.tokens(json.loads(lease.body)), "result": "done"} for lease in leases]
            call.store.answer_batch([call.request("commit_effect", body) for body in bodies])

    def purge(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_verity("purge", "--database", self.url, "--older-than", "90d", *arguments)

    def rows(self, *arguments: str) -> dict[str, Any]:
        """By environment, what was purged."""
        done = self.purge(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert all(row["done"] for row in found)
        return {row["environment"]: row["effects"] for row in found}

    def purged(self) -> list[str]:
        """The keys that are tombstones; none of them has an event, and all others have."""
        events = {effect for (effect,) in self.bench.execute("SELECT DISTINCT effect FROM events")}
        rows = self.bench.execute("SELECT effect_key, id, purged_at IS NOT NULL FROM effects ORDER BY id")
        assert {effect for _, effect, is_purged in rows if not is_purged} == events
        return [key for key, _, is_purged in rows if is_purged]


@pytest.fixture(params=["file", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(request.param, tmp_path, lambda: request.getfixturevalue("postgres_url"))
    yield made
    made.bench.store.close()


def test_it_purges_what_was_decided_long_ago(ledger: Ledger) -> None:
    ledger.add({"test": ["d"]}, days=100, namespace="mail")
    ledger.add({"test": ["young"]}, days=10)
    assert ledger.rows("--dry-run") == {"live": 1, "test": 3}
    assert ledger.rows("--dry-run", "--namespace", "payments") == {"live": 1, "test": 2}
    assert ledger.purged() == []
    assert ledger.rows("--yes", "--environment", "test", "--namespace", "nowhere") == {"test": 0}
    assert ledger.rows("--yes", "--namespace", "mail") == {"live": 0, "test": 1}
    assert ledger.rows("--yes", "--environment", "live") == {"live": 1}
    assert sorted(ledger.purged()) == ["c", "d"]
    assert ledger.rows("--yes") == {"live": 0, "test": 2}
    assert ledger.rows("--yes") == {"live": 0, "test": 0}
    assert sorted(ledger.purged()) == ["a", "b", "c", "d"]
    assert ledger.call.refused("lease_effect", {"effectKey": "a"}) == (410, "effect_purged")
    assert ledger.call("lease_effect", {"effectKey": "young"})["cachedResult"] == "done"


def test_in_a_pipe_it_is_plain_text(ledger: Ledger) -> None:
    done = ledger.purge("--yes")
    header, *lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["environment", "namespace", "before", "effects", "done"]
    assert [line[0] for line in lines] == ["live", "test"]
    assert [line[3:] for line in lines] == [["1", "true"], ["2", "true"]]


def test_without_a_terminal_it_does_not_guess(ledger: Ledger) -> None:
    done = ledger.purge()
    assert (done.returncode, done.stdout) == (2, "")
    assert "add --yes, or --dry-run to count" in done.stderr
    assert ledger.purged() == []


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        ([], 2, "--older-than"),
        (["--older-than", "long"], 2, "such as 90d"),
        (["--older-than", "999999w"], 2, "at most 36500d"),
        (["--older-than", "90d", "--environment", "both"], 2, "--environment"),
        (["--older-than", "90d", "--namespace", "a/b"], 2, "namespace must not"),
        (["--older-than", "90d", "--database", "sqlite:///nowhere.db"], 3, "There is no ledger at"),
        (["--older-than", "90d", "--database", "postgresql://v:hunter2@127.0.0.1:9/v"], 3, "can't be used"),
        (["--older-than", "90d", "--database", "postgresql://v:hunter2/x@127.0.0.1:9/v"], 3, "special characters"),
        (["--older-than", "90d", "--database", "postgresql+psycopg://v:hunter2@db/v"], 3, "is not a ledger's URL"),
    ],
)
def test_what_goes_wrong_has_an_exit_code(arguments: list[str], exit_code: int, said: str, tmp_path: Path) -> None:
    done = run_verity("purge", "--yes", *arguments, VERITY_DATABASE=f"sqlite:///{tmp_path}/v.db")
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert said in done.stderr
    assert "hunter2" not in done.stderr
    assert not (tmp_path / "v.db").exists()


@pytest.mark.parametrize(
    ("ledger", "number"),
    [
        ("file", signal.SIGINT),
        ("postgres", signal.SIGTERM),
        ("file", signal.SIGKILL),
        ("postgres", signal.SIGKILL),
    ],
    indirect=["ledger"],
)
def test_it_may_be_stopped_at_any_moment_and_goes_on(ledger: Ledger, number: signal.Signals) -> None:
    keys = [f"k{number}" for number in range(LINE_EVERY + 4 * BATCH)]
    for start in range(0, len(keys), BATCH):
        ledger.add({"test": keys[start : start + BATCH]}, days=100)
    command = [*VERITY, "purge", "--database", ledger.url, "--older-than", "90d", "--yes", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert re.fullmatch(r"Purged \d+ effects so far\.\n", process.stderr.readline())
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    purged = ledger.purged()
    assert LINE_EVERY <= len(purged) < len(keys)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 1
        assert "Nothing is lost: run the command again to purge the rest." in err
        live, test = [json.loads(line) for line in out.splitlines()]
        assert (live["done"], test["done"]) == (True, False)
        assert live["effects"] + test["effects"] == len(purged)
    assert ledger.rows("--yes", "--environment", "test") == {"test": len(keys) + 3 - len(purged)}
    assert len(ledger.purged()) == len(keys) + 3


# --- on a terminal ---


@pytest.mark.parametrize(("answer", "exit_code", "purged"), [(b"n\n", 1, []), (b"y\n", 0, ["a", "b", "c"])])
def test_on_a_terminal_it_counts_and_asks(ledger: Ledger, answer: bytes, exit_code: int, purged: list[str]) -> None:
    code, seen = on_terminal("purge", "--database", ledger.url, "--older-than", "90d", answer=answer)
    assert "3 effects were decided and last changed before" in seen
    assert "Delete their payloads and audit trails for ever? [y/N]" in seen
    assert (code, sorted(ledger.purged())) == (exit_code, purged)
    assert ("3 of 3 effects" in seen) == bool(purged)


def test_on_a_terminal_there_is_nothing_to_ask_where_there_is_nothing_to_purge(ledger: Ledger) -> None:
    code, seen = on_terminal("purge", "--database", ledger.url, "--older-than", "36500d", answer=b"n\n")
    assert (code, "[y/N]" in seen) == (0, False)
