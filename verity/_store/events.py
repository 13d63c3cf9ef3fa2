"""Rows of audit events. Only this module knows their columns, and that the detail is stored as JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from verity._ledger.effect import Event, EventType
from verity._ledger.raw_json import dump_object

EVENT_COLUMNS = ("sequence", "type", "at", "fence", "agent_id", "run_id", "detail")
"""The columns of an event, without those of its effect's name."""

dump_detail = dump_object
"""Writes an event's detail as it is stored."""


def to_event_row(sequence: int, event: Event) -> tuple[object, ...]:
    """An event's values, in the order of EVENT_COLUMNS."""
    detail = dump_detail(event.detail)
    return (sequence, event.type.value, event.at, event.fence, event.agent_id, event.run_id, detail)


def read_events(rows: Iterable[Sequence[Any]]) -> list[tuple[int, Event]]:
    """Events with their sequence numbers, from rows in the order of EVENT_COLUMNS."""
    return [
        (sequence, Event(EventType(kind), at, fence, agent_id, run_id, json.loads(detail)))
        for sequence, kind, at, fence, agent_id, run_id, detail in rows
    ]
