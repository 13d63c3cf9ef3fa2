"""A lean load generator for a served ledger, in a process of its own: raw HTTP on an event loop, nothing else.

One line of JSON on standard input is one run: `{"ports": […], "key": "…", "clients": 64, "seconds": 3}`. Its result is
one line of JSON on standard output. A client is one keep-alive connection that leases and commits random keys in
a loop. An answer other than 200 ends the run with an error.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
import time
from typing import Any

import uvloop

INPUT = b'{"amount":1250,"currency":"EUR","customer":"cus_0123456789","description":"An order of three"}'
RESULT = b'{"id":"ch_0123456789abcdef","status":"succeeded"}'
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_FENCE = re.compile(rb'"fenceToken": *(\d+)')
_TOKEN = re.compile(rb'"leaseToken": *"([^"]+)"')


class Run:
    """The state that the clients of one run share."""

    def __init__(self, key: str) -> None:
        self.heads = {
            call: (
                f"POST /v1/effects/payments/{call} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
                "Content-Type: application/json\r\nContent-Length: "
            ).encode()
            for call in ("lease", "commit")
        }
        self.latencies_us: list[int] = []
        self.until = 0.0
        self.running = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, problem: str | None = None) -> None:
        """End one client; with a problem, end the run with an error."""
        self.running -= 1
        if self.ended.done():
            return
        if problem is not None:
            self.ended.set_exception(RuntimeError(problem))
        elif self.running == 0:
            self.ended.set_result(None)


class Client(asyncio.Protocol):
    """One connection: lease, commit, and again, until the run's time is over."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._buffer = b""
        self._is_leasing = False
        self._started_at = 0.0
        self._effect_key = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if not self._run.ended.done():
            self._run.end(f"a connection was lost: {error}")

    def close(self) -> None:
        self._transport.close()

    def lease(self) -> None:
        """Lease the next effect."""
        self._started_at = time.perf_counter()
        if self._started_at >= self._run.until:
            self._run.end()
            return
        self._is_leasing = True
        self._effect_key = secrets.token_hex(16).encode()
        body = b'{"effectKey":"order:%b","effectName":"charge","leaseDurationMs":30000,"inputJson":%b}'
        self._send("lease", body % (self._effect_key, INPUT))

    def _commit(self, granted: bytes) -> None:
        self._is_leasing = False
        fence, token = _FENCE.search(granted), _TOKEN.search(granted)
        assert fence
        assert token
        body = b'{"effectKey":"order:%b","fenceToken":%b,"leaseToken":"%b","source":"acted","result":%b}'
        self._send("commit", body % (self._effect_key, fence[1], token[1], RESULT))

    def _send(self, call: str, body: bytes) -> None:
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._run.heads[call], len(body), body))

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        head_end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data) if head_end >= 0 else None
        if length is None or len(data) < head_end + 4 + int(length[1]):
            self._buffer = data
            return
        self._buffer = b""
        if data[9:12] != b"200":
            self._run.end(f"the ledger answered {data.decode(errors='replace')}")
        elif self._is_leasing:
            self._commit(data[head_end:])
        else:
            self._run.latencies_us.append(round((time.perf_counter() - self._started_at) * 1e6))
            self.lease()


async def drive(ports: list[int], key: str, clients: int, seconds: float) -> dict[str, Any]:
    """Carry out one run. The clients are spread over the ports."""
    run, loop = Run(key), asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: Client(run), "127.0.0.1", ports[number % len(ports)]))[1]
        for number in range(clients)
    ]
    started_at, cpu_s = time.perf_counter(), time.process_time()
    run.until, run.running = started_at + seconds, clients
    for client in made:
        client.lease()
    try:
        await run.ended
        wall_s, cpu_s = time.perf_counter() - started_at, time.process_time() - cpu_s
    finally:
        for client in made:
            client.close()
        await asyncio.sleep(0)
    return {"wall_s": wall_s, "cpu_s": cpu_s, "latencies_us": run.latencies_us}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(uvloop.run(drive(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
