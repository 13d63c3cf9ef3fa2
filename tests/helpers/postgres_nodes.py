"""Nodes of a ledger on PostgreSQL without HTTP: each an `AsyncPostgresStore` in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from tests.helpers.store_calls import Caller
from verity._ledger.calls import Answer
from verity._store.names import hash_effect_name
from verity._store.postgres.async_store import AsyncPostgresStore
from verity._store.postgres.database import connect
from verity._store.postgres.migrations import migrate
from verity._store.postgres.pending import Ids
from verity._store.postgres.statements import CLOCK

_ANSWERED_WITHIN_S = 30
"""Longer than what a node gives itself: who is left waiting is a failure, not a test that hangs."""


class Node:
    """One node's storage, called from its own event loop."""

    def __init__(self, store: AsyncPostgresStore) -> None:
        self.store = store
        self._caller = Caller(None)

    async def ask(self, operation: str, body: Any, *, key: str | None = None) -> Answer:
        answer = self.store.answer(self._caller.request(f"{operation}_effect", body, key=key))
        return await asyncio.wait_for(answer, _ANSWERED_WITHIN_S)

    async def __call__(self, operation: str, body: Any, *, key: str | None = None) -> Any:
        """The JSON of a success."""
        answer = await self.ask(operation, body, key=key)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    async def code(self, operation: str, body: Any, *, key: str | None = None) -> tuple[int, str]:
        answer = await self.ask(operation, body, key=key)
        return answer.status, json.loads(answer.body)["error"]["code"]

    def name_of(self, key: str) -> tuple[str, str, bytes]:
        """An effect's primary key."""
        request = self._caller.request("lease_effect", {"effectKey": key})
        environment, namespace = request.scope.environment, request.namespace or ""
        return environment, namespace, hash_effect_name(environment, namespace, key)

    async def warm_up(self) -> None:
        """Prepare all statements, also on the next connection."""
        lease = await self("lease", {"effectKey": "warm"})
        await self("renew", Caller.tokens(lease))
        await self("commit", {**Caller.tokens(lease), "result": 1})


@asynccontextmanager
async def node_on(url: str, *, ids: Ids | None = None, clock: str = CLOCK, **settings: Any) -> AsyncIterator[Node]:
    database = await connect(url, readers=1, **settings)
    await migrate(database)
    store = AsyncPostgresStore(database, ids=ids, clock=clock)
    try:
        yield Node(store)
    finally:
        await store.close()
        await database.close()


async def trail(sql: Any, key: str) -> list[str]:
    """An effect's events."""
    rows = await sql.fetch(
        "SELECT events.type FROM events JOIN effects ON events.effect = effects.id"
        " WHERE effects.effect_key = $1 ORDER BY sequence",
        key,
    )
    return [kind for (kind,) in rows]


async def until_somebody_waits(sql: Any) -> None:
    """Return once a session of the database waits for a lock."""
    with anyio.fail_after(_ANSWERED_WITHIN_S):
        while not await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            pass
