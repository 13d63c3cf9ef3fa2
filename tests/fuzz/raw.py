"""Bytes that no honest client sends, over sockets: what is hardly HTTP, odd headers, half bodies, odd encodings.

Each request is made from its number, so that one that does harm can be sent again alone.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable

from tests.fuzz.ledger import Target
from tests.fuzz.pieces import BODIES, CALLS, HEADERS, METHODS, PATHS, QUERIES, VERSIONS, WHOLE

CHUNK = 500
AT_A_TIME = 16
_ANSWER_WITHIN_S = 30.0
_PATIENCE_S = 0.1
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n")


class RawRequests:
    """Sends hostile bytes to a ledger.

    Attributes:
        statuses: how often each was answered; 0 is no answer at all.
        failures: what was answered with a fault, and by which request.
    """

    def __init__(self, target: Target) -> None:
        self.statuses: Counter[int] = Counter()
        self.failures: dict[str, str] = {}
        self._target = target

    def run_chunk(self, number: int, size: int = CHUNK) -> None:
        """Send one chunk."""
        asyncio.run(self._run(range(number * size, (number + 1) * size)))
        self._target.check_health()

    async def _run(self, numbers: range) -> None:
        gate = asyncio.Semaphore(AT_A_TIME)

        async def send(number: int) -> None:
            async with gate:
                await self._send(number)

        await asyncio.gather(*map(send, numbers))

    async def _send(self, number: int) -> None:
        rng = random.Random(number)
        data = make(rng, self._target.admin.encode())
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target.port)
        received = b""
        try:
            received = await asyncio.wait_for(_exchange(reader, writer, data, rng), _ANSWER_WITHIN_S)
        except ConnectionError:
            pass  # cut off, which is an answer, too
        finally:
            writer.transport.abort()
        statuses = [int(status) for status in _STATUS.findall(received)]
        self.statuses.update(statuses or [0])
        if any(status >= 500 for status in statuses) or (received and not _STATUS.match(received)):
            self.failures[f"request {number}"] = f"{data[:1000]!r}: {received[:300]!r}"


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, rng: random.Random
) -> bytes:
    """Send in one or a few pieces; what is answered before the ledger waits for more, which does not come."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 1, 3])))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        writer.write(data[start:end])
        await writer.drain()
    received = b""
    while True:
        try:
            part = await asyncio.wait_for(reader.read(65_536), _PATIENCE_S)
        except asyncio.TimeoutError:
            return received
        if not part:
            return received
        received += part


def make(rng: random.Random, key: bytes) -> bytes:
    """A hostile request: odd parts put together, a good one that was spoilt, several at once, or no HTTP at all."""
    kinds: list[Callable[[random.Random, bytes], bytes]] = [
        _odd_parts,
        _odd_parts,
        _spoilt,
        _spoilt,
        _pipelined,
        _no_http,
    ]
    return rng.choice(kinds)(rng, key)


def _odd_parts(rng: random.Random, key: bytes) -> bytes:
    body = rng.choice(BODIES)
    lines = [
        b" ".join(
            [
                rng.choice(METHODS[:2] * 3 + METHODS),
                rng.choice(PATHS) + rng.choice(QUERIES),
                rng.choice(VERSIONS[:1] * 9 + VERSIONS),
            ]
        )
    ]
    if rng.random() < 0.8:
        lines.append(b"Host: x")
    if rng.random() < 0.7:
        lines.append(b"Authorization: Bearer " + key)
    if rng.random() < 0.6:
        lines.append(b"Content-Length: %d" % (len(body) + rng.choice([0, 0, 0, 0, -1, 1])))
    lines += rng.choices(HEADERS, k=rng.choice([5, 200] if rng.random() < 0.05 else [0, 0, 1, 1, 1, 2]))
    rng.shuffle(rest := lines[1:])
    return rng.choice([b"\r\n"] * 9 + [b"\n", b"\r"]).join([lines[0], *rest, b"", b""]) + body


def _good(rng: random.Random, key: bytes) -> bytes:
    call, more = rng.choice([*CALLS.items()])
    body = b'{"effectKey":"k%d"%s}' % (rng.randrange(1000), more)
    where = rng.choice([b"payments", b"mail"])
    head = b"POST /v1/effects/%s/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % (where, call, key)
    if rng.random() < 0.1:
        head += rng.choice(HEADERS) + b"\r\n"
    if rng.random() < 0.2:
        return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _spoilt(rng: random.Random, key: bytes) -> bytes:
    data = bytearray(_good(rng, key))
    pieces = [
        b"\x00",
        b"\r",
        b"\n",
        b"\r\n\r\n",
        b"\xff",
        b":",
        b" ",
        b"%00",
        b"{",
        b'"',
        b"\\u0000",
        b"9" * 30,
        b"",
        rng.randbytes(8),
    ]
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        place = rng.randrange(len(data))
        data[place : place + rng.randint(0, 4)] = rng.choice(pieces)
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)


def _pipelined(rng: random.Random, key: bytes) -> bytes:
    parts = [rng.choice([_good, _good, _good, _spoilt])(rng, key) for _ in range(rng.randint(2, 12))]
    return b"".join(parts) + rng.choice(WHOLE)


def _no_http(rng: random.Random, _key: bytes) -> bytes:
    return rng.choice(WHOLE) if rng.random() < 0.5 else rng.randbytes(rng.choice([1, 10, 1000, 100_000]))
