"""The PostgreSQL store for servers, on an event loop. Several nodes may use one database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from verity._ledger.calls import Answer, Environment, Request
from verity._ledger.codec import EFFECT_OPERATIONS, read_call
from verity._ledger.outages import Outage
from verity._ledger.problems import Problem, answer_problem
from verity._store.api_keys import ApiKey
from verity._store.heartbeat import beating
from verity._store.interface import MAX_BATCH, AsyncStore, Pool, StorageError
from verity._store.lease_states import NO_LEASE, EffectName, LeaseState, read_lease_state
from verity._store.names import hash_effect_name
from verity._store.postgres import api_keys
from verity._store.postgres.database import Database, StatementRefused, TooSlow, Use
from verity._store.postgres.dispatch import BAD_VALUE, Dispatcher, unavailable
from verity._store.postgres.heartbeat import Heartbeat
from verity._store.postgres.pending import Ids, PendingCall
from verity._store.postgres.session import Unanswered
from verity._store.postgres.statements import (
    CLOCK,
    DIALECT,
    find_candidates,
    to_arrays,
    to_numbered,
    write_statements,
)
from verity._store.purging import Candidate, Purge
from verity._store.reads import Rows, begin, too_long

_logger = logging.getLogger("verity.server")


def width_for(max_batch: int) -> int:
    """How many statements of a kind may be under way. Without group commit, concurrency needs many connections."""
    return 16 if max_batch == 1 else 1


class AsyncPostgresStore(AsyncStore):
    """A ledger in a PostgreSQL database. Effect calls are carried out in batches (group commit).

    Args:
        database: stays the caller's to close, after `close()`.
        max_batch: the most calls in one statement; 1 switches group commit off.
        width: how many statements of a kind may be under way at a time.
        clock: an SQL expression for the time in ms since 1970; it decides when leases expire.
        ids: makes effect ids.
    """

    def __init__(
        self,
        database: Database,
        *,
        max_batch: int = MAX_BATCH,
        width: int = 1,
        clock: str = CLOCK,
        ids: Ids | None = None,
    ) -> None:
        self._database = database
        self._sql = write_statements(clock)
        self._ids = ids or Ids()
        self._heartbeat = Heartbeat(database, clock)
        self._calls = Dispatcher(database, self._sql, self._heartbeat, max_batch=max_batch, width=width)

    async def answer(self, request: Request) -> Answer:
        """Carry a call out, durably. If the database does not answer, the answer is a 503; no exception is raised."""
        try:
            if request.operation not in EFFECT_OPERATIONS:
                return await self._read(request)
            return await self._calls.answer(PendingCall(read_call(request), self._ids))
        except Problem as problem:
            return answer_problem(problem, request.request_id)

    async def find_key(self, sha256: bytes) -> ApiKey | None:
        """The API key with this hash, even if it is revoked or has expired; None: there is none."""
        async with self._node_read() as connection:
            return await api_keys.find(connection, sha256)

    async def insert_key(self, key: ApiKey) -> None:
        """Add an API key, durably. Like the next three, raises StorageError or StatementRefused if that fails."""
        async with self._database.connection() as connection:
            await api_keys.insert(connection, key)

    async def list_keys(self) -> list[ApiKey]:
        """All API keys, oldest first."""
        async with self._database.reading() as connection:
            return await api_keys.list_all(connection)

    async def revoke_key(self, key_id: str, now: int) -> bool:
        """Revoke an API key, durably; False: there is none with this id."""
        async with self._database.connection() as connection:
            return await api_keys.revoke(connection, key_id, now)

    async def purge(self, purge: Purge) -> Purge:
        """Carry out one batch of a purge, durably; returns what is left to do."""
        sql, values = find_candidates(purge)
        async with self._database.connection() as connection:
            candidates = [Candidate._make(row) for row in await connection.fetch(sql, *values)]
            due = [each for each in candidates if each.is_due]
            if purge.dry_run or not due:
                return purge.after(candidates, len(due))
            names = sorted((purge.environment, each.namespace, each.key_hash, each.known_count) for each in due)
            purged: int = await connection.fetchval(self._sql.purge, *to_arrays(names))
        return purge.after(candidates, purged)

    async def now_ms(self) -> int:
        """The database's clock, in ms since 1970."""
        async with self._database.connection() as connection:
            now: int = await connection.fetchval(f"SELECT {self._sql.clock}")
        return now

    async def lease_states(self, names: Sequence[EffectName]) -> list[LeaseState]:
        """The lease states of effects that requests wait for, in the order of the names."""
        rows = [(name.environment, name.namespace, hash_effect_name(*name)) for name in names]
        async with self._node_read() as connection:
            found = await connection.fetch(self._sql.states, *to_arrays(rows))
        outages = self._heartbeat.outages(*found[0][-3:]) if found else ()
        return [
            NO_LEASE if status is None else read_lease_state(status, expires_at, settles_at, updated_at, now, outages)
            for status, expires_at, settles_at, updated_at, now, _, _ in found
        ]

    async def expired_for_s(self) -> Mapping[Environment, float]:
        """By environment, how many seconds ago the oldest lease expired that was not taken over."""
        async with self._node_read() as connection:
            rows = await connection.fetch(self._sql.oldest_expired)
        return {environment: age_ms / 1000 for environment, age_ms in rows}

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Have the heartbeat of a node: see `verity/_store/heartbeat.py`."""
        self._heartbeat.is_beating = True
        try:
            async with beating(self._heartbeat.beat):
                yield
        finally:
            self._heartbeat.is_beating = False

    def pool(self) -> Pool:
        """How many connections there are now."""
        return Pool(self._database.size, self._database.idle)

    def watch_batches(self, watch: Callable[[int], None]) -> None:
        """Have `watch` called with the number of calls in each batch."""
        self._calls.watch_batches(watch)

    def watch_outages(self, watch: Callable[[Outage], None]) -> None:
        """Have `watch` called with each outage that this node has recorded."""
        self._heartbeat.recorded.watch(watch)

    async def close(self) -> None:
        """Return once no call is under way."""
        await self._calls.drain()

    @asynccontextmanager
    async def _node_read(self) -> AsyncIterator[Any]:
        """A connection for the node's own reads.

        Raises:
            StorageError: the database did not answer, or refused (a table is missing, for one).
        """
        try:
            async with self._database.reading(Use.NODE_READS) as connection:
                yield connection
        except StatementRefused as error:
            raise StorageError(str(error)) from error

    async def _read(self, request: Request) -> Answer:
        """Carry out a read. At its timeout, or when cancelled, the server is told to stop."""
        try:
            return await asyncio.wait_for(self._fetch(request), self._database.read_within_s)
        except (asyncio.TimeoutError, TooSlow):
            raise too_long() from None
        except (Unanswered, StatementRefused) as error:
            ids = {"requestId": request.request_id}
            _logger.error("the database did not answer a read: %s", error, extra=ids)
            if isinstance(error, StatementRefused) and error.is_about_a_value:
                raise Problem(400, "invalid_request", BAD_VALUE) from None
            raise unavailable("The ledger's storage does not answer. Send the request again.") from None

    async def _fetch(self, request: Request) -> Answer:
        async with self._database.reading() as connection:
            now: int = await connection.fetchval(f"SELECT {self._sql.clock}")
            reading = begin(request, now, DIALECT)
            rows: Rows | None = None
            while True:
                try:
                    query = next(reading) if rows is None else reading.send(rows)
                except StopIteration as done:
                    answer: Answer = done.value
                    return answer
                rows = await connection.fetch(to_numbered(query.sql), *query.values)
