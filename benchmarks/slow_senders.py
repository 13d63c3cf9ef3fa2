"""Measures what many slow senders cost healthy clients (p99 with and without them), and how long each is connected.

    python -m benchmarks.slow_senders [--connections 2000] [--seconds 10] [--rounds 5] [--json]

The ledger is `verity serve` with its defaults; the slow senders run in a process of their own. A third of them sends
nothing, a third a header and a third a body, one byte a second. A sender that is cut off connects again, so that their
number stays the same. Rounds without and with them take turns. The result is the median of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvloop

from verity._store.sqlite.registry import open_ledger
from verity.server.api_keys import issue

HEALTHY = 8
MAY_LIVE_S = 15.0
HEADER = "POST /v1/effects/payments/{} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n"
SERVE = [sys.executable, "-c", "from verity.cli import main; main()", "serve", "--port", "0"]


class SlowSenders:
    """Keeps connections open with a byte a second. Lean, since its CPU time is lost to the healthy clients."""

    def __init__(self, port: int, key: str, count: int) -> None:
        self._port = port
        self._count = count
        head = HEADER.format("lease", key)
        self.starts = (b"", head.encode(), f"{head}Content-Length: 100000\r\n\r\n{{".encode())
        self.open: set[SlowSender] = set()
        self.lives_s: list[float] = []

    async def run(self, until: asyncio.Future[str]) -> None:
        """Open the connections over the first seconds, and replace each one that is cut off."""
        loop = asyncio.get_running_loop()
        number = 0
        said = False
        while not until.done():
            for _ in range(min(self._count - len(self.open), 1 + self._count // 50)):
                start = self.starts[number % 3]
                await loop.create_connection(lambda: SlowSender(self, start), "127.0.0.1", self._port)  # noqa: B023
                number += 1
            if len(self.open) == self._count and not said:
                said = True
                print("ready", flush=True)
            now = loop.time()
            for each in list(self.open):
                each.send_if_due(now)
            await asyncio.sleep(0.1)


class SlowSender(asyncio.Protocol):
    """One slow connection."""

    def __init__(self, senders: SlowSenders, start: bytes) -> None:
        self._senders = senders
        self._start = start

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._begun_at = self._sent_at = asyncio.get_running_loop().time()
        self._senders.open.add(self)
        self._transport.write(self._start)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self._senders.open.discard(self)
        self._senders.lives_s.append(asyncio.get_running_loop().time() - self._begun_at)

    def send_if_due(self, now: float) -> None:
        if self._start and now >= self._sent_at + 1:
            self._sent_at = now
            self._transport.write(b"x")


async def send_slowly(port: int, key: str, count: int) -> None:
    """The slow senders' process. It prints "ready" when all are connected, and ends when its standard input ends."""
    senders = SlowSenders(port, key, count)
    until = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await senders.run(until)
    print(json.dumps({"cut_off": len(senders.lives_s), "longest_s": max(senders.lives_s, default=0.0)}), flush=True)


@contextmanager
def slow_senders(port: int, key: str, count: int) -> Iterator[dict[str, Any]]:
    """Run the slow senders during the block. Afterwards the mapping has the number cut off and the longest life."""
    command = [sys.executable, "-m", "benchmarks.slow_senders", "--slow", str(port), key, "--connections", str(count)]
    lives: dict[str, Any] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield lives
            process.stdin.close()
            lives |= json.loads(process.stdout.readline())
        finally:
            process.kill()


async def _healthy(port: int, key: str, name: str, until: float, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def call(operation: str, body: dict[str, Any]) -> dict[str, Any]:
        content = json.dumps(body).encode()
        writer.write(f"{HEADER.format(operation, key)}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        started_at = time.perf_counter()
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        answer: dict[str, Any] = json.loads(await reader.readexactly(length))
        latencies.append(time.perf_counter() - started_at)
        return answer

    number = 0
    while time.perf_counter() < until:
        number += 1
        lease = await call("lease", {"effectKey": f"{name}:{number}"})
        tokens = {"effectKey": lease["effectKey"], "fenceToken": lease["fenceToken"], "leaseToken": lease["leaseToken"]}
        await call("commit", {**tokens, "result": 1})
    writer.close()


async def _measure(port: int, key: str, name: str, seconds: float) -> dict[str, float]:
    latencies: list[float] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(_healthy(port, key, f"{name}:{each}", until, latencies) for each in range(HEALTHY)))
    latencies.sort()
    return {"per_s": len(latencies) / seconds, "p99_ms": latencies[len(latencies) * 99 // 100] * 1000}


def run(connections: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure, and return the results as a mapping."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/ledger.db"
        key, record = issue("test", "agent", now=0)
        ledger = open_ledger(url)
        ledger.store.insert_key(record)
        ledger.close()
        alone, beside, longest_s, cut_off = [], [], 0.0, 0
        with subprocess.Popen([*SERVE, "--database", url], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                port = int(server.stdout.readline().rpartition(":")[2].partition("/")[0])
                for number in range(rounds):
                    alone.append(uvloop.run(_measure(port, key, f"alone{number}", seconds)))
                    with slow_senders(port, key, connections) as lives:
                        beside.append(uvloop.run(_measure(port, key, f"beside{number}", seconds)))
                    longest_s = max(longest_s, lives["longest_s"])
                    cut_off += lives["cut_off"]
            finally:
                server.terminate()

    return {
        "connections": connections,
        "p99_ms_alone": [round(sample["p99_ms"], 1) for sample in alone],
        "p99_ms_beside": [round(sample["p99_ms"], 1) for sample in beside],
        "p99_ratio": statistics.median(b["p99_ms"] / a["p99_ms"] for a, b in zip(alone, beside, strict=True)),
        "throughput_ratio": statistics.median(b["per_s"] / a["per_s"] for a, b in zip(alone, beside, strict=True)),
        "cut_off": cut_off,
        "longest_s": longest_s,
        "each_within_s": MAY_LIVE_S,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--slow", nargs=2, metavar=("PORT", "KEY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.slow:
        uvloop.run(send_slowly(int(options.slow[0]), options.slow[1], options.connections))
        return
    result = run(options.connections, options.seconds, options.rounds)
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"{result['connections']} slow senders: p99 of {HEALTHY} healthy clients {result['p99_ratio']:.2f} x, ", end=""
    )
    print(
        f"throughput {result['throughput_ratio']:.2f} x; {result['cut_off']} cut off, the last of them after ", end=""
    )
    print(f"{result['longest_s']:.1f} s (at most {MAY_LIVE_S:.0f} s)")


if __name__ == "__main__":
    main()
