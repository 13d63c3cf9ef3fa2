"""How a batch of effect calls is carried out: first a guess in one statement, then the table explains.

Most calls are a lease on an effect that is not there yet, or the commit of a current lease. For those a statement is
tried that does what the table would decide if so, and does nothing if not (`GRANT`, `COMMIT`). Whatever it does not
answer is read (`LOOK`), decided by the table, and written where the effect is still as it was read (`CHANGE`); one that
changed meanwhile is read and decided anew. So every write is one statement, and no lock is held while a node
thinks.

Why a decision holds although the clock is read before its row is locked: the write demands the version that was read. A
lease that had run out then, and was not renewed since, has run out. A new lease begins when the row was read, which is
after it was asked for: its holder, who counts from there, stops before it ends.

An answer that tells what was read, and writes nothing, would pass on what a standby may lack: a commit that was cut
off while it waited for one, or that a crash left on the primary alone. So where standbys are configured, such an answer
waits until they have everything up to there (`Session.confirm`). A later write of the same batch is proof of that, too.
Two answers need no proof: `lease_conflict` and `effect_not_found` tell of nothing that could get lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from verity._clock import machines_time_ns
from verity._ledger.calls import Answer
from verity._ledger.codec import EffectCall, answer_decision, answer_grant, answer_recorded
from verity._ledger.commands import Commit, Context, Decision, Lease, ReportObserve, Reset
from verity._ledger.effect import Effect, Event, EventType
from verity._ledger.raw_json import dump_object
from verity._ledger.transitions import apply
from verity._store.names import hash_effect_name, next_id
from verity._store.postgres.session import Session
from verity._store.postgres.statements import Statements, change_row, event_row, to_arrays
from verity._unique import new_token

PrimaryKey = tuple[str, str, bytes]
"""Of an effect: environment, namespace and the hash of its full name."""

MAX_ROUNDS = 30
_MAX_BIGINT = 2**63 - 1


class Ids:
    """Makes effect ids: in order of time, and no two the same in one node; between nodes chance keeps them apart.

    Should that fail, the unique index refuses the second one, and the lease is tried again with a new id.
    """

    def __init__(self, now_ms: Callable[[], int] = lambda: machines_time_ns() // 1_000_000) -> None:
        self._now_ms = now_ms
        self._latest = 0

    def new(self) -> int:
        """A new id."""
        self._latest = next_id(self._latest, self._now_ms())
        return self._latest


class PendingCall:
    """One call under way, and the future that waits for its answer."""

    __slots__ = (
        *(
            "answer",
            "asked_again",
            "blocked",
            "call",
            "collisions",
            "gives_up_at",
            "ids",
            "is_patient",
            "name",
            "new_id",
        ),
        "new_token",
    )

    def __init__(self, call: EffectCall, future: asyncio.Future[Answer], ids: Ids) -> None:
        self.call = call
        self.answer = future
        self.name: PrimaryKey = (
            call.environment,
            call.namespace,
            hash_effect_name(call.environment, call.namespace, call.key),
        )
        """By it statements name the effect."""
        self.ids = ids
        self.new_id = 0
        self.new_token = ""
        if isinstance(call.command, Lease):
            self.new_id = ids.new()
            self.new_token = new_token()
        self.asked_again = False
        """Whether a statement for it was lost, so that what became of that one is unknown."""
        self.collisions = 0
        """How often the database refused it, for another transaction's sake."""
        self.blocked = 0
        """How often somebody else's lock kept it from being carried out."""
        self.is_patient = False
        """Whether it was blocked or slow although it was alone."""
        self.gives_up_at: float | None = None
        """Until when it waits for that lock; by the event loop's clock."""

    @property
    def waits(self) -> bool:
        """Whether there is still somebody to answer."""
        return not self.answer.done()

    @property
    def idempotency_key(self) -> str:
        """Of a lease request: its own, or one that no other has, so that a grant whose outcome was lost with the
        connection is known again as this request's own.
        """
        command: Any = self.call.command
        given: str | None = command.idempotency_key
        return f"once:{self.new_token}" if given is None else given

    def decide(self, before: Effect | None, now: int, reports: int = 0) -> Decision:
        """What the table says; `reports` of the current grant are in the trail."""
        call, command = self.call, self.call.command
        if isinstance(command, Lease):
            command = command._replace(idempotency_key=self.idempotency_key)
        context = Context(
            *(call.namespace, call.key, now),
            new_id=lambda: self.new_id,
            new_token=lambda: self.new_token,
            count_reports=lambda: reports,
        )
        return apply(before, command, context)

    def settle(self, answer: Answer) -> None:
        """Answer."""
        if self.waits:
            self.answer.set_result(answer)

    def settle_as(self, decision: Decision, now: int) -> None:
        """Answer with what the table says."""
        if self.waits:
            self.answer.set_result(answer_decision(self.call, decision, now))


def command_of(pending: PendingCall) -> Any:
    """Its command, of whose kind the lane makes sure."""
    return pending.call.command


def is_guessed_commit(call: EffectCall) -> bool:
    """Whether `COMMIT` can take it: numbers that no fence has are the table's to refuse."""
    return isinstance(call.command, Commit) and call.command.fence <= _MAX_BIGINT


def is_forced_reset(call: EffectCall) -> bool:
    """Whether it takes a live lease away, whoever holds it by then."""
    return isinstance(call.command, Reset) and call.command.force


def take_one_of_each(batch: Iterable[PendingCall]) -> tuple[list[PendingCall], list[PendingCall]]:
    """The first call on each effect, in the order of their names so that two nodes' batches can't block each other in a
    circle; and the other calls.
    """
    first: dict[PrimaryKey, PendingCall] = {}
    others = [pending for pending in batch if first.setdefault(pending.name, pending) is not pending]
    return [first[name] for name in sorted(first)], others


class Left(NamedTuple):
    """What an attempt did not answer."""

    anew: Sequence[PendingCall] = ()
    """Is to be read, and decided anew."""
    locked: Sequence[PendingCall] = ()
    """Somebody else holds a lock on its effect."""


async def grant(session: Session, sql: Statements, batch: Sequence[PendingCall]) -> Left:
    """Grant leases on effects that are not there."""
    batch, others = take_one_of_each(batch)
    rows = await session.fetch(sql.grant, *to_arrays([_grant_row(pending) for pending in batch]))
    granted: dict[int, int] = dict(rows)
    for pending in batch:
        now = granted.get(pending.new_id)
        if now is None:
            others.append(pending)
        else:
            expires_at = now + command_of(pending).lease_duration_ms
            pending.settle(answer_grant(pending.call, pending.new_id, 1, pending.new_token, expires_at, "none"))
    return Left(others)


def _grant_row(pending: PendingCall) -> tuple[object, ...]:
    command = command_of(pending)
    payload = command.input or (None, None)
    return (
        *pending.name,
        pending.new_id,
        pending.call.key,
        pending.new_token,
        command.lease_duration_ms,
        pending.idempotency_key,
        command.effect_name,
        command.agent_id,
        command.workflow_name,
        command.case_id,
        command.run_id,
        command.trace_parent,
        *payload,
    )


async def commit(session: Session, sql: Statements, batch: Sequence[PendingCall]) -> Left:
    """Commit current leases."""
    batch, others = take_one_of_each(batch)
    rows = await session.fetch(
        sql.commit, *to_arrays([_commit_row(number, pending) for number, pending in enumerate(batch)])
    )
    committed: dict[int, int] = dict(rows)
    for number, pending in enumerate(batch):
        effect_id = committed.get(number)
        if effect_id is None:
            others.append(pending)
        else:
            command = command_of(pending)
            pending.settle(answer_recorded(pending.call, "accepted", effect_id, command.fence, command.source))
    return Left(others)


def _commit_row(number: int, pending: PendingCall) -> tuple[object, ...]:
    command = command_of(pending)
    detail = {"source": command.source, "resultSha256": command.result.sha256}
    return (
        number,
        *pending.name,
        command.fence,
        command.lease_token,
        *command.result,
        command.source,
        command.run_id,
        dump_object(detail),
    )


_REPORTS = (EventType.OBSERVE_HIT, EventType.OBSERVE_MISS)


class _Change:
    """What a batch makes of one effect: one write, however many of its calls change it."""

    def __init__(self, before: Effect, reports: int) -> None:
        self.known_count = before.event_count
        self._reports = reports
        self.after = before
        self.events: list[Event] = []
        self.decided: list[tuple[PendingCall, Decision]] = []

    def decide(self, pending: PendingCall, now: int) -> None:
        """Decide on what the calls before have made of the effect."""
        reports = self._reports + sum(event.type in _REPORTS for event in self.events)
        decision = pending.decide(self.after, now, reports)
        self.decided.append((pending, decision))
        if decision.events and decision.effect is not None:
            self.after = decision.effect
            self.events += decision.events

    @property
    def calls(self) -> list[PendingCall]:
        """Its calls."""
        return [pending for pending, _ in self.decided]

    @property
    def needs_proof(self) -> bool:
        """Whether an answer tells what could get lost in a fail-over."""
        return any(decision.reply.word != "lease_conflict" for _, decision in self.decided)


async def explain(session: Session, sql: Statements, batch: Sequence[PendingCall]) -> Left:
    """Answer calls by reading, deciding and writing, once. Never waits for a row that somebody else has locked."""
    about: dict[PrimaryKey, list[PendingCall]] = {}
    for pending in batch:
        about.setdefault(pending.name, []).append(pending)
    names = sorted(about)
    absent: list[PendingCall] = []
    told: list[tuple[_Change, int]] = []
    changes: dict[int, tuple[_Change, int]] = {}
    wanted = [
        (*name, any(isinstance(pending.call.command, ReportObserve) for pending in about[name])) for name in names
    ]
    for number, now, has_standbys, reports, *columns in await session.fetch(sql.look, *to_arrays(wanted)):
        calls = about[names[number - 1]]
        if columns[0] is None:
            absent += _refuse_or_keep(calls, now)
            continue
        change = _Change(Effect._make(columns), reports)
        for pending in calls:
            change.decide(pending, now)
        if change.events:
            changes[number] = (change, now)
        elif has_standbys and change.needs_proof:
            told.append((change, now))
        else:
            _settle_all(change, now)
    anew, locked, is_proven = await _write(session, sql, names, changes)
    if told:
        if not is_proven:
            await session.confirm()
        for change, now in told:
            _settle_all(change, now)
    if absent:
        left = await grant(session, sql, absent)
        anew += left.anew
    return Left(anew, locked)


async def _write(
    session: Session, sql: Statements, names: Sequence[PrimaryKey], changes: dict[int, tuple[_Change, int]]
) -> tuple[list[PendingCall], list[PendingCall], bool]:
    """Write changes; returns the calls to decide anew, those whose effect is locked, and whether any was written."""
    anew: list[PendingCall] = []
    locked: list[PendingCall] = []
    is_written = False
    if changes:
        rows = [
            change_row(number, *names[number - 1], change.known_count, change.after)
            for number, (change, _) in changes.items()
        ]
        events = [
            event_row(number, sequence, event, dump_object(event.detail))
            for number, (change, _) in changes.items()
            for sequence, event in enumerate(change.events, change.known_count + 1)
        ]
        for number, is_changed in await session.fetch(sql.change, *to_arrays(rows), *to_arrays(events)):
            change, now = changes.pop(number)
            if is_changed:
                _settle_all(change, now)
                is_written = True
            else:
                anew += change.calls
        for change, _ in changes.values():
            locked += change.calls
    return anew, locked, is_written


def _refuse_or_keep(calls: list[PendingCall], now: int) -> list[PendingCall]:
    """Of calls on an effect that is not there, those that would make it."""
    kept: list[PendingCall] = []
    for pending in calls:
        decision = pending.decide(None, now)
        if decision.events:
            pending.new_id = pending.ids.new()  # in case that it was the id that was there already
            kept.append(pending)
        else:
            pending.settle_as(decision, now)
    return kept


def _settle_all(change: _Change, now: int) -> None:
    for pending, decision in change.decided:
        pending.settle_as(decision, now)
