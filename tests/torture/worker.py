"""A process full of clients, which may be killed at any moment and is then started anew.

    python -m tests.torture.worker PLAN

Each client protects the effects that are its own share, again and again until each of them is decided, and writes down
what it was told. Effects have several clients that come to them at about the same time. Every request goes to another
node than the one before, with luck.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

import httpx

from tests.torture.history import ASKED, BEGUN, ENDED, LEASED, OVER, STALL_MS, STALLED, Mark
from tests.torture.world import AsyncWorldClient
from verity import (
    CommitUncertainError,
    ConflictRetryConfig,
    EffectPolicy,
    LeaseResponse,
    SyncVerityClient,
    VerityApiError,
    VerityClient,
    VerityConnectionError,
    VerityError,
)

_TICK_S = 0.05
_RETRY = ConflictRetryConfig(max_attempts=8, initial_delay_s=0.1, max_delay_s=1.0)


_BARE_ONE_IN = 8


def is_bare(key: str) -> bool:
    """Whether an effect has no `observe`: it may be acted again where its holder's lease ran out, and only then."""
    return int(key.partition(":")[2]) % _BARE_ONE_IN == _BARE_ONE_IN - 1


@dataclass(frozen=True)
class Plan:
    """What a worker is told.

    Attributes:
        name: its own, and that of its files in `directory`.
        nodes: the base URLs of all nodes.
        clients: the numbers of its clients.
        of: how many clients there are in all workers.
        overlap: how many clients come to each effect.
        stragglers: of how many effects the first holder lets its lease run out between act and commit.
        is_async: which of the two clients it uses.
    """

    name: str
    directory: str
    nodes: list[str]
    api_key: str
    world_port: int
    effects: int
    clients: list[int]
    of: int
    overlap: int
    lease_ms: int
    stragglers: int
    is_async: bool

    def save(self) -> Path:
        path = Path(self.directory) / f"{self.name}.plan"
        path.write_text(json.dumps(asdict(self)))
        return path

    @property
    def told(self) -> Path:
        """What its clients were told: `CLIENT KEY RESULT` in each line."""
        return Path(self.directory) / f"{self.name}.told"

    @property
    def history(self) -> Path:
        """When its clients came to what: a `Mark` in each line."""
        return Path(self.directory) / f"{self.name}.history"

    @property
    def counts(self) -> Path:
        """How often which error came, one object for each life of the worker that ended in order."""
        return Path(self.directory) / f"{self.name}.counts"

    def shares(self) -> dict[int, list[str]]:
        """The keys that each client of this worker protects."""
        shares: dict[int, list[str]] = {client: [] for client in self.clients}
        for number in range(self.effects):
            for client in random.Random(number).sample(range(self.of), self.overlap):
                if client in shares:
                    shares[client].append(f"effect:{number}")
        return shares


class _OtherNode:
    """Where the next request goes."""

    def __init__(self, nodes: list[str]) -> None:
        self._nodes = [httpx.URL(node) for node in nodes]

    def send_elsewhere(self, request: httpx.Request) -> httpx.Request:
        node = random.choice(self._nodes)
        request.url = request.url.copy_with(port=node.port)
        return request


class _AsyncAnyNode(httpx.AsyncHTTPTransport):
    def __init__(self, nodes: list[str]) -> None:
        super().__init__()
        self._other = _OtherNode(nodes)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await super().handle_async_request(self._other.send_elsewhere(request))


class _AnyNode(httpx.HTTPTransport):
    def __init__(self, nodes: list[str]) -> None:
        super().__init__()
        self._other = _OtherNode(nodes)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return super().handle_request(self._other.send_elsewhere(request))


class Worker:
    """What the clients of a process share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._log = os.open(plan.told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._history = os.open(plan.history, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._counts: Counter[str] = Counter()
        told = [line.split(" ", 2)[:2] for line in plan.told.read_text().splitlines()]
        known = {(int(client), key) for client, key in told}
        self.left = {
            client: [key for key in keys if (client, key) not in known] for client, keys in plan.shares().items()
        }

    def settings(self, client: int) -> dict[str, Any]:
        """Every other client lets its leases run out where it takes long."""
        return {
            "base_url": self.plan.nodes[0],
            "api_key": self.plan.api_key,
            "namespace": "torture",
            "agent_id": f"client-{client}",
            "auto_renew": client % 2 == 0,
            "conflict_retry": _RETRY,
        }

    def note(self, client: int, key: str, result: Any) -> None:
        """Write down what a client was told."""
        os.write(self._log, f"{client} {key} {json.dumps(result)}\n".encode())

    def mark(self, client: int, what: str, key: str, fence: int) -> None:
        """Note that a client has come to something."""
        os.write(self._history, Mark(time.time_ns() // 1_000_000, client, what, key, fence).line())

    def note_stalls(self) -> None:
        """Note, in a thread of its own, whenever this process did not run for a while."""
        while True:
            slept_at = time.monotonic()
            time.sleep(_TICK_S)
            late_ms = int((time.monotonic() - slept_at - _TICK_S) * 1000)
            if late_ms >= STALL_MS:
                self.mark(-1, STALLED, "-", late_ms)

    def count(self, error: VerityError) -> None:
        """These come from crashes, and the effect is asked for again; any other error ends the worker."""
        cause = error.commit_error if isinstance(error, CommitUncertainError) else error
        if isinstance(cause, VerityApiError):
            if cause.status_code not in (409, 503):
                raise error
        elif not isinstance(cause, VerityConnectionError):
            raise error
        self._counts[type(error).__name__] += 1

    def save_counts(self) -> None:
        with self.plan.counts.open("a") as file:
            file.write(json.dumps(self._counts) + "\n")

    def dawdle_s(self, key: str, fence: int) -> float:
        """How long to wait between act and commit; stragglers so long that others may be granted, and be at it."""
        if fence > 1 or int(key.partition(":")[2]) % (self.plan.effects // self.plan.stragglers):
            return 0.0
        return self.plan.lease_ms / 1000 + random.random() * 1.5

    def hesitate_s(self, fence: int) -> float:
        """How long to wait between observe and act, where somebody may have been there before."""
        return random.random() * 0.5 if fence > 1 else 0.0


# What an act gives and what an observation finds are told apart: a commit that was confirmed and lost, and then made up
# for by an observation, is seen to be another one.
def _acted(made: str) -> dict[str, str]:
    return {"id": made, "by": f"act {uuid4().hex}"}


def _found(found: str) -> dict[str, str] | None:
    return {"id": found, "by": f"observe {uuid4().hex}"} if found else None


class _Call:
    """One client on one effect, and what it notes."""

    def __init__(self, worker: Worker, client: int, key: str) -> None:
        self._worker = worker
        self._client = client
        self._key = key
        self._fence = 0

    def remember(self, lease: LeaseResponse) -> None:
        self._fence = int(lease.fence_token or 0)
        self.mark(LEASED)

    def mark(self, what: str) -> None:
        self._worker.mark(self._client, what, self._key, self._fence)

    def begin(self) -> None:
        self._fence = 0
        self.mark(ASKED)

    def fail(self, error: VerityError) -> None:
        self._fence = -1
        self.mark(OVER)
        self._worker.count(error)


class _AsyncHolder(_Call):
    """By way of the async client."""

    def __init__(self, worker: Worker, client: int, world: AsyncWorldClient, key: str) -> None:
        super().__init__(worker, client, key)
        self._world = world

    async def act(self) -> Any:
        self.mark(BEGUN)
        made = await self._world.ask(f"act {self._key} {self._fence}")
        await asyncio.sleep(self._worker.dawdle_s(self._key, self._fence))
        self.mark(ENDED)
        return _acted(made)

    async def observe(self) -> Any:
        found = await self._world.ask(f"find {self._key}")
        await asyncio.sleep(self._worker.hesitate_s(self._fence))
        return _found(found)

    async def run(self, verity: VerityClient) -> Any:
        while True:
            try:
                self.begin()
                result: Any = await verity.protect(
                    self._key,
                    act=self.act,
                    observe=None if is_bare(self._key) else self.observe,
                    on_lease=self.remember,
                    lease_duration_ms=self._worker.plan.lease_ms,
                    policy=EffectPolicy(on_unknown="act"),
                )
            except VerityError as error:
                self.fail(error)
            else:
                self.mark(OVER)
                return result
            await asyncio.sleep(random.random() * 0.2)


async def run_async(worker: Worker) -> None:
    """All clients, in one event loop."""

    async def run_client(number: int) -> None:
        world = AsyncWorldClient(worker.plan.world_port)
        async with (
            _AsyncAnyNode(worker.plan.nodes) as transport,
            VerityClient(**worker.settings(number), transport=transport) as verity,
        ):
            for key in worker.left[number]:
                worker.note(number, key, await _AsyncHolder(worker, number, world, key).run(verity))

    await asyncio.gather(*map(run_client, worker.plan.clients))


class _Holder(_Call):
    """By way of the sync client."""

    def __init__(self, worker: Worker, client: int, world: TextIO, key: str) -> None:
        super().__init__(worker, client, key)
        self._world = world

    def act(self) -> Any:
        self.mark(BEGUN)
        made = self._ask(f"act {self._key} {self._fence}")
        time.sleep(self._worker.dawdle_s(self._key, self._fence))
        self.mark(ENDED)
        return _acted(made)

    def observe(self) -> Any:
        found = self._ask(f"find {self._key}")
        time.sleep(self._worker.hesitate_s(self._fence))
        return _found(found)

    def _ask(self, line: str) -> str:
        self._world.write(f"{line}\n")
        self._world.flush()
        return self._world.readline().strip()

    def run(self, verity: SyncVerityClient) -> Any:
        while True:
            try:
                self.begin()
                result: Any = verity.protect(
                    self._key,
                    act=self.act,
                    observe=None if is_bare(self._key) else self.observe,
                    on_lease=self.remember,
                    lease_duration_ms=self._worker.plan.lease_ms,
                    policy=EffectPolicy(on_unknown="act"),
                )
            except VerityError as error:
                self.fail(error)
            else:
                self.mark(OVER)
                return result
            time.sleep(random.random() * 0.2)


def run_sync(worker: Worker) -> None:
    """Each client in a thread of its own."""

    def run_client(number: int) -> None:
        with (
            socket.create_connection(("127.0.0.1", worker.plan.world_port)) as connection,
            connection.makefile("rw") as world,
            _AnyNode(worker.plan.nodes) as transport,
            SyncVerityClient(**worker.settings(number), transport=transport) as verity,
        ):
            for key in worker.left[number]:
                worker.note(number, key, _Holder(worker, number, world, key).run(verity))

    def run_or_end(number: int) -> None:
        try:
            run_client(number)
        except BaseException:  # noqa: BLE001 - whatever it is, the process ends with it
            traceback.print_exc()
            os._exit(1)

    threads = [threading.Thread(target=run_or_end, args=[number]) for number in worker.plan.clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    worker = Worker(Plan(**json.loads(Path(sys.argv[1]).read_text())))
    threading.Thread(target=worker.note_stalls, daemon=True).start()
    if worker.plan.is_async:
        asyncio.run(run_async(worker))
    else:
        run_sync(worker)
    worker.save_counts()


if __name__ == "__main__":
    main()
