"""The reads: lists, single effects, audit trails and counts, always inside the caller's scope.

Each read is written once for both stores. It is a generator that yields queries and is sent their rows. So a store
whose driver blocks and a store whose driver awaits run the same code. A read makes its queries with a `View` only,
which keeps them inside the scope.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

from verity._ledger.calls import Answer, Request
from verity._ledger.effect import Effect, EventType, from_row, parse_effect_id
from verity._ledger.problems import Problem
from verity._ledger.raw_json import dump_fields
from verity._ledger.shown import effect_fields, event_fields, format_time
from verity._limits import MAX_PAGE_SIZE
from verity._operations import Operation
from verity._rfc3339 import parse_time
from verity._store.events import read_events
from verity._store.names import COLUMNS
from verity._store.view import Dialect, Query, View, Where

Rows = list[Any]
Reading = Generator[Query, Rows, Answer]
Read = Callable[[View, Mapping[str, str], int], Reading]

READ_WITHIN_S = 5.0
"""The default time limit of a read. It is shorter than a client's timeout."""
COMMAND_READS_WITHIN_S = 60.0
"""The time limit of a command's read: nobody but the command's user waits for it."""
DEFAULT_LIMIT = 50
MAX_PAGE_CHARS = 512 * 1024
"""The most characters of payloads on a page of effects. A page is in the node's memory until its client has read it."""
_RETRY_AFTER_S = 1
_LAST_SEQUENCE = 2**31 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_EQUAL_FILTERS = {
    "workflowName": "workflow_name",
    "caseId": "case_id",
    "runId": "run_id",
    "agentId": "agent_id",
}


def list_effects(view: View, query: Mapping[str, str], now: int) -> Reading:
    """Effects, newest first. The cursor is the last id of the page."""
    where = Where()
    for name, column in _EQUAL_FILTERS.items():
        if name in query:
            where.add(f"{column} = ?", query[name])
    if "status" in query:
        _add_status(where, query["status"], now)
    if "search" in query:
        where.add(view.dialect.contains.format("effect_key"), query["search"])
    if "since" in query:
        where.add("created_at >= ?", _read_time("since", query["since"]))
    if "until" in query:
        where.add("created_at < ?", _read_time("until", query["until"]))
    if "cursor" in query:
        where.add("id < ?", _read_number("cursor", query["cursor"]))
    limit = _limit(query)
    rows = yield view.effects(COLUMNS, where, "ORDER BY id DESC LIMIT ?", limit + 1)
    effects = first_that_fit([from_row(row) for row in rows[:limit]])
    return _page(
        [effect_fields(effect, now) for effect in effects], effects[-1].id if len(rows) > len(effects) else None
    )


def first_that_fit(effects: list[Effect], max_chars: int = MAX_PAGE_CHARS) -> list[Effect]:
    """The first effects whose payloads have at most `max_chars` characters together; one effect at least."""
    chars = 0
    for count, effect in enumerate(effects):
        chars += sum(len(text) for text in (effect.input_text, effect.result_text, effect.error_text) if text)
        if count and chars > max_chars:
            return effects[:count]
    return effects


def get_effect(view: View, query: Mapping[str, str], now: int) -> Reading:
    """One effect by its key."""
    effect = yield from _find(view, query)
    return Answer(200, dump_fields(effect_fields(effect, now)))


def get_effect_by_id(view: View, query: Mapping[str, str], now: int) -> Reading:
    """One effect by its id."""
    where = Where()
    where.add("id = ?", parse_effect_id(query.get("effectId", "")))
    rows = yield view.effects(COLUMNS, where)
    if not rows:
        raise Problem(404, "effect_not_found", "There is no effect with this id.")
    return Answer(200, dump_fields(effect_fields(from_row(rows[0]), now)))


def list_effect_events(view: View, query: Mapping[str, str], _now: int) -> Reading:
    """The audit trail, oldest first."""
    effect = yield from _find(view, query)
    limit = _limit(query)
    after = _read_number("cursor", query.get("cursor", "0"), _LAST_SEQUENCE)
    rows = yield view.events(effect, after, limit + 1)
    events = read_events(rows)
    items = [event_fields(sequence, event) for sequence, event in events[:limit]]
    about = {"namespace": effect.namespace, "effectKey": effect.key}
    return _page(items, events[limit - 1][0] if len(events) > limit else None, about)


def list_namespaces(view: View, query: Mapping[str, str], _now: int) -> Reading:
    """Each namespace with its number of effects."""
    return (yield from _groups(view, query, ["namespace"], []))


def list_workflows(view: View, query: Mapping[str, str], _now: int) -> Reading:
    """Each workflow with its number of effects, its first creation and its last change."""
    return (yield from _groups(view, query, ["workflow_name"], []))


def list_cases(view: View, query: Mapping[str, str], _now: int) -> Reading:
    """Each case of a workflow, with the same numbers."""
    return (yield from _groups(view, query, ["workflow_name", "case_id"], ["workflowName"]))


def list_runs(view: View, query: Mapping[str, str], _now: int) -> Reading:
    """Each run of a case, with the same numbers."""
    return (yield from _groups(view, query, ["workflow_name", "case_id", "run_id"], ["workflowName", "caseId"]))


_NAMES = {"namespace": "namespace", "workflow_name": "workflowName", "case_id": "caseId", "run_id": "runId"}


def _groups(view: View, query: Mapping[str, str], columns: list[str], filters: list[str]) -> Reading:
    where = Where()
    for column in columns:
        where.add(view.not_null(column))
    for name in filters:
        if name in query:
            where.add(f"{_EQUAL_FILTERS[name]} = ?", query[name])
    listed = ", ".join(columns)
    limit = _limit(query)
    offset = _read_number("cursor", query.get("cursor", "0"))
    rows = yield view.effects(
        f"{listed}, count(*), min(created_at), max(updated_at)",
        where,
        f"GROUP BY {listed} ORDER BY {listed} LIMIT ? OFFSET ?",
        *(limit + 1, offset),
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


def get_stats(view: View, query: Mapping[str, str], now: int) -> Reading:
    """Counts by state, counts of events since a time (by default one hour ago), and the oldest expired lease."""
    since = _read_time("since", query["since"]) if "since" in query else now - 3_600_000
    state = "CASE WHEN status = 'RUNNING' AND lease_expires_at <= ? THEN 'EXPIRED' ELSE status END AS state"
    counted = yield view.effects(f"{state}, count(*)", Where(), "GROUP BY state", first=[now])
    by_status: dict[str, int] = dict(counted)
    recent: dict[str, int] = dict((yield view.event_counts(since)))
    expired = Where()
    _add_status(expired, "EXPIRED", now)
    oldest = yield view.effects("min(lease_expires_at)", expired)
    fields: dict[str, Any] = {
        "byStatus": {state: by_status.get(state, 0) for state in ("IDLE", "RUNNING", "EXPIRED", "COMMITTED", "FAILED")},
        "since": format_time(since),
        "events": {kind.value: recent.get(kind.value, 0) for kind in EventType},
    }
    if oldest[0][0] is not None:
        fields["oldestExpiredAt"] = format_time(oldest[0][0])
    return Answer(200, dump_fields(fields))


def _find(view: View, query: Mapping[str, str]) -> Generator[Query, Rows, Effect]:
    key = query.get("effectKey", "")
    rows = yield view.effect(key)
    if not rows:
        message = f"There is no effect {key!r} in this namespace."
        raise Problem(404, "effect_not_found", message, details={"effectKey": key})
    return from_row(rows[0])


def _add_status(where: Where, status: str, now: int) -> None:
    if status == "EXPIRED":
        where.add("status = 'RUNNING' AND lease_expires_at <= ?", now)
    elif status == "RUNNING":
        where.add("status = 'RUNNING' AND lease_expires_at > ?", now)
    else:
        where.add("status = ?", status)


def _page(items: list[Any], next_cursor: int | None, about: Mapping[str, str] = MappingProxyType({})) -> Answer:
    fields: dict[str, Any] = {**about, "items": items}
    if next_cursor is not None:
        fields["nextCursor"] = str(next_cursor)
    return Answer(200, dump_fields(fields))


def _limit(query: Mapping[str, str]) -> int:
    return max(1, min(_read_number("limit", query.get("limit", str(DEFAULT_LIMIT))), MAX_PAGE_SIZE))


def _read_number(name: str, text: str, most: int = 2**63 - 1) -> int:
    """The number, at most `most`, which is what the compared column can hold."""
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise _wrong_parameter(name, "a whole number" if name == "limit" else "the nextCursor of an earlier page")
    return min(int(text), most)


def _read_time(name: str, text: str) -> int:
    at = parse_time(text)
    try:
        if at is not None:
            return (at.astimezone(timezone.utc) - _EPOCH) // timedelta(milliseconds=1)
    except OverflowError:  # before the year 1 in UTC, or after 9999
        pass
    raise _wrong_parameter(name, "a time in RFC 3339 such as 2026-01-31T12:00:00Z")


def _wrong_parameter(name: str, takes: str) -> Problem:
    message = f"{name} takes {takes}"
    return Problem(400, "invalid_request", message, details=[{"path": f"query/{name}", "message": message}])


def too_long() -> Problem:
    """503: a read reached its time limit."""
    return Problem(
        503,
        "unavailable",
        "The read took too long and was given up; nothing was changed. Ask for less: name a namespace or a workflow, a "
        "shorter time (since, until) or a smaller limit.",
        retry_after_s=_RETRY_AFTER_S,
    )


def begin(request: Request, now: int, dialect: Dialect) -> Reading:
    """Begin the read that a request asks for, inside its scope.

    Raises:
        Problem: 400 or 403. The returned generator may raise it, too.
    """
    for name, text in request.query.items():
        if "\0" in text:
            raise _wrong_parameter(name, "text without a NUL character")
    return READS[request.operation](View(request, dialect), request.query, now)


READS: dict[Operation, Read] = {
    Operation.LIST_EFFECTS: list_effects,
    Operation.GET_EFFECT: get_effect,
    Operation.GET_EFFECT_BY_ID: get_effect_by_id,
    Operation.LIST_EFFECT_EVENTS: list_effect_events,
    Operation.LIST_NAMESPACES: list_namespaces,
    Operation.LIST_WORKFLOWS: list_workflows,
    Operation.LIST_CASES: list_cases,
    Operation.LIST_RUNS: list_runs,
    Operation.GET_STATS: get_stats,
}
LOOKUPS = frozenset({Operation.GET_EFFECT, Operation.GET_EFFECT_BY_ID, Operation.LIST_EFFECT_EVENTS})
"""Reads of one effect. They are fast however many effects there are."""
SEARCHES = frozenset(READS) - LOOKUPS
"""Lists and counts. They may have to read every effect in the caller's scope."""
SEARCHES_AT_ONCE = 2
"""How many searches a node runs at the same time. Each may keep a core busy."""
