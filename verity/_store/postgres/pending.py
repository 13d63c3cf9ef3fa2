"""One effect call on its way through the store, and the possible outcomes of one attempt to carry it out.

An attempt has one of three outcomes. An `Answer`: the call is done. `Decide`: the fast path does not apply, and the
transition table has to decide. `Retry`: the attempt did not get through, for a stated reason.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from verity._clock import wall_clock_ns
from verity._ledger.calls import Answer
from verity._ledger.codec import EffectCall, answer_decision
from verity._ledger.commands import Commit, Context, Decision, Lease, Reset, Resolve
from verity._ledger.effect import Effect
from verity._ledger.outages import Outage
from verity._ledger.transitions import apply
from verity._store.names import hash_effect_name, next_id
from verity._unique import new_token

PrimaryKey = tuple[str, str, bytes]
"""Of an effect: environment, namespace and the hash of its full name."""

_MAX_BIGINT = 2**63 - 1


class Reason(enum.Enum):
    """Why an attempt did not answer a call."""

    CHANGED = enum.auto()
    """Another call changed the effect between the read and the write. Nothing was written."""
    LOCKED = enum.auto()
    """Another transaction has locked the effect's row. Nothing was written."""
    BLOCKED = enum.auto()
    """The statement waited for a lock until its lock timeout. Nothing was written."""
    COLLIDED = enum.auto()
    """The database rolled the statement back because of another transaction (a deadlock, for one)."""
    BAD_VALUE = enum.auto()
    """The database refused a value. Nothing was written."""
    REFUSED = enum.auto()
    """The database refused the statement for another reason. Nothing was written."""
    TOO_SLOW = enum.auto()
    """The statement ran into its timeout. It was probably undone, but nothing relies on that."""
    LOST = enum.auto()
    """The connection broke. Whether the statement was carried out is unknown."""
    OVERDUE = enum.auto()
    """The call had waited for locks as long as it may. It was not attempted."""


class Retry(NamedTuple):
    """The attempt did not answer the call."""

    reason: Reason
    is_alone: bool = True
    """Whether no other call was left in the batch: then the reason is about this call."""


class Decide:
    """The fast path does not apply to the call. Nothing was written for it."""


Outcome = Answer | Retry | Decide
DECIDE = Decide()
CHANGED = Retry(Reason.CHANGED)
LOCKED = Retry(Reason.LOCKED)


class Ids:
    """Makes effect ids in order of time. Ids of one node never repeat; those of two nodes differ by 21 random bits.

    If two nodes make the same id all the same, the unique index refuses the second one, and the lease is retried with a
    new id.
    """

    def __init__(self, now_ms: Callable[[], int] = lambda: wall_clock_ns() // 1_000_000) -> None:
        self._now_ms = now_ms
        self._latest = 0

    def new(self) -> int:
        """A new id."""
        self._latest = next_id(self._latest, self._now_ms())
        return self._latest


class PendingCall:
    """One effect call, from its arrival to its answer.

    Attributes:
        name: the effect's primary key.
        new_id: the id of a new effect, if this is a lease request that creates it.
        new_token: the token of the lease, if this is a lease request.
        is_unknown: whether the outcome of an earlier statement for it is unknown.
        gives_up_at: when it stops waiting for locks, by the event loop's clock; None: nothing has blocked it yet.
        lost_races: how often another call changed the effect first.
        collisions: how often the database rolled it back because of another transaction.
        times_locked: how often its row was locked.
    """

    __slots__ = (
        *("_ids", "_outcome", "call", "collisions", "gives_up_at", "is_unknown", "lost_races", "name"),
        *("new_id", "new_token", "times_locked"),
    )

    def __init__(self, call: EffectCall, ids: Ids) -> None:
        self.call = call
        self.name: PrimaryKey = (
            call.environment,
            call.namespace,
            hash_effect_name(call.environment, call.namespace, call.key),
        )
        self._ids = ids
        self._outcome: asyncio.Future[Outcome] | None = None
        self.new_id = 0
        self.new_token = ""
        if isinstance(call.command, Lease):
            self.new_id = ids.new()
            self.new_token = new_token()
        self.is_unknown = False
        self.gives_up_at: float | None = None
        self.lost_races = self.collisions = self.times_locked = 0

    @property
    def command(self) -> Any:
        """Its command. The queue that the call is in determines the type."""
        return self.call.command

    @property
    def has_fast_path(self) -> bool:
        """Whether one statement may answer it: leases, and commits whose fence fits into a column."""
        command = self.call.command
        return isinstance(command, Lease) or (isinstance(command, Commit) and command.fence <= _MAX_BIGINT)

    @property
    def asks_for_outages(self) -> bool:
        """Whether an outage may matter to it: it may take over, reset or resolve an effect whose lease has expired."""
        return isinstance(self.call.command, (Lease, Reset, Resolve))

    @property
    def is_forced_reset(self) -> bool:
        """Whether it ends any live lease. Sent twice, it could end the next holder's, unless it names a fence."""
        command = self.call.command
        return isinstance(command, Reset) and command.force and command.expected_fence is None

    @property
    def idempotency_key(self) -> str:
        """Of a lease request: its own, or one made from its token.

        With it a retry recognizes a grant of its own whose answer was lost with the connection.
        """
        given: str | None = self.command.idempotency_key
        return f"once:{self.new_token}" if given is None else given

    def decide(
        self,
        before: Effect | None,
        now: int,
        reports: int = 0,
        outages: Callable[[], Sequence[Outage]] = tuple,
    ) -> Decision:
        """The table's decision.

        Args:
            before: the effect as it was read; None: it does not exist.
            now: the database's time, in ms since 1970.
            reports: how many reports of the current grant the audit trail has.
            outages: finds the outages that may concern its lease.
        """
        call, command = self.call, self.call.command
        if isinstance(command, Lease):
            command = command._replace(idempotency_key=self.idempotency_key)
        context = Context(
            *(call.namespace, call.key, now),
            new_id=lambda: self.new_id,
            new_token=lambda: self.new_token,
            count_reports=lambda: reports,
            outages=outages,
        )
        return apply(before, command, context)

    def replace_id(self) -> None:
        """Make a new id, in case the one so far belongs to another effect."""
        self.new_id = self._ids.new()

    # -- one attempt --

    def start_attempt(self) -> asyncio.Future[Outcome]:
        """A future for the outcome of the next attempt."""
        self._outcome = asyncio.get_running_loop().create_future()
        return self._outcome

    @property
    def waits(self) -> bool:
        """Whether the attempt has no outcome yet, and the caller has not left."""
        return self._outcome is not None and not self._outcome.done()

    def conclude(self, outcome: Outcome) -> None:
        """Set the outcome of the attempt, unless it has one."""
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(outcome)

    def conclude_as(self, decision: Decision, now: int) -> None:
        """Answer with the table's decision."""
        if self.waits:
            self.conclude(answer_decision(self.call, decision, now))

    def fail(self, error: Exception) -> None:
        """Raise an error from the attempt, unless it has an outcome."""
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_exception(error)
