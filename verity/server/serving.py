"""Runs uvicorn on listening sockets, and stops it without losing the answers to requests that have begun."""

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

from verity.server.app import LedgerApp, OperatorApp
from verity.server.connections import Connections
from verity.server.protocol import LedgerProtocol
from verity.server.settings import ServerSettings
from verity.server.tls_listener import TlsListener
from verity.server.uvicorn_names import check_uvicorn

_MAX_OPERATOR_CONNECTIONS = 100
"""Connections to the operators' address."""
_CANCELLED_ANSWERS_WITHIN_S = 1.0
BACKLOG = 2048
"""Connections that may wait to be accepted. The kernel lowers it to its own limit."""


class LedgerServer(uvicorn.Server):
    """Uvicorn with the ledger's protocol, limits and settings.

    To stop it, set `should_exit`: the server accepts no more connections, finishes the requests that it has begun, and
    `serve` returns.

    Args:
        app: answers the requests.
        settings: timeouts and limits.
        on_listening: called once the server accepts connections.
        tls: serve HTTPS with this context's certificate; None is plain HTTP.
        metrics_listener: a listening socket for the operators. It serves `/metrics` and the probes in plain HTTP, and
            `app` then serves no metrics.

    Raises:
        VerityConfigError: the installed uvicorn has renamed a name that this server uses.
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
        self._operators = Connections(OperatorApp(app), replace(settings, max_connections=_MAX_OPERATOR_CONNECTIONS))
        app.serves_metrics = metrics_listener is None
        self._tls = tls
        self._handshake_timeout_s = settings.header_timeout_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        # With an empty list uvicorn does everything but listen. This method listens, with the ledger's own protocol.
        await super().startup([])
        loop = asyncio.get_running_loop()
        make_protocol = partial(self._make_protocol, self.connections)
        for each in sockets or []:
            if self._tls is None:
                self.servers.append(await loop.create_server(make_protocol, sock=each, backlog=BACKLOG))
            else:
                has_room = self.connections.has_room
                listener = TlsListener(self._tls, make_protocol, self._handshake_timeout_s, has_room)
                listener.start(each)
                self.servers.append(listener)  # type: ignore[arg-type]  # uvicorn calls close() and wait_closed() only
        if self._metrics_listener is not None:
            make = partial(self._make_protocol, self._operators)
            self.servers.append(await loop.create_server(make, sock=self._metrics_listener, backlog=BACKLOG))
            self._operators.start_checks()
        self.connections.start_checks()
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, answer the waiting lease requests now, and finish the other requests."""
        self._waiting.close()
        await super().shutdown(sockets)
        if self.server_state.tasks:  # uvicorn has cancelled them: each still answers 503
            await asyncio.wait(self.server_state.tasks, timeout=_CANCELLED_ANSWERS_WITHIN_S)
        await self.connections.abort_all()
        await self._operators.abort_all()

    def _make_protocol(self, connections: Connections) -> LedgerProtocol:
        return LedgerProtocol(
            connections, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT stop this server.

        While the server runs, uvicorn has signal handlers of its own. Afterwards uvicorn raises the signal once more.
        Without these handlers that signal would kill the process; with them, the process chooses its exit status.
        """

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.should_exit = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` in an event loop: uvloop's, if it is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:  # there is no uvloop for Windows
        asyncio.run(main)
    else:
        uvloop.run(main)


def raise_file_limit() -> None:
    """Raise this process's limit of open files, and so of connections, as far as the system allows."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has neither the module nor the limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a sandbox may forbid the call; some systems refuse their own "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any free one.

    Raises:
        OSError: the address is unknown, in use or not allowed.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def base_url(listener: socket.socket, scheme: str = "http") -> str:
    """The `base_url` for clients."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/v1"
