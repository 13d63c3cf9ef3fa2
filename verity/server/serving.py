"""A listening socket, uvicorn on it, and an end in good order."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from verity.server.app import LedgerApp, Operators
from verity.server.connections import Connections
from verity.server.handshakes import Handshakes
from verity.server.protocol import LedgerProtocol
from verity.server.settings import ServerSettings
from verity.server.uvicorn_names import check_uvicorn

_MOST_OPERATORS = 100
"""Connections to the address for operators."""
_LAST_ANSWERS_WITHIN_S = 1.0
BACKLOG = 2048
"""Connections that wait to be accepted; more than the kernel's own limit does no harm."""


class LedgerServer(uvicorn.Server):
    """Uvicorn with our settings, that tells when it listens.

    Args:
        app: answers the requests.
        settings: timeouts and limits.
        on_listening: called once it accepts connections.
        tls: serve HTTPS with this certificate.
        metrics_listener: a socket that listens. There `/metrics` and the probes are told in plain HTTP, and `app` tells
            no metrics any more.

    To stop it, set `should_exit`: it accepts nothing more, finishes the requests that it has begun, and `serve`
    returns.

    Raises:
        VerityConfigError: the installed uvicorn has renamed what this server uses of it.
    """

    def __init__(
        self,
        app: LedgerApp,
        settings: ServerSettings,
        on_listening: Callable[[], None] = lambda: None,
        *,
        tls: ssl.SSLContext | None = None,
        metrics_listener: socket.socket | None = None,
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
        check_uvicorn(self)
        self._on_listening = on_listening
        self._waiting = app.waiting
        self.connections = Connections(app, settings)
        app.metrics.watch_connections(lambda: len(self.connections.open))
        self._metrics_listener = metrics_listener
        self._operators = Connections(Operators(app), replace(settings, max_connections=_MOST_OPERATORS))
        app.tells_metrics = metrics_listener is None
        self._tls = tls
        self._handshake_timeout_s = settings.header_timeout_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        # Without sockets uvicorn does all but listen; that is done here, for the sake of our own protocol.
        await super().startup([])
        loop = asyncio.get_running_loop()
        make_protocol = partial(self._make_protocol, self.connections)
        for each in sockets or []:
            if self._tls is None:
                self.servers.append(await loop.create_server(make_protocol, sock=each, backlog=BACKLOG))
            else:
                handshakes = Handshakes(self._tls, make_protocol, self._handshake_timeout_s, self.connections.has_room)
                handshakes.start(each)
                self.servers.append(handshakes)  # type: ignore[arg-type]  # what uvicorn does with it, it can
        if self._metrics_listener is not None:
            make = partial(self._make_protocol, self._operators)
            self.servers.append(await loop.create_server(make, sock=self._metrics_listener, backlog=BACKLOG))
            self._operators.watch()
        self.connections.watch()
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, and finish what has begun; who waits for another holder is answered now."""
        self._waiting.close()
        await super().shutdown(sockets)
        if self.server_state.tasks:  # cancelled by now: each says that it was given up
            await asyncio.wait(self.server_state.tasks, timeout=_LAST_ANSWERS_WITHIN_S)
        await self.connections.end()
        await self._operators.end()

    def _make_protocol(self, connections: Connections) -> LedgerProtocol:
        return LedgerProtocol(
            connections, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

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


def raise_file_limit() -> None:
    """Let this process have as many open files, and so connections, as the system lets it ask for."""
    try:
        import resource
    except ModuleNotFoundError:  # it does not exist for Windows, and neither does the limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a sandbox may forbid the call, and a system a limit that it calls unlimited
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any free one.

    Raises:
        OSError: the address can't be had.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def base_url(listener: socket.socket, scheme: str = "http") -> str:
    """What a client is given."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/v1"
