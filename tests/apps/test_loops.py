"""One async client in several event loops: it works, acts once, and leaves nothing behind that Python warns about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.new_ledger_notice import without_new_ledger_notice
from tests.helpers.served_ledger import ServedLedger
from verity.server.settings import ServerSettings

ROOT = Path(__file__).parents[2]
IDLE_S = 1.5


@pytest.fixture(params=["embedded", "in memory", "served"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    if request.param == "embedded":
        yield {"VERITY_BASE_URL": f"sqlite:///{tmp_path}/verity.db"}
    elif request.param == "in memory":
        yield {"VERITY_BASE_URL": "sqlite://"}
    else:
        with ServedLedger(settings=replace(ServerSettings(), keep_alive_s=1)) as served:
            yield {"VERITY_BASE_URL": served.base_url, "VERITY_API_KEY": served.create_key(), "IDLE_S": str(IDLE_S)}


@pytest.mark.parametrize(
    ("scenario", "acts"),
    [("one_after_the_other", 5), ("never_closed", 3), ("closed_twice", 2), ("idle_in_one_loop", 3)],
)
def test_one_client_in_several_loops(scenario: str, acts: int, environment: dict[str, str], tmp_path: Path) -> None:
    records = tmp_path / "records"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.apps.looping", scenario],
        cwd=ROOT,
        env={**os.environ, **environment, "RECORDS": str(records)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, without_new_ledger_notice(done.stderr)) == (0, "")
    results = json.loads(done.stdout)
    assert len(results) > 1
    assert len({json.dumps(each) for result in results for each in result or ()}) == 1
    assert records.read_text(encoding="utf-8").count("act") == acts
