"""Many calls in many processes want one effect: it happens once, all have the result, and hardly anybody asks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.helpers.concurrency import sync_until
from tests.helpers.served_ledger import ServedLedger
from verity import ConflictRetryConfig

ROOT = Path(__file__).parents[2]
_STARTED_WITHIN_S = 120.0


class Scrape:
    """What the ledger's metrics say."""

    def __init__(self, served: ServedLedger) -> None:
        self._url = served.base_url.replace("/v1", "/metrics")

    def __call__(self, name: str) -> int:
        """The sum of a metric's samples."""
        samples = re.findall(rf"^{re.escape(name)}.*? (\S+)$", httpx.get(self._url).text, re.MULTILINE)
        return round(sum(map(float, samples)))

    def leases(self) -> int:
        return self('verity_requests_total{operation="lease_effect"')


@pytest.mark.parametrize(("processes", "calls"), [(10, 100), (1, 1000)])
def test_many_want_one_effect(processes: int, calls: int, tmp_path: Path) -> None:
    records, go = tmp_path / "records", tmp_path / "go"
    with ServedLedger(f"sqlite:///{tmp_path}/v.db") as served:
        scrape = Scrape(served)
        environment = {
            **os.environ,
            "VERITY_BASE_URL": served.base_url,
            "VERITY_API_KEY": served.create_key(),
            "RECORDS": str(records),
            "GO": str(go),
        }
        command = [sys.executable, "-W", "error", "-m", "tests.apps.waiters", str(calls)]
        children = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        try:
            # Each call has asked once, and one of each process waits. A held request counts when it is answered.
            sync_until(
                lambda: scrape.leases() >= processes * calls and scrape("verity_open_waits") == processes,
                within_s=_STARTED_WITHIN_S,
            )
            go.touch()
            outputs = [json.loads(child.communicate(timeout=_STARTED_WITHIN_S)[0]) for child in children]
        finally:
            for child in children:
                child.kill()
                child.wait()
                if child.stdout is not None:
                    child.stdout.close()
        requests = scrape.leases()
    assert records.read_text() == "act\n"
    results = [result for output in outputs for result in output]
    assert len(results) == processes * calls
    assert all(result == results[0] for result in results)
    # Without single-flight each of them would have asked at least twice.
    assert requests <= processes * (calls + ConflictRetryConfig().max_attempts)
