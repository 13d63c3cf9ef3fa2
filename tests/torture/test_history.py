"""The history's checker: it finds what it is there for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.torture.history import (
    ASKED,
    BEGUN,
    ENDED,
    LEASED,
    OVER,
    STALLED,
    Beginnings,
    Blow,
    History,
    Mark,
    count_cells,
    unmet,
    wrong_acts,
)

KEY = "effect:1"


def event(at: int, kind: str, fence: int = 1, expires_at: int = 0) -> Any:
    detail = json.dumps({"leaseExpiresAt": expires_at} if expires_at else {})
    return {"at": at, "type": kind, "fence": fence, "detail": detail}


LEASED_TWICE = [
    event(0, "LEASE_GRANTED", 1, 5_000),
    event(3_000, "LEASE_RENEWED", 1, 8_000),
    event(9_000, "LEASE_EXPIRED", 2),
    event(9_000, "LEASE_GRANTED", 2, 14_000),
    event(10_000, "COMMITTED", 2),
]


def problems(events: list[Any], begun: list[tuple[int, int]], acts: list[int] | None = None, stall_at: int = 0) -> str:
    """Acts that began at (ms, fence)."""
    marks = [Mark(at, 0, BEGUN, KEY, fence) for at, fence in begun]
    stalls = [Mark(stall_at, -1, STALLED, "-", 3_000)] if stall_at else []
    history = History({"worker-0": sorted([*marks, *stalls], key=lambda mark: mark.at)})
    fences = [fence for _, fence in begun] if acts is None else acts
    return "; ".join(wrong_acts(KEY, events, [(fence, "act_1") for fence in fences], Beginnings(history, 5_000)))


@pytest.mark.parametrize(
    ("begun", "said"),
    [
        ([(4_999, 1)], ""),
        ([(7_999, 1)], ""),
        ([(8_000, 1)], "began 0 ms after its lease had run out"),
        ([(2_999, 1), (9_500, 2)], ""),
        ([(-1, 1)], "before it was granted"),
        ([(8_999, 2)], "before it was granted"),
        ([(10_001, 2)], "after the commit"),
        ([(100, 3)], "before it was granted"),
    ],
)
def test_an_act_is_held_against_its_lease(begun: list[tuple[int, int]], said: str) -> None:
    found = problems(LEASED_TWICE, begun)
    assert said in found
    assert bool(said) == bool(found)


def test_a_renewal_that_came_later_excuses_nothing() -> None:
    events = [event(0, "LEASE_GRANTED", 1, 5_000), event(6_000, "LEASE_RENEWED", 1, 11_000)]
    assert "after its lease had run out" in problems(events, [(5_500, 1)])


def test_one_act_under_each_fence() -> None:
    assert "2 times under fence 1" in problems(LEASED_TWICE, [(100, 1)], acts=[1, 1])
    assert "no worker began" in problems(LEASED_TWICE, [], acts=[1])


def test_a_process_that_stood_still_is_the_documented_window() -> None:
    assert problems(LEASED_TWICE, [(8_500, 1)], stall_at=8_600) == ""
    assert problems(LEASED_TWICE, [(8_500, 1)], stall_at=2_000) != ""


def test_cells_tell_what_calls_were_at(tmp_path: Path) -> None:
    marks = [
        *(Mark(0, 0, ASKED, "effect:9", 0), Mark(0, 0, OVER, "effect:9", 1)),
        *(Mark(1, client, ASKED, f"effect:{client}", 0) for client in range(4)),
        *(Mark(2, client, LEASED, f"effect:{client}", 1) for client in range(1, 4)),
        *(Mark(3, client, BEGUN, f"effect:{client}", 1) for client in range(2, 4)),
        Mark(4, 3, ENDED, "effect:3", 1),
        Mark(6, 3, ASKED, "effect:9", 0),
    ]
    file = tmp_path / "worker-0.history"
    file.write_bytes(b"".join(mark.line() for mark in marks) + b"7 3 ask")
    history = History()
    history.read("worker-0", file)
    history.read("worker-1", tmp_path / "none")
    assert history.marks["worker-0"] == marks
    everywhere = count_cells(history, [Blow("node killed", 5)])
    assert set(everywhere.values()) == {1}
    assert unmet(everywhere, ["node killed"]) == []
    elsewhere = count_cells(history, [Blow("clients killed", 5, "worker-1")])
    assert len(unmet(elsewhere, ["clients killed"])) == 5
