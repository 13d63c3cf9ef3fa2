"""What a signal's handler raises goes through the code that takes anything for a fault of the user's own types."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from verity._core.failure import describe_failure
from verity._core.interruption import has_run, is_from_handler
from verity._core.observation import check_found
from verity._core.payload import encode, round_trip


class Interrupt(Exception):
    """As a worker's soft time limit raises it."""


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    def interrupt(signum: int, frame: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


def _signal() -> Any:
    signal.raise_signal(signal.SIGUSR1)


class Interrupted(Exception):
    """A type of the user's, inside of which a signal comes."""

    def __str__(self) -> str:
        return str(_signal())

    def __bool__(self) -> bool:
        return bool(_signal())

    def to_dict(self) -> Any:
        return _signal()


class InterruptedItems(dict[str, int]):
    """As above."""

    def items(self) -> Any:
        return _signal()


@pytest.mark.parametrize(
    "call",
    [
        lambda: encode(InterruptedItems(a=1), "result"),
        lambda: round_trip(Interrupted(), "result"),
        lambda: describe_failure(Interrupted()),
        lambda: check_found(Interrupted(), "k", None),
    ],
)
def test_it_comes_out_of_code_that_calls_the_users(call: Callable[[], Any]) -> None:
    with pytest.raises(Interrupt) as caught:
        call()
    assert is_from_handler(caught.value)


def test_what_a_function_itself_raises_is_its_own() -> None:
    def fail() -> None:
        raise Interrupt

    with pytest.raises(Interrupt) as caught:
        fail()
    assert has_run(fail, caught.value)
    assert not is_from_handler(caught.value)
    with pytest.raises(ValueError, match="x") as refused:
        int("x")
    assert has_run(int, refused.value)
