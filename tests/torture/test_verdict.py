"""The verdict's readings of the records: each finds what it is there for."""

from __future__ import annotations

import json
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
    History,
    Mark,
    find_overtaken,
    was_frozen,
)
from tests.torture.plan import ACTING, ASSUMED_DELAY_S, BLOCKED, BLOCKING, KINDS, OBSERVED, kind_of
from tests.torture.story import wrong_story
from tests.torture.verdict import Act, Verdict, judge_number, judge_told, wrong_keys

KEY = "effect:1"
SHA = "0" * 64


def event(at: int, kind: str, fence: int, **detail: Any) -> Any:
    return {"at": at, "type": kind, "fence": fence, "detail": json.dumps(detail)}


def granted(at: int, fence: int) -> Any:
    return event(at, "LEASE_GRANTED", fence, leaseExpiresAt=at + 5_000)


def story(*events: Any) -> str:
    """What is wrong with a story that ends in a commit at its last event's fence."""
    fence = events[-1]["fence"]
    expires_at = 0
    for each in events:
        expires_at = json.loads(each["detail"]).get("leaseExpiresAt", expires_at)
    told = [*events, event(99_000, "COMMITTED", fence, source="acted", resultSha256=SHA)]
    row = {"fence": fence, "lease_expires_at": expires_at, "result_sha256": SHA, "source": "acted"}
    return "; ".join(wrong_story(row, told))


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([granted(0, 1)], ""),
        ([granted(0, 1), event(5_000, "LEASE_EXPIRED", 1), granted(5_000, 2)], ""),
        ([granted(0, 1), event(4_000, "LEASE_EXPIRED", 1), granted(4_000, 2)], "1000 ms before its time"),
        ([granted(0, 1), granted(5_000, 3)], "under fence 3, while 1 was current"),
        ([granted(0, 1), event(100, "OBSERVE_MISS", 2)], "under fence 2, while 1 was current"),
        ([granted(0, 1), event(1_000, "LEASE_RELEASED", 1, acted="no"), granted(1_000, 2)], ""),
        ([granted(0, 1), event(1_000, "LEASE_RELEASED", 1, acted="unknown", settlesAt=3_000), granted(3_000, 2)], ""),
        (
            [granted(0, 1), event(1_000, "LEASE_RELEASED", 1, acted="unknown", settlesAt=3_000), granted(2_000, 2)],
            "1000 ms before its time",
        ),
        (
            [
                granted(0, 1),
                event(1_000, "LEASE_RELEASED", 1, acted="unknown", settlesAt=3_000),
                event(1_500, "RESET", 2, mode="verify"),
                granted(2_000, 3),
            ],
            "1000 ms before its time",
        ),
        (
            [
                granted(0, 1),
                event(1_000, "LEASE_RELEASED", 1, acted="unknown", settlesAt=3_000),
                event(1_500, "RESET", 2, mode="retry"),
                granted(2_000, 3),
            ],
            "",
        ),
    ],
)
def test_a_story(events: list[Any], said: str) -> None:
    found = story(*events)
    assert said in found
    assert bool(said) == bool(found)


def test_a_story_goes_on_after_its_end_or_has_none() -> None:
    row = {"fence": 1, "lease_expires_at": 5_000, "result_sha256": SHA, "source": "acted"}
    committed = event(1, "COMMITTED", 1, source="acted", resultSha256=SHA)
    assert wrong_story(row, [granted(0, 1), committed]) == []
    assert "RESET after the commit" in wrong_story(row, [granted(0, 1), committed, event(2, "RESET", 1, mode="retry")])
    assert wrong_story(row, [granted(0, 1)]) == ["no event tells of the commit"]
    assert wrong_story({**row, "source": "observed"}, [granted(0, 1), committed]) != []


def beginnings(*begun: Mark) -> Beginnings:
    return Beginnings(History({"worker-0": list(begun)}), 5_000)


LATE_MS = round(ASSUMED_DELAY_S * 1000) + 1


@pytest.mark.parametrize(
    ("kind", "acted_at", "is_problem"),
    [
        (OBSERVED, [], True),
        (OBSERVED, [10], False),
        (OBSERVED, [10, 6_000], True),
        (OBSERVED, [LATE_MS, 6_000], False),
        (BLOCKING, [10, 6_000], True),
        (BLOCKING, [LATE_MS, 6_000], True),
        (ACTING, [10, 6_000], False),
        (ACTING, [], True),
    ],
)
def test_how_often_an_effect_may_act(kind: str, acted_at: list[int], is_problem: bool) -> None:
    verdict = Verdict(1)
    acts = [Act(fence, f"act_{fence}", at, "-") for fence, at in enumerate(acted_at, 1)]
    begun = beginnings(Mark(0, 0, BEGUN, KEY, 1), Mark(5_990, 0, BEGUN, KEY, 2))
    judge_number(verdict, KEY, kind, acts, begun)
    assert bool(verdict.problems) == is_problem
    assert verdict.acts_again[kind] == max(0, len(acted_at) - 1)
    assert verdict.too_late == acted_at.count(LATE_MS)


def test_a_process_that_was_frozen_right_before_it_acted_is_the_documented_window() -> None:
    trail = [granted(0, 1), event(5_000, "LEASE_EXPIRED", 1), granted(5_000, 2)]
    acts = [Act(2, "act_1", 5_100, "-"), Act(1, "act_2", 6_010, "-")]
    for stalls, is_frozen in (([Mark(6_000, -1, STALLED, "-", 5_500)], True), ([], False)):
        begun = beginnings(*stalls, Mark(6_000, 0, BEGUN, KEY, 1), Mark(5_050, 1, BEGUN, KEY, 2))
        assert [was_frozen(KEY, trail, fence, begun) for fence in (1, 2)] == [is_frozen, False]
        for kind in (OBSERVED, BLOCKING):
            verdict = Verdict(1)
            judge_number(verdict, KEY, kind, acts, begun, frozen=int(is_frozen))
            assert bool(verdict.problems) == (kind == BLOCKING or not is_frozen)


def test_only_what_can_not_be_observed_may_be_left_to_a_person() -> None:
    for kind in KINDS:
        verdict = Verdict(1)
        judge_told(verdict, KEY, kind, BLOCKED, None)
        assert bool(verdict.problems) == (kind != BLOCKING)
        assert verdict.blocked == {KEY}


def test_a_result_that_a_client_was_told_is_the_ledgers() -> None:
    row = {"result_text": '{"id": "act_1"}'}
    for result, problems in (({"id": "act_1"}, 0), ({"id": "act_2"}, 1)):
        verdict = Verdict(1)
        judge_told(verdict, KEY, OBSERVED, result, row)
        assert (verdict.told, len(verdict.problems)) == (1, problems)


def test_attempts_have_one_key_until_a_reset() -> None:
    acts = [Act(1, "act_1", 1, "a"), Act(2, "act_2", 2, "a"), Act(4, "act_3", 3, "b")]
    reset = event(3, "RESET", 3, mode="retry")
    assert wrong_keys([reset], acts) == []
    assert len(wrong_keys([], acts)) == 1
    assert len(wrong_keys([reset], [*acts, Act(5, "act_4", 4, "a")])) == 1


def call(client: int, fence: int, *, over: bool = True) -> list[Mark]:
    """A call that holds a lease from 0 to 8,000 ms."""
    marks = [Mark(0, client, LEASED, KEY, fence), Mark(10, client, BEGUN, KEY, fence)]
    return [*marks, Mark(7_000, client, ENDED, KEY, fence), Mark(8_000, client, OVER, KEY, -1 if over else fence)]


@pytest.mark.parametrize(
    ("marks", "taken_at", "overtaken"),
    [
        (call(0, 1), 6_000, 1),
        (call(0, 1), 9_000, 0),
        (call(1, 1), 6_000, 0),
        (call(0, 2), 6_000, 0),
        ([Mark(0, 0, LEASED, KEY, 1), Mark(7_000, 0, ASKED, KEY, 0)], 6_000, 0),
        ([*call(0, 1), Mark(8_100, -1, STALLED, "-", 1_500)], 6_000, 1),
    ],
    ids=["alive", "it was over", "it does not renew", "another grant", "it was killed", "a stall began later"],
)
def test_a_live_call_is_overtaken(marks: list[Mark], taken_at: int, overtaken: int) -> None:
    assert find_overtaken(History({"worker-0": marks}), [(KEY, 1, taken_at)], lapses=True) == overtaken


def test_a_call_that_stood_still_may_be_overtaken() -> None:
    marks = sorted([*call(0, 1), Mark(6_500, -1, STALLED, "-", 3_000)], key=lambda mark: mark.at)
    assert find_overtaken(History({"worker-0": marks}), [(KEY, 1, 6_000)], lapses=True) == 0


def test_the_kinds_of_effects() -> None:
    assert {kind_of(f"effect:{number}", "mixed") for number in range(8)} == set(KINDS)
    assert kind_of("effect:7", "block") == BLOCKING
