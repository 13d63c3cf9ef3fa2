"""A process full of clients, which may be killed at any moment and is then started anew.

    python -m tests.torture.worker PLAN

Each client protects the effects that are its own share, again and again until each of them is decided, and writes down
what it was told. Effects have several clients that come to them at about the same time: all but one of them wait at the
ledger. Every request goes to another node than the one before, with luck.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from tests.helpers.any_node import AnyNode, AsyncAnyNode
from tests.torture.calls import AsyncCall, SyncCall
from tests.torture.notes import Notes
from tests.torture.plan import Plan, renews
from tests.torture.world import AsyncWorldClient
from verity import ConflictRetryConfig, SyncVerityClient, VerityClient

_RETRY = ConflictRetryConfig(max_attempts=8, initial_delay_s=0.1, max_delay_s=1.0, wait=True)


def _settings(plan: Plan, client: int) -> dict[str, Any]:
    return {
        "base_url": plan.nodes[0],
        "api_key": plan.api_key,
        "namespace": "torture",
        "agent_id": f"client-{client}",
        "auto_renew": renews(client, lapses=plan.lapses),
        "conflict_retry": _RETRY,
        "spool": plan.spool or False,
        "spool_when": plan.spool_when or "trouble",
    }


async def run_async(notes: Notes) -> None:
    """All clients, in one event loop. SIGTERM cancels them all, as a deployment does."""

    async def run_client(number: int) -> None:
        world = AsyncWorldClient(notes.plan.world_port)
        async with (
            AsyncAnyNode(notes.plan.nodes) as transport,
            VerityClient(**_settings(notes.plan, number), transport=transport) as verity,
        ):
            for key in notes.left[number]:
                notes.note(number, key, await AsyncCall(notes, number, world, key).run(verity))

    clients = asyncio.gather(*map(run_client, notes.plan.clients))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, clients.cancel)
    await clients


def run_sync(notes: Notes) -> None:
    """Each client in a thread of its own."""

    def run_client(number: int) -> None:
        with (
            socket.create_connection(("127.0.0.1", notes.plan.world_port)) as connection,
            connection.makefile("rw") as world,
            AnyNode(notes.plan.nodes) as transport,
            SyncVerityClient(**_settings(notes.plan, number), transport=transport) as verity,
        ):
            for key in notes.left[number]:
                notes.note(number, key, SyncCall(notes, number, world, key).run(verity))

    def run_or_end(number: int) -> None:
        try:
            run_client(number)
        except BaseException:  # noqa: BLE001 - whatever it is, the process ends with it
            traceback.print_exc()
            os._exit(1)

    threads = [threading.Thread(target=run_or_end, args=[number]) for number in notes.plan.clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    notes = Notes(Plan(**json.loads(Path(sys.argv[1]).read_text())))
    threading.Thread(target=notes.note_stalls, daemon=True).start()
    try:
        if notes.plan.is_async:
            asyncio.run(run_async(notes))
        else:
            run_sync(notes)
    finally:
        notes.save_counts()


if __name__ == "__main__":
    main()
