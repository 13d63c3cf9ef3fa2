"""The reads: lists, single effects, audit trails and counts, always inside the caller's scope."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import apsw

from verity._ledger.calls import Answer, Request
from verity._ledger.effect import Effect, Event, EventType, parse_effect_id
from verity._ledger.json_text import dump_fields
from verity._ledger.wire import Refused, effect_fields, event_fields, format_time
from verity._store.names import COLUMNS, hash_key

Read = Callable[[apsw.Connection, Request, int], Answer]

DEFAULT_LIMIT = 50
MAX_LIMIT = 500

_EQUAL_FILTERS = {
    "workflowName": "workflow_name",
    "caseId": "case_id",
    "runId": "run_id",
    "agentId": "agent_id",
}


class Where:
    """The conditions of a query; starts with the scope, so that no query can leave it."""

    def __init__(self, request: Request) -> None:
        scope = request.scope
        self.conditions = ["environment = ?"]
        self.values: list[Any] = [scope.environment]
        if scope.namespaces is not None:
            self.add_one_of("namespace", sorted(scope.namespaces))
        namespace = request.namespace or request.query.get("namespace")
        if namespace is not None:
            if scope.namespaces is not None and namespace not in scope.namespaces:
                raise Refused(403, "forbidden", "This API key is not bound to this namespace.")
            self.add("namespace = ?", namespace)

    def add(self, condition: str, *values: Any) -> None:
        self.conditions.append(condition)
        self.values += values

    def add_one_of(self, column: str, values: list[str]) -> None:
        self.add(f"{column} IN ({', '.join('?' * len(values))})", *values)

    def __str__(self) -> str:
        return " AND ".join(self.conditions)


def list_effects(connection: apsw.Connection, request: Request, now: int) -> Answer:
    """Newest first; the cursor is the last id that was seen."""
    query, where = request.query, Where(request)
    for name, column in _EQUAL_FILTERS.items():
        if name in query:
            where.add(f"{column} = ?", query[name])
    if "status" in query:
        _add_status(where, query["status"], now)
    if "search" in query:
        where.add("instr(effect_key, ?) > 0", query["search"])
    if "since" in query:
        where.add("created_at >= ?", _read_time("since", query["since"]))
    if "until" in query:
        where.add("created_at < ?", _read_time("until", query["until"]))
    if "cursor" in query:
        where.add("id < ?", _read_number("cursor", query["cursor"]))
    limit = _limit(query)
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM effects WHERE {where} ORDER BY id DESC LIMIT ?", (*where.values, limit + 1)
    ).fetchall()
    effects = [Effect._make(row) for row in rows[:limit]]
    return _page([effect_fields(effect, now) for effect in effects], effects[-1].id if len(rows) > limit else None)


def get_effect(connection: apsw.Connection, request: Request, now: int) -> Answer:
    """One effect by its key."""
    return Answer(200, dump_fields(effect_fields(_find(connection, request), now)))


def get_effect_by_id(connection: apsw.Connection, request: Request, now: int) -> Answer:
    """One effect by its id."""
    where = Where(request)
    where.add("id = ?", parse_effect_id(request.query.get("effectId", "")))
    row = connection.execute(f"SELECT {COLUMNS} FROM effects WHERE {where}", where.values).fetchone()
    if row is None:
        raise Refused(404, "effect_not_found", "There is no effect with this id.")
    return Answer(200, dump_fields(effect_fields(Effect._make(row), now)))


def list_effect_events(connection: apsw.Connection, request: Request, _now: int) -> Answer:
    """The audit trail, oldest first."""
    effect = _find(connection, request)
    limit = _limit(request.query)
    after = _read_number("cursor", request.query.get("cursor", "0"))
    rows = read_events(connection, effect.id, after, limit + 1)
    items = [event_fields(sequence, event) for sequence, event in rows[:limit]]
    return _page(items, rows[limit - 1][0] if len(rows) > limit else None)


def read_events(connection: apsw.Connection, effect: int, after: int, limit: int) -> list[tuple[int, Event]]:
    """Events of an effect with a sequence above `after`, oldest first."""
    rows = connection.execute(
        "SELECT sequence, type, at, fence, agent_id, run_id, detail FROM events"
        " WHERE effect = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        (effect, after, limit),
    )
    return [
        (sequence, Event(EventType(kind), at, fence, agent_id, run_id, json.loads(detail)))
        for sequence, kind, at, fence, agent_id, run_id, detail in rows
    ]


def list_namespaces(connection: apsw.Connection, request: Request, _now: int) -> Answer:
    """Each namespace with its number of effects."""
    return _groups(connection, request, ["namespace"], [])


def list_workflows(connection: apsw.Connection, request: Request, _now: int) -> Answer:
    """Each workflow with its numbers."""
    return _groups(connection, request, ["workflow_name"], [])


def list_cases(connection: apsw.Connection, request: Request, _now: int) -> Answer:
    """Each case of a workflow with its numbers."""
    return _groups(connection, request, ["workflow_name", "case_id"], ["workflowName"])


def list_runs(connection: apsw.Connection, request: Request, _now: int) -> Answer:
    """Each run of a case with its numbers."""
    return _groups(connection, request, ["workflow_name", "case_id", "run_id"], ["workflowName", "caseId"])


_NAMES = {"namespace": "namespace", "workflow_name": "workflowName", "case_id": "caseId", "run_id": "runId"}


def _groups(connection: apsw.Connection, request: Request, columns: list[str], filters: list[str]) -> Answer:
    where = Where(request)
    for column in columns:
        where.add(f"{column} IS NOT NULL")
    for name in filters:
        if name in request.query:
            where.add(f"{_EQUAL_FILTERS[name]} = ?", request.query[name])
    listed = ", ".join(columns)
    limit = _limit(request.query)
    offset = _read_number("cursor", request.query.get("cursor", "0"))
    rows: list[Any] = connection.execute(
        f"SELECT {listed}, count(*), min(created_at), max(updated_at) FROM effects WHERE {where}"
        f" GROUP BY {listed} ORDER BY {listed} LIMIT ? OFFSET ?",
        (*where.values, limit + 1, offset),
    ).fetchall()
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


def get_stats(connection: apsw.Connection, request: Request, now: int) -> Answer:
    """Counts by state, what happened since a moment (the last hour by default), and the oldest expired lease."""
    since = _read_time("since", request.query["since"]) if "since" in request.query else now - 3_600_000
    where = Where(request)
    by_status: dict[str, int] = _counts(
        connection.execute(
            f"SELECT CASE WHEN status = 'RUNNING' AND lease_expires_at <= ? THEN 'EXPIRED' ELSE status END AS state,"
            f" count(*) FROM effects WHERE {where} GROUP BY state",
            (now, *where.values),
        ).fetchall()
    )
    recent: dict[str, int] = _counts(
        connection.execute(
            f"SELECT type, count(*) FROM events WHERE at >= ? AND effect IN (SELECT id FROM effects WHERE {where})"
            " GROUP BY type",
            (since, *where.values),
        ).fetchall()
    )
    oldest = connection.execute(
        f"SELECT min(lease_expires_at) FROM effects WHERE {where} AND status = 'RUNNING' AND lease_expires_at <= ?",
        (*where.values, now),
    ).get
    fields: dict[str, Any] = {
        "byStatus": {state: by_status.get(state, 0) for state in ("IDLE", "RUNNING", "EXPIRED", "COMMITTED", "FAILED")},
        "since": format_time(since),
        "events": {kind.value: recent.get(kind.value, 0) for kind in EventType},
    }
    if oldest is not None:
        fields["oldestExpiredAt"] = format_time(oldest)
    return Answer(200, dump_fields(fields))


def _counts(rows: list[Any]) -> dict[str, int]:
    return dict(rows)


def _find(connection: apsw.Connection, request: Request) -> Effect:
    key = request.query.get("effectKey", "")
    where = Where(request)
    where.add("key_hash = ?", hash_key(request.scope.environment, request.namespace or "", key))
    row = connection.execute(f"SELECT {COLUMNS} FROM effects WHERE {where}", where.values).fetchone()
    if row is None:
        raise Refused(404, "effect_not_found", f"There is no effect {key!r} in this namespace.")
    return Effect._make(row)


def _add_status(where: Where, status: str, now: int) -> None:
    if status == "EXPIRED":
        where.add("status = 'RUNNING' AND lease_expires_at <= ?", now)
    elif status == "RUNNING":
        where.add("status = 'RUNNING' AND lease_expires_at > ?", now)
    else:
        where.add("status = ?", status)


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
