"""How an effect call gets its answer: queues, attempts and retries.

`Dispatcher.answer` is one call's whole way: a loop over attempts, until one of them answers the call. Calls are
attempted in batches. There are six queues:

- grants and commits: the fast path (see `batches.py`).
- others: the slow path, for all other calls and for those that the fast path did not answer.
- renewals: the slow path, for renewals alone. Leases would expire if renewals waited behind other calls.
- singles: the slow path, each call alone. If a batch is blocked, slow or refused, its calls are retried here.
- patient: the slow path, for calls that were blocked or slow although they were alone. They get more time.

Renewals, singles and patient have connections of their own; the other three share theirs. So one call that is blocked,
slow or refused does not hold up the others.

The slow path skips locked rows, and their calls are retried after a short pause. A blocked call gives up when the time
of a statement timeout has passed since it was first blocked. Later calls on its effect take a detour: they start in the
queue where it was blocked, until one of them is answered.

A call whose statement was lost is retried once, on the slow path, which finds what the lost statement did. After a
second loss the answer is that the outcome is unknown. A forced reset that names no fence is never retried after a loss.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from verity._ledger.calls import Answer
from verity._ledger.commands import Lease, Renew
from verity._ledger.problems import Problem
from verity._store.postgres import batches
from verity._store.postgres.batch_queue import BatchQueue
from verity._store.postgres.database import SINGLES, SPARE, Database, StatementRefused, TooSlow, Use
from verity._store.postgres.heartbeat import Heartbeat
from verity._store.postgres.pending import DECIDE, LOCKED, Decide, PendingCall, PrimaryKey, Reason, Retry
from verity._store.postgres.session import Session, Unanswered
from verity._store.postgres.statements import Statements

_logger = logging.getLogger("verity.server")

MAX_CALLS = 20_000
"""How many calls may be under way at a time. What comes beyond is answered 503."""
MAX_LOST_RACES = 30
MAX_COLLISIONS = 5
_MAX_DETOURS = 10_000
_DETOUR_AFTER = 3
"""How often a row has to be locked until later calls on it skip the fast path."""
_SHORTEST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.16
_RETRY_AFTER_S = 1
BAD_VALUE = "The request has a value that the database can't hold."

Attempt = Callable[[Session, Statements, Sequence[PendingCall]], Awaitable[None]]


class Dispatcher:
    """Carries calls out in batches.

    Args:
        database: stays the caller's to close, after `drain()`.
        sql: the statements.
        heartbeat: knows of outages.
        max_batch: the most calls in one statement; 1 switches group commit off.
        width: how many statements of a kind may be under way at a time, while none is slow.
    """

    def __init__(
        self, database: Database, sql: Statements, heartbeat: Heartbeat, *, max_batch: int, width: int
    ) -> None:
        self._database = database
        self._sql = sql
        self._under_way = 0
        self._detours: dict[PrimaryKey, BatchQueue] = {}
        """Effects on which a call was blocked lately, and the queue for later calls on them."""

        def batched(attempt: Attempt, use: Use) -> BatchQueue:
            return BatchQueue(partial(self._attempt, attempt, use), max_batch=max_batch, width=width, spare=SPARE)

        def one_by_one(use: Use) -> BatchQueue:
            return BatchQueue(partial(self._attempt, decide, use), max_batch=1, width=SINGLES)

        decide = partial(batches.decide, heartbeat=heartbeat)
        self._grants = batched(batches.grant, Use.CALLS)
        self._commits = batched(batches.commit, Use.CALLS)
        self._others = batched(decide, Use.CALLS)
        self._renewals = batched(decide, Use.RENEWALS)
        self._singles = one_by_one(Use.SINGLES)
        self._patient = one_by_one(Use.PATIENT)
        self._batched = (self._grants, self._commits, self._others, self._renewals)
        self._queues = (*self._batched, self._singles, self._patient)

    async def answer(self, call: PendingCall) -> Answer:
        """Carry a call out, durably.

        Raises:
            Problem: it was not carried out, or its outcome is unknown.
        """
        if self._under_way >= MAX_CALLS:
            raise unavailable("The ledger is overloaded.")
        self._under_way += 1
        try:
            detour = self._detours.get(call.name) if self._detours else None
            queue = self._first_queue(call, detour)
            while True:
                outcome = await queue.add(call)
                if isinstance(outcome, Answer):
                    if detour is not None:
                        self._detours.pop(call.name, None)
                    return outcome
                if isinstance(outcome, Decide):
                    queue = self._slow_path(call)
                else:
                    queue = self._next_queue(call, queue, outcome)
                    await self._pause(call, outcome)
        finally:
            self._under_way -= 1

    def watch_batches(self, watch: Callable[[int], None]) -> None:
        """Have `watch` called with the number of calls in each batch."""
        for queue in self._batched:
            queue.watch = watch

    async def drain(self) -> None:
        """Return once no call is under way."""
        while self._under_way or not all(queue.is_idle for queue in self._queues):
            for queue in self._queues:
                await queue.drain()
            await asyncio.sleep(_SHORTEST_PAUSE_S if self._under_way else 0)

    # -- the next queue --

    def _first_queue(self, call: PendingCall, detour: BatchQueue | None) -> BatchQueue:
        if detour is self._patient:
            return self._be_patient(call)
        if detour is not None or not call.has_fast_path:
            return self._slow_path(call)
        return self._grants if isinstance(call.command, Lease) else self._commits

    def _slow_path(self, call: PendingCall) -> BatchQueue:
        """The queue of the slow path. A renewal whose statement was lost changes to the connections of the other calls:
        the database may have no free connection for renewals, while others are open.
        """
        is_first_renewal = isinstance(call.command, Renew) and not call.is_unknown
        return self._renewals if is_first_renewal else self._others

    def _next_queue(self, call: PendingCall, queue: BatchQueue, retry: Retry) -> BatchQueue:
        """The queue for the attempt after one that did not answer the call.

        Raises:
            Problem: there is none.
        """
        reason = retry.reason
        if reason is Reason.OVERDUE:
            raise _unknown(call) if call.is_unknown else _locked()
        if reason is Reason.LOCKED:
            return self._after_lock(call, queue)
        if reason in (Reason.LOST, Reason.TOO_SLOW):
            return self._after_loss(call, queue, retry)
        if reason is Reason.CHANGED:
            call.lost_races += 1
            if call.lost_races < MAX_LOST_RACES:
                return queue
            raise _crowded()
        if reason is Reason.BLOCKED or not retry.is_alone:
            return self._set_apart(call, retry)
        return self._after_refusal(call, queue, reason)

    def _after_lock(self, call: PendingCall, queue: BatchQueue) -> BatchQueue:
        self._start_patience(call)
        call.times_locked += 1
        if queue is self._patient:
            return queue
        if call.times_locked == _DETOUR_AFTER:
            self._add_detour(call, self._others)
        return self._slow_path(call)

    def _after_loss(self, call: PendingCall, queue: BatchQueue, retry: Retry) -> BatchQueue:
        """The next queue of a call whose statement was lost or too slow, so that its outcome is unknown."""
        if queue is self._patient and retry.reason is Reason.TOO_SLOW:
            raise _unknown(call)
        if queue is self._singles and retry.reason is Reason.TOO_SLOW and call.is_unknown:
            return self._be_patient(call)
        if call.is_unknown or call.is_forced_reset:
            raise _unknown(call)
        call.is_unknown = True
        return self._slow_path(call) if retry.reason is Reason.LOST else self._set_apart(call, retry)

    def _after_refusal(self, call: PendingCall, queue: BatchQueue, reason: Reason) -> BatchQueue:
        """The next queue of a call that the database refused although it was alone."""
        if reason is Reason.COLLIDED and call.collisions < MAX_COLLISIONS:
            call.collisions += 1
            return queue
        self._add_detour(call, self._patient)
        if call.is_unknown:
            raise _unknown(call)
        if reason is Reason.COLLIDED:
            raise _crowded()
        if reason is Reason.BAD_VALUE:
            raise Problem(400, "invalid_request", BAD_VALUE)
        raise Problem(500, "internal", "The ledger's database refused the call; nothing was carried out.")

    def _set_apart(self, call: PendingCall, retry: Retry) -> BatchQueue:
        """Attempt a call alone; give it more time if it was alone already."""
        self._start_patience(call)
        return self._be_patient(call) if retry.is_alone else self._singles

    def _be_patient(self, call: PendingCall) -> BatchQueue:
        self._start_patience(call)
        self._add_detour(call, self._patient)
        return self._patient

    @staticmethod
    async def _pause(call: PendingCall, retry: Retry) -> None:
        if retry.reason is Reason.LOCKED:
            await asyncio.sleep(min(_SHORTEST_PAUSE_S * 2 ** (call.times_locked - 1), _LONGEST_PAUSE_S))

    def _start_patience(self, call: PendingCall) -> None:
        if call.gives_up_at is None:
            call.gives_up_at = asyncio.get_running_loop().time() + self._database.patience_s

    def _add_detour(self, call: PendingCall, queue: BatchQueue) -> None:
        if len(self._detours) >= _MAX_DETOURS:
            del self._detours[next(iter(self._detours))]
        self._detours[call.name] = queue

    # -- one attempt --

    async def _attempt(self, attempt: Attempt, use: Use, batch: list[PendingCall]) -> None:
        """Attempt a batch. Each of its calls gets an outcome, whatever happens."""
        try:
            batch = self._leave_out_overdue([call for call in batch if call.waits])
            if batch:
                await self._try(attempt, use, batch)
        except Exception as error:  # noqa: BLE001 - the queue has to go on; `answer` raises the error to each caller
            for call in batch:
                call.fail(error)

    async def _try(self, attempt: Attempt, use: Use, batch: Sequence[PendingCall]) -> None:
        try:
            async with self._database.connection(use) as session:
                await attempt(session, self._sql, batch)
        except (Unanswered, StatementRefused) as error:
            left = [call for call in batch if call.waits]
            reason = _reason_of(error)
            is_alone = len(left) == 1
            if reason in (Reason.TOO_SLOW, Reason.LOST) or (is_alone and reason is not Reason.BLOCKED):
                _log(reason, left, error)
            outcome: Retry | Decide = Retry(reason, is_alone)
            if reason is Reason.BLOCKED and use is Use.PATIENT:
                outcome = LOCKED  # wait for it further, with a pause
            elif reason is Reason.BLOCKED and attempt is batches.commit:
                outcome = DECIDE  # the slow path skips locked rows
            for call in left:
                call.conclude(outcome)

    def _leave_out_overdue(self, batch: list[PendingCall]) -> list[PendingCall]:
        """The calls whose time to wait for locks is not over."""
        now = asyncio.get_running_loop().time()
        overdue = [call for call in batch if call.gives_up_at is not None and now >= call.gives_up_at]
        if not overdue:
            return batch
        _log(Reason.OVERDUE, overdue, "their time is over")
        for call in overdue:
            call.conclude(Retry(Reason.OVERDUE))
        return [call for call in batch if call.waits]


_MESSAGES = {
    Reason.TOO_SLOW: "the database gave up %d calls as too slow: %s",
    Reason.LOST: "the database broke off %d calls: %s",
    Reason.OVERDUE: "another transaction holds locks that %d calls need: %s",
}


def _log(reason: Reason, calls: Sequence[PendingCall], why: object) -> None:
    ids = {"requestIds": [call.call.request.request_id for call in calls]}
    _logger.error(_MESSAGES.get(reason, "the database refused %d calls: %s"), len(calls), why, extra=ids)


def _reason_of(error: Unanswered | StatementRefused) -> Reason:
    if isinstance(error, Unanswered):
        return Reason.TOO_SLOW if isinstance(error, TooSlow) else Reason.LOST
    if error.is_locked:
        return Reason.BLOCKED
    if error.is_passing:
        return Reason.COLLIDED
    return Reason.BAD_VALUE if error.is_about_a_value else Reason.REFUSED


def _unknown(call: PendingCall) -> Problem:
    advice = "Look at the effect before you send it again." if call.is_forced_reset else "Send it again."
    return unavailable(f"The ledger's storage did not answer; whether the call was carried out is unknown. {advice}")


def _crowded() -> Problem:
    return unavailable("Too many others changed this effect at the same moment. Send it again.")


def _locked() -> Problem:
    return unavailable("Another transaction of the database holds this effect; nothing was carried out. Send it again.")


def unavailable(message: str) -> Problem:
    """A 503."""
    return Problem(503, "unavailable", message, retry_after_s=_RETRY_AFTER_S)
