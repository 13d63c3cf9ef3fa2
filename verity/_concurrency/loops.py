"""The running event loop: asyncio's, or else trio's.

asyncio is imported only where it is used, because a sync program never needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The running asyncio loop; None means trio."""
    if "asyncio" not in sys.modules:
        return None
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def current_loop() -> object:
    """The identity of the running loop: asyncio's loop object, or trio's token."""
    loop = asyncio_loop()
    if loop is not None:
        return loop
    import trio

    return trio.lowlevel.current_trio_token()


def thread_safe(fn: Callable[[], object]) -> Callable[[], None]:
    """Make a function for any thread that calls `fn` in the running loop. It does nothing once that loop has ended."""
    loop = asyncio_loop()
    soon: Callable[[Callable[[], object]], object]
    if loop is None:
        import trio

        soon = trio.lowlevel.current_trio_token().run_sync_soon
    else:
        soon = loop.call_soon_threadsafe

    def call() -> None:
        with suppress(RuntimeError):  # the loop has ended
            soon(fn)

    return call
