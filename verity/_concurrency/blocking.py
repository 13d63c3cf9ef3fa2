"""Calls short functions that wait for the disk, without blocking an event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from verity._concurrency.threads import loop_threads

T = TypeVar("T")


async def async_blocking(fn: Callable[[], T]) -> T:
    """Call `fn` in a worker thread, and return its result. If no thread can be started, call it here.

    A cancellation does not stop `fn`. On asyncio it ends the wait for it.
    """
    begun: list[None] = []
    returned: list[T] = []

    def run() -> None:
        begun.append(None)
        returned.append(fn())

    try:
        await loop_threads().run(run)
    except RuntimeError:  # no thread
        if begun:
            raise
        return fn()
    return returned[0]


def sync_blocking(fn: Callable[[], T]) -> T:
    """Call `fn` in the calling thread."""
    return fn()
