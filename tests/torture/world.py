"""The outside world, in a process of its own: what is done twice is done twice, and it writes down everything first.

    python -m tests.torture.world LOG

It listens on loopback and tells the port on standard output. A line is a request, a line is its answer:

    act KEY FENCE      -> a new id; before that, `KEY FENCE ID` is in the log
    find KEY           -> the id of the first act on this key, or an empty line

It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys


class World:
    def __init__(self, log: str) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._first: dict[str, str] = {}
        self._ids = map("act_{}".format, itertools.count(1))

    def act(self, key: str, fence: str) -> str:
        new_id = next(self._ids)
        os.write(self._log, f"{key} {fence} {new_id}\n".encode())
        self._first.setdefault(key, new_id)
        return new_id

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                what, *rest = line.decode().split()
                answer = self.act(*rest) if what == "act" else self._first.get(rest[0], "")
                if what == "act":
                    await asyncio.sleep(random.random() * 0.02)  # done, and its caller does not know yet
                writer.write(f"{answer}\n".encode())
                await writer.drain()
        except ConnectionError:
            return  # the caller was killed
        finally:
            writer.close()


class AsyncWorldClient:
    """One connection to the world; one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, line: str) -> str:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"{line}\n".encode())
        return (await reader.readline()).decode().strip()


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(World(sys.argv[1]).serve, "127.0.0.1", 0, backlog=256)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
