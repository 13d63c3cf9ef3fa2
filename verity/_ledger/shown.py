"""Effects, audit events and times as answers show them."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

from verity._ledger.effect import Effect, Event, Labels, Status
from verity._ledger.raw_json import Raw

LABELS = tuple(re.sub(r"_(\w)", lambda found: found[1].upper(), name) for name in Labels._fields)
"""The names of the labels in JSON."""


def effect_fields(effect: Effect, now: int) -> dict[str, Any]:
    """An effect as the reads show it. They never show the lease token."""
    fields: dict[str, Any] = {
        "effectId": effect.effect_id,
        "namespace": effect.namespace,
        "effectKey": effect.key,
        "status": effect.shown_status(now),
        "fenceToken": effect.fence,
        "priorState": effect.prior_state,
        "attempt": effect.attempt,
        "leaseDurationMs": effect.lease_duration_ms,
        "leaseExpiresAt": format_time(effect.lease_expires_at) if effect.status == Status.RUNNING else None,
        "settlesAt": format_time(effect.settles_at) if effect.settles_at and effect.status in _SETTLING else None,
        **dict(zip(LABELS, effect.labels, strict=True)),
        "source": effect.source,
        "createdAt": format_time(effect.created_at),
        "updatedAt": format_time(effect.updated_at),
        "purgedAt": None if effect.purged_at is None else format_time(effect.purged_at),
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    payloads = {"inputJson": effect.input_text, "result": effect.result_text, "error": effect.error_text}
    return fields | {name: Raw(text) for name, text in payloads.items() if text is not None}


_SETTLING = (Status.RUNNING, Status.IDLE)


def event_fields(sequence: int, event: Event) -> dict[str, Any]:
    """An audit event as the reads show it."""
    detail = dict(event.detail)
    for name in ("leaseExpiresAt", "settlesAt"):
        if name in detail:
            detail[name] = format_time(detail[name])
    fields: dict[str, Any] = {
        "sequence": sequence,
        "type": event.type.value,
        "at": format_time(event.at),
        "fenceToken": event.fence,
        "agentId": event.agent_id,
        "runId": event.run_id,
        "detail": {name: value for name, value in detail.items() if value is not None},
    }
    return {name: value for name, value in fields.items() if value is not None}


def format_time(ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    seconds, rest = divmod(ms, 1000)
    return f"{_format_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=1024)
def _format_second(seconds: int) -> str:
    """Cached: most leases that are granted in the same second also expire in the same second."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()[:19]  # %Y would not pad a year before 1000
