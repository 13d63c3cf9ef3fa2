"""What goes wrong in a run, and when: at the n-th step of any task, or at the n-th start of a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import anyio
import pytest
import trio
from trio._core._thread_cache import THREAD_CACHE

Call = Callable[[], Coroutine[Any, Any, Any]]
STEPS = ("asyncio: cancelled", "asyncio: the loop ends", "trio: cancelled")
STARTS = ("asyncio: no thread", "trio: no thread")
FAULTS = (*STEPS, *STARTS)


class Counter:
    """Counts the moments of a run.

    Args:
        at: when something is to go wrong, counted from 1.
        again_after: so many moments later it goes wrong once more; 0: it does not.
    """

    def __init__(self, at: int, again_after: int = 0) -> None:
        self._at = at
        self._moments = {at, at + again_after}
        self._count = 0

    def is_now(self) -> bool:
        """Whether something goes wrong at this moment, the next one."""
        self._count += 1
        return self._count in self._moments

    @property
    def was_reached(self) -> bool:
        """Whether the run had that many."""
        return self._count >= self._at


class _Stepped(Coroutine[Any, Any, Any]):
    """A coroutine; `before` is called before each of its steps."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], before: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._before = before

    def send(self, value: Any) -> Any:
        self._before()
        return self._coroutine.send(value)

    def throw(self, error: Any, *more: Any) -> Any:
        self._before()
        return self._coroutine.throw(error, *more)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


def run(fault: str, call: Call, counter: Counter, after: Call) -> BaseException | None:
    """One call in an event loop of its own, and what it raised; `after` runs in the next loop."""
    backend, _, what = fault.partition(": ")
    if what == "no thread":
        with _NoThread(counter):
            return anyio.run(_one_outcome, call, backend=backend)
    if backend == "trio":
        return trio.run(_cancelled_on_trio, call, counter)
    if what == "cancelled":
        return asyncio.run(_cancelled_on_asyncio(call, counter))
    asyncio.run(_left_by_the_loop(call, counter))
    asyncio.run(after())
    return None


async def _one_outcome(call: Call) -> BaseException | None:
    try:
        await call()
    except Exception as error:  # noqa: BLE001 - it is the outcome
        return error
    return None


async def _cancelled_on_asyncio(call: Call, counter: Counter) -> BaseException | None:
    tasks: list[asyncio.Task[Any]] = []

    def before() -> None:
        if counter.is_now():
            tasks[0].cancel()

    _count_steps(before)
    tasks.append(asyncio.ensure_future(call()))
    await asyncio.wait(tasks)
    return asyncio.CancelledError() if tasks[0].cancelled() else tasks[0].exception()


async def _left_by_the_loop(call: Call, counter: Counter) -> None:
    """`asyncio.run` cancels whatever is there when its main function returns: so it is at the n-th step."""
    main, is_over = asyncio.current_task(), asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    def before() -> None:
        if not (tasks and tasks[0].done()) and counter.is_now():  # what comes then is asyncio.run's own
            is_over.set()
            for each in asyncio.all_tasks() - {main}:
                each.cancel()

    waits = asyncio.ensure_future(is_over.wait())
    _count_steps(before)
    tasks.append(asyncio.ensure_future(call()))
    await asyncio.wait([*tasks, waits], return_when=asyncio.FIRST_COMPLETED)


def _count_steps(before: Callable[[], None]) -> None:
    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(_Stepped(coroutine, before), loop=loop, **options)

    asyncio.get_running_loop().set_task_factory(factory)


async def _cancelled_on_trio(call: Call, counter: Counter) -> BaseException | None:
    outcome: BaseException | None = None

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if counter.is_now():
                scope.cancel()

    steps = Steps()
    with trio.CancelScope() as scope:
        trio.lowlevel.add_instrument(steps)
        try:
            outcome = await _one_outcome(call)
        finally:
            trio.lowlevel.remove_instrument(steps)
    return outcome


class _NoThread:
    """The n-th thread that this one asks for is refused, and all that follow."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        start, here = threading.Thread.start, threading.current_thread()

        def start_or_refuse(thread: threading.Thread) -> None:
            if threading.current_thread() is here:
                self._counter.is_now()
                if self._counter.was_reached:
                    raise RuntimeError("can't start new thread")
            start(thread)

        self._patch.setattr(threading.Thread, "start", start_or_refuse)
        self._patch.setattr(THREAD_CACHE, "_idle_workers", {})  # trio's, of the runs before

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patch.undo()


def bounded(fn: Callable[[], Any], within_s: float) -> Any:
    """Its outcome, in a thread of its own; who does not end is a failure, not a test that hangs."""
    outcome: Future[Any] = Future()

    def keep() -> None:
        try:
            outcome.set_result(fn())
        except BaseException as error:  # noqa: BLE001 - it is raised by the one who waits
            outcome.set_exception(error)

    threading.Thread(target=keep, daemon=True).start()
    return outcome.result(within_s)
