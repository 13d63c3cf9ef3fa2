"""Measures one `protect()` beside two raw httpx posts of the same bodies to the same server in the same run.

    python -m benchmarks.protect [--seconds 3] [--rounds 3] [--json]

Both sides are measured in turn (A B A B …), so that a drift of the machine's speed affects both. The result is the
ratio of the medians. One `protect()` is a lease, an act that does nothing, and a commit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from verity import SyncVerityClient, VerityClient

LEASE_BODY = {"effectKey": "k", "leaseDurationMs": 30000}
COMMIT_BODY = {
    "effectKey": "k",
    "fenceToken": 1,
    "leaseToken": "lease-token-of-the-benchmark",
    "result": {"id": "re_1"},
    "source": "acted",
}
KEY = "vt_test_benchmark"


@dataclass
class Sample:
    """The measurements of one round."""

    per_s: float
    cpu_us: float
    p50_us: float
    p99_us: float


@dataclass
class Result:
    """The medians of both sides for one workload."""

    workload: str
    protect: Sample
    raw: Sample

    @property
    def throughput_ratio(self) -> float:
        return self.protect.per_s / self.raw.per_s


@contextmanager
def constant_server() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.constant_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def _act() -> dict[str, str]:
    return {"id": "re_1"}


async def _async_act() -> dict[str, str]:
    return {"id": "re_1"}


async def _drive(once: Callable[[], Awaitable[object]], tasks: int, seconds: float) -> Sample:
    latencies: list[float] = []

    async def work(until: float) -> None:
        while (start := time.perf_counter()) < until:
            await once()
            latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(once() for _ in range(tasks)))
    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work(start + seconds) for _ in range(tasks)))
    return _sample(latencies, time.perf_counter() - start, time.process_time() - cpu)


def _drive_threads(once: Callable[[], object], threads: int, seconds: float) -> Sample:
    latencies: list[float] = []

    def work(until: float) -> None:
        while (start := time.perf_counter()) < until:
            once()
            latencies.append(time.perf_counter() - start)

    once()
    start, cpu = time.perf_counter(), time.process_time()
    workers = [threading.Thread(target=work, args=(start + seconds,)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return _sample(latencies, time.perf_counter() - start, time.process_time() - cpu)


def _sample(latencies: list[float], wall_s: float, cpu_s: float) -> Sample:
    latencies.sort()
    count = len(latencies)
    return Sample(
        per_s=count / wall_s,
        cpu_us=cpu_s / count * 1e6,
        p50_us=latencies[count // 2] * 1e6,
        p99_us=latencies[min(count - 1, count * 99 // 100)] * 1e6,
    )


def _median(samples: list[Sample]) -> Sample:
    return Sample(
        *(statistics.median(getattr(sample, name) for sample in samples) for name in Sample.__dataclass_fields__)
    )


async def _async_workload(url: str, tasks: int, seconds: float, rounds: int) -> Result:
    headers = {"Authorization": f"Bearer {KEY}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    ours, raw = [], []
    async with (
        VerityClient(url, KEY, "payments") as verity,
        httpx.AsyncClient(headers=headers, timeout=20, limits=limits) as client,
    ):

        async def protect() -> object:
            return await verity.protect("k", act=_async_act, lease_duration_ms=30_000)

        async def two_posts() -> object:
            await client.post(f"{url}/effects/payments/lease", json=LEASE_BODY)
            return (await client.post(f"{url}/effects/payments/commit", json=COMMIT_BODY)).json()

        for _ in range(rounds):
            ours.append(await _drive(protect, tasks, seconds))
            raw.append(await _drive(two_posts, tasks, seconds))
    return Result(f"async, {tasks} task{'s' * (tasks > 1)}", _median(ours), _median(raw))


def _sync_workload(url: str, threads: int, seconds: float, rounds: int) -> Result:
    ours, raw = [], []
    with (
        SyncVerityClient(url, KEY, "payments") as verity,
        httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=20) as client,
    ):

        def protect() -> object:
            return verity.protect("k", act=_act, lease_duration_ms=30_000)

        def two_posts() -> object:
            client.post(f"{url}/effects/payments/lease", json=LEASE_BODY)
            return client.post(f"{url}/effects/payments/commit", json=COMMIT_BODY).json()

        for _ in range(rounds):
            ours.append(_drive_threads(protect, threads, seconds))
            raw.append(_drive_threads(two_posts, threads, seconds))
    return Result(f"sync, {threads} thread{'s' * (threads > 1)}", _median(ours), _median(raw))


IMPORTS = {
    "httpx": "import httpx",
    "verity": "import verity",
    "client": "from verity import VerityClient",
}


def _import_times(rounds: int = 15) -> dict[str, float]:
    """The median time of each import in seconds, in fresh interpreters, measured in turn."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, statement in IMPORTS.items():
            code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            times[name].append(float(done.stdout))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side, in turn (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    with constant_server() as url:
        results = [
            asyncio.run(_async_workload(url, tasks, arguments.seconds, arguments.rounds)) for tasks in (1, 64, 256)
        ]
        results += [_sync_workload(url, threads, arguments.seconds, arguments.rounds) for threads in (1, 16)]
    import_s = _import_times()
    if arguments.json:
        rows = [{"workload": r.workload, "protect": vars(r.protect), "raw": vars(r.raw)} for r in results]
        print(json.dumps({"results": rows, "import_s": import_s}, indent=2))
        return
    print(f"Python {sys.version.split()[0]}, httpx {httpx.__version__}; raw = two httpx posts of the same bodies")
    sides = "".join(f"{name:>9}{'raw':>9}" for name in ("CPU us", "p50 us", "p99 us"))
    print(f"{'':18}{'protect/s':>10}{'raw/s':>8}{'ratio':>8}{sides}")
    for r in results:
        print(
            f"{r.workload:18}{r.protect.per_s:10,.0f}{r.raw.per_s:8,.0f}{r.throughput_ratio:7.2f}x"
            f"{r.protect.cpu_us:9,.0f}{r.raw.cpu_us:9,.0f}{r.protect.p50_us:9,.0f}{r.raw.p50_us:9,.0f}"
            f"{r.protect.p99_us:9,.0f}{r.raw.p99_us:9,.0f}"
        )
    for name, statement in IMPORTS.items():
        print(f"{statement:32}{import_s[name] * 1e3:6.0f} ms{import_s[name] / import_s['httpx']:7.2f}x")


if __name__ == "__main__":
    main()
