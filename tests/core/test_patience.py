"""The pure decisions about a commit that is not confirmed yet, and about what a ledger tells of a lease."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verity import VerityApiError, VerityConnectionError, VerityError, VerityValidationError
from verity._core.backoff import SEND_ATTEMPTS
from verity._core.patience import CommitTries, may_be_back
from verity._core.renewal import held_s, retry_renewal_after, told_remainder_s

NOW_S = 1_770_000_000
AWAY = VerityConnectionError("no answer")


def answer(status: int, retry_after_s: float | None = None) -> VerityApiError:
    return VerityApiError("x", status_code=status, retry_after_s=retry_after_s)


def tries(patience_s: float = 30, lease_s: float = 30, max_delay_s: float = 15, began_at: float = 0.0) -> CommitTries:
    return CommitTries(began_at, patience_s=patience_s, lease_s=lease_s, max_delay_s=max_delay_s)


def after(made: CommitTries, error: VerityError, now: float = 0.0, **changed: Any) -> float | None:
    asked: dict[str, Any] = {"now": now, "expires_at": 30.0, "is_interrupted": False, "random": 0.5}
    return made.delay_after(error, **{**asked, **changed})


# --- patience ---


def test_which_answers_mean_that_the_ledger_may_be_back() -> None:
    statuses = [status for status in range(400, 600) if may_be_back(answer(status))]
    assert statuses == [404, 408, 425, 429, 502, 503, 504]
    assert all(may_be_back(answer(status)) for status in (200, 204, 302, 307)), "a page of a proxy's"
    assert not may_be_back(VerityApiError(status_code=404, code="effect_not_found"))
    assert may_be_back(AWAY)
    assert not may_be_back(VerityValidationError("x"))


def test_what_is_no_transient_error_is_not_tried_again() -> None:
    assert after(tries(), answer(409)) is None
    assert after(tries(), VerityValidationError("x")) is None


def test_the_patience_is_the_policys_or_what_is_left_of_the_lease() -> None:
    for patience_s, expires_at, lease_s, until in ((30, 5, 5, 30), (0, 20, 30, 20), (0, 500, 60, 60), (10, -5, 30, 10)):
        made = tries(patience_s, lease_s)
        for _ in range(SEND_ATTEMPTS):
            assert after(made, AWAY, until - 0.1, expires_at=expires_at) == pytest.approx(0.1, abs=0.0001)
        assert after(made, AWAY, until, expires_at=expires_at) is None


def test_an_interrupt_leaves_one_more_try() -> None:
    made = tries()
    assert after(made, AWAY) == 0.2
    assert after(made, answer(503, 10), is_interrupted=True) == 0.4, "without the wait that the ledger asks for"
    assert after(made, AWAY, is_interrupted=True) is None


@given(
    errors=st.lists(st.sampled_from([AWAY, answer(503), answer(429, 7.0), answer(500)]), min_size=1, max_size=60),
    steps=st.lists(st.floats(0, 30), min_size=60, max_size=60),
    patience_s=st.floats(0, 3600),
    max_delay_s=st.floats(0, 60),
    random=st.floats(0, 1),
)
def test_it_ends_and_never_before_three_tries(
    errors: list[VerityError], steps: list[float], patience_s: float, max_delay_s: float, random: float
) -> None:
    made = tries(patience_s, max_delay_s=max_delay_s)
    until = max(patience_s, 30)
    now = 0.0
    for failed, (error, took_s) in enumerate(zip(errors, steps, strict=False), 1):
        now += took_s
        delay_s = after(made, error, now, random=random)
        if delay_s is None:
            assert failed >= SEND_ATTEMPTS
            assert now >= until or sum(not may_be_back(each) for each in errors[:failed]) >= SEND_ATTEMPTS
            return
        assert 0 <= delay_s <= max(2.0, max_delay_s)
        if now < until:
            assert now + delay_s <= until + 1e-6
        now += delay_s


# --- what a ledger tells of a lease ---


def _rfc3339(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, timezone.utc).isoformat()


@pytest.mark.parametrize("expires_at", [None, 5, "", "soon", "2026-13-01T00:00:00Z", "2026-13-02T02:40:30.000Z"])
def test_an_answer_without_an_expiry_tells_nothing(expires_at: object) -> None:
    assert told_remainder_s(expires_at, formatdate(NOW_S, usegmt=True), 0) is None


def test_the_remainder_is_counted_from_the_date_or_else_from_the_clients_clock() -> None:
    expires_at = _rfc3339(NOW_S + 12.5)
    assert told_remainder_s(expires_at, formatdate(NOW_S, usegmt=True), 0) == 12.5
    for date in (None, "yesterday", "Fri, 31 Dec 99999999999999999999 23:59:59 GMT", ""):
        assert told_remainder_s(expires_at, date, (NOW_S + 2) * 10**9) == 10.5


def test_a_date_without_a_zone_is_utc_wherever_the_client_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    expires_at = _rfc3339(NOW_S + 12.5)
    try:
        assert told_remainder_s(expires_at, formatdate(NOW_S + 1), 0) == 11.5  # which ends in -0000
    finally:
        monkeypatch.undo()
        time.tzset()


def test_each_form_of_a_time_is_read() -> None:
    forms = ("2026-02-02T02:40:30.250Z", "2026-02-02T02:40:30.25Z", "2026-02-02t03:40:30.250000+01:00")
    assert {told_remainder_s(form, None, 1_770_000_000 * 10**9) for form in forms} == {30.25}


@given(
    asked_s=st.floats(5, 120),
    told_s=st.none() | st.floats(-1e6, 1e6),
    took_s=st.floats(0, 100),
    fraction=st.floats(0.3, 0.9),
    is_renewal=st.booleans(),
)
def test_a_lease_is_never_longer_than_asked_nor_renewed_more_than_once_a_second(
    asked_s: float, told_s: float | None, took_s: float, fraction: float, is_renewal: bool
) -> None:
    held = held_s(asked_s, told_s, took_s=took_s, fraction=fraction, is_renewal=is_renewal)
    assert held <= asked_s
    assert held * fraction >= 1 - 1e-9
    if told_s is not None and 1 / fraction + took_s < told_s < asked_s - 1:
        assert held <= told_s
    if is_renewal and held < asked_s:
        assert held * fraction > took_s * fraction


def test_a_remainder_that_no_clock_explains_is_ignored() -> None:
    assert held_s(30, -6.1, took_s=5, fraction=0.5, is_renewal=False) == 30
    assert held_s(30, -5.9, took_s=5, fraction=0.5, is_renewal=False) == 2


@given(late=st.floats(0, 200), duration=st.floats(1, 120))
def test_a_short_lease_is_not_asked_for_more_than_once_a_second(late: float, duration: float) -> None:
    assert retry_renewal_after(late, 0, duration, is_short=True) >= 1
