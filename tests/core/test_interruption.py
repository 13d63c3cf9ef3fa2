"""What a signal's handler raises goes through the code that takes anything for a fault of the user's own types."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType, TracebackType
from typing import Any

import pytest

from verity._core.failure import add_note, describe_failure
from verity._core.interruption import has_run, has_stepped, is_from_handler, raised_by_handler
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
    assert has_run(fail, caught.value.__traceback__)
    trace = caught.value.__traceback__
    assert trace is not None
    twice = TracebackType(trace, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
    assert has_run(fail, twice), "as Python 3.10 has it"
    assert not is_from_handler(caught.value)
    with pytest.raises(ValueError, match="x") as refused:
        int("x")
    assert has_run(int, refused.value.__traceback__)


def test_it_comes_out_where_a_traceback_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source line's file may be slow to read: a signal can come meanwhile."""
    monkeypatch.setattr("traceback.format_tb", lambda _trace: _signal())
    with pytest.raises(Interrupt):
        describe_failure(ValueError("x"))


def test_it_comes_out_of_an_exception_that_takes_a_note() -> None:
    class Noted(Exception):
        @property
        def __notes__(self) -> list[str]:
            return [_signal()]

    with pytest.raises(Interrupt):
        add_note(Noted(), "x")


def _caught(fn: Callable[[], Any]) -> BaseException:
    """What came out of a call, told where it was called."""
    with pytest.raises(Exception, match=r".*") as caught:
        fn()
    return caught.value


def test_it_is_found_behind_what_stands_for_it() -> None:
    def sends() -> None:
        try:
            _signal()
        except Interrupt as error:
            raise ConnectionError("lost") from error

    def sends_twice() -> None:
        try:
            sends()
        except ConnectionError:
            raise TimeoutError("lost") from None  # its context still has it

    for fn in (_signal, sends, sends_twice):
        assert isinstance(raised_by_handler(_caught(fn), None), Interrupt)
    assert raised_by_handler(ValueError("x"), None) is None


def test_what_was_handled_before_the_call_is_not_its_own() -> None:
    outer = _caught(_signal)
    error = ConnectionError("lost")
    error.__context__ = outer
    assert raised_by_handler(error, outer) is None
    assert raised_by_handler(error, None) is outer


def test_a_chain_without_end_is_left() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    assert raised_by_handler(first, None) is None


def test_a_handler_may_take_its_arguments_as_it_likes() -> None:
    def interrupt(*arguments: object) -> None:
        raise Interrupt

    signal.signal(signal.SIGUSR1, interrupt)
    assert is_from_handler(_caught(_signal))


class _Raises:
    def __call__(self) -> None:
        raise Interrupt


class _Wants:
    def __call__(self, one: object) -> None:
        """Is refused its arguments."""


def test_who_was_refused_its_arguments_has_not_run() -> None:
    def wants(one: object) -> None:
        """As above."""

    wrong: Any = wants
    of_a_class: Any = _Wants()
    for fn in (wrong, partial(partial(wrong)), of_a_class):
        with pytest.raises(TypeError) as refused:
            fn()
        assert not has_run(fn, refused.value.__traceback__)
    raises = _Raises()
    with pytest.raises(Interrupt) as raised:
        raises()
    assert has_run(raises, raised.value.__traceback__)
    assert not has_run(wants, None)


def test_who_was_interrupted_before_or_inside_the_call() -> None:
    def inside() -> None:
        _signal()

    with pytest.raises(Interrupt) as caught:
        inside()
    assert has_run(inside, caught.value.__traceback__)
    with pytest.raises(Interrupt) as caught:
        signal.raise_signal(signal.SIGUSR1)
    assert not has_run(inside, caught.value.__traceback__), "the handler came up at the place of the call"


def test_who_was_interrupted_at_its_entry_has_not_run() -> None:
    """A function that traces stands for the handler: both are called with the frame, here before its first step."""

    def act() -> None:
        """Never gets to its first step."""

    def interrupt(frame: FrameType, _event: str, _arg: object) -> None:
        if frame.f_code is act.__code__:
            raise Interrupt

    before = sys.gettrace()
    with pytest.raises(Interrupt) as caught:  # noqa: PT012 - it is looked at where `act` is called
        sys.settrace(interrupt)
        try:
            act()
        finally:
            sys.settrace(before)
    assert not has_run(act, caught.value.__traceback__)


def test_a_coroutine_has_run_once_it_has_begun() -> None:
    async def act() -> None:
        raise LookupError

    coroutine = act()
    assert not has_stepped(coroutine, None)
    with pytest.raises(LookupError) as raised:
        coroutine.send(None)
    assert has_stepped(coroutine, raised.value.__traceback__)
    assert has_stepped(object(), None), "it is no coroutine"


def test_a_coroutine_that_was_interrupted_at_its_entry_has_not_run() -> None:
    async def act() -> None:
        """Never runs."""

    def interrupt(frame: FrameType, event: str, arg: object) -> None:
        if frame.f_code is act.__code__:
            sys.settrace(before)
            raise Interrupt

    coroutine, before = act(), sys.gettrace()
    sys.settrace(interrupt)
    try:
        with pytest.raises(Interrupt) as caught:
            coroutine.send(None)
    finally:
        sys.settrace(before)
    assert not has_stepped(coroutine, caught.value.__traceback__)
