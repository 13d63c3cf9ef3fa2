"""A server that answers every lease with the same grant and every commit with the same acceptance.

It runs in its own process and does no work, so that a benchmark of clients measures only the clients. It prints its
port, and serves until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys

GRANT = json.dumps(
    {
        "status": "granted",
        "effectId": "eff_0",
        "effectKey": "k",
        "fenceToken": 1,
        "leaseToken": "lease-token-of-the-benchmark",
        "leaseExpiresAt": "2030-01-01T00:00:00Z",
        "priorState": "none",
    }
).encode()
ACCEPTED = json.dumps({"status": "accepted", "effectId": "eff_0", "fenceToken": 1, "message": "ok"}).encode()


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


class ConstantAnswers(asyncio.Protocol):
    """Just enough HTTP/1.1 for requests with a content length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._transport.write(_answer(ACCEPTED if b"/commit" in head.split(b"\r\n", 1)[0] else GRANT))


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(ConstantAnswers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
