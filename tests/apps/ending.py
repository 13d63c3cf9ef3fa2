"""A program whose event loop ends while acts run: `python -m tests.apps.ending SCENARIO`.

Each act writes a line to the file RECORDS when it begins, and one when it ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import trio

from verity import EffectPolicy, VerityClient

ACTS = 10
HELD_S = 0.3
"""Acts go on for so long after the program has begun to end."""


class Stop(BaseException):
    """A user's own, such as a framework's shutdown."""


_everybody_acts = threading.Barrier(ACTS + 1)


def record(line: str) -> None:
    with Path(os.environ["RECORDS"]).open("a", encoding="utf-8") as records:
        records.write(line + "\n")


def slow_act() -> str:
    record("began")
    _everybody_acts.wait(30)
    time.sleep(HELD_S)
    record("ended")
    return "done"


async def all_begin(client: VerityClient) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(client.protect(f"k{number}", act=slow_act)) for number in range(ACTS)]
    await asyncio.to_thread(_everybody_acts.wait, 30)
    return tasks


async def returns() -> None:
    await all_begin(VerityClient(namespace="ending"))


async def raises() -> None:
    await all_begin(VerityClient(namespace="ending"))
    raise LookupError


async def is_interrupted() -> None:
    await all_begin(VerityClient(namespace="ending"))
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(30)


async def takes_too_long() -> None:
    tasks = await all_begin(VerityClient(namespace="ending"))
    try:
        await asyncio.wait_for(asyncio.gather(*tasks), 0.01)
    except (asyncio.TimeoutError, asyncio.CancelledError):
        record("timeout")


async def has_a_failing_sibling() -> None:
    async def fail() -> None:
        await asyncio.to_thread(_everybody_acts.wait, 30)
        raise LookupError

    client = VerityClient(namespace="ending")
    async with anyio.create_task_group() as group:
        for number in range(ACTS):
            group.start_soon(lambda key: client.protect(key, act=slow_act), f"k{number}")
        group.start_soon(fail)


async def trio_is_cancelled() -> None:
    client = VerityClient(namespace="ending")
    async with trio.open_nursery() as nursery:
        for number in range(ACTS):
            nursery.start_soon(lambda key: client.protect(key, act=slow_act), f"k{number}")
        await trio.to_thread.run_sync(_everybody_acts.wait, 30)
        nursery.cancel_scope.cancel()


async def trio_is_interrupted() -> None:
    client = VerityClient(namespace="ending")
    async with trio.open_nursery() as nursery:
        for number in range(ACTS):
            nursery.start_soon(lambda key: client.protect(key, act=slow_act), f"k{number}")
        await trio.to_thread.run_sync(_everybody_acts.wait, 30)
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep(30)


def _raising(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        record("began")
        raise error

    return raise_it


async def exits(error: BaseException, where: str, in_a_task: str) -> None:
    """An act raises what ends a program; others are on their way."""
    client = VerityClient(namespace="ending")
    raise_it = _raising(error)

    async def raise_async() -> None:
        raise_it()

    three_acts = threading.Barrier(3)

    def after_all_began(delay_s: float, then: Callable[[], object]) -> Callable[[], object]:
        def act() -> object:
            three_acts.wait(30)
            time.sleep(delay_s)
            return then()

        return act

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "act": lambda: client.protect("k0", act=raise_it),
        "async-act": lambda: client.protect("k0", act=raise_async),
        "observe": lambda: client.protect(
            "k0", observe=raise_it, act=lambda: 1, policy=EffectPolicy(observe_when="always")
        ),
        "on_lease": lambda: client.protect("k0", on_lease=lambda _: raise_it(), act=lambda: 1),
        "gathered": lambda: asyncio.gather(
            client.protect("k0", act=raise_it), asyncio.get_running_loop().create_future()
        ),
        "twice": lambda: asyncio.wait(  # `gather` would tell the loop once more itself
            [
                asyncio.ensure_future(client.protect("k0", act=after_all_began(0, raise_it))),
                asyncio.ensure_future(client.protect("k1", act=after_all_began(HELD_S, raise_it))),
                asyncio.ensure_future(client.protect("k2", act=after_all_began(2 * HELD_S, lambda: "done"))),
            ]
        ),
    }
    await client.protect("warm-up", act=lambda: 1)  # a worker thread that is idle must end, too
    call = calls[where]
    await (asyncio.ensure_future(call()) if in_a_task == "task" else call())


async def is_interrupted_in_the_commit() -> None:
    def act() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "done"

    await VerityClient(namespace="ending").protect("k0", act=act)
    record("went on")


ERRORS: dict[str, BaseException] = {"exit": SystemExit(7), "interrupt": KeyboardInterrupt(), "own": Stop()}
SCENARIOS = {each.__name__: each for each in (returns, raises, is_interrupted, takes_too_long, has_a_failing_sibling)}
ON_TRIO = {each.__name__: each for each in (trio_is_cancelled, trio_is_interrupted)}

if __name__ == "__main__":
    name, *more = sys.argv[1:]
    if name in ON_TRIO:
        trio.run(ON_TRIO[name])
    elif name == "interrupted_in_the_commit":
        anyio.run(is_interrupted_in_the_commit, backend=more[0])
    elif name == "exits":
        asyncio.run(exits(ERRORS[more[0]], *more[1:]))
    else:
        asyncio.run(SCENARIOS[name]())
