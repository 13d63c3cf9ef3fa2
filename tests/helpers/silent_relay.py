"""A TCP relay that can stop to forward without closing connections, as in a network partition.

What is sent meanwhile arrives once the partition is over: TCP sends it again.
"""

from __future__ import annotations

import socket
import threading
from types import TracebackType


class SilentRelay:
    """Relays inside a `with`.

    Args:
        port: where to, on loopback.

    Attributes:
        port: where it listens.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._passes = threading.Event()
        self._passes.set()

    def fall_silent(self) -> None:
        """Pass nothing on any more."""
        self._passes.clear()

    def speak_again(self) -> None:
        """Pass on what has been sent meanwhile, and whatever is sent from now on."""
        self._passes.set()

    def __enter__(self) -> SilentRelay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for each in self._sockets:
            each.close()
        self._passes.set()  # ends the threads

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
                self._sockets.append(here)
                there = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # closed; or nobody is there, and what was accepted stays silent
                if self._listener.fileno() < 0:
                    return
                continue
            self._sockets.append(there)
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                self._passes.wait()
                sink.sendall(data)
            self._passes.wait()
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one of them closed
            return
