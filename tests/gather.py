"""Running several calls at once, in both colours."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio


async def async_gather(calls: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """The outcomes in order; an exception is an outcome, too."""
    outcomes: list[Any] = [None] * len(calls)

    async def run(index: int) -> None:
        try:
            outcomes[index] = await calls[index]()
        except Exception as error:  # noqa: BLE001 - it is the outcome
            outcomes[index] = error

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

    threads = [threading.Thread(target=run, args=[index]) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
