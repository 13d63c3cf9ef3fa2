"""A process in which many calls want one effect: `python -m tests.apps.waiters CALLS`.

Whoever is granted the effect acts, which is a line in the file RECORDS and lasts until the file GO is there. It prints
the results as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from verity import VerityClient


def act() -> dict[str, int]:
    with Path(os.environ["RECORDS"]).open("a", encoding="utf-8") as records:
        records.write("act\n")
    while not Path(os.environ["GO"]).exists():
        time.sleep(0.002)
    return {"pid": os.getpid()}


async def main(calls: int) -> list[dict[str, int]]:
    async with VerityClient(namespace="waiters") as client:
        return await asyncio.gather(*(client.protect("wanted", act=act) for _ in range(calls)))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(int(sys.argv[1])))))
