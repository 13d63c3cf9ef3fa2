"""Values that `verity.effects` returns: effects, their audit trails, groups and counts. All values are frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from verity.values import Record, Response

T = TypeVar("T", bound=Record)

EffectStatus = Literal["IDLE", "RUNNING", "EXPIRED", "COMMITTED", "FAILED"]
ResetMode = Literal["verify", "retry"]


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes:
        items: the items, in the list's order.
        next_cursor: where the next page begins: pass it as `cursor=`. None on the last page.
        request_id: the ledger's id of the request, or None.
    """

    items: tuple[T, ...]
    next_cursor: str | None = None
    request_id: str | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class EffectRecord(Response):
    """An effect in the ledger. Times are RFC 3339 strings, by the ledger's clock."""

    __slots__ = ()

    @property
    def namespace(self) -> str | None:
        """The namespace, in which its key is unique."""
        return self._fields.get("namespace")

    @property
    def effect_key(self) -> str | None:
        """The effect key. It identifies the effect for ever, within its namespace."""
        return self._fields.get("effectKey")

    @property
    def prior_state(self) -> str | None:
        """What the current grant was told, or what the next one will be if it is IDLE: `none`, `expired` or `reset`."""
        return self._fields.get("priorState")

    @property
    def attempt(self) -> int | None:
        """How many grants it has had.

        .. versionadded:: 0.2
        """
        return self._fields.get("attempt")

    @property
    def settles_at(self) -> str | None:
        """If its lease was released: nobody is, or was, granted before this time. None: it was not released.

        .. versionadded:: 0.2
        """
        return self._fields.get("settlesAt")

    @property
    def lease_duration_ms(self) -> int | None:
        """The requested duration of the lease, in milliseconds."""
        return self._fields.get("leaseDurationMs")

    @property
    def lease_expires_at(self) -> str | None:
        """When the lease expires, expired or was released; None unless the status is RUNNING or EXPIRED."""
        return self._fields.get("leaseExpiresAt")

    @property
    def effect_name(self) -> str | None:
        """The human-readable name."""
        return self._fields.get("effectName")

    @property
    def agent_id(self) -> str | None:
        """The agent of the latest grant."""
        return self._fields.get("agentId")

    @property
    def workflow_name(self) -> str | None:
        """The workflow that it belongs to."""
        return self._fields.get("workflowName")

    @property
    def case_id(self) -> str | None:
        """The workflow's case."""
        return self._fields.get("caseId")

    @property
    def run_id(self) -> str | None:
        """The case's run."""
        return self._fields.get("runId")

    @property
    def trace_parent(self) -> str | None:
        """The W3C trace context of its grant."""
        return self._fields.get("traceParent")

    @property
    def source(self) -> str | None:
        """Where its outcome comes from: `acted`, `observed` or `resolved`; None while there is no outcome."""
        return self._fields.get("source")

    @property
    def created_at(self) -> str | None:
        """When it was first granted."""
        return self._fields.get("createdAt")

    @property
    def updated_at(self) -> str | None:
        """When it last changed."""
        return self._fields.get("updatedAt")

    @property
    def purged_at(self) -> str | None:
        """When a purge deleted its payloads and its audit trail. The effect is still never acted again."""
        return self._fields.get("purgedAt")

    @property
    def input_json(self) -> Any:
        """The input that the caller recorded."""
        return self._fields.get("inputJson")

    @property
    def result(self) -> Any:
        """The committed result. None can also mean that there is none: check `"result" in effect`."""
        return self._fields.get("result")

    @property
    def error(self) -> Any:
        """The recorded error, if it failed."""
        return self._fields.get("error")


class EffectEvent(Record):
    """One event of an effect's audit trail."""

    __slots__ = ()

    @property
    def sequence(self) -> int | None:
        """Its place in the trail: from 1, without gaps."""
        return self._fields.get("sequence")

    @property
    def type(self) -> str:
        """What happened, such as `LEASE_GRANTED` or `COMMITTED`. A newer ledger may have other types."""
        return str(self._fields.get("type", ""))

    @property
    def at(self) -> str | None:
        """When it happened: RFC 3339, by the ledger's clock."""
        return self._fields.get("at")

    @property
    def fence_token(self) -> int | None:
        """The fence token of the grant that it belongs to."""
        return self._fields.get("fenceToken")

    @property
    def agent_id(self) -> str | None:
        """The agent that caused it."""
        return self._fields.get("agentId")

    @property
    def run_id(self) -> str | None:
        """The workflow's run that caused it."""
        return self._fields.get("runId")

    @property
    def detail(self) -> Mapping[str, Any]:
        """Fields that depend on the type, such as `source`, `durationMs`, `reason` or `actor`."""
        detail = self._fields.get("detail")
        return detail if isinstance(detail, Mapping) else {}


class EffectGroup(Record):
    """A namespace, workflow, case or run with its number of effects. Fields that do not apply read as None."""

    __slots__ = ()

    @property
    def namespace(self) -> str | None:
        """The namespace."""
        return self._fields.get("namespace")

    @property
    def workflow_name(self) -> str | None:
        """The workflow."""
        return self._fields.get("workflowName")

    @property
    def case_id(self) -> str | None:
        """The workflow's case."""
        return self._fields.get("caseId")

    @property
    def run_id(self) -> str | None:
        """The case's run."""
        return self._fields.get("runId")

    @property
    def effects(self) -> int | None:
        """The number of its effects."""
        return self._fields.get("effects")

    @property
    def created_at(self) -> str | None:
        """When its first effect was first granted."""
        return self._fields.get("createdAt")

    @property
    def updated_at(self) -> str | None:
        """When one of its effects last changed."""
        return self._fields.get("updatedAt")


class LedgerStats(Record):
    """Counts of effects and events, for a dashboard."""

    __slots__ = ()

    @property
    def by_status(self) -> Mapping[str, int]:
        """The number of effects with each status now."""
        return self._fields.get("byStatus") or {}

    @property
    def since(self) -> str | None:
        """The time from which events are counted."""
        return self._fields.get("since")

    @property
    def events(self) -> Mapping[str, int]:
        """The number of events of each type since then."""
        return self._fields.get("events") or {}

    @property
    def oldest_expired_at(self) -> str | None:
        """When the oldest expired lease expired that no other holder has taken over; None if there is none."""
        return self._fields.get("oldestExpiredAt")


class ResetResponse(Response):
    """`reset`, or `already_reset`. The next lease request is granted."""

    __slots__ = ()


class ResolveResponse(Response):
    """`resolved`, or `already_committed` if the effect already has this result."""

    __slots__ = ()
