"""The effect, its audit events, and `fold`, which derives the effect's state from its events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple


class Status(str, Enum):
    """The status that an effect's row has."""

    IDLE = "IDLE"
    RUNNING = "RUNNING"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"


class State(Enum):
    """The state that the table decides by. EXPIRED and RELEASED are never written: their status is RUNNING.

    EXPIRED: the lease has expired. RELEASED: the holder gave the lease back, and it may have acted.
    """

    NONE = "NONE"
    IDLE = "IDLE"
    RUNNING = "RUNNING"
    EXPIRED = "EXPIRED"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"
    RELEASED = "RELEASED"


class EventType(str, Enum):
    """The audit events."""

    LEASE_GRANTED = "LEASE_GRANTED"
    LEASE_RENEWED = "LEASE_RENEWED"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    LEASE_RELEASED = "LEASE_RELEASED"
    OBSERVE_HIT = "OBSERVE_HIT"
    OBSERVE_MISS = "OBSERVE_MISS"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"
    RESET = "RESET"
    RESOLVED = "RESOLVED"


class Payload(NamedTuple):
    """A JSON value: the text exactly as it was sent, and the text's SHA-256."""

    text: str
    sha256: str

    def __repr__(self) -> str:
        return f"<Payload of {len(self.text)} characters>"


class Labels(NamedTuple):
    """The labels of an effect, from its lease request. They are for people and for searches; no decision uses them.

    A new label needs a field here, a property of the same name in openapi.yaml (in camelCase) and a column in both
    stores. All code in between uses these fields.
    """

    effect_name: str | None = None
    agent_id: str | None = None
    workflow_name: str | None = None
    case_id: str | None = None
    run_id: str | None = None
    trace_parent: str | None = None
    """The W3C trace context, from a header of the lease request."""


class Effect(NamedTuple):
    """An effect. The fields are the columns of its row, in their order; see `ROW`. Times are ms since 1970."""

    id: int
    namespace: str
    key: str
    status: str
    fence: int
    lease_token: str | None
    lease_expires_at: int
    lease_duration_ms: int
    idempotency_key: str | None
    prior_state: str
    labels: Labels
    input_text: str | None
    input_sha256: str | None
    result_text: str | None
    result_sha256: str | None
    error_text: str | None
    error_sha256: str | None
    source: str | None
    event_count: int
    created_at: int
    updated_at: int
    purged_at: int | None
    """When the payloads and events were purged. The rest of the row keeps the key from being acted on again."""
    settles_at: int | None
    """Set by a release of a lease whose holder, or the one before, may have acted: nobody is granted before this time.
    The next grant clears it."""
    doubt_since: int | None
    """Set by a grant with prior state `expired`: the expiry of the lease before. A release without an act restores it,
    and the effect is EXPIRED again."""
    retries: int
    """How many resets with mode `retry` there were. Each one changes the attempt key."""
    attempt: int
    """How many grants there were."""

    def __repr__(self) -> str:
        return f"<Effect {self.effect_id} {self.status} fence={self.fence}>"

    @property
    def effect_id(self) -> str:
        """The public id."""
        return format_effect_id(self.id)

    def state(self, now: int) -> State:
        """The state at `now`, in ms since 1970."""
        if self.status == Status.RUNNING:
            if self.settles_at is not None:
                return State.RELEASED
            if now >= self.lease_expires_at:
                return State.EXPIRED
        return State[self.status]

    def shown_status(self, now: int) -> str:
        """The status at `now` that callers see. A released effect is shown as EXPIRED."""
        is_expired = self.status == Status.RUNNING and now >= self.lease_expires_at
        return State.EXPIRED.value if is_expired else self.status

    def settles_after(self, now: int) -> bool:
        """Whether the effect was released, and nobody is granted yet."""
        return self.settles_at is not None and self.settles_at > now


_LABELS_AT = Effect._fields.index("labels")
ROW: tuple[str, ...] = (*Effect._fields[:_LABELS_AT], *Labels._fields, *Effect._fields[_LABELS_AT + 1 :])
"""The columns of an effect's row: the fields of `Effect`, with a column for each label."""


def to_row(effect: Effect) -> tuple[Any, ...]:
    """The values of an effect's row, in the order of `ROW`."""
    return (*effect[:_LABELS_AT], *effect.labels, *effect[_LABELS_AT + 1 :])


def from_row(row: Sequence[Any]) -> Effect:
    """The effect of a row, whose values are in the order of `ROW`."""
    end = _LABELS_AT + len(Labels._fields)
    return Effect._make((*row[:_LABELS_AT], Labels._make(row[_LABELS_AT:end]), *row[end:]))


class Event(NamedTuple):
    """An event of an effect's audit trail. The time is in ms since 1970."""

    type: EventType
    at: int
    fence: int
    agent_id: str | None = None
    run_id: str | None = None
    detail: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it; a NamedTuple has no default factory


def format_effect_id(number: int) -> str:
    """`eff_` and 16 hexadecimal digits."""
    return f"eff_{number:016x}"


def parse_effect_id(text: str) -> int | None:
    """The number of a public id; None: the text is not a public id."""
    if len(text) != 20 or not text.startswith("eff_"):
        return None
    try:
        number = int(text[4:], 16)
    except ValueError:
        return None
    return number if format_effect_id(number) == text and number < 2**63 else None


class Folded(NamedTuple):
    """The fields of an effect's row that its events determine."""

    status: str
    fence: int
    lease_expires_at: int
    result_sha256: str | None
    error_sha256: str | None
    source: str | None
    event_count: int
    settles_at: int | None


def fold(events: Iterable[Event]) -> Folded:
    """Replay all events of an effect. The fields always equal those of the effect's row."""
    now = Folded(Status.IDLE.value, 0, 0, None, None, None, 0, None)
    for event in events:
        detail = event.detail
        now = now._replace(event_count=now.event_count + 1)
        if event.type is EventType.LEASE_GRANTED:
            now = now._replace(
                status=Status.RUNNING.value,
                fence=event.fence,
                lease_expires_at=detail["leaseExpiresAt"],
                settles_at=None,
            )
        elif event.type is EventType.LEASE_RELEASED:
            settles_at = detail.get("settlesAt")
            now = now._replace(
                status=now.status if settles_at is not None else Status.IDLE.value,
                lease_expires_at=detail.get("leaseExpiresAt", now.lease_expires_at),
                settles_at=settles_at,
            )
        elif event.type is EventType.LEASE_RENEWED:
            now = now._replace(lease_expires_at=detail["leaseExpiresAt"])
        elif event.type in (EventType.COMMITTED, EventType.RESOLVED):
            now = now._replace(
                status=Status.COMMITTED.value,
                fence=event.fence,
                result_sha256=detail["resultSha256"],
                source=detail["source"],
            )
        elif event.type is EventType.FAILED:
            now = now._replace(status=Status.FAILED.value, error_sha256=detail["errorSha256"], source=detail["source"])
        elif event.type is EventType.RESET:
            now = now._replace(
                status=Status.IDLE.value,
                fence=event.fence,
                error_sha256=None,
                source=None,
                settles_at=None if detail.get("mode") == "retry" else now.settles_at,
            )
    return now


def agrees_with_its_events(effect: Effect, events: Iterable[Event]) -> bool:
    """Whether the effect equals what its events determine."""
    return fold(events) == tuple(getattr(effect, name) for name in Folded._fields)
