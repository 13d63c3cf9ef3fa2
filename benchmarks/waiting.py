"""Measures how long after the commit the last of many callers that wait for one effect has its result.

    python -m benchmarks.waiting [--processes 10] [--waiters 100] [--rounds 3]

A holder takes the lease. Several processes, each with one client and a hundred calls of `protect()`, wait for it. The
holder commits. The same run measures two other sides: clients that sleep and ask again
(`ConflictRetryConfig(wait=False)`), and all waiting callers in one process. All processes of a machine share the
monotonic clock.
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
from typing import Any

from benchmarks.ledger import VERITY, serve
from verity import ConflictRetryConfig, SyncVerityClient, VerityClient
from verity._async.acquisition import SINGLE_FLIGHT


def run_side(port: int, key: str, number: int, *, processes: int, waiters: int, wait: bool) -> dict[str, Any]:
    """Measure one commit: the seconds until the last waiting caller had the result. None of them may act."""
    effect = f"effect-{number}"
    with SyncVerityClient(f"http://127.0.0.1:{port}/v1", key, "benchmark") as holder:
        lease = holder.request_lease("benchmark", {"effectKey": effect, "leaseDurationMs": 120_000})
        about = json.dumps({"port": port, "key": key, "effect": effect, "waiters": waiters, "wait": wait})
        command = [sys.executable, "-m", "benchmarks.waiting", "--worker", about]
        workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()  # all of its callers wait now
        tokens = {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
        holder.commit("benchmark", {**tokens, "result": "theirs"})
        committed_at = time.monotonic()
        done = [json.loads(worker.communicate()[0]) for worker in workers]
    assert all(each["results"] == ["theirs"] and each["acts"] == 0 for each in done), done
    return {"last_s": max(each["last_at"] for each in done) - committed_at}


async def work(port: int, key: str, effect: str, waiters: int, *, wait: bool) -> dict[str, Any]:
    """One process: its callers' results, and when the last caller had its result."""
    acts = 0

    def act() -> str:
        nonlocal acts
        acts += 1
        return "ours"

    retry = ConflictRetryConfig(wait=wait)
    async with VerityClient(f"http://127.0.0.1:{port}/v1", key, "benchmark", conflict_retry=retry) as client:
        calls = [asyncio.create_task(client.protect(effect, act=act)) for _ in range(waiters)]
        while sum(map(len, SINGLE_FLIGHT.flights.values())) < waiters:  # noqa: ASYNC110 - there is no event for this
            await asyncio.sleep(0.01)
        print("waiting", flush=True)
        results = await asyncio.gather(*calls)
    return {"results": sorted(set(results)), "acts": acts, "last_at": time.monotonic()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--waiters", type=int, default=100, help="in each process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        about = json.loads(arguments.worker)
        wait = about.pop("wait")
        print(json.dumps(asyncio.run(work(**about, wait=wait))), flush=True)
        return
    total = arguments.processes * arguments.waiters
    sides: dict[str, dict[str, Any]] = {
        f"held, {arguments.processes} processes": {"processes": arguments.processes, "wait": True},
        "held, 1 process": {"processes": 1, "waiters": total, "wait": True},
        f"polling, {arguments.processes} processes": {"processes": arguments.processes, "wait": False},
    }
    last: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/v.db"
        with serve(url, 256) as (_, port):
            create = [*VERITY, "keys", "create", "--database", url, "--environment", "test"]
            key = subprocess.run(create, capture_output=True, text=True, check=True).stdout.strip()
            for number in range(arguments.rounds * len(sides)):
                name = list(sides)[number % len(sides)]
                side = {"waiters": arguments.waiters, **sides[name]}
                last[name].append(run_side(port, key, number, **side)["last_s"])
    polling = statistics.median(list(last.values())[-1])
    print(f"{total} waiters on one effect; seconds from the commit to the last one's result")
    for name, seconds in last.items():
        median = statistics.median(seconds)
        print(f"  {name:24} median {median:7.3f}  max {max(seconds):7.3f}  {median / polling:6.3f} x polling")


if __name__ == "__main__":
    main()
