"""The reads: lists, single effects, audit trails and counts, always inside the caller's scope.

Each is written once for all stores: a generator that yields queries and is sent their rows, so that a store whose
driver blocks and one whose driver awaits run the same code. Where two databases differ, a `Dialect` says how.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from verity._ledger.calls import Answer, Environment, Request
from verity._ledger.effect import Effect, Event, EventType, parse_effect_id
from verity._ledger.json_text import dump_fields
from verity._ledger.wire import Refused, effect_fields, event_fields, format_time, read_namespace
from verity._store.names import COLUMNS, hash_key


class Query(NamedTuple):
    """One SELECT; each value stands for a `?`."""

    sql: str
    values: Sequence[Any]


class Dialect(NamedTuple):
    """How a database says what others say differently."""

    contains: str
    """A condition: the column {0} contains the text ?."""
    namespace: str
    """What lists by namespace are indexed by."""
    namespace_value: str
    """A format for the values of that."""
    event_owner: dict[str, str]
    """The columns of `events` that name an event's effect, and those of `effects` that they hold."""


Rows = list[Any]
Reading = Generator[Query, Rows, Answer]
Read = Callable[[Request, int, Dialect], Reading]

DEFAULT_LIMIT = 50
MAX_LIMIT = 500

_EQUAL_FILTERS = {
    "workflowName": "workflow_name",
    "caseId": "case_id",
    "runId": "run_id",
    "agentId": "agent_id",
}


class Where:
    """The conditions of a list; starts with the scope, so that no query can leave it."""

    def __init__(self, request: Request, dialect: Dialect) -> None:
        scope = request.scope
        self.conditions = ["environment = ?"]
        self.values: list[Any] = [scope.environment]
        namespace = read_namespace(request)
        namespaces = scope.namespaces if namespace is None else {namespace}
        if namespaces is not None:
            write = dialect.namespace_value.format
            values = [write(environment=scope.environment, namespace=each) for each in sorted(namespaces)]
            self.add(f"{dialect.namespace} IN ({', '.join('?' * len(values))})", *values)

    def add(self, condition: str, *values: Any) -> None:
        self.conditions.append(condition)
        self.values += values

    def __str__(self) -> str:
        return " AND ".join(self.conditions)


def list_effects(request: Request, now: int, dialect: Dialect) -> Reading:
    """Newest first; the cursor is the last id that was seen."""
    query, where = request.query, Where(request, dialect)
    for name, column in _EQUAL_FILTERS.items():
        if name in query:
            where.add(f"{column} = ?", query[name])
    if "status" in query:
        _add_status(where, query["status"], now)
    if "search" in query:
        where.add(dialect.contains.format("effect_key"), query["search"])
    if "since" in query:
        where.add("created_at >= ?", _read_time("since", query["since"]))
    if "until" in query:
        where.add("created_at < ?", _read_time("until", query["until"]))
    if "cursor" in query:
        where.add("id < ?", _read_number("cursor", query["cursor"]))
    limit = _limit(query)
    rows = yield Query(
        f"SELECT {COLUMNS} FROM effects WHERE {where} ORDER BY id DESC LIMIT ?", (*where.values, limit + 1)
    )
    effects = [Effect._make(row) for row in rows[:limit]]
    return _page([effect_fields(effect, now) for effect in effects], effects[-1].id if len(rows) > limit else None)


def get_effect(request: Request, now: int, _dialect: Dialect) -> Reading:
    """One effect by its key."""
    effect = yield from _find(request)
    return Answer(200, dump_fields(effect_fields(effect, now)))


def get_effect_by_id(request: Request, now: int, dialect: Dialect) -> Reading:
    """One effect by its id."""
    where = Where(request, dialect)
    where.add("id = ?", parse_effect_id(request.query.get("effectId", "")))
    rows = yield Query(f"SELECT {COLUMNS} FROM effects WHERE {where}", where.values)
    if not rows:
        raise Refused(404, "effect_not_found", "There is no effect with this id.")
    return Answer(200, dump_fields(effect_fields(Effect._make(rows[0]), now)))


def list_effect_events(request: Request, _now: int, dialect: Dialect) -> Reading:
    """The audit trail, oldest first."""
    effect = yield from _find(request)
    limit = _limit(request.query)
    after = _read_number("cursor", request.query.get("cursor", "0"))
    rows = yield select_events(dialect, request.scope.environment, effect, after, limit + 1)
    events = read_events(rows)
    items = [event_fields(sequence, event) for sequence, event in events[:limit]]
    return _page(items, events[limit - 1][0] if len(events) > limit else None)


def select_events(dialect: Dialect, environment: str, effect: Effect, after: int, limit: int) -> Query:
    """The events of an effect with a sequence above `after`, oldest first; `read_events` reads the rows."""
    values = {"environment": environment, "namespace": effect.namespace, "id": effect.id}
    return Query(
        "SELECT sequence, type, at, fence, agent_id, run_id, detail FROM events"
        f" WHERE {' AND '.join(f'{column} = ?' for column in dialect.event_owner)}"
        " AND sequence > ? ORDER BY sequence LIMIT ?",
        (*(values[held] for held in dialect.event_owner.values()), after, limit),
    )


def read_events(rows: Rows) -> list[tuple[int, Event]]:
    """Each event with its sequence."""
    return [
        (sequence, Event(EventType(kind), at, fence, agent_id, run_id, json.loads(detail)))
        for sequence, kind, at, fence, agent_id, run_id, detail in rows
    ]


def list_namespaces(request: Request, _now: int, dialect: Dialect) -> Reading:
    """Each namespace with its number of effects."""
    return (yield from _groups(request, dialect, ["namespace"], []))


def list_workflows(request: Request, _now: int, dialect: Dialect) -> Reading:
    """Each workflow with its numbers."""
    return (yield from _groups(request, dialect, ["workflow_name"], []))


def list_cases(request: Request, _now: int, dialect: Dialect) -> Reading:
    """Each case of a workflow with its numbers."""
    return (yield from _groups(request, dialect, ["workflow_name", "case_id"], ["workflowName"]))


def list_runs(request: Request, _now: int, dialect: Dialect) -> Reading:
    """Each run of a case with its numbers."""
    return (yield from _groups(request, dialect, ["workflow_name", "case_id", "run_id"], ["workflowName", "caseId"]))


_NAMES = {"namespace": "namespace", "workflow_name": "workflowName", "case_id": "caseId", "run_id": "runId"}


def _groups(request: Request, dialect: Dialect, columns: list[str], filters: list[str]) -> Reading:
    where = Where(request, dialect)
    for column in columns:
        where.add(f"{column} IS NOT NULL")
    for name in filters:
        if name in request.query:
            where.add(f"{_EQUAL_FILTERS[name]} = ?", request.query[name])
    listed = ", ".join(columns)
    limit = _limit(request.query)
    offset = _read_number("cursor", request.query.get("cursor", "0"))
    rows = yield Query(
        f"SELECT {listed}, count(*), min(created_at), max(updated_at) FROM effects WHERE {where}"
        f" GROUP BY {listed} ORDER BY {listed} LIMIT ? OFFSET ?",
        (*where.values, limit + 1, offset),
    )
    items = [
        {
            **{_NAMES[column]: value for column, value in zip(columns, row, strict=False)},
            "effects": row[-3],
            "createdAt": format_time(row[-2]),
            "updatedAt": format_time(row[-1]),
        }
        for row in rows[:limit]
    ]
    return _page(items, offset + limit if len(rows) > limit else None)


def get_stats(request: Request, now: int, dialect: Dialect) -> Reading:
    """Counts by state, what happened since a moment (the last hour by default), and the oldest expired lease."""
    since = _read_time("since", request.query["since"]) if "since" in request.query else now - 3_600_000
    where = Where(request, dialect)
    by_status: dict[str, int] = dict(
        (
            yield Query(
                "SELECT CASE WHEN status = 'RUNNING' AND lease_expires_at <= ? THEN 'EXPIRED' ELSE status END AS state,"
                f" count(*) FROM effects WHERE {where} GROUP BY state",
                (now, *where.values),
            )
        )
    )
    recent: dict[str, int] = dict(
        (
            yield Query(
                f"SELECT type, count(*) FROM events WHERE at >= ? AND ({', '.join(dialect.event_owner)})"
                f" IN (SELECT {', '.join(dialect.event_owner.values())} FROM effects WHERE {where})"
                " GROUP BY type",
                (since, *where.values),
            )
        )
    )
    oldest = yield Query(
        f"SELECT min(lease_expires_at) FROM effects WHERE {where} AND status = 'RUNNING' AND lease_expires_at <= ?",
        (*where.values, now),
    )
    fields: dict[str, Any] = {
        "byStatus": {state: by_status.get(state, 0) for state in ("IDLE", "RUNNING", "EXPIRED", "COMMITTED", "FAILED")},
        "since": format_time(since),
        "events": {kind.value: recent.get(kind.value, 0) for kind in EventType},
    }
    if oldest[0][0] is not None:
        fields["oldestExpiredAt"] = format_time(oldest[0][0])
    return Answer(200, dump_fields(fields))


def _find(request: Request) -> Generator[Query, Rows, Effect]:
    key = request.query.get("effectKey", "")
    environment, namespace = request.scope.environment, read_namespace(request) or ""
    rows = yield Query(
        f"SELECT {COLUMNS} FROM effects WHERE environment = ? AND namespace = ? AND key_hash = ?",
        (environment, namespace, hash_key(environment, namespace, key)),
    )
    if not rows:
        raise Refused(404, "effect_not_found", f"There is no effect {key!r} in this namespace.")
    return Effect._make(rows[0])


def _add_status(where: Where, status: str, now: int) -> None:
    if status == "EXPIRED":
        where.add("status = 'RUNNING' AND lease_expires_at <= ?", now)
    elif status == "RUNNING":
        where.add("status = 'RUNNING' AND lease_expires_at > ?", now)
    else:
        where.add("status = ?", status)


def first_expiry(environment: Environment) -> Query:
    """When the lease runs out, or ran out, that does so before all others in an environment; NULL where none runs."""
    # The last condition is implied, but it is what lets the partial index be used: one seek.
    return Query(
        "SELECT min(lease_expires_at) FROM effects "
        "WHERE environment = ? AND status = 'RUNNING' AND status <> 'COMMITTED'",
        (environment,),
    )


def _page(items: list[Any], next_cursor: int | None) -> Answer:
    fields: dict[str, Any] = {"items": items}
    if next_cursor is not None:
        fields["nextCursor"] = str(next_cursor)
    return Answer(200, dump_fields(fields))


def _limit(query: Any) -> int:
    return max(1, min(_read_number("limit", query.get("limit", str(DEFAULT_LIMIT))), MAX_LIMIT))


def _read_number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise _wrong_parameter(name, "a whole number" if name == "limit" else "the nextCursor of an earlier page")
    return min(int(text), 2**63 - 1)


def _read_time(name: str, text: str) -> int:
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
    except ValueError:
        raise _wrong_parameter(name, "a time such as 2026-01-31T12:00:00Z") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=timezone.utc)
    return round(at.timestamp() * 1000)


def _wrong_parameter(name: str, takes: str) -> Refused:
    message = f"{name} takes {takes}"
    return Refused(400, "invalid_request", message, details=[{"path": f"query/{name}", "message": message}])


READS: dict[str, Read] = {
    "list_effects": list_effects,
    "get_effect": get_effect,
    "get_effect_by_id": get_effect_by_id,
    "list_effect_events": list_effect_events,
    "list_namespaces": list_namespaces,
    "list_workflows": list_workflows,
    "list_cases": list_cases,
    "list_runs": list_runs,
    "get_stats": get_stats,
}
