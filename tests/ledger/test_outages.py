"""Outages and the grace that they give, as pure functions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verity._ledger.outages import (
    KEPT_MS,
    LONGEST_PAUSE_MS,
    MAX_OUTAGES,
    SHORTEST_MS,
    Outage,
    add,
    current,
    extended,
    from_text,
    gap_until,
    matters_after,
    settled_at,
    to_text,
)
from verity._limits import MAX_LEASE_DURATION_MS, MIN_LEASE_DURATION_MS

TIMES = st.integers(0, 400_000)
OUTAGES = st.lists(st.tuples(TIMES, st.integers(1, 200_000)), max_size=8).map(
    lambda pairs: add_all(Outage(began_at, began_at + length) for began_at, length in pairs)
)
LENGTHS = st.integers(MIN_LEASE_DURATION_MS, MAX_LEASE_DURATION_MS * 5 // 4)


def add_all(outages: object) -> tuple[Outage, ...]:
    merged: tuple[Outage, ...] = ()
    for outage in outages:  # type: ignore[attr-defined]  # any iterable
        merged = add(outage, merged)
    return merged


@pytest.mark.parametrize(
    ("why", "expires_at", "set_at", "until"),
    [
        ("it expired before", 10_000, 5_000, 10_000),
        ("it had little left", 10_001, 5_001, 25_000),
        ("it had a part left", 18_000, 0, 28_000),
        ("it had nearly all left", 19_000, 10_000, 29_000),
        ("it expires shortly after", 24_999, 0, 34_999),
        ("it lasts long enough", 25_000, 0, 25_000),
        ("it was set when the outage ended", 25_000, 20_000, 25_000),
        ("a long lease had little left", 10_001, -109_999, 44_000),
        ("a long lease has a fifth after it", 44_000, -76_000, 44_000),
        ("it was set during the outage, by a program without a heartbeat", 19_000, 14_000, 25_000),
    ],
)
def test_one_outage(why: str, expires_at: int, set_at: int, until: int) -> None:
    assert extended(expires_at, set_at, [Outage(10_000, 20_000)]) == until, why


@pytest.mark.parametrize(
    ("why", "settles_at", "released_at", "until"),
    [
        ("it settled before", 10_000, 5_000, 10_000),
        ("it settles in the outage", 12_000, 5_000, 22_000),
        ("it settles after the outage", 21_000, 5_000, 31_000),
        ("it was released in the outage, by a program without a heartbeat", 19_000, 14_000, 25_000),
        ("it was released after it", 23_000, 20_000, 23_000),
        ("it had no time to settle", 15_000, 15_000, 15_000),
    ],
)
def test_an_outage_is_no_settle_time(why: str, settles_at: int, released_at: int, until: int) -> None:
    assert settled_at(settles_at, released_at, [Outage(10_000, 20_000)]) == until, why


@given(TIMES, TIMES, OUTAGES)
def test_settle_time_is_all_outside_outages(released_at: int, length: int, outages: tuple[Outage, ...]) -> None:
    until = settled_at(released_at + length, released_at, outages)
    away = sum(max(0, min(each.ended_at, until) - max(each.began_at, released_at)) for each in outages)
    assert until - released_at - away == length


def test_outages_add_up() -> None:
    assert extended(12_000, 7_000, [Outage(10_000, 20_000), Outage(22_000, 30_000)]) == 35_000
    assert extended(12_000, 7_000, [Outage(10_000, 20_000), Outage(25_000, 30_000)]) == 25_000


@given(TIMES, LENGTHS, OUTAGES)
def test_grace_never_shortens_and_is_bounded(set_at: int, length: int, outages: tuple[Outage, ...]) -> None:
    until = extended(set_at + length, set_at, outages)
    assert until >= set_at + length
    assert until <= max([set_at + length, *(outage.ended_at + length for outage in outages)])


@given(TIMES, LENGTHS, OUTAGES)
def test_a_holder_had_its_chance(set_at: int, length: int, outages: tuple[Outage, ...]) -> None:
    """At the take-over, at least the shortest time without an outage has passed since the last outage of the lease."""
    expires_at = set_at + length
    until = extended(expires_at, set_at, outages)
    for outage in outages:
        if set_at <= outage.began_at < until:
            assert until >= outage.ended_at + SHORTEST_MS


@given(TIMES, LENGTHS, OUTAGES)
def test_a_lease_that_was_set_after_all_outages_is_as_any_other(
    at: int, length: int, outages: tuple[Outage, ...]
) -> None:
    set_at = max([at, *(outage.ended_at for outage in outages)])
    assert extended(set_at + length, set_at, outages) == set_at + length


@given(OUTAGES)
def test_outages_are_kept_apart_and_in_order(outages: tuple[Outage, ...]) -> None:
    assert from_text(to_text(outages)) == outages
    assert all(one.ended_at < two.began_at for one, two in itertools.pairwise(outages))


def test_overlapping_outages_become_one() -> None:
    assert add(Outage(5, 12), [Outage(0, 6), Outage(10, 20), Outage(30, 40)]) == (Outage(0, 20), Outage(30, 40))


def test_only_so_many_outages_are_kept_and_for_so_long() -> None:
    outages = add_all(Outage(number * 10, number * 10 + 5) for number in range(100))
    assert len(outages) == MAX_OUTAGES
    assert outages[-1] == Outage(990, 995)
    assert current(outages, 995) == outages
    assert current(outages, 993) == (*outages[:-1], Outage(990, 993)), "the clock was set back"
    assert current(outages, 990) == outages[:-1]
    assert current(outages, 995 + KEPT_MS) == outages[-1:]
    assert current(outages, 996 + KEPT_MS) == ()


def test_an_outage_matters_to_leases_in_the_grace_of_those_before() -> None:
    recorded = [Outage(0, 100_000), Outage(240_000, 300_000)]
    assert matters_after(Outage(440_000, 450_000), recorded) == 0, "through the one between"
    assert matters_after(Outage(440_000, 450_000), recorded[1:]) == 240_000
    assert matters_after(Outage(450_000, 460_000), recorded) == 450_000
    assert matters_after(Outage(1, 2), ()) == 1


def test_a_short_pause_is_no_outage() -> None:
    assert gap_until(10_000, None) is None
    assert gap_until(10_000, 10_000 - LONGEST_PAUSE_MS) is None
    assert gap_until(10_000, 10_000 - LONGEST_PAUSE_MS - 1) == Outage(8_499, 10_000)
    assert gap_until(10_000, 20_000) is None, "the clock was set back"
