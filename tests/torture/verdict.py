"""The verdict, from three records that know nothing of each other: the world's log, what clients were told, the rows.

It has its own reading of the audit trail and uses nothing of the ledger's code.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from tests.torture.history import Beginnings, wrong_acts
from tests.torture.worker import is_bare


@dataclass
class Verdict:
    """What came out.

    Attributes:
        problems: one line for each thing that must not be; none of them if all is well.
        sources: committed effects by where their result came from.
        take_overs: how often an effect was taken over from a holder whose lease had run out.
        acted_again: how many acts the effects without `observe` had beyond the first.
        cells: how many calls were met, by the kind of blow and what they were at.
        unmet: a line for each of these that no call was met in.
    """

    effects: int
    acts: int = 0
    told: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    take_overs: int = 0
    acted_again: int = 0
    cells: Counter[tuple[str, str]] = field(default_factory=Counter)
    unmet: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def judge(effects: int, world_log: Path, told: Iterable[Path], database: str, beginnings: Beginnings) -> Verdict:
    """Compare the records, once everything has ended."""
    verdict = Verdict(effects)
    acts: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for line in world_log.read_text().splitlines():
        key, fence, act = line.split()
        acts[key].append((int(fence), act))
        verdict.acts += 1
    rows, events = asyncio.run(_read(database))
    keys = [f"effect:{number}" for number in range(effects)]
    for key in keys:
        if is_bare(key) and acts[key]:
            verdict.acted_again += len(acts[key]) - 1
        elif len(acts[key]) != 1:
            verdict.problems.append(f"{key}: acted {len(acts[key])} times: {acts[key]}")
        if key not in rows:
            verdict.problems.append(f"{key}: the ledger does not know it")
    for key in (rows.keys() | acts.keys()) - set(keys):
        verdict.problems.append(f"{key}: nobody asked for it")
    for key, row in rows.items():
        verdict.problems += [f"{key}: {problem}" for problem in _wrong(row, events[row["id"]], acts[key])]
        verdict.problems += [
            f"{key}: {problem}" for problem in wrong_acts(key, events[row["id"]], acts[key], beginnings)
        ]
        verdict.sources[row["source"]] += 1
        verdict.take_overs += sum(event["type"] == "LEASE_EXPIRED" for event in events[row["id"]])
    for line in (line for file in told for line in file.read_text().splitlines()):
        _, key, result = line.split(" ", 2)
        verdict.told += 1
        if key in rows and rows[key]["result_text"] and json.loads(rows[key]["result_text"]) != json.loads(result):
            verdict.problems.append(f"{key}: an acknowledged result was lost: {result}")
    return verdict


async def _read(database: str) -> tuple[dict[str, Any], dict[int, list[Any]]]:
    connection = await asyncpg.connect(database, ssl=False)
    try:
        rows = await connection.fetch("SELECT * FROM effects WHERE environment = 'test'")
        events: dict[int, list[Any]] = defaultdict(list)
        for event in await connection.fetch(
            "SELECT * FROM events WHERE environment = 'test' ORDER BY effect, sequence"
        ):
            events[event["effect"]].append(event)
        return {row["effect_key"]: row for row in rows}, events
    finally:
        await connection.close()


def _wrong(row: Any, events: list[Any], acts: list[tuple[int, str]]) -> list[str]:
    problems = []
    if row["status"] != "COMMITTED":
        return [f"it is stuck: {row['status']}"]
    result = json.loads(row["result_text"])
    if hashlib.sha256(row["result_text"].encode()).hexdigest() != row["result_sha256"]:
        problems.append("the result is not what was hashed")
    if result["id"] not in [act for _, act in acts]:
        problems.append(f"committed is {result['id']}, which the world does not know")
    if any(fence > row["fence"] for fence, _ in acts):
        problems.append("it was acted under a fence that the ledger never had")
    if [event["sequence"] for event in events] != list(range(1, row["event_count"] + 1)):
        problems.append("its events have gaps")
    fences = [event["fence"] for event in events if event["type"] == "LEASE_GRANTED"]
    if fences != list(range(1, row["fence"] + 1)):
        problems.append(f"its fences have gaps: {fences}, and the row has {row['fence']}")
    return problems + _wrong_story(row, events)


def _wrong_story(row: Any, events: list[Any]) -> list[str]:
    """Read the trail as a story: nothing is granted while a lease lives, and nothing happens after the commit."""
    problems = []
    fence, expires_at, committed = 0, 0, None
    for event in events:
        kind, detail = event["type"], json.loads(event["detail"])
        if kind == "LEASE_GRANTED":
            if event["at"] < expires_at:
                problems.append(f"fence {event['fence']} was granted {expires_at - event['at']} ms before its time")
            fence = event["fence"]
        elif kind != "LEASE_EXPIRED" and event["fence"] != fence:
            problems.append(f"{kind} under fence {event['fence']}, while {fence} was current")
        if committed is not None and not kind.startswith("OBSERVE"):
            problems.append(f"{kind} after the commit")
        if kind == "COMMITTED":
            committed = detail
        if kind == "LEASE_RELEASED":
            expires_at = detail.get("settlesAt", 0)
        else:
            expires_at = detail.get("leaseExpiresAt", expires_at)
    if committed is None:
        return [*problems, "no event tells of the commit"]
    told = (fence, expires_at, committed["resultSha256"], committed["source"])
    if told != (row["fence"], row["lease_expires_at"], row["result_sha256"], row["source"]):
        problems.append("the row says something else than its events")
    return problems
