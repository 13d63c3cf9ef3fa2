"""A listening socket, uvicorn on it, and an end in good order."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import uvicorn

from verity.server.app import LedgerApp
from verity.server.settings import ServerSettings


class LedgerServer(uvicorn.Server):
    """Uvicorn with our settings, that tells when it listens.

    To stop it, set `should_exit`: it accepts nothing more, finishes the requests that it has begun, and `serve`
    returns.
    """

    def __init__(
        self, app: LedgerApp, settings: ServerSettings, on_listening: Callable[[], None] = lambda: None
    ) -> None:
        config = uvicorn.Config(
            app,
            access_log=False,
            http="httptools",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=settings.drain_timeout_s,
            timeout_keep_alive=settings.keep_alive_s,
            ws="none",
        )
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets)
        self._on_listening()

    def stop_on_signals(self) -> None:
        """Have SIGTERM and SIGINT stop this server.

        While it serves, uvicorn has handlers of its own; afterwards it sends the signal once more to those set here,
        which then have nothing left to do. So the process ends with the status of its choice, not by the signal.
        """

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.should_exit = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run an event loop until `main` is done: uvloop's, where there is one."""
    try:
        import uvloop
    except ModuleNotFoundError:  # it does not exist for Windows
        asyncio.run(main)
    else:
        uvloop.run(main)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any free one.

    Raises:
        OSError: the address can't be had.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=2048)


def base_url(listener: socket.socket) -> str:
    """What a client is given."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
