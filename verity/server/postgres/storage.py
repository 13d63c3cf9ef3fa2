"""A ledger in PostgreSQL, as one node sees it: which lane a call takes, and what happens when an answer is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from verity._ledger.calls import Answer, Environment, Request
from verity._ledger.commands import Lease
from verity._ledger.wire import EFFECT_OPERATIONS, Refused, answer_problem, read_call
from verity._store.api_keys import ApiKey
from verity._store.group import MAX_BATCH
from verity._store.looks import UNKNOWN, EffectName, Look, look_at
from verity._store.names import hash_key
from verity._store.purging import Candidate, Purge
from verity._store.reads import Rows, begin
from verity.server.postgres import api_keys, batches
from verity.server.postgres.batches import Ids, Work, is_forced_reset, is_guessed_commit
from verity.server.postgres.database import Database, Refusal, Unanswered
from verity.server.postgres.lanes import Lane
from verity.server.postgres.statements import (
    CLOCK,
    DIALECT,
    Statements,
    look_for_purge,
    to_arrays,
    to_numbered,
    write_statements,
)
from verity.server.storage import Pool, Storage, StorageError

_logger = logging.getLogger("verity.server")

MAX_WAITING = 20_000
MAX_COLLISIONS = 5
_RETRY_AFTER_S = 1
_NO_ROOM = "The request has a value that the database can't hold."

Attempt = Callable[[Any, Statements, Sequence[Work]], Awaitable[list[Work]]]


def width_for(max_batch: int) -> int:
    """How many statements of a kind may be under way. Without group commit the connections carry the concurrency."""
    return 16 if max_batch == 1 else 1


class PostgresStorage(Storage):
    """Carries calls out in group commits.

    Args:
        database: stays the caller's to close, after `close()`.
        max_batch: the most calls in one statement; 1 switches group commit off.
        width: how many statements of a kind may be under way at a time.
        clock: an SQL expression for the time in ms since 1970; it decides when leases run out.
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

        def lane(attempt: Attempt) -> Lane:
            return Lane(
                lambda batch: self._carry_out(attempt, batch),
                max_batch=max_batch,
                width=width,
            )

        self._grants = lane(batches.grant)
        self._commits = lane(batches.commit)
        self._others = lane(batches.explain)

    async def answer(self, request: Request) -> Answer:
        """Carry a call out, durably. A database that is away is a 503, never an exception."""
        try:
            if request.operation not in EFFECT_OPERATIONS:
                return await self._read(request)
            call = read_call(request)
        except Refused as refused:
            return answer_problem(refused, request.request_id)
        if len(self._grants) + len(self._commits) + len(self._others) >= MAX_WAITING:
            return answer_problem(_unavailable("The ledger is overloaded."), request.request_id)
        work = Work(call, asyncio.get_running_loop().create_future(), self._ids)
        if isinstance(call.command, Lease):
            self._grants.add(work)
        elif is_guessed_commit(call):
            self._commits.add(work)
        else:
            self._others.add(work)
        return await work.answer

    async def find_key(self, sha256: bytes) -> ApiKey | None:
        """The API key with this hash, also if it is revoked or has expired."""
        async with self._looking() as connection:
            return await api_keys.find(connection, sha256)

    async def insert_key(self, key: ApiKey) -> None:
        """Add an API key, durably. Like the next three: raises StorageError or Refusal where that fails."""
        async with self._database.connection() as connection:
            await api_keys.insert(connection, key)

    async def list_keys(self) -> list[ApiKey]:
        """All API keys, oldest first."""
        async with self._database.reading() as connection:
            return await api_keys.list_all(connection)

    async def revoke_key(self, key_id: str, now: int) -> bool:
        """Revoke an API key, durably; False where there is none with this id."""
        async with self._database.connection() as connection:
            return await api_keys.revoke(connection, key_id, now)

    async def purge(self, purge: Purge) -> Purge:
        """Carry out one batch of a purge, durably; returns what is left to do."""
        sql, values = look_for_purge(purge)
        async with self._database.connection() as connection:
            looked_at = [Candidate._make(row) for row in await connection.fetch(sql, *values)]
            due = [each for each in looked_at if each.is_due]
            if purge.dry_run or not due:
                return purge.after(looked_at, len(due))
            names = sorted((purge.environment, each.namespace, each.key_hash, each.known_count) for each in due)
            purged: int = await connection.fetchval(self._sql.purge, *to_arrays(names))
        return purge.after(looked_at, purged)

    async def now_ms(self) -> int:
        """The database's clock, in ms since 1970."""
        async with self._database.connection() as connection:
            now: int = await connection.fetchval(f"SELECT {self._sql.clock}")
        return now

    async def look(self, names: Sequence[EffectName]) -> list[Look]:
        """Look at effects that somebody waits for."""
        rows = [(name.environment, name.namespace, hash_key(*name)) for name in names]
        async with self._looking() as connection:
            found = await connection.fetch(self._sql.states, *to_arrays(rows))
        return [UNKNOWN if status is None else look_at(status, expires_at, now) for status, expires_at, now in found]

    async def expired_for_s(self) -> Mapping[Environment, float]:
        """By environment, how long ago the oldest lease ran out that nobody took over."""
        async with self._looking() as connection:
            rows = await connection.fetch(self._sql.oldest_expired)
        return {environment: age_ms / 1000 for environment, age_ms in rows}

    def pool(self) -> Pool:
        """The connections at this moment."""
        return Pool(self._database.size, self._database.idle)

    def watch_batches(self, watch: Callable[[int], None]) -> None:
        """Have `watch` called with the number of calls in each batch."""
        for lane in (self._grants, self._commits, self._others):
            lane.watch = watch

    async def close(self) -> None:
        """Carry out what waits."""
        for lane in (self._grants, self._commits, self._others):
            await lane.drain()

    @asynccontextmanager
    async def _looking(self) -> AsyncIterator[Any]:
        """A connection for what the node itself wants to know, for which a refusal is no better than no answer.

        Raises:
            StorageError: the database did not answer, or refused, as it does without the table.
        """
        try:
            async with self._database.reading() as connection:
                yield connection
        except Refusal as error:
            raise StorageError(str(error)) from error

    async def _carry_out(self, attempt: Attempt, batch: list[Work]) -> None:
        """Answer a batch; whatever happens, nobody is left waiting and nobody is told of what did not happen."""
        try:
            await self._try(attempt, [work for work in batch if work.waits])
        except Exception as error:  # noqa: BLE001 - the lane must go on, and the error belongs to those who wait
            for work in batch:
                if work.waits:
                    work.answer.set_exception(error)

    async def _try(self, attempt: Attempt, left: list[Work]) -> None:
        try:
            for _ in range(batches.MAX_ROUNDS):
                if not left:
                    return
                async with self._database.connection() as connection:
                    left = await attempt(connection, self._sql, left)
                if attempt is not batches.explain:
                    break
            self._pass_on(left, is_tried=attempt is batches.explain)
        except Unanswered as error:
            _logger.error("the database broke off %d calls: %s", len(left), error, extra=_ids(left))
            self._ask_again(left)
        except Refusal as refusal:
            await self._single_out(attempt, left, refusal)

    def _pass_on(self, left: list[Work], *, is_tried: bool) -> None:
        for work in left:
            if is_tried:
                _settle(work, _crowded())
            else:
                self._others.add(work)

    def _ask_again(self, batch: list[Work]) -> None:
        """What became of a call is unknown: it is read once more, and answered with the truth, or with 503."""
        for work in batch:
            if not work.waits:
                continue
            if is_forced_reset(work.call):  # asked again, it could hit the next holder
                _settle(work, _unknown("Look at the effect before you send it again."))
            elif work.asked_again:
                _settle(work, _unknown())
            else:
                work.asked_again = True
                self._others.add(work)

    async def _single_out(self, attempt: Attempt, batch: list[Work], refusal: Refusal) -> None:
        """The database refused one call's part, and with it all of the batch: each is tried alone."""
        if len(batch) > 1:
            for work in batch:
                await self._carry_out(attempt, [work])
            return
        (work,) = batch
        _logger.error("the database refused a call: %s", refusal, extra=_ids(batch))
        if refusal.is_passing and work.collisions < MAX_COLLISIONS:
            work.collisions += 1
            await self._carry_out(attempt, batch)
        elif work.asked_again:
            _settle(work, _unknown())
        elif refusal.is_passing:
            _settle(work, _crowded())
        elif refusal.is_about_a_value:
            _settle(work, Refused(400, "invalid_request", _NO_ROOM))
        else:
            message = "The ledger's database refused the call; nothing was carried out."
            _settle(work, Refused(500, "internal", message))

    async def _read(self, request: Request) -> Answer:
        try:
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
        except (Unanswered, Refusal) as error:
            ids = {"requestId": request.request_id}
            _logger.error("the database did not answer a read: %s", error, extra=ids)
            if isinstance(error, Refusal) and error.is_about_a_value:
                raise Refused(400, "invalid_request", _NO_ROOM) from None
            raise _unavailable("The ledger's storage does not answer. Send the request again.") from None


def _ids(batch: Sequence[Work]) -> dict[str, list[str]]:
    """For a log line: which requests it is about."""
    return {"requestIds": [work.call.request.request_id for work in batch]}


def _settle(work: Work, refused: Refused) -> None:
    if work.waits:
        work.answer.set_result(answer_problem(refused, work.call.request.request_id))


def _crowded() -> Refused:
    return _unavailable("Too many others changed this effect at the same moment. Send it again.")


def _unknown(advice: str = "Send it again.") -> Refused:
    return _unavailable(f"The ledger's storage did not answer; whether the call was carried out is unknown. {advice}")


def _unavailable(message: str) -> Refused:
    return Refused(503, "unavailable", message, retry_after_s=_RETRY_AFTER_S)
