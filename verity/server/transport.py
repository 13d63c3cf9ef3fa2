"""Write buffering of one connection: it counts the bytes that the client has not read yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from verity.server.uvicorn_names import FlowControl

CHUNK_BYTES = 65_536
"""How many bytes are given to the event loop's transport at once, and how many may wait there. All others wait in
`BufferedTransport`, which counts them. The event loop's own count is too low with TLS: it leaves out encrypted bytes.
"""


class PipelineFlow(FlowControl):
    """Reads nothing from the client while pipelined requests wait.

    Uvicorn resumes reading after each answer. A client that sends requests faster than they are answered would then
    fill the memory.
    """

    def __init__(self, transport: asyncio.Transport, somebody_waits: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._somebody_waits = somebody_waits

    def resume_reading(self) -> None:
        """Read again, if no request waits."""
        if not self._somebody_waits():
            super().resume_reading()


class BufferedTransport:
    """A wrapper of the event loop's transport, which adds three things.

    - Writing after the connection has ended does nothing. Of several pipelined requests, uvicorn tells only the last
      that the connection is lost; uvloop's own transport would raise for the answers to the others.
    - Writes in one iteration of the event loop are sent together. Uvicorn writes an answer's head and body separately,
      and uvloop sends each with a system call: a fifth of a node's time.
    - It counts the bytes that wait for the client to read.

    Args:
        add_unread: called with the number of bytes that are buffered; with a negative number when they are sent.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, add_unread: Callable[[int], None]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._add_unread = add_unread
        self._written: list[bytes] = []
        self._queue: deque[memoryview] = deque()
        self._queued_bytes = 0
        self._is_paused = False
        self._is_ending = False
        transport.set_write_buffer_limits(high=CHUNK_BYTES)

    def write(self, data: bytes) -> None:
        """Send soon, together with all that is written in this iteration of the event loop."""
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def write_at_once(self, data: bytes) -> None:
        """Send a whole answer now, or after the bytes that wait already."""
        if self._written or self._queue or len(data) > CHUNK_BYTES or self.is_closing():
            self.write(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection once everything is sent."""
        self._send()
        self._is_ending = True
        if not self._queue:
            self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be once everything is sent."""
        return self._is_ending or self._transport.is_closing()

    def write_eof(self) -> None:
        """Send the end of the stream. If bytes wait for the client, close the connection after them instead."""
        if self._queue:
            self.close()
        else:
            self._transport.write_eof()

    def pause(self) -> None:
        """Buffer from now on: the client does not read."""
        self._is_paused = True

    def resume(self) -> bool:
        """The client reads again; returns whether the event loop took everything that was buffered."""
        self._is_paused = False
        self._write_queued()
        return not self._is_paused

    def forget(self) -> None:
        """Drop what is buffered: the connection is lost."""
        self._queue.clear()
        self._clear_unread()

    def _send(self) -> None:
        data = b"".join(self._written)
        self._written.clear()
        if not data or self._transport.is_closing():
            return
        if self._queue or len(data) > CHUNK_BYTES:
            self._queue.append(memoryview(data))
            self._queued_bytes += len(data)
            self._add_unread(len(data))
            self._write_queued()
        else:
            self._transport.write(data)

    def _write_queued(self) -> None:
        """Give buffered bytes to the event loop, as many as it takes."""
        while self._queue and not self._is_paused and not self._transport.is_closing():
            data = self._queue.popleft()
            if len(data) > CHUNK_BYTES:
                self._queue.appendleft(data[CHUNK_BYTES:])
            self._transport.write(data[:CHUNK_BYTES])
        if not self._queue and not self._is_paused:
            self._clear_unread()
            if self._is_ending:
                self._transport.close()

    def _clear_unread(self) -> None:
        if self._queued_bytes:
            self._add_unread(-self._queued_bytes)
            self._queued_bytes = 0

    def pause_reading(self) -> None:
        """Stop reading."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
