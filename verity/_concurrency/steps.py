"""Finds the effect whose code blocked an event loop.

A step is the code that an async act or observe runs between two suspensions. Each step is timed; long ones are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, NamedTuple, TypeVar

from verity._concurrency.loops import current_loop

T = TypeVar("T")
Clock = Callable[[], float]

LONG_STEP_S = 0.25
"""Seconds. To block a loop for a shorter time does no harm to a lease."""


class _LongStep(NamedTuple):
    loop_id: int
    began_at: float
    ended_at: float
    label: str


_long_steps: deque[_LongStep] = deque(maxlen=64)


def blocking_effect(began_at: float, ended_at: float) -> str | None:
    """The label of the effect whose step blocked the running loop for more than half of this time; None: no effect."""
    loop_id = id(current_loop())
    most_s, label = 0.0, None
    for step in list(_long_steps):
        shared_s = min(step.ended_at, ended_at) - max(step.began_at, began_at)
        if step.loop_id == loop_id and shared_s > most_s:
            most_s, label = shared_s, step.label
    return label if most_s > (ended_at - began_at) / 2 else None


class Timed(Generic[T]):
    """Awaits a coroutine and times each of its steps. The result is appended to `returned` at once."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], label: str, clock: Clock, returned: list[T]) -> None:
        self._coroutine = coroutine
        self._label = label
        self._clock = clock
        self._returned = returned

    def __await__(self) -> Generator[Any, Any, T]:
        """As `yield from`, with a clock reading before and after each step."""
        steps = self._coroutine.__await__()
        resume: Callable[[Any], Any] = steps.send
        value: Any = None
        clock = self._clock
        while True:
            began_at = clock()
            try:
                awaited = resume(value)
            except StopIteration as end:
                self._returned.append(end.value)  # before any other call: an interrupt comes up in a call
                return end.value  # type: ignore[no-any-return]  # T is what the coroutine returns
            finally:
                value = None  # an exception thrown into the coroutine refers to this frame: break the cycle
                ended_at = clock()
                if ended_at - began_at > LONG_STEP_S:
                    _long_steps.append(_LongStep(id(current_loop()), began_at, ended_at, self._label))
            try:
                value = yield awaited
                resume = steps.send
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # noqa: BLE001 - thrown into the coroutine
                resume, value = steps.throw, error
