"""Running calls at the same time and waiting for conditions, in pairs: async for asyncio and trio, sync for threads.

Every wait has a limit and ends in `TimeoutError`: a call that never returns fails its test and does not hang it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any

import anyio

_CHECK_EVERY_S = 0.005
_LONG_S = 15.0
_ENDED_WITHIN_S = 45.0
_GATHERED_WITHIN_S = 90.0
OF_PROCESSES_S = 60.0
"""For conditions that another process makes true: it may get little of a busy machine."""


async def async_gather(calls: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """The outcomes in order; an exception is an outcome, too."""
    outcomes: list[Any] = [None] * len(calls)

    async def run(index: int) -> None:
        try:
            outcomes[index] = await calls[index]()
        except Exception as error:  # noqa: BLE001 - it is the outcome
            outcomes[index] = error

    with anyio.fail_after(_GATHERED_WITHIN_S):
        async with anyio.create_task_group() as group:
            for index in range(len(calls)):
                group.start_soon(run, index)
    return outcomes


def sync_gather(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The outcomes in order, each call in a thread of its own."""
    outcomes: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        try:
            outcomes[index] = calls[index]()
        except Exception as error:  # noqa: BLE001 - it is the outcome
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=[index], daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    _join(threads, _GATHERED_WITHIN_S)
    return outcomes


def _join(threads: Sequence[threading.Thread], within_s: float) -> None:
    end = time.monotonic() + within_s
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            raise TimeoutError


async def async_until(condition: Callable[[], bool], within_s: float = _LONG_S) -> None:
    """Return once it holds."""
    with anyio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in another thread or process
            await anyio.sleep(_CHECK_EVERY_S)


def sync_until(condition: Callable[[], bool], within_s: float = _LONG_S) -> None:
    """Return once it holds."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(_CHECK_EVERY_S)


class AsyncBackground:
    """Calls that run while the test goes on; leaving it waits for all of them."""

    def __init__(self) -> None:
        self._group = anyio.create_task_group()
        self.outcomes: list[Any] = []

    def start(self, call: Callable[[], Awaitable[Any]]) -> anyio.CancelScope:
        """Begin a call; its outcome, or its exception, is appended."""
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    self.outcomes.append(await call())
                except Exception as error:  # noqa: BLE001 - it is the outcome
                    self.outcomes.append(error)

        self._group.start_soon(run)
        return scope

    async def __aenter__(self) -> AsyncBackground:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.cancel_scope.deadline = anyio.current_time() + _ENDED_WITHIN_S
        await self._group.__aexit__(kind, error, trace)
        if self._group.cancel_scope.cancel_called:
            raise TimeoutError


class SyncBackground:
    """Calls that run while the test goes on; leaving it waits for all of them."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self.outcomes: list[Any] = []

    def start(self, call: Callable[[], Any]) -> None:
        """Begin a call; its outcome, or its exception, is appended."""

        def run() -> None:
            try:
                self.outcomes.append(call())
            except Exception as error:  # noqa: BLE001 - it is the outcome
                self.outcomes.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append(thread)

    def __enter__(self) -> SyncBackground:
        return self

    def __exit__(self, *exc_info: object) -> None:
        _join(self._threads, _ENDED_WITHIN_S)
