"""What a ledger tells those who look after it: effects, their audit trail, counts. All of these values are frozen."""

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
    """Some items of a list.

    Attributes:
        items: the items, in the list's order.
        next_cursor: where the next page begins, to be passed as `cursor=`; None on the last page.
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
    """An effect as the ledger has it. Times are RFC 3339 strings, by the ledger's clock."""

    __slots__ = ()

    @property
    def namespace(self) -> str | None:
        """Where its key is unique."""
        return self._fields.get("namespace")

    @property
    def effect_key(self) -> str | None:
        """Names it for ever, within its namespace."""
        return self._fields.get("effectKey")

    @property
    def prior_state(self) -> str | None:
        """What the current grant found, or the next one will find after a reset: `none`, `expired` or `reset`."""
        return self._fields.get("priorState")

    @property
    def lease_duration_ms(self) -> int | None:
        """How long the lease was asked to last."""
        return self._fields.get("leaseDurationMs")

    @property
    def lease_expires_at(self) -> str | None:
        """When the lease runs out, or ran out; None unless RUNNING or EXPIRED."""
        return self._fields.get("leaseExpiresAt")

    @property
    def effect_name(self) -> str | None:
        """What a person calls it."""
        return self._fields.get("effectName")

    @property
    def agent_id(self) -> str | None:
        """Who was granted it last."""
        return self._fields.get("agentId")

    @property
    def workflow_name(self) -> str | None:
        """The workflow that it is a step of."""
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
        """The W3C trace context that it was granted in."""
        return self._fields.get("traceParent")

    @property
    def source(self) -> str | None:
        """How its outcome came to be known: `acted`, `observed` or `resolved`; None while it is undecided."""
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
        """When its payloads and its audit trail were dropped; it is never acted again all the same."""
        return self._fields.get("purgedAt")

    @property
    def input_json(self) -> Any:
        """What went in."""
        return self._fields.get("inputJson")

    @property
    def result(self) -> Any:
        """The committed result; None, too, where there is none: `"result" in effect` tells."""
        return self._fields.get("result")

    @property
    def error(self) -> Any:
        """The recorded error, where it failed."""
        return self._fields.get("error")


class EffectEvent(Record):
    """One line of an effect's audit trail."""

    __slots__ = ()

    @property
    def sequence(self) -> int | None:
        """Its place in the trail: from 1, without gaps."""
        return self._fields.get("sequence")

    @property
    def type(self) -> str:
        """What happened, such as `LEASE_GRANTED` or `COMMITTED`; a newer ledger may say words unknown here."""
        return str(self._fields.get("type", ""))

    @property
    def at(self) -> str | None:
        """When: RFC 3339, by the ledger's clock."""
        return self._fields.get("at")

    @property
    def fence_token(self) -> int | None:
        """The grant that it belongs to."""
        return self._fields.get("fenceToken")

    @property
    def agent_id(self) -> str | None:
        """Who was at it."""
        return self._fields.get("agentId")

    @property
    def run_id(self) -> str | None:
        """The workflow's run that was at it."""
        return self._fields.get("runId")

    @property
    def detail(self) -> Mapping[str, Any]:
        """What is specific to the type, such as `source`, `durationMs`, `reason` or `actor`."""
        detail = self._fields.get("detail")
        return detail if isinstance(detail, Mapping) else {}


class EffectGroup(Record):
    """A namespace, workflow, case or run, and how many effects it has. What it is not within reads as None."""

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
        """How many effects it has."""
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
    """Counts for a dashboard."""

    __slots__ = ()

    @property
    def by_status(self) -> Mapping[str, int]:
        """How many effects have each status now."""
        return self._fields.get("byStatus") or {}

    @property
    def since(self) -> str | None:
        """The moment from which events are counted."""
        return self._fields.get("since")

    @property
    def events(self) -> Mapping[str, int]:
        """How many events of each type there were since then."""
        return self._fields.get("events") or {}

    @property
    def oldest_expired_at(self) -> str | None:
        """When the oldest lease that nobody took over ran out; None where there is none."""
        return self._fields.get("oldestExpiredAt")


class ResetResponse(Response):
    """`reset`, or `already_reset`. The next lease request is granted."""

    __slots__ = ()


class ResolveResponse(Response):
    """`resolved`, or `already_committed` where it already has this result."""

    __slots__ = ()
