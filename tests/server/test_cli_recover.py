"""`verity recover`: what waits in a spool is committed, and told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.helpers.served_ledger import ServedLedger
from tests.helpers.verity_process import run_verity
from verity import SyncVerityClient
from verity._spool import Entry, Spool
from verity.cli.group import cli

EVIL = "re\x1b[31m:\x9b2\u202e"


class Bench:
    """A spool, a served ledger, and the command."""

    def __init__(self, ledger: ServedLedger, directory: Path) -> None:
        self.ledger = ledger
        self.api_key = ledger.create_key(role="org_admin")
        self.client = SyncVerityClient(ledger.base_url, self.api_key, namespace="payments")
        self.path = str(directory / "verity.spool")
        self.spool = Spool(self.path)

    def spool_one(self, key: str, *, base_url: str | None = None, token: str | None = None) -> Entry:
        """What a process left that died before its commit."""
        lease = self.client.request_lease("payments", {"effectKey": key})
        entry = Entry(
            base_url or self.ledger.base_url,
            "test",
            "payments",
            key,
            "committed",
            lease.fence_token,
            token or str(lease.lease_token),
            '{"refund":"re_1"}',
            "acted",
            created_at=1_700_000_000_000,
        )
        self.spool.add(entry)
        return entry

    def run(self, *arguments: str, **environment: str) -> Result:
        variables = {"VERITY_API_KEY": self.api_key, "VERITY_BASE_URL": self.ledger.base_url, "VERITY_SPOOL": ""}
        return CliRunner().invoke(cli, ["recover", self.path, *arguments], env={**variables, **environment})

    def rows(self, *arguments: str) -> list[Any]:
        return [json.loads(line) for line in self.run(*arguments, "--json").stdout.splitlines()]


@pytest.fixture(scope="module")
def ledger() -> Iterator[ServedLedger]:
    with ServedLedger() as served:
        yield served


@pytest.fixture
def bench(ledger: ServedLedger, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(ledger, tmp_path)
    yield made
    made.client.close()


def test_what_waits_is_committed_and_told(bench: Bench) -> None:
    for key in ("recovered-1", f"{EVIL}-recovered"):
        bench.spool_one(key)
    done = bench.run()
    assert done.exit_code == 0, done.output
    header, first, second = done.stdout.splitlines()
    assert header.split("\t") == ["outcome", "effectKey", "namespace", "kind", "spooledAt", "detail", "id"]
    assert first.split("\t") == ["committed", "recovered-1", "payments", "committed", "2023-11-14T22:13:20Z", "-", "1"]
    assert all(char.isprintable() or char in "\n\t" for char in done.output)
    assert second.startswith("committed\t")
    assert bench.client.effects.get("recovered-1").result == {"refund": "re_1"}
    assert bench.spool.read() == []
    assert bench.rows() == []


def test_what_is_refused_for_good_ends_with_7_and_is_dropped_once_it_is_reconciled(bench: Bench) -> None:
    refused = bench.spool_one("refused")
    bench.client.effects.reset("refused", force=True)
    with SyncVerityClient(bench.ledger.base_url, bench.api_key, "payments", spool=False) as client:
        client.protect("refused", act=lambda: 2, observe=lambda: None)
    bench.spool_one("accepted")
    done = bench.run()
    assert done.exit_code == 7
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["outcome", "rejected", "committed"]
    assert "Error: The ledger refused 1 for good: stale_fence." in done.stderr
    (row,) = bench.rows("--list")
    assert (row["outcome"], row["detail"], row["result"]) == ("rejected", "stale_fence", {"refund": "re_1"})
    assert refused.token not in json.dumps(row)
    assert bench.run().exit_code == 0, "it was told"
    assert bench.run("--drop", str(row["id"])).exit_code == 0
    assert bench.rows("--list") == []
    assert bench.run("--drop", str(row["id"])).exit_code == 1


def test_a_ledger_that_is_away_keeps_everything_and_ends_with_9(bench: Bench) -> None:
    for key in ("away-1", "away-2"):
        bench.spool_one(key, base_url="http://127.0.0.1:9/v1")
    rows = bench.rows("--url", "http://127.0.0.1:9/v1")
    assert [row["outcome"] for row in rows] == ["kept", "kept"]
    assert rows[1]["detail"] == "not tried: the ledger is away"
    assert bench.run("--url", "http://127.0.0.1:9/v1").exit_code == 9
    assert len(bench.spool.read()) == 2


def test_a_key_that_may_not_keeps_everything_and_ends_with_8(bench: Bench) -> None:
    bench.spool_one("not-allowed")
    done = bench.run(VERITY_API_KEY="vt_test_" + "0" * 49)
    assert done.exit_code == 8, done.output
    assert len(bench.spool.read()) == 1


def test_results_for_another_ledger_stay_unless_they_were_spooled_for_its_earlier_url(bench: Bench) -> None:
    bench.spool_one("moved", base_url="https://old.example/v1")
    (row,) = bench.rows()
    assert (row["outcome"], row["detail"]) == ("other ledger", "https://old.example/v1 (test)")
    done = bench.run()
    assert (done.exit_code, "for another ledger: 1. --from URL" in done.stderr) == (0, True)
    (row,) = bench.rows("--from", "https://old.example/v1/")
    assert row["outcome"] == "committed"


def test_without_a_url_the_ledgers_are_named_and_nothing_is_sent_there(bench: Bench) -> None:
    """The file is not trusted with the API key."""
    bench.spool_one("unknown", base_url="https://ledger.example/v1")
    done = bench.run(VERITY_BASE_URL="")
    assert done.exit_code == 2
    assert "Which ledger? Give --url or VERITY_BASE_URL. The spool has results for https://ledger.example/v1." in (
        done.stderr
    )


def test_an_embedded_ledger(tmp_path: Path) -> None:
    url, path = f"sqlite:///{tmp_path}/ledger.db", str(tmp_path / "verity.spool")
    with SyncVerityClient(url, namespace="n") as client:
        lease = client.request_lease("n", {"effectKey": "k"})
        tokens = (lease.fence_token, str(lease.lease_token))
        Spool(path).add(Entry(url, "live", "n", "k", "committed", *tokens, "1", "acted"))
    done = run_verity("recover", path, "--url", url)
    assert (done.returncode, done.stderr) == (0, "")
    with SyncVerityClient(url, namespace="n") as client:
        assert client.effects.get("k").result == 1


def test_a_file_that_is_no_spool_is_a_usage_error(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "there is no such file"), (tmp_path / "text", "NotADBError")):
        if path.name == "text":
            path.write_text("something else\n" * 100)
        done = CliRunner().invoke(cli, ["recover", str(path), "--list"])
        assert (done.exit_code, why in done.stderr) == (2, True), done.output
    assert (tmp_path / "text").read_text() == "something else\n" * 100
    assert not (tmp_path / "none").exists()
