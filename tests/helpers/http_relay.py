"""A TCP relay on loopback between clients and a served ledger. It records connections and what clients send."""

from __future__ import annotations

import asyncio
import re
import threading
from types import TracebackType
from urllib.parse import urlsplit

_IDEMPOTENCY_KEY = re.compile(rb"^idempotency-key: *(\S+)\r$", re.IGNORECASE | re.MULTILINE)


class Relay:
    """Relays between `start()` and `stop()`, or as a context manager.

    Args:
        base_url: the ledger's.

    Attributes:
        base_url: what a client is given instead.
        hold: nothing is passed on to the ledger before so many connections have been opened.
        opened: how many connections there were in all.
    """

    def __init__(self, base_url: str) -> None:
        self._target = urlsplit(base_url)
        self.base_url = ""
        self.opened = 0
        self.hold = 0
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._sent: list[bytearray] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="relay", daemon=True)

    def idempotency_keys(self) -> list[str]:
        """The header's values, in all requests that were sent."""
        return [key.decode() for sent in self._sent for key in _IDEMPOTENCY_KEY.findall(bytes(sent))]

    def __enter__(self) -> Relay:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._all_opened = asyncio.Event()
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0, backlog=256)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{self._target.path}"
        self._ready.set()
        await self._ended.wait()
        self._all_opened.set()
        server.close()
        closing = dict(self._open)
        for writer in closing:
            writer.close()
        await asyncio.gather(*(task for task in closing.values() if task is not None))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = asyncio.current_task()
        self.opened += 1
        if self.opened >= self.hold:
            self._all_opened.set()
        sent = bytearray()
        self._sent.append(sent)
        await self._all_opened.wait()
        there_reader, there_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        await asyncio.gather(_pump(reader, there_writer, sent), _pump(there_reader, writer, bytearray()))
        del self._open[writer]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
    """Pass on until one side ends, then end the other."""
    try:
        while data := await reader.read(65_536):
            seen += data
            writer.write(data)
            await writer.drain()
    except OSError:
        return  # one side is gone, and that is all there is to say
    finally:
        writer.close()
