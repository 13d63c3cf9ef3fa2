"""The running event loop: asyncio's, or else trio's.

asyncio is imported only where it is used, because a sync program never needs it.
"""

from __future__ import annotations

import sys
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
