"""A program that uses one async client in one event loop after the other: `python -m tests.apps.looping SCENARIO`.

It prints the results as JSON. How often it acted is in the file RECORDS, a line for each.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path

import trio

from verity import VerityClient

IDLE_S = float(os.environ.get("IDLE_S", "0"))

# asyncio's debug mode also warns where a busy machine made a step slow; what was left behind is an error.
logging.getLogger("asyncio").setLevel(logging.ERROR)


def act() -> dict[str, int]:
    with Path(os.environ["RECORDS"]).open("a", encoding="utf-8") as records:
        records.write("act\n")
    return {"pid": os.getpid()}


async def protect(client: VerityClient, *keys: str) -> list[dict[str, int]]:
    return [await client.protect(key, act=act) for key in keys]


def one_after_the_other() -> list[object]:
    """asyncio, asyncio, trio, asyncio; closed in the last one."""
    client = VerityClient(namespace="loops")
    results = [asyncio.run(protect(client, "a", "b"))]
    time.sleep(IDLE_S)  # the server closes connections that are idle for longer
    results.append(asyncio.run(protect(client, "b", "c")))
    results.append(trio.run(protect, client, "c", "d"))

    async def last() -> list[dict[str, int]]:
        async with client:
            return await protect(client, "d", "e")

    return [*results, asyncio.run(last())]


def never_closed() -> list[object]:
    """Nothing complains when the program ends."""
    client = VerityClient(namespace="loops")
    return [asyncio.run(protect(client, "a", "b")), asyncio.run(protect(client, "b", "c"))]


def closed_twice() -> list[object]:
    """And in another loop than the one that it was used in."""
    client = VerityClient(namespace="loops")
    results = [asyncio.run(protect(client, "a", "b"))]
    asyncio.run(client.close())
    asyncio.run(client.aclose())
    return [*results, None]


def idle_in_one_loop() -> list[object]:
    """The server has closed the connection when the client wants it again."""

    async def run() -> list[object]:
        async with VerityClient(namespace="loops") as client:
            first = await protect(client, "a", "b")
            await asyncio.sleep(IDLE_S)
            return [first, await protect(client, "b", "c")]

    return asyncio.run(run())


SCENARIOS = {each.__name__: each for each in (one_after_the_other, never_closed, closed_twice, idle_in_one_loop)}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(SCENARIOS[sys.argv[1]]()))
