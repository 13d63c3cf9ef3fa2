"""The outside world, in a process of its own: what is done twice is done twice, and it writes down everything first.

    python -m tests.torture.world LOG

It listens on loopback and tells the port on standard output. A line is a request, a line is its answer:

    act KEY FENCE IDEMPOTENCY-KEY   -> a new id; before that, the act is in the log
    late KEY FENCE IDEMPOTENCY-KEY  -> an empty line at once; the act lands later
    find KEY                        -> the id of the first act on this key that is visible by now, or an empty line

A line of the log is `KEY FENCE ID TIME IDEMPOTENCY-KEY`. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import time
from functools import partial

from tests.torture.plan import LANDS_WITHIN_S, VISIBLE_AFTER_S


class World:
    def __init__(self, log: str) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._first: dict[str, tuple[str, float]] = {}
        self._ids = map("act_{}".format, itertools.count(1))

    def act(self, key: str, fence: str, idempotency_key: str) -> str:
        new_id = next(self._ids)
        os.write(self._log, f"{key} {fence} {new_id} {time.time_ns() // 1_000_000} {idempotency_key}\n".encode())
        self._first.setdefault(key, (new_id, time.monotonic()))
        return new_id

    def find(self, key: str) -> str:
        found, landed_at = self._first.get(key, ("", 0.0))
        return found if time.monotonic() >= landed_at + VISIBLE_AFTER_S else ""

    async def answer(self, line: str) -> str:
        what, *rest = line.split()
        if what == "find":
            return self.find(*rest)
        if what == "late":
            asyncio.get_running_loop().call_later(random.random() * LANDS_WITHIN_S, partial(self.act, *rest))
            return ""
        made = self.act(*rest)
        await asyncio.sleep(random.random() * 0.02)  # done, and its caller does not know yet
        return made

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(f"{await self.answer(line.decode())}\n".encode())
                await writer.drain()
        except ConnectionError:
            return  # the caller was killed
        finally:
            writer.close()


class AsyncWorldClient:
    """One connection to the world; one request at a time. A request that is cancelled takes the connection along."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, line: str) -> str:
        streams, self._streams = self._streams, None
        reader, writer = streams or await asyncio.open_connection("127.0.0.1", self._port)
        answer = b""
        try:
            writer.write(f"{line}\n".encode())
            answer = await reader.readline()
        finally:
            if answer:
                self._streams = reader, writer
            else:
                writer.close()
        return answer.decode().strip()


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(World(sys.argv[1]).serve, "127.0.0.1", 0, backlog=256)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
