"""What a ledger is told to do with an effect, and what it decides: the words of the transition table."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from verity._ledger.effect import Effect, Event, Labels, Payload
from verity._limits import DEFAULT_LEASE_DURATION_MS

REPORTS_AMONG = 64


class Lease(NamedTuple):
    """Ask for the effect."""

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
    """Extend the lease; without an extension, by its own duration."""

    fence: int
    lease_token: str
    extension_ms: int | None = None


class ReportObserve(NamedTuple):
    """Tell the audit trail what an observation found."""

    fence: int
    lease_token: str
    hit: bool
    duration_ms: int | None = None


class Reset(NamedTuple):
    """FAILED or EXPIRED -> IDLE, by an admin; with `force` from under a live lease, too."""

    actor: str | None = None
    reason: str | None = None
    mode: str = "verify"
    """`verify`: the next holder observes first (priorState `expired`). `retry`: it need not (priorState `reset`)."""
    force: bool = False


class Resolve(NamedTuple):
    """EXPIRED or FAILED -> COMMITTED, by an admin who found out what happened."""

    result: Payload
    actor: str | None = None
    reason: str | None = None


Command = Lease | Commit | Fail | Renew | ReportObserve | Reset | Resolve


class Context(NamedTuple):
    """What a decision needs besides state and command: where, when, and fresh values."""

    namespace: str
    key: str
    now: int
    new_id: Callable[[], int]
    new_token: Callable[[], str]
    count_reports: Callable[[], int] = lambda: 0
    """How many of the effect's latest REPORTS_AMONG events are reports of its current grant."""


class Reply(NamedTuple):
    """A word for what happened; `refused` is an error code of the API instead."""

    word: str
    refused: bool = False


class Decision(NamedTuple):
    """The effect as it is now, what is new in its trail, and the reply. No events: nothing changed."""

    effect: Effect | None
    events: tuple[Event, ...]
    reply: Reply
