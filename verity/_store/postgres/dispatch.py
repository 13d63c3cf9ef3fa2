"""Which lane a call takes, and what becomes of it when something is in its way.

What a batch can't do at once never holds up the rest of it. A row that somebody else has locked is passed over, and
looked at again a little later. A batch is taken apart if it meets any other lock (of the table, or of a row that is
being inserted), if it is slow, or if the database refuses it: each of its calls is tried alone, a few at a time, on
connections of their own. A call that is blocked although it is alone waits on yet others. Renewals share neither a lane
nor a connection with other calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from verity._ledger.calls import Answer
from verity._ledger.commands import Lease, Renew
from verity._ledger.problems import Problem, answer_problem
from verity._store.postgres import batches
from verity._store.postgres.batch_queue import BatchQueue
from verity._store.postgres.batches import Left, PendingCall, PrimaryKey, is_forced_reset, is_guessed_commit
from verity._store.postgres.database import SINGLES, SPARE, Database, StatementRefused, TooSlow, Use
from verity._store.postgres.session import Session, Unanswered
from verity._store.postgres.statements import Statements

_logger = logging.getLogger("verity.server")

MAX_WAITING = 20_000
MAX_COLLISIONS = 5
_MAX_HELD = 10_000
_HELD_AFTER = 3
_SHORTEST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.16
_RETRY_AFTER_S = 1
NO_ROOM = "The request has a value that the database can't hold."

Attempt = Callable[[Session, Statements, Sequence[PendingCall]], Awaitable[Left]]


class Dispatcher:
    """Carries calls out in batches.

    Args:
        database: stays the caller's to close, after `drain()`.
        sql: the statements.
        max_batch: the most calls in one statement; 1 switches group commit off.
        width: how many statements of a kind may be under way at a time, while none is slow.
    """

    def __init__(self, database: Database, sql: Statements, *, max_batch: int, width: int) -> None:
        self._database = database
        self._sql = sql
        self._paused: set[PendingCall] = set()
        self._held: dict[PrimaryKey, BatchQueue] = {}
        """Effects that somebody else held up lately. A call on one of them does not go into a batch that would wait."""

        def lane(attempt: Attempt, use: Use) -> BatchQueue:
            return BatchQueue(partial(self._carry_out, attempt, use), max_batch=max_batch, width=width, spare=SPARE)

        self._grants = lane(batches.grant, Use.CALLS)
        self._commits = lane(batches.commit, Use.CALLS)
        self._others = lane(batches.explain, Use.CALLS)
        self._renewals = lane(batches.explain, Use.RENEWALS)
        self._batched = (self._grants, self._commits, self._others, self._renewals)
        self._singles = BatchQueue(partial(self._carry_out, batches.explain, Use.SINGLES), max_batch=1, width=SINGLES)
        self._patient = BatchQueue(partial(self._carry_out, batches.explain, Use.PATIENT), max_batch=1, width=SINGLES)

    async def answer(self, pending: PendingCall) -> Answer:
        """Carry a call out, durably."""
        if sum(map(len, self._batched)) + len(self._singles) + len(self._paused) >= MAX_WAITING:
            return answer_problem(unavailable("The ledger is overloaded."), pending.call.request.request_id)
        command = pending.call.command
        lane = self._held.get(pending.name) if self._held else None
        if lane is self._patient:
            self._be_patient(pending)
        elif lane is not None or not (isinstance(command, Lease) or is_guessed_commit(pending.call)):
            self._explain(pending)
        elif isinstance(command, Lease):
            self._grants.add(pending)
        else:
            self._commits.add(pending)
        answer = await pending.answer
        if lane is not None and answer.status < 500:
            self._held.pop(pending.name, None)
        return answer

    def watch_batches(self, watch: Callable[[int], None]) -> None:
        """Have `watch` called with the number of calls in each batch."""
        for lane in self._batched:
            lane.watch = watch

    async def drain(self) -> None:
        """Carry out what waits."""
        lanes = (*self._batched, self._singles, self._patient)
        while self._paused or not all(lane.is_idle for lane in lanes):
            for lane in lanes:
                await lane.drain()
            await asyncio.sleep(_SHORTEST_PAUSE_S if self._paused else 0)

    def _explain(self, pending: PendingCall) -> None:
        # A renewal is asked again by another way: a database that has no connection left for it may have others open.
        is_first = isinstance(pending.call.command, Renew) and not pending.asked_again
        lane = self._renewals if is_first else self._others
        lane.add(pending)

    async def _carry_out(self, attempt: Attempt, use: Use, batch: list[PendingCall]) -> None:
        """Answer a batch; whatever happens, nobody is left waiting and nobody is told of what did not happen."""
        try:
            await self._try(attempt, use, self._give_up(batch))
        except Exception as error:  # noqa: BLE001 - the lane must go on, and the error belongs to those who wait
            for pending in batch:
                if pending.waits:
                    pending.answer.set_exception(error)

    async def _try(self, attempt: Attempt, use: Use, left: list[PendingCall]) -> None:
        try:
            for _ in range(batches.MAX_ROUNDS):
                if not left:
                    return
                async with self._database.connection(use) as session:
                    anew, locked = await attempt(session, self._sql, left)
                self._pass_over(locked)
                left = [*anew]
                if attempt is not batches.explain:
                    for pending in left:
                        self._explain(pending)
                    return
            for pending in left:
                _settle(pending, _crowded())
        except TooSlow as error:
            self._log("the database gave up %d calls as too slow: %s", left, error)
            self._too_slow(use, left)
        except Unanswered as error:
            self._log("the database broke off %d calls: %s", left, error)
            self._ask_again(left)
        except StatementRefused as refusal:
            await self._refused(attempt, use, [pending for pending in left if pending.waits], refusal)

    def _ask_again(self, batch: list[PendingCall]) -> None:
        """What became of a call is unknown: it is read once more, and answered with the truth, or with 503."""
        for pending in batch:
            if self._may_ask_again(pending):
                self._explain(pending)

    def _too_slow(self, use: Use, batch: list[PendingCall]) -> None:
        """The database gave a statement up; it has most probably undone it, but that is not counted on."""
        left: list[PendingCall] = []
        for pending in batch:
            if use is Use.PATIENT:
                _settle(pending, _unknown())
            elif (use is Use.SINGLES and pending.waits and pending.asked_again) or self._may_ask_again(pending):
                left.append(pending)
        self._set_apart(left)

    @staticmethod
    def _may_ask_again(pending: PendingCall) -> bool:
        """Whether it may be, now that a statement for it is lost; else it is answered."""
        if is_forced_reset(pending.call):  # asked again, it could hit the next holder
            _settle(pending, _unknown("Look at the effect before you send it again."))
        elif pending.asked_again:
            _settle(pending, _unknown())
        elif pending.waits:
            pending.asked_again = True
            return True
        return False

    async def _refused(self, attempt: Attempt, use: Use, left: list[PendingCall], refusal: StatementRefused) -> None:
        """The database refused one call's part, and with it all of the batch."""
        if refusal.is_locked and attempt is batches.commit:
            await self._carry_out(batches.explain, use, left)  # which passes over locked rows
        elif refusal.is_locked and use is Use.PATIENT:
            self._pass_over(left)
        elif len(left) > 1 or refusal.is_locked:
            self._set_apart(left)
        else:
            for pending in left:
                await self._refuse(attempt, use, pending, refusal)

    async def _refuse(self, attempt: Attempt, use: Use, pending: PendingCall, refusal: StatementRefused) -> None:
        self._log("the database refused %d calls: %s", [pending], refusal)
        if refusal.is_passing and pending.collisions < MAX_COLLISIONS:
            pending.collisions += 1
            await self._carry_out(attempt, use, [pending])
            return
        self._hold(pending, self._patient)
        if pending.asked_again:
            _settle(pending, _unknown())
        elif refusal.is_passing:
            _settle(pending, _crowded())
        elif refusal.is_about_a_value:
            _settle(pending, Problem(400, "invalid_request", NO_ROOM))
        else:
            message = "The ledger's database refused the call; nothing was carried out."
            _settle(pending, Problem(500, "internal", message))

    def _set_apart(self, batch: Sequence[PendingCall]) -> None:
        """Have each of several calls tried alone, or one that was alone be given more time."""
        for pending in batch:
            self._start_its_time(pending)
            if len(batch) > 1:
                self._singles.add(pending)
            else:
                self._be_patient(pending)

    def _be_patient(self, pending: PendingCall) -> None:
        """Have a call wait that is blocked or slow by itself."""
        self._start_its_time(pending)
        pending.is_patient = True
        self._hold(pending, self._patient)
        self._patient.add(pending)

    def _start_its_time(self, pending: PendingCall) -> None:
        if pending.gives_up_at is None:
            pending.gives_up_at = asyncio.get_running_loop().time() + self._database.patience_s

    def _pass_over(self, locked: Sequence[PendingCall]) -> None:
        """Look at calls again a little later."""
        for pending in locked:
            self._start_its_time(pending)
        for pending in self._give_up(locked):
            pause_s = min(_SHORTEST_PAUSE_S * 2**pending.blocked, _LONGEST_PAUSE_S)
            pending.blocked = min(pending.blocked + 1, _HELD_AFTER + 10)
            if pending.blocked == _HELD_AFTER and not pending.is_patient:
                self._hold(pending, self._others)
            self._paused.add(pending)
            asyncio.get_running_loop().call_later(pause_s, self._resume, pending)

    def _give_up(self, batch: Sequence[PendingCall]) -> list[PendingCall]:
        """Answer the calls whose time is over; returns those that still wait."""
        now = asyncio.get_running_loop().time()
        over = [
            pending
            for pending in batch
            if pending.waits and pending.gives_up_at is not None and now >= pending.gives_up_at
        ]
        if over:
            self._log("somebody else holds locks that %d calls need: %s", over, "their time is over")
        for pending in over:
            _settle(pending, _unknown() if pending.asked_again else _locked())
        return [pending for pending in batch if pending.waits]

    def _resume(self, pending: PendingCall) -> None:
        self._paused.discard(pending)
        if pending.is_patient:
            self._patient.add(pending)
        else:
            self._explain(pending)

    def _hold(self, pending: PendingCall, lane: BatchQueue) -> None:
        if len(self._held) >= _MAX_HELD:
            del self._held[next(iter(self._held))]
        self._held[pending.name] = lane

    @staticmethod
    def _log(message: str, about: Sequence[PendingCall], why: object) -> None:
        ids = {"requestIds": [pending.call.request.request_id for pending in about]}
        _logger.error(message, len(about), why, extra=ids)


def _settle(pending: PendingCall, refused: Problem) -> None:
    pending.settle(answer_problem(refused, pending.call.request.request_id))


def _crowded() -> Problem:
    return unavailable("Too many others changed this effect at the same moment. Send it again.")


def _locked() -> Problem:
    return unavailable("Another transaction of the database holds this effect; nothing was carried out. Send it again.")


def _unknown(advice: str = "Send it again.") -> Problem:
    return unavailable(f"The ledger's storage did not answer; whether the call was carried out is unknown. {advice}")


def unavailable(message: str) -> Problem:
    """A 503."""
    return Problem(503, "unavailable", message, retry_after_s=_RETRY_AFTER_S)
