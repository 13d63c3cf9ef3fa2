"""Several processes share one spool and one served ledger; some of them are killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.concurrency import OF_PROCESSES_S, sync_until
from tests.helpers.served_ledger import ServedLedger
from verity import SyncVerityClient
from verity._spool import LedgerName, Spool, make_entry

ROOT = Path(__file__).parents[2]
EFFECTS = 24

WORKER = """
import asyncio, json, logging, os, sys
from verity import ConflictRetryConfig, SyncVerityClient, VerityClient

kind, url, key, spool, results = sys.argv[1:]
RETRY = ConflictRetryConfig(initial_delay_s=0.05, max_attempts=1000)
options = dict(namespace="payments", spool=spool, spool_when="always", conflict_retry=RETRY)

def tell(key, what, value):
    with open(results, "a") as file:
        file.write(json.dumps([key, what, value]) + "\\n")

def act(key):
    tell(key, "act", os.getpid())
    return {"by": os.getpid()}

async def main():
    async with VerityClient(url, key, **options) as client:
        for number in range(24):
            result = await client.protect(f"k{number}", act=lambda: act(f"k{number}"))
            tell(f"k{number}", "result", result)

if kind == "async":
    asyncio.run(main())
else:
    with SyncVerityClient(url, key, **options) as client:
        for number in reversed(range(24)):
            result = client.protect(f"k{number}", act=lambda: act(f"k{number}"))
            tell(f"k{number}", "result", result)
"""


@pytest.fixture(scope="module")
def ledger() -> Iterator[ServedLedger]:
    with ServedLedger() as served:
        yield served


def test_processes_that_replay_the_same_results_at_once(ledger: ServedLedger, tmp_path: Path) -> None:
    """Half of the results were spooled under a lease, half unprotected. Two of the processes are killed."""
    api_key, path, results = ledger.create_key(), str(tmp_path / "verity.spool"), tmp_path / "results"
    results.touch()
    spool, name = Spool(path), LedgerName(ledger.base_url, "test")
    with SyncVerityClient(ledger.base_url, api_key, "payments") as client:
        for number in range(EFFECTS):
            key, spooled = f"k{number}", {"result": {"spooled": number}, "source": "acted"}
            if number % 2:
                entry = make_entry(name, "payments", key, "unprotected", fence=None, token=f"t{number}", **spooled)  # type: ignore[arg-type]
            else:
                lease = client.request_lease("payments", {"effectKey": key})
                tokens = {"fence": lease.fence_token, "token": str(lease.lease_token)}
                entry = make_entry(name, "payments", key, "committed", **tokens, **spooled)  # type: ignore[arg-type]
            spool.add(entry)

    def start(kind: str) -> subprocess.Popen[bytes]:
        arguments = [kind, ledger.base_url, api_key, path, str(results)]
        return subprocess.Popen([sys.executable, "-W", "error", "-c", WORKER, *arguments], cwd=ROOT)

    def lines() -> list[Any]:
        return [json.loads(line) for line in results.read_text().splitlines()]

    doomed = [start("async"), start("sync")]
    others = [start("async"), start("sync"), start("sync")]
    try:
        sync_until(lambda: len(lines()) > 3, OF_PROCESSES_S)
        for each in doomed:
            each.kill()
        assert [each.wait(OF_PROCESSES_S) for each in others] == [0, 0, 0]
    finally:
        for each in (*doomed, *others):
            each.kill()
            each.wait()
    told = lines()
    assert [each for each in told if each[1] == "act"] == []
    assert {json.dumps(each) for each in told} == {
        json.dumps([f"k{number}", "result", {"spooled": number}]) for number in range(EFFECTS)
    }
    assert (spool.read(), spool.rejected()) == ([], [])
