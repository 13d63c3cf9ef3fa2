"""The rows and audit trails of a ledger, read from its database without any of its code."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import asyncpg

_EFFECTS = "SELECT * FROM effects WHERE environment = 'test'"
_EVENTS = f"SELECT * FROM events WHERE effect IN (SELECT id FROM ({_EFFECTS}) AS tests) ORDER BY effect, sequence"
_UNDECIDED = f"{_EFFECTS} AND namespace = 'torture' AND status <> 'COMMITTED'"


def read_records(database: str) -> tuple[dict[str, Any], dict[int, list[Any]]]:
    """The rows by their effect keys, and the events by the ids of their effects."""
    rows, trail = _query(database, _EFFECTS, _EVENTS)
    events: dict[int, list[Any]] = defaultdict(list)
    for event in trail:
        events[event["effect"]].append(event)
    return {row["effect_key"]: row for row in rows}, events


def read_undecided(database: str) -> list[str]:
    """The keys of the effects that are not committed."""
    (rows,) = _query(database, _UNDECIDED)
    return [row["effect_key"] for row in rows]


def _query(database: str, *queries: str) -> list[Sequence[Any]]:
    if database.startswith("sqlite:"):
        with closing(sqlite3.connect(database.removeprefix("sqlite:///"), timeout=60)) as file:
            file.row_factory = sqlite3.Row
            return [file.execute(query).fetchall() for query in queries]
    return asyncio.run(_query_postgres(database, queries))


async def _query_postgres(database: str, queries: Sequence[str]) -> list[Sequence[Any]]:
    connection = await asyncpg.connect(database, ssl=False)
    try:
        return [await connection.fetch(query) for query in queries]
    finally:
        await connection.close()
