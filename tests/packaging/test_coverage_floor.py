"""The floor of line coverage, which `python -m scripts.test` compares with what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.test import ROOT, judge, read_floor


def report(covered: int, missing: dict[str, int]) -> dict[str, Any]:
    files = {name: {"missing_lines": list(range(count))} for name, count in missing.items()}
    return {"files": files, "totals": {"covered_lines": covered, "num_statements": covered + sum(missing.values())}}


@pytest.mark.parametrize(
    ("floor", "verdict"),
    [
        (90.01, "FAILED: 90.00 % of all lines ran, below the floor of 90.01 %."),
        (90.0, "90.00 % of all lines ran; the floor is 90.0 %."),
        (88.5, "90.00 % of all lines ran; the floor is 88.5 %. Raise it in pyproject.toml."),
    ],
)
def test_the_verdict(floor: float, verdict: str) -> None:
    assert judge(report(90, {"a": 1, "b": 9}), floor) == f"{verdict} Most are missing in b (9), a (1)"


def test_only_the_floor_counts_and_no_rounding() -> None:
    assert judge(report(89_999, {"a": 10_001}), 90.0).startswith("FAILED")


def test_there_is_a_floor() -> None:
    assert 50 < read_floor((ROOT / "pyproject.toml").read_text(encoding="utf-8")) < 100
