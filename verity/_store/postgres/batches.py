"""One attempt to carry out a batch of effect calls: the fast path and the slow path.

The fast path is one statement that does what the transition table would decide in the common case, and writes nothing
in any other case. `grant` inserts effects that do not exist yet. `commit` updates effects whose lease is current. Calls
that the statement did not answer take the slow path.

The slow path (`decide`) reads the effects, has the table decide, and writes with compare-and-set: a row is written only
if its version is the one that was read. A call that loses this race is retried. So every write is one statement, and no
lock is held while a node decides.

The clock is read before the row is locked. Decisions are valid nevertheless. If a lease had expired at the read, and
the row has the same version at the write, then the lease was not renewed in between. A new lease begins at the read.
Its holder counts from the moment when it sent the request, which is earlier, so it stops before the lease expires.

An answer that writes nothing may show data that a standby does not have: a commit whose wait for the standby was cut
off, or a commit that only the primary has after a crash. If standbys are configured, such an answer therefore waits
until they have everything up to the read (`Session.confirm`). A successful write of the same batch proves the same. Two
answers need no proof, because they show nothing that could be lost: `lease_conflict` and `effect_not_found`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from verity._ledger.codec import answer_grant, answer_recorded
from verity._ledger.commands import Decision, ReportObserve
from verity._ledger.effect import Effect, Event, EventType, from_row
from verity._ledger.outages import Outage
from verity._ledger.transitions import commit_detail
from verity._store.events import dump_detail, to_event_row
from verity._store.postgres.heartbeat import Heartbeat
from verity._store.postgres.pending import CHANGED, DECIDE, LOCKED, PendingCall, PrimaryKey, Retry
from verity._store.postgres.session import Session
from verity._store.postgres.statements import Statements, change_row, to_arrays

# --- the fast path ---


async def grant(session: Session, sql: Statements, batch: Sequence[PendingCall]) -> None:
    """Grant leases on effects that do not exist yet."""
    for call in await _insert_grants(session, sql, batch):
        call.conclude(DECIDE)


async def commit(session: Session, sql: Statements, batch: Sequence[PendingCall]) -> None:
    """Commit where the lease is the current one."""
    batch, others = _take_one_of_each(batch)
    rows = await session.fetch(sql.commit, *to_arrays([_commit_row(*numbered) for numbered in enumerate(batch)]))
    committed: dict[int, int] = dict(rows)
    for number, call in enumerate(batch):
        effect_id = committed.get(number)
        if effect_id is None:
            others.append(call)
        else:
            command = call.command
            call.conclude(answer_recorded(call.call, "accepted", effect_id, command.fence, command.source))
    for call in others:
        call.conclude(DECIDE)


async def _insert_grants(session: Session, sql: Statements, batch: Sequence[PendingCall]) -> list[PendingCall]:
    """Insert effects with their first lease; returns the calls whose effect exists already."""
    batch, others = _take_one_of_each(batch)
    rows = await session.fetch(sql.grant, *to_arrays([_grant_row(call) for call in batch]))
    granted: dict[int, int] = dict(rows)
    for call in batch:
        now = granted.get(call.new_id)
        if now is None:
            others.append(call)
        else:
            expires_at = now + call.command.lease_duration_ms
            call.conclude(answer_grant(call.call, call.new_id, 1, call.new_token, expires_at, "none"))
    return others


def _take_one_of_each(batch: Iterable[PendingCall]) -> tuple[list[PendingCall], list[PendingCall]]:
    """The first call on each effect, and the other calls.

    The first ones are sorted by primary key. All batches lock rows in this order, so that no two can deadlock.
    """
    first: dict[PrimaryKey, PendingCall] = {}
    others = [call for call in batch if first.setdefault(call.name, call) is not call]
    return [first[name] for name in sorted(first)], others


def _grant_row(call: PendingCall) -> tuple[object, ...]:
    """In the order of GRANT_COLUMNS."""
    command = call.command
    payload = command.input or (None, None)
    return (
        *call.name,
        call.new_id,
        call.call.key,
        call.new_token,
        command.lease_duration_ms,
        call.idempotency_key,
        *command.labels,
        *payload,
    )


def _commit_row(number: int, call: PendingCall) -> tuple[object, ...]:
    """In the order of COMMIT_COLUMNS."""
    command = call.command
    return (
        number,
        *call.name,
        command.fence,
        command.lease_token,
        *command.result,
        command.source,
        command.run_id,
        dump_detail(commit_detail(command)),
    )


# --- the slow path ---


async def decide(session: Session, sql: Statements, batch: Sequence[PendingCall], *, heartbeat: Heartbeat) -> None:
    """Read, decide by the table, and write with compare-and-set. Never waits for a row that is locked."""
    by_name: dict[PrimaryKey, list[PendingCall]] = {}
    for call in batch:
        by_name.setdefault(call.name, []).append(call)
    names = sorted(by_name)
    wanted = [
        (
            *name,
            any(isinstance(call.command, ReportObserve) for call in by_name[name]),
            any(call.asks_for_outages for call in by_name[name]),
        )
        for name in names
    ]
    absent: list[PendingCall] = []
    unproven: list[_Change] = []
    changes: dict[int, _Change] = {}
    rows = await session.fetch(sql.read, *to_arrays(wanted))
    for number, now, has_standbys, reports, alive_at, outages, *columns in rows:
        calls = by_name[names[number - 1]]
        if columns[0] is None:
            absent += _answer_all_but_grants(calls, now)
            continue
        change = _Change(from_row(columns), reports, now, partial(heartbeat.outages, now, alive_at, outages or ""))
        for call in calls:
            change.decide(call)
        if change.events:
            changes[number] = change
        elif has_standbys and change.needs_proof:
            unproven.append(change)
        else:
            change.answer()
    has_written = bool(changes) and await _write(session, sql, names, changes)
    if unproven:
        if not has_written:
            await session.confirm()
        for change in unproven:
            change.answer()
    if absent:
        for call in await _insert_grants(session, sql, absent):
            call.conclude(CHANGED)


_REPORTS = (EventType.OBSERVE_HIT, EventType.OBSERVE_MISS)


class _Change:
    """What a batch's calls do to one effect. It is one write, however many of them change the effect."""

    def __init__(self, before: Effect, reports: int, now: int, outages: Callable[[], Sequence[Outage]]) -> None:
        self.known_count = before.event_count
        self.after = before
        self.events: list[Event] = []
        self._reports = reports
        self._now = now
        self._outages = outages
        self._decided: list[tuple[PendingCall, Decision]] = []

    def decide(self, call: PendingCall) -> None:
        """Have the table decide on the effect as the calls before left it."""
        reports = self._reports + sum(event.type in _REPORTS for event in self.events)
        decision = call.decide(self.after, self._now, reports, self._outages)
        self._decided.append((call, decision))
        if decision.events and decision.effect is not None:
            self.after = decision.effect
            self.events += decision.events

    def answer(self) -> None:
        """Answer its calls."""
        for call, decision in self._decided:
            call.conclude_as(decision, self._now)

    def retry(self, why: Retry) -> None:
        """Have its calls retried."""
        for call, _ in self._decided:
            call.conclude(why)

    @property
    def needs_proof(self) -> bool:
        """Whether an answer tells something that a fail-over could lose."""
        return any(decision.reply.word != "lease_conflict" for _, decision in self._decided)


async def _write(session: Session, sql: Statements, names: Sequence[PrimaryKey], changes: dict[int, _Change]) -> bool:
    """Write changes with compare-and-set, and conclude their calls; returns whether any was written."""
    rows = [
        change_row(number, *names[number - 1], change.known_count, change.after) for number, change in changes.items()
    ]
    events = [
        (number, *to_event_row(sequence, event))
        for number, change in changes.items()
        for sequence, event in enumerate(change.events, change.known_count + 1)
    ]
    is_written = False
    for number, is_changed in await session.fetch(sql.change, *to_arrays(rows), *to_arrays(events)):
        change = changes.pop(number)
        if is_changed:
            is_written = True
            change.answer()
        else:
            change.retry(CHANGED)
    for change in changes.values():  # the statement passed them over
        change.retry(LOCKED)
    return is_written


def _answer_all_but_grants(calls: Iterable[PendingCall], now: int) -> list[PendingCall]:
    """Answer calls on an effect that does not exist; returns those that create it."""
    grants: list[PendingCall] = []
    for call in calls:
        decision = call.decide(None, now)
        if decision.events:
            call.replace_id()  # the fast path may have failed because its id exists already
            grants.append(call)
        else:
            call.conclude_as(decision, now)
    return grants
