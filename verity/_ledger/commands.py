"""Commands and decisions: the inputs and outputs of the transition table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from verity._ledger.effect import Effect, Event, Labels, Payload
from verity._ledger.outages import Outage, extended, settled_at
from verity._limits import DEFAULT_LEASE_DURATION_MS, DEFAULT_SETTLE_MS

REPORTS_AMONG = 64
"""How many of an effect's latest events are searched for reports; see `Context.count_reports`."""


class Lease(NamedTuple):
    """Ask for the lease on the effect."""

    lease_duration_ms: int = DEFAULT_LEASE_DURATION_MS
    idempotency_key: str | None = None
    labels: Labels = Labels()
    input: Payload | None = None


class Commit(NamedTuple):
    """Record the result."""

    fence: int
    lease_token: str
    result: Payload
    source: str = "acted"
    run_id: str | None = None


class Fail(NamedTuple):
    """Record the failure."""

    fence: int
    lease_token: str
    error: Payload
    source: str = "acted"
    run_id: str | None = None


class Renew(NamedTuple):
    """Extend the lease to `extension_ms` from now; None: to the lease's own duration from now."""

    fence: int
    lease_token: str
    extension_ms: int | None = None


class Release(NamedTuple):
    """Give the lease back without an outcome."""

    fence: int
    lease_token: str
    acted: str = "unknown"
    """`no`: the holder has not acted. `unknown`: it may have acted."""
    settle_ms: int = DEFAULT_SETTLE_MS
    """With `unknown`: for how long nobody is granted, because what the holder sent may still take effect."""


class ReportObserve(NamedTuple):
    """Record in the audit trail whether `observe` found a result."""

    fence: int
    lease_token: str
    hit: bool
    duration_ms: int | None = None


class Reset(NamedTuple):
    """FAILED, EXPIRED or RELEASED -> IDLE, by an admin. With `force` also RUNNING -> IDLE, which ends a live lease."""

    actor: str | None = None
    reason: str | None = None
    mode: str = "verify"
    """`verify`: the next holder is in doubt (priorState `expired`). `retry`: the next holder acts without observing
    (priorState `reset`)."""
    force: bool = False
    expected_fence: int | None = None
    """The fence of the effect that the admin looked at. With another fence nothing changes. None: any fence."""


class Resolve(NamedTuple):
    """EXPIRED, RELEASED or FAILED -> COMMITTED, by an admin who knows the result."""

    result: Payload
    actor: str | None = None
    reason: str | None = None
    expected_fence: int | None = None
    """As in `Reset`."""


Command = Lease | Commit | Fail | Renew | Release | ReportObserve | Reset | Resolve


class Context(NamedTuple):
    """What a decision needs besides the effect and the command: the effect's name, the time and new values."""

    namespace: str
    key: str
    now: int
    new_id: Callable[[], int]
    new_token: Callable[[], str]
    count_reports: Callable[[], int] = lambda: 0
    """Counts the reports of the current grant among the effect's latest REPORTS_AMONG events."""
    outages: Callable[[], Sequence[Outage]] = tuple
    """Finds the outages that may concern the effect's lease. Called only if the lease has expired or has settled."""


class Reply(NamedTuple):
    """What happened, as a word. If `refused`, the word is an error code of the API."""

    word: str
    refused: bool = False
    in_grace: bool = False
    """The lease has expired, and its holder still has time to renew it because of an outage."""


class Decision(NamedTuple):
    """The effect after the command, its new events, and the reply. Without events, nothing changed."""

    effect: Effect | None
    events: tuple[Event, ...]
    reply: Reply


def refuse(effect: Effect | None, code: str) -> Decision:
    """The decision that changes nothing, and is answered with this error code."""
    return Decision(effect, (), Reply(code, refused=True))


def refuse_in_grace(effect: Effect, context: Context) -> Decision | None:
    """The refusal to end an expired lease whose holder still has time to renew it; None: its time is over.

    The effect of the decision has the end of this time as its expiry, for the answer.
    """
    until = extended(effect.lease_expires_at, effect.updated_at, context.outages())
    if until <= context.now:
        return None
    return Decision(effect._replace(lease_expires_at=until), (), Reply("lease_conflict", refused=True, in_grace=True))


def refuse_unsettled(effect: Effect, context: Context) -> Decision | None:
    """The refusal to grant an effect before what a holder sent has settled; None: it has.

    The effect of the decision has the end of this time, for the answer.
    """
    if effect.settles_at is None:
        return None
    until = effect.settles_at
    if effect.updated_at < until <= context.now:  # the clock may have jumped there
        until = settled_at(until, effect.updated_at, context.outages())
    if until <= context.now:
        return None
    return Decision(effect._replace(settles_at=until), (), Reply("lease_conflict", refused=True))
