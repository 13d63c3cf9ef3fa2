"""Which event loop is running. Told without sniffing packages: what is not asyncio is trio."""

from __future__ import annotations

import asyncio


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The running asyncio loop; None means trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def current_loop() -> object:
    loop = asyncio_loop()
    if loop is not None:
        return loop
    import trio

    return trio.lowlevel.current_trio_token()
