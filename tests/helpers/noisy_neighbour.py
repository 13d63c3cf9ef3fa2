"""A noisy neighbour: one `agent` API key that loads a ledger as heavily as it can. Other callers must not suffer.

    python -m tests.helpers.noisy_neighbour KEY URL [URL ...]

It runs every load of `LOADS` at once until it is killed, also while nodes are down. It requests pages that it never
reads, counts and metrics, waits for its own effects, commits effects that do not exist, and renews and reports without
pause. Each second it writes a line of JSON to standard output: how many requests of each load were answered.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import httpx

LOADS = ("pages", "counts", "metrics", "waits", "useless commits", "renewals and reports")
_IDLE_READERS = 10
_WAITERS = 5
_PAUSE_S = 0.05
_HELD = "held by the noisy neighbour"


class NoisyNeighbour:
    """The neighbour, as a coroutine.

    Args:
        urls: of the nodes, with `/v1`.
        key: its API key.
        leaves_traces: whether it has effects of its own, to wait for, to renew and to report on.

    Attributes:
        answered: number of answers of any status, by load.
        statuses: number of answers, by HTTP status.
    """

    def __init__(self, urls: Sequence[str], key: str, *, leaves_traces: bool = True) -> None:
        self.answered: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(headers=self._headers, timeout=40, limits=httpx.Limits(max_connections=None))
        self._numbers = itertools.count()
        self._loads: list[Callable[[], Awaitable[None]]] = [
            *[self._ask_for_pages] * _IDLE_READERS,
            *(self._count, self._scrape, self._commit),
        ]
        if leaves_traces:
            self._loads += [*[self._wait] * _WAITERS, self._hold]

    async def run(self) -> None:
        """Until it is cancelled."""
        tasks = [asyncio.ensure_future(self._again_and_again(load)) for load in self._loads]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._http.aclose()

    async def _again_and_again(self, load: Callable[[], Awaitable[None]]) -> None:
        while True:
            # The node is down, or has had enough.
            with suppress(OSError, EOFError, httpx.HTTPError, asyncio.TimeoutError):
                await load()
            await asyncio.sleep(_PAUSE_S)

    async def _ask_for_pages(self) -> None:
        url = httpx.URL(random.choice(self._urls))
        reader, writer = await asyncio.open_connection(url.host, url.port, limit=1)
        try:
            head = f"Host: x\r\nAuthorization: {self._headers['Authorization']}\r\n"
            writer.write(f"GET /v1/effects?limit=500 HTTP/1.1\r\n{head}\r\n".encode() * 50)
            await asyncio.wait_for(writer.drain(), 10)
            await asyncio.wait_for(reader.readexactly(1), 10)
            self.answered["pages"] += 1
            await asyncio.sleep(2)
        finally:
            writer.transport.abort()

    async def _wait(self) -> None:
        await self._post("lease", "waits", {"effectKey": _HELD}, headers={"Prefer": "wait=2"})

    async def _count(self) -> None:
        await asyncio.gather(
            *(self._note("counts", partial(self._http.get, f"{self._url()}/stats")) for _ in range(10))
        )

    async def _scrape(self) -> None:
        metrics = self._url().replace("/v1", "/metrics")
        await asyncio.gather(*(self._note("metrics", partial(self._http.get, metrics)) for _ in range(10)))

    async def _commit(self) -> None:
        key = f"nowhere {next(self._numbers)}"
        body = {"effectKey": key, "fenceToken": 1, "leaseToken": "x", "result": "x" * 1_000}
        await asyncio.gather(*(self._post("commit", "useless commits", body) for _ in range(10)))

    async def _hold(self) -> None:
        """Fill a trail, and have something to read and to wait for."""
        body = {"effectKey": _HELD, "leaseDurationMs": 5_000, "inputJson": "x" * 60_000}
        lease = (await self._http.post(f"{self._url()}/effects/neighbour/lease", json=body)).json()
        tokens = {name: lease.get(name) for name in ("effectKey", "fenceToken", "leaseToken")}
        for _ in range(50):
            for call, more in (("renew", {}), ("report-observe", {"hit": False})):
                await self._post(call, "renewals and reports", {**tokens, **more})

    async def _post(self, call: str, load: str, body: Any, **more: Any) -> None:
        await self._note(load, partial(self._http.post, f"{self._url()}/effects/neighbour/{call}", json=body, **more))

    async def _note(self, load: str, ask: Callable[[], Awaitable[httpx.Response]]) -> None:
        answer = await ask()  # called here: a task may be cancelled before it begins, and a coroutine must be awaited
        self.answered[load] += 1
        self.statuses[answer.status_code] += 1

    def _url(self) -> str:
        return random.choice(self._urls)


@contextmanager
def in_background(neighbour: NoisyNeighbour) -> Iterator[None]:
    """Run the neighbour in a thread of its own."""
    loop = asyncio.new_event_loop()

    async def run() -> None:
        with suppress(asyncio.CancelledError):
            await running

    running = loop.create_task(neighbour.run())
    thread = threading.Thread(target=loop.run_until_complete, args=[run()])
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(running.cancel)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0.1))  # in which what was closed is closed
        loop.close()


async def main() -> None:
    """Until the process is killed."""
    key, *urls = sys.argv[1:]
    neighbour = NoisyNeighbour(urls, key)
    running = asyncio.create_task(neighbour.run())
    while not running.done():
        sys.stdout.write(f"{json.dumps(neighbour.answered)}\n")
        sys.stdout.flush()
        await asyncio.sleep(1)
    running.result()


if __name__ == "__main__":
    asyncio.run(main())
