"""Measures what reads cost writers: leases, renewals and readiness of a node while clients read its ledger in a loop.

    python -m benchmarks.reads [--held 400000] [--readers 4] [--seconds 10] [--stores SQLite PostgreSQL] [--json FILE]

One node serves a ledger that holds many effects. Four clients lease and commit effects in a loop, a holder with the
shortest lease (5 s) renews it every second, and a probe asks for `/readyz`. This is measured first alone, and then
beside readers that ask for `/v1/stats` in a loop, in the same run:

own: the readers' API key may read all effects.
other: sixty readers, whose API key is bound to another namespace.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.ledger import VERITY, Bench

CLIENTS = 4
CROWD = 60
RENEW_EVERY_S = 1.0
PROBE_EVERY_S = 0.25


async def read_in_a_loop(base_url: str, key: str, readers: int) -> None:
    """Ask for counts until the process is ended. It prints the status and the ms of each answer, one a line."""
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=None)

    async def read(client: httpx.AsyncClient) -> None:
        while True:
            began_at = time.monotonic()
            try:
                response = await client.get("/stats")
                status, pause = str(response.status_code), float(response.headers.get("retry-after", 0))
            except httpx.HTTPError as error:
                status, pause = type(error).__name__, 0.1
            print(status, round((time.monotonic() - began_at) * 1000), flush=True)
            await asyncio.sleep(pause)

    async with httpx.AsyncClient(base_url=base_url, headers=headers, limits=limits, timeout=60) as client:
        await asyncio.gather(*(read(client) for _ in range(readers)))


async def hold_and_probe(base_url: str, key: str, seconds: float, number: int) -> dict[str, float]:
    """Renew a lease of 5 s and probe the node's readiness; returns the slowest answers in ms, and the refusals."""
    headers = {"Authorization": f"Bearer {key}"}
    end = time.monotonic() + seconds
    worst: Counter[str] = Counter()
    refused: Counter[str] = Counter()

    async def ask(client: httpx.AsyncClient, name: str, *call: Any, **more: Any) -> None:
        began_at = time.monotonic()
        response = await client.request(*call, **more)
        worst[name] = max(worst[name], round((time.monotonic() - began_at) * 1000))
        refused[name] += response.status_code != 200

    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=60) as client:
        body: dict[str, Any] = {"effectKey": f"held-{number}", "leaseDurationMs": 5000}
        lease = (await client.post("/effects/payments/lease", json=body)).json()
        tokens = {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}

        async def hold() -> None:
            while time.monotonic() < end:
                await ask(client, "renew", "POST", "/effects/payments/renew", json={**tokens, "extensionMs": 5000})
                await asyncio.sleep(RENEW_EVERY_S)

        async def probe() -> None:
            while time.monotonic() < end:
                await ask(client, "ready", "GET", base_url.replace("/v1", "/readyz"))
                await asyncio.sleep(PROBE_EVERY_S)

        await asyncio.gather(hold(), probe())
    return {
        **{f"{name}_worst_ms": ms for name, ms in worst.items()},
        **{f"{name}_refused": n for name, n in refused.items()},
    }


@contextmanager
def readers(base_url: str, key: str, count: int) -> Iterator[Counter[str]]:
    """Run readers in a process of their own; the counter then has the number of answers for each status."""
    statuses: Counter[str] = Counter()
    command = [sys.executable, "-m", "benchmarks.reads", "--worker", base_url, key, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(1.0)
        try:
            yield statuses
        finally:
            process.terminate()
            statuses.update(line.split()[0] for line in process.communicate()[0].splitlines())


class Side:
    """The measurements on one ledger."""

    def __init__(self, bench: Bench, store: str, held: int, seconds: float) -> None:
        self._bench = bench
        self._seconds = seconds
        self._ledger = bench.ledger(store, held)
        self._pid, self._port = self._ledger._nodes[256, 0]  # noqa: SLF001 - the benchmark's own class
        self._base_url = f"http://127.0.0.1:{self._port}/v1"
        self._number = 0

    def create_key(self, *namespaces: str) -> str:
        bound = [word for each in namespaces for word in ("--namespace", each)]
        create = [*VERITY, "keys", "create", "--database", self._ledger.url, "--environment", "test", *bound]
        return subprocess.run(create, capture_output=True, text=True, check=True).stdout.strip()

    def measure(self, key: str | None, count: int) -> dict[str, Any]:
        """Measure leases, renewals and readiness beside `count` readers with this API key."""
        self._number += 1
        with ExitStack() as stack:
            statuses = Counter() if key is None else stack.enter_context(readers(self._base_url, key, count))
            holding = hold_and_probe(self._base_url, self._ledger._key, self._seconds, self._number)  # noqa: SLF001
            return {**asyncio.run(self._run(holding)), "reads": statuses}

    async def _run(self, holding: Any) -> dict[str, Any]:
        load = asyncio.to_thread(
            self._bench.load,
            ports=[self._port],
            key=self._ledger._key,  # noqa: SLF001
            clients=CLIENTS,
            seconds=self._seconds,
        )
        run, held = await asyncio.gather(load, holding)
        latencies = sorted(run["latencies_us"])
        return {
            "per_s": len(latencies) / run["wall_s"],
            "p50_ms": latencies[len(latencies) // 2] / 1e3,
            "p99_ms": latencies[len(latencies) * 99 // 100] / 1e3,
            "worst_ms": latencies[-1] / 1e3,
            **held,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held", type=int, default=400_000)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--stores", nargs="+", default=["SQLite", "PostgreSQL"])
    parser.add_argument("--json", type=Path, help="write what was measured to this file, too")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        base_url, key, count = arguments.worker
        asyncio.run(read_in_a_loop(base_url, key, int(count)))
        return
    found: list[dict[str, Any]] = []
    with ExitStack() as stack:
        bench = Bench(stack, arguments.seconds, 1)
        for store in arguments.stores:
            side = Side(bench, store, arguments.held, arguments.seconds)
            own, other = side.create_key(), side.create_key("elsewhere")
            print(f"\n{store + f', {arguments.held:,} held':34}{'effects/s':>10}{'p50 ms':>8}{'p99 ms':>9}", end="")
            print(f"{'worst':>9}{'renewal':>9}{'ready':>8}{'not':>5}  reads", flush=True)
            for name, reading_key, count in (
                ("alone", None, 0),
                (f"beside {arguments.readers} readers", own, arguments.readers),
                (f"beside {CROWD}, another namespace", other, CROWD),
            ):
                row = side.measure(reading_key, count)
                found.append({"store": store, "held": arguments.held, "side": name, **row})
                renewal = row.get("renew_worst_ms", "none")  # none was answered in time
                print(
                    f"{name:34}{row['per_s']:10,.0f}{row['p50_ms']:8.1f}{row['p99_ms']:9.1f}{row['worst_ms']:9.1f}"
                    f"{renewal:>9}{row['ready_worst_ms']:8}{row['ready_refused']:5}  {dict(row['reads'])}",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
