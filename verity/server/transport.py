"""What a connection writes to, and what it keeps for a client that does not read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from verity.server.uvicorn_names import FlowControl

PIECE = 65_536
"""So much is handed to the event loop's transport at once, and as much may wait there: what waits beyond is known to
us. With TLS, that transport's own count leaves out what is encrypted already.
"""


class Flow(FlowControl):
    """Takes nothing in while requests wait for their turn. Uvicorn does with each answer: whoever sends faster than is
    answered fills the memory.
    """

    def __init__(self, transport: asyncio.Transport, somebody_waits: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._somebody_waits = somebody_waits

    def resume_reading(self) -> None:
        """Go on, where nobody waits."""
        if not self._somebody_waits():
            super().resume_reading()


class BufferedTransport:
    """A transport that can be used beyond its end, and then does nothing; that sends in one go what is written in one
    turn of the event loop; and that knows how much of it is unread.

    Of several requests that came in one go, uvicorn tells only the last that the connection is lost. To the others'
    answers uvloop's own transport would raise. And uvicorn writes an answer's head and body apart, which uvloop sends
    with a system call each: a fifth of a node's time.

    Args:
        keep: told of bytes that are kept until the client reads; below 0, of so many that are kept no more.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, keep: Callable[[int], None]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._keep = keep
        self._written: list[bytes] = []
        self._queue: deque[memoryview] = deque()
        self._kept_bytes = 0
        self._is_paused = False
        self._is_ending = False
        transport.set_write_buffer_limits(high=PIECE)

    def write(self, data: bytes) -> None:
        """Send, if there is still somebody."""
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def write_at_once(self, data: bytes) -> None:
        """Send a whole answer, after what was written before."""
        if self._written or self._queue or len(data) > PIECE or self.is_closing():
            self.write(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """End, once all is sent."""
        self._send()
        self._is_ending = True
        if not self._queue:
            self._transport.close()

    def is_closing(self) -> bool:
        """Whether it has been closed, or is about to be."""
        return self._is_ending or self._transport.is_closing()

    def write_eof(self) -> None:
        """Send nothing more."""
        if self._queue:
            self.close()
        else:
            self._transport.write_eof()

    def pause(self) -> None:
        """The client does not read."""
        self._is_paused = True

    def resume(self) -> bool:
        """The client has read; returns whether it has read all that there was."""
        self._is_paused = False
        self._hand_on()
        return not self._is_paused

    def forget(self) -> None:
        """The connection is lost."""
        self._queue.clear()
        self._release()

    def _send(self) -> None:
        data = b"".join(self._written)
        self._written.clear()
        if not data or self._transport.is_closing():
            return
        if self._queue or len(data) > PIECE:
            self._queue.append(memoryview(data))
            self._kept_bytes += len(data)
            self._keep(len(data))
            self._hand_on()
        else:
            self._transport.write(data)

    def _hand_on(self) -> None:
        """Give the event loop what it takes."""
        while self._queue and not self._is_paused and not self._transport.is_closing():
            data = self._queue.popleft()
            if len(data) > PIECE:
                self._queue.appendleft(data[PIECE:])
            self._transport.write(data[:PIECE])
        if not self._queue and not self._is_paused:
            self._release()
            if self._is_ending:
                self._transport.close()

    def _release(self) -> None:
        if self._kept_bytes:
            self._keep(-self._kept_bytes)
            self._kept_bytes = 0

    def pause_reading(self) -> None:
        """Take nothing in for a while."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
