"""A lock that no interrupt leaves locked: signals at the worst moments, several at once."""

from __future__ import annotations

import signal
import threading
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from verity import VerityError, _mutex
from verity._mutex import Mutex

pytestmark = pytest.mark.untraced

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGVTALRM)
RUNS: list[Callable[[Mutex, Callable[[], object]], object]] = [
    lambda mutex, fn: mutex.run(fn),
    lambda mutex, fn: mutex.run_if_free(fn, within_s=30),
]


class Interrupt(Exception):
    pass


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    def interrupt(_number: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code.co_filename != _mutex.__file__:
            frame = frame.f_back
        if frame is not None:  # what comes up later is not the mutex's
            raise Interrupt

    before = [signal.signal(each, interrupt) for each in SIGNALS]
    yield
    for each, handler in zip(SIGNALS, before, strict=True):
        signal.signal(each, handler)


def _is_free_for_others(mutex: Mutex) -> bool:
    found: list[bool] = []
    other = threading.Thread(target=lambda: found.append(mutex.run_if_free(bool)))
    other.start()
    other.join()
    return found == [True]


@pytest.mark.parametrize("run", RUNS, ids=["run", "run_if_free"])
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_signals_inside_leave_it_unlocked(run: Callable[..., object], at_once: int) -> None:
    """Python 3.10 raises for the second one before the first instruction of a handler, where that is no `try`."""
    mutex = Mutex()

    def signals_come() -> None:
        list(map(interrupt_main, SIGNALS[:at_once]))  # in C: Python looks after the last one

    with pytest.raises(Interrupt):
        run(mutex, signals_come)
    assert _is_free_for_others(mutex)


@pytest.mark.parametrize("run", RUNS, ids=["run", "run_if_free"])
def test_a_signal_that_comes_while_it_is_acquired_leaves_it_unlocked(run: Callable[..., object]) -> None:
    mutex, is_inside, goes_on = Mutex(), threading.Event(), threading.Event()

    def stay() -> None:
        is_inside.set()
        assert goes_on.wait(30)
        interrupt_main(SIGNALS[0])  # whoever waits gets the lock next, and then finds this signal

    other = threading.Thread(target=lambda: mutex.run(stay))
    other.start()
    assert is_inside.wait(30)
    threading.Timer(0.05, goes_on.set).start()
    with pytest.raises(Interrupt):
        run(mutex, bool)
    other.join()
    assert _is_free_for_others(mutex)


def test_a_handler_that_comes_back_in_is_refused() -> None:
    mutex = Mutex()
    with pytest.raises(VerityError, match="inside another call of the same thread"):
        mutex.run(lambda: mutex.run(bool))
    with pytest.raises(VerityError, match="inside another call of the same thread"):
        mutex.run(lambda: mutex.run_if_free(bool))
    assert _is_free_for_others(mutex)


def test_another_thread_is_kept_out() -> None:
    mutex = Mutex()
    assert mutex.run(lambda: (mutex.locked(), _is_free_for_others(mutex))) == (True, False)
    assert not mutex.locked()
