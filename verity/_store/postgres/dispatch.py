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
from verity._ledger.wire import Refused, answer_problem
from verity._store.postgres import batches
from verity._store.postgres.batches import Left, PrimaryKey, Work, is_forced_reset, is_guessed_commit
from verity._store.postgres.database import SINGLES, SPARE, Database, Refusal, TooSlow, Use
from verity._store.postgres.lanes import Lane
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

Attempt = Callable[[Session, Statements, Sequence[Work]], Awaitable[Left]]


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
        self._paused: set[Work] = set()
        self._held: dict[PrimaryKey, Lane] = {}
        """Effects that somebody else held up lately. A call on one of them does not go into a batch that would wait."""

        def lane(attempt: Attempt, use: Use) -> Lane:
            return Lane(partial(self._carry_out, attempt, use), max_batch=max_batch, width=width, spare=SPARE)

        self._grants = lane(batches.grant, Use.CALLS)
        self._commits = lane(batches.commit, Use.CALLS)
        self._others = lane(batches.explain, Use.CALLS)
        self._renewals = lane(batches.explain, Use.RENEWALS)
        self._batched = (self._grants, self._commits, self._others, self._renewals)
        self._singles = Lane(partial(self._carry_out, batches.explain, Use.SINGLES), max_batch=1, width=SINGLES)
        self._patient = Lane(partial(self._carry_out, batches.explain, Use.PATIENT), max_batch=1, width=SINGLES)

    async def answer(self, work: Work) -> Answer:
        """Carry a call out, durably."""
        if sum(map(len, self._batched)) + len(self._singles) + len(self._paused) >= MAX_WAITING:
            return answer_problem(unavailable("The ledger is overloaded."), work.call.request.request_id)
        command = work.call.command
        lane = self._held.get(work.name) if self._held else None
        if lane is self._patient:
            self._be_patient(work)
        elif lane is not None or not (isinstance(command, Lease) or is_guessed_commit(work.call)):
            self._explain(work)
        elif isinstance(command, Lease):
            self._grants.add(work)
        else:
            self._commits.add(work)
        answer = await work.answer
        if lane is not None and answer.status < 500:
            self._held.pop(work.name, None)
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

    def _explain(self, work: Work) -> None:
        lane = self._renewals if isinstance(work.call.command, Renew) else self._others
        lane.add(work)

    async def _carry_out(self, attempt: Attempt, use: Use, batch: list[Work]) -> None:
        """Answer a batch; whatever happens, nobody is left waiting and nobody is told of what did not happen."""
        try:
            await self._try(attempt, use, self._give_up(batch))
        except Exception as error:  # noqa: BLE001 - the lane must go on, and the error belongs to those who wait
            for work in batch:
                if work.waits:
                    work.answer.set_exception(error)

    async def _try(self, attempt: Attempt, use: Use, left: list[Work]) -> None:
        try:
            for _ in range(batches.MAX_ROUNDS):
                if not left:
                    return
                async with self._database.connection(use) as session:
                    anew, locked = await attempt(session, self._sql, left)
                self._pass_over(locked)
                left = [*anew]
                if attempt is not batches.explain:
                    for work in left:
                        self._explain(work)
                    return
            for work in left:
                _settle(work, _crowded())
        except TooSlow as error:
            self._log("the database gave up %d calls as too slow: %s", left, error)
            self._too_slow(use, left)
        except Unanswered as error:
            self._log("the database broke off %d calls: %s", left, error)
            self._ask_again(left)
        except Refusal as refusal:
            await self._refused(attempt, use, [work for work in left if work.waits], refusal)

    def _ask_again(self, batch: list[Work]) -> None:
        """What became of a call is unknown: it is read once more, and answered with the truth, or with 503."""
        for work in batch:
            if self._may_ask_again(work):
                self._explain(work)

    def _too_slow(self, use: Use, batch: list[Work]) -> None:
        """The database gave a statement up; it has most probably undone it, but that is not counted on."""
        left: list[Work] = []
        for work in batch:
            if use is Use.PATIENT:
                _settle(work, _unknown())
            elif (use is Use.SINGLES and work.waits and work.asked_again) or self._may_ask_again(work):
                left.append(work)
        self._set_apart(left)

    @staticmethod
    def _may_ask_again(work: Work) -> bool:
        """Whether it may be, now that a statement for it is lost; else it is answered."""
        if is_forced_reset(work.call):  # asked again, it could hit the next holder
            _settle(work, _unknown("Look at the effect before you send it again."))
        elif work.asked_again:
            _settle(work, _unknown())
        elif work.waits:
            work.asked_again = True
            return True
        return False

    async def _refused(self, attempt: Attempt, use: Use, left: list[Work], refusal: Refusal) -> None:
        """The database refused one call's part, and with it all of the batch."""
        if refusal.is_locked and attempt is batches.commit:
            await self._carry_out(batches.explain, use, left)  # which passes over locked rows
        elif refusal.is_locked and use is Use.PATIENT:
            self._pass_over(left)
        elif len(left) > 1 or refusal.is_locked:
            self._set_apart(left)
        else:
            for work in left:
                await self._refuse(attempt, use, work, refusal)

    async def _refuse(self, attempt: Attempt, use: Use, work: Work, refusal: Refusal) -> None:
        self._log("the database refused %d calls: %s", [work], refusal)
        if refusal.is_passing and work.collisions < MAX_COLLISIONS:
            work.collisions += 1
            await self._carry_out(attempt, use, [work])
            return
        self._hold(work, self._patient)
        if work.asked_again:
            _settle(work, _unknown())
        elif refusal.is_passing:
            _settle(work, _crowded())
        elif refusal.is_about_a_value:
            _settle(work, Refused(400, "invalid_request", NO_ROOM))
        else:
            message = "The ledger's database refused the call; nothing was carried out."
            _settle(work, Refused(500, "internal", message))

    def _set_apart(self, batch: Sequence[Work]) -> None:
        """Have each of several calls tried alone, or one that was alone be given more time."""
        for work in batch:
            self._start_its_time(work)
            if len(batch) > 1:
                self._singles.add(work)
            else:
                self._be_patient(work)

    def _be_patient(self, work: Work) -> None:
        """Have a call wait that is blocked or slow by itself."""
        self._start_its_time(work)
        work.is_patient = True
        self._hold(work, self._patient)
        self._patient.add(work)

    def _start_its_time(self, work: Work) -> None:
        if work.gives_up_at is None:
            work.gives_up_at = asyncio.get_running_loop().time() + self._database.patience_s

    def _pass_over(self, locked: Sequence[Work]) -> None:
        """Look at calls again a little later."""
        for work in locked:
            self._start_its_time(work)
        for work in self._give_up(locked):
            pause_s = min(_SHORTEST_PAUSE_S * 2**work.blocked, _LONGEST_PAUSE_S)
            work.blocked = min(work.blocked + 1, _HELD_AFTER + 10)
            if work.blocked == _HELD_AFTER and not work.is_patient:
                self._hold(work, self._others)
            self._paused.add(work)
            asyncio.get_running_loop().call_later(pause_s, self._resume, work)

    def _give_up(self, batch: Sequence[Work]) -> list[Work]:
        """Answer the calls whose time is over; returns those that still wait."""
        now = asyncio.get_running_loop().time()
        over = [work for work in batch if work.waits and work.gives_up_at is not None and now >= work.gives_up_at]
        if over:
            self._log("somebody else holds locks that %d calls need: %s", over, "their time is over")
        for work in over:
            _settle(work, _unknown() if work.asked_again else _locked())
        return [work for work in batch if work.waits]

    def _resume(self, work: Work) -> None:
        self._paused.discard(work)
        if work.is_patient:
            self._patient.add(work)
        else:
            self._explain(work)

    def _hold(self, work: Work, lane: Lane) -> None:
        if len(self._held) >= _MAX_HELD:
            del self._held[next(iter(self._held))]
        self._held[work.name] = lane

    @staticmethod
    def _log(message: str, about: Sequence[Work], why: object) -> None:
        ids = {"requestIds": [work.call.request.request_id for work in about]}
        _logger.error(message, len(about), why, extra=ids)


def _settle(work: Work, refused: Refused) -> None:
    work.settle(answer_problem(refused, work.call.request.request_id))


def _crowded() -> Refused:
    return unavailable("Too many others changed this effect at the same moment. Send it again.")


def _locked() -> Refused:
    return unavailable("Another transaction of the database holds this effect; nothing was carried out. Send it again.")


def _unknown(advice: str = "Send it again.") -> Refused:
    return unavailable(f"The ledger's storage did not answer; whether the call was carried out is unknown. {advice}")


def unavailable(message: str) -> Refused:
    """A 503."""
    return Refused(503, "unavailable", message, retry_after_s=_RETRY_AFTER_S)
