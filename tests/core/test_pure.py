"""The pure decisions: delays, renewal times, payloads, Retry-After, failures."""

from __future__ import annotations

import inspect
import json
import math
import sys
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verity import ConflictRetryConfig, VerityConfigError, VerityValidationError
from verity._core.backoff import attempt_after, conflict_delay, patience_s, resend_delay
from verity._core.failure import add_note, describe_failure
from verity._core.payload import encode, round_trip
from verity._core.renewal import next_renewal_at, renewal_timeout_s, retry_renewal_after
from verity._core.replies import read_retry_after, why_no_answer
from verity._limits import MAX_PAYLOAD_BYTES

unit = st.floats(0, 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


# --- delays ---


def test_the_conflict_delay_doubles_up_to_the_longest() -> None:
    config = ConflictRetryConfig(jitter=False)
    delays = [conflict_delay(config, attempt, None, 0.9) for attempt in range(1, 9)]
    assert delays == [0.5, 1, 2, 4, 8, 15, 15, 15]


@given(attempt=st.integers(1, 10_000), random=unit, retry_after=st.none() | st.floats(0, 1e9))
def test_the_conflict_delay_stays_in_its_bounds(attempt: int, random: float, retry_after: float | None) -> None:
    config = ConflictRetryConfig()
    delay = conflict_delay(config, attempt, retry_after, random)
    middle = min(0.5 * 2.0 ** min(attempt - 1, 60), 15)
    assert delay <= 15
    assert delay >= min(retry_after or 0, 15)
    if retry_after is None:
        assert min(middle * 0.7, 15) <= delay + 1e-9
        assert delay <= middle * 1.3 + 1e-9


@given(attempt=st.integers(1, 3), random=unit, retry_after=st.none() | st.floats(0, 1e6), longest=st.floats(0, 60))
def test_the_resend_delay_stays_in_its_bounds(
    attempt: int, random: float, retry_after: float | None, longest: float
) -> None:
    delay = resend_delay(attempt, retry_after, longest, random)
    assert min(retry_after or 0, longest) <= delay <= longest


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"enabled": 1}, "enabled"),
        ({"jitter": None}, "jitter"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 2.0}, "max_attempts"),
        ({"max_attempts": True}, "max_attempts"),
        ({"initial_delay_s": -1}, "initial_delay_s"),
        ({"max_delay_s": math.inf}, "max_delay_s"),
        ({"max_delay_s": "15"}, "max_delay_s"),
    ],
)
def test_a_wrong_retry_setting_is_refused(values: dict[str, Any], name: str) -> None:
    with pytest.raises(VerityConfigError) as caught:
        ConflictRetryConfig(**values)
    assert caught.value.parameter == f"conflict_retry.{name}"
    assert name in str(caught.value)


# --- renewal ---


@given(requested=st.floats(0, 1e6), duration=st.floats(5, 120), fraction=st.floats(0.3, 0.9), late=st.floats(0, 300))
def test_renewal_times(requested: float, duration: float, fraction: float, late: float) -> None:
    at = next_renewal_at(requested, duration, fraction)
    assert requested < at < requested + duration
    wait = retry_renewal_after(requested + late, requested, duration)
    assert 0.25 <= wait <= max(0.25, duration / 10) + 1e-9
    assert 1.0 <= renewal_timeout_s(duration, fraction, 1000) <= max(1.0, duration * 0.35) + 1e-9
    assert renewal_timeout_s(duration, fraction, 0.5) == 0.5


# --- payloads ---


@given(JSON)
def test_what_is_accepted_is_what_comes_back(value: Any) -> None:
    once = round_trip(value, "result")
    assert once == value
    assert round_trip(once, "result") == once
    assert json.loads(encode(value, "result")) == value


@settings(max_examples=300)
@given(st.from_type(type).flatmap(st.from_type) | JSON)
def test_any_value_is_encoded_or_refused_clearly(value: Any) -> None:
    try:
        text = encode(value, "result")
    except VerityValidationError as error:
        assert (error.parameter or "").startswith("result")  # noqa: PT017 - either outcome is right
    else:
        assert len(text.encode()) <= MAX_PAYLOAD_BYTES
        json.loads(text)


def test_a_value_met_at_the_end_of_the_stack_is_refused() -> None:
    value: Any = []
    for _ in range(150):
        value = [value]

    def at_depth(levels: int) -> str:
        return encode(value, "result") if levels == 0 else at_depth(levels - 1)

    depth = len(inspect.stack(0))
    with pytest.raises(VerityValidationError, match="nested deeper than 200 levels or contains itself"):
        at_depth(sys.getrecursionlimit() - depth - 100)
    assert len(encode(value, "result")) == 302


def test_a_number_with_more_digits_than_python_writes_is_refused() -> None:
    with pytest.raises(VerityValidationError, match=r"result could not be read as JSON \(ValueError\)"):
        encode(10**5000, "result")


def test_a_long_way_to_a_mistake_is_cut() -> None:
    value: Any = {1}
    for _ in range(50):
        value = {"a_rather_long_name": value}
    with pytest.raises(VerityValidationError) as caught:
        encode(value, "result")
    assert caught.value.parameter is not None
    assert len(caught.value.parameter) == 201


def test_the_place_of_a_mistake_is_named() -> None:
    with pytest.raises(VerityValidationError, match=r"^result\.items\[2\]\.at is of type datetime"):
        encode({"items": [1, 2, {"at": datetime.now(timezone.utc)}]}, "result")
    with pytest.raises(VerityValidationError) as caught:
        encode({"card 4242": {"n": math.nan}}, "result")
    assert "4242" not in str(caught.value), "a key that is no plain name may be data"


class Liar(int):
    """An int whose code raises."""

    def __repr__(self) -> str:
        raise RuntimeError("boo")


@pytest.mark.parametrize("value", [{"a": Liar(1)}, [Liar(2)]])
def test_an_int_of_the_users_own_is_taken_as_a_number(value: Any) -> None:
    assert round_trip(value, "result") in ({"a": 1}, [2])


class Refund:
    """As the objects of Stripe's SDK are since they are no dicts any more."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def to_dict(self) -> dict[str, Any]:
        return self.fields


@pytest.mark.parametrize(
    ("value", "comes_back"),
    [
        (Refund(id="re_1"), {"id": "re_1"}),
        (
            {"refunds": (Refund(id="re_1", charge=Refund(id="ch_1")), 2)},
            {"refunds": [{"id": "re_1", "charge": {"id": "ch_1"}}, 2]},
        ),
    ],
)
def test_an_object_with_to_dict_comes_back_as_a_dict(value: Any, comes_back: Any) -> None:
    assert round_trip(value, "result") == comes_back


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Refund(at=datetime.now(timezone.utc)), r"^result\.at is of type datetime"),
        (Refund(n=math.nan), "result.n is nan"),
        (type("Odd", (), {"to_dict": lambda self: self})(), "nested deeper than 200 levels or contains itself"),
        (type("Odd", (), {"to_dict": lambda self: 1 / 0})(), r"could not be read as JSON \(ZeroDivisionError\)"),
        (type("Odd", (), {"to_dict": None})(), "is of type Odd, which is not JSON"),
        (Refund, "is of type type, which is not JSON"),
    ],
)
def test_what_to_dict_returns_has_to_be_json(value: Any, said: str) -> None:
    with pytest.raises(VerityValidationError, match=said):
        round_trip(value, "result")


# --- Retry-After ---


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("1e9", None),
        ("٣", None),
        ("Sat, 31 Jan 2026 12:00:30 GMT", 30.0),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        ("Sat, 31 Jan 2026 12:00:30 -0000", 30.0),
        ("Sat, 31 Jan 99999999999999999999 12:00:30 GMT", None),
        ("Sat, 31 Jan 2026 12:00:30 +99999999999999999999", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert read_retry_after(header, datetime(2026, 1, 31, 12, tzinfo=timezone.utc)) == seconds


# --- failures ---


def test_a_failure_fits_whatever_it_holds() -> None:
    deep = ValueError("x" * 100_000)
    described = describe_failure(deep)
    assert set(described) == {"name", "message", "stack"}
    assert described["stack"] == ""
    encode(describe_failure(ValueError("\x01" * 100_000)), "error")


class Sealed(Exception):
    """Takes no note."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


class Endless(Exception):
    """Looks an attribute up in an attribute that it does not have: a common slip."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.response, name)


def test_notes_add_up_and_never_raise() -> None:
    error = ValueError("x")
    add_note(error, "one")
    add_note(error, "two")
    assert error.__notes__ == ["one", "two"]  # type: ignore[attr-defined]  # Python 3.11 on
    add_note(Sealed(), "three")
    add_note(Endless(), "four")


class OddText(str):
    """A text that does not behave."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        raise RuntimeError("boo")


class Talkative(Exception):
    """Its message is an odd one."""

    def __str__(self) -> str:
        return OddText("declined")


def test_a_failure_is_described_whatever_its_message_is() -> None:
    assert describe_failure(Talkative())["message"] == "declined"


def test_a_broken_traceback_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    import traceback

    def broken(_: object) -> list[str]:
        raise OSError("the source is gone")

    monkeypatch.setattr(traceback, "format_tb", broken)
    assert describe_failure(ValueError("x"))["stack"] == ""


def test_why_there_is_no_answer_is_told_in_the_systems_words_alone() -> None:
    refused = RuntimeError("header: Bearer vt_test_secret")
    refused.__cause__ = ConnectionRefusedError(111, "Connection\nrefused")
    assert why_no_answer(refused) == "RuntimeError: Connection refused"
    assert why_no_answer(OSError("header: Bearer vt_test_secret")) == "OSError"
    endless = ValueError()
    endless.__cause__ = endless
    assert why_no_answer(endless) == "ValueError"


def test_patience_is_the_sum_of_all_delays() -> None:
    assert patience_s(ConflictRetryConfig()) == 0.5 + 1 + 2 + 4 + 8 + 6 * 15
    assert patience_s(ConflictRetryConfig(max_attempts=3)) == 1.5
    assert patience_s(ConflictRetryConfig(max_attempts=1)) == 0
    assert patience_s(ConflictRetryConfig(max_attempts=10**9, initial_delay_s=1, max_delay_s=1)) == 10**9 - 1
    assert patience_s(ConflictRetryConfig(initial_delay_s=0)) == 0


@pytest.mark.parametrize(
    ("waited_s", "attempt"), [(0, 1), (0.4, 1), (0.5, 2), (1.4, 2), (1.5, 3), (7.5, 5), (100, 11), (10_000, 11)]
)
def test_waiting_in_line_uses_attempts_up_but_for_the_last_one(waited_s: float, attempt: int) -> None:
    config = ConflictRetryConfig()
    assert attempt_after(config, waited_s) == attempt
    assert attempt_after(config, waited_s) < config.max_attempts
    assert attempt_after(ConflictRetryConfig(max_attempts=2), waited_s) == 1
    assert attempt_after(ConflictRetryConfig(initial_delay_s=0), waited_s) == 1
