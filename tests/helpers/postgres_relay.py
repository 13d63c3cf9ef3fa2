"""A TCP relay before PostgreSQL that reads enough of the protocol to break a connection at a chosen statement.

It runs in the caller's event loop. A planned fault waits for the next statement that contains its SQL, and happens as
often as it was planned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import TracebackType
from urllib.parse import urlsplit

_PARSE, _BIND, _COMPLETE, _READY = b"P", b"B", b"C", b"Z"


class PostgresRelay:
    """Relays inside an `async with`.

    Args:
        url: the database.

    Attributes:
        url: what the store is given instead.
        seen: the faults that happened, in their order, and the outcomes of late statements.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self.url = ""
        self.seen: list[str] = []
        self._faults: list[tuple[str, str]] = []
        self._late: list[tuple[_Link, bytes]] = []
        self._open: set[asyncio.Task[None]] = set()

    def plan(self, fault: str, sql: str, times: int = 1) -> None:
        """Plan a fault.

        - `request`: the statement is lost on its way.
        - `answer`: the statement is carried out, and no part of the answer comes back.
        - `ready`: its rows and its success come back, but not that the transaction has ended.
        - `late`: the connection breaks, and the statement arrives all the same, at `deliver()`.
        """
        self._faults += [(fault, sql)] * times

    async def deliver(self) -> None:
        """Send the late statements to the database; return once it has carried them out and ended the session."""
        for link, data in self._late:
            await link.deliver(data)
        self._late.clear()

    async def __aenter__(self) -> PostgresRelay:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = (
            f"{self._target.scheme}://{self._target.username}@127.0.0.1:{port}{self._target.path}?sslmode=disable"
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        link = _Link(self, writer, there_writer)
        pumps = [
            asyncio.ensure_future(link.pass_requests(reader)),
            asyncio.ensure_future(link.pass_answers(there_reader)),
        ]
        self._open.update(pumps)
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            writer.close()
            if link.fault == "late":
                await link.ended.wait()
        finally:
            writer.close()
            there_writer.close()

    def take_fault(self, sql: str) -> str:
        """The fault that is due for a statement, or none."""
        for number, (fault, part) in enumerate(self._faults):
            if part in sql:
                del self._faults[number]
                self.seen.append(fault)
                return fault
        return ""

    def keep_late(self, link: _Link, data: bytes) -> None:
        self._late.append((link, data))


class _Link:
    """One connection."""

    def __init__(self, relay: PostgresRelay, here: asyncio.StreamWriter, there: asyncio.StreamWriter) -> None:
        self._relay = relay
        self._here = here
        self._there = there
        self._sql: dict[bytes, str] = {}
        self._requests = _Messages(first_has_no_type=True)
        self._answers = _Messages()
        self.fault = ""
        self.ended = asyncio.Event()

    async def deliver(self, data: bytes) -> None:
        self._there.write(data)
        self._there.write_eof()
        await self.ended.wait()

    async def pass_requests(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(65_536):
                for kind, message in self._requests.feed(data):
                    self._look_at(kind, message[5:])
                if self.fault == "request":
                    return
                if self.fault == "late":
                    self._relay.keep_late(self, data)
                    return
                self._there.write(data)
                await self._there.drain()
        except OSError:
            return

    def _look_at(self, kind: bytes, body: bytes) -> None:
        if kind == _PARSE:
            name, sql, _ = body.split(b"\0", 2)
            self._sql[name] = sql.decode()
        elif kind == _BIND and not self.fault:
            _, name, _ = body.split(b"\0", 2)
            self.fault = self._relay.take_fault(self._sql[name])

    async def pass_answers(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(65_536):
                for kind, message in self._answers.feed(data):
                    if self.fault == "late":
                        if kind == _COMPLETE:
                            self._relay.seen.append(message[5:-1].decode())
                        continue
                    is_end = kind == _READY
                    if self.fault == "answer" or (self.fault == "ready" and is_end):
                        if is_end:
                            return
                        continue
                    self._here.write(message)
                await self._here.drain()
        except OSError:
            return
        finally:
            self.ended.set()


class _Messages:
    """Cuts a stream into messages: a type of one byte, a length of four, and the rest."""

    def __init__(self, *, first_has_no_type: bool = False) -> None:
        self._data = bytearray()
        self._type_bytes = 0 if first_has_no_type else 1

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._data += data
        while len(self._data) >= self._type_bytes + 4:
            length = int.from_bytes(self._data[self._type_bytes : self._type_bytes + 4], "big") + self._type_bytes
            if len(self._data) < length:
                return
            message = bytes(self._data[:length])
            del self._data[:length]
            yield (message[:1] if self._type_bytes else b""), message
            self._type_bytes = 1
