"""Whose code blocks an event loop: the steps of acts and observes are timed, and the long ones remembered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, NamedTuple, TypeVar

from verity._concurrency.loops import current_loop

T = TypeVar("T")
Clock = Callable[[], float]

LONG_STEP_S = 0.25
"""A loop that is blocked for a shorter time does no lease any harm."""


class _LongStep(NamedTuple):
    loop_id: int
    began_at: float
    ended_at: float
    label: str


_long_steps: deque[_LongStep] = deque(maxlen=64)


def who_blocked(began_at: float, ended_at: float) -> str | None:
    """The effect whose code's step kept the running loop busy for longest between these moments; None: nobody's."""
    loop_id = id(current_loop())
    most_s, label = 0.0, None
    for step in list(_long_steps):
        shared_s = min(step.ended_at, ended_at) - max(step.began_at, began_at)
        if step.loop_id == loop_id and shared_s > most_s:
            most_s, label = shared_s, step.label
    return label if most_s > (ended_at - began_at) / 2 else None


class Timed(Generic[T]):
    """A coroutine whose steps are timed while it is awaited. What it returns is appended to `returned` at once."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], label: str, clock: Clock, returned: list[T]) -> None:
        self._coroutine = coroutine
        self._label = label
        self._clock = clock
        self._returned = returned

    def __await__(self) -> Generator[Any, Any, T]:
        """As `yield from` does, with a look at the clock around each step."""
        steps = self._coroutine.__await__()
        resume: Callable[[Any], Any] = steps.send
        value: Any = None
        clock = self._clock
        while True:
            began_at = clock()
            try:
                awaited = resume(value)
            except StopIteration as end:
                self._returned.append(end.value)  # first of all: an interrupt comes up where a call is made
                return end.value  # type: ignore[no-any-return]  # T is what the coroutine returns
            finally:
                value = None  # an exception that was thrown in has a traceback that leads here
                ended_at = clock()
                if ended_at - began_at > LONG_STEP_S:
                    _long_steps.append(_LongStep(id(current_loop()), began_at, ended_at, self._label))
            try:
                value = yield awaited
                resume = steps.send
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is thrown on
                resume, value = steps.throw, error
