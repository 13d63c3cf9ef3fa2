"""The short form of the outages: each some seconds long; `python -m tests.outages` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.postgres import find_binaries
from tests.outages.scenario import play

needs_standby = pytest.mark.skipif(
    not (find_binaries() / "pg_basebackup").exists(), reason="this PostgreSQL comes without pg_basebackup"
)


@pytest.mark.parametrize(
    ("scenario", "seconds", "lease_ms"),
    [
        pytest.param("node restarted", 6.0, 5_000, id="a node that is away for longer than a lease lasts"),
        pytest.param("nodes restarted in turn", 6.0, 5_000, id="a rolling restart"),
        pytest.param("network cut", 6.0, 30_000, id="a cut network"),
        pytest.param("PostgreSQL failed over", 6.0, 5_000, id="a fail-over", marks=needs_standby),
    ],
)
def test_who_acted_gets_the_result_however_long_the_ledger_is_away(
    tmp_path: Path, scenario: str, seconds: float, lease_ms: int
) -> None:
    outcome = play(tmp_path, scenario, seconds, lease_ms)
    assert outcome.is_right, outcome
