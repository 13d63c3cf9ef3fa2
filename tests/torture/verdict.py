"""The verdict, from three records that know nothing of each other: the world's log, what clients were told, the rows.

It has its own reading of the audit trail and uses nothing of the ledger's code.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.torture.history import Beginnings, was_frozen, wrong_acts
from tests.torture.plan import ACTING, ASSUMED_DELAY_S, BLOCKED, BLOCKING, kind_of
from tests.torture.records import read_records
from tests.torture.story import wrong_story

_DELAY_MS = round(ASSUMED_DELAY_S * 1000)


class Act(NamedTuple):
    """A line of the world's log."""

    fence: int
    id: str
    at: int
    idempotency_key: str


@dataclass
class Verdict:
    """What came out.

    Attributes:
        problems: one line for each thing that must not be; none of them if all is well.
        kinds: how many effects there are of each kind.
        acts_again: by kind of effect, how many acts there were beyond the first of each effect.
        sources: committed effects by where their result came from.
        take_overs: (key, fence of the holder before, time) whenever a lease that had expired was taken over.
        released: how many leases were given back, by what their holders said.
        blocked: effects that a client left to a person.
        too_late: acts that landed later than the effects assume.
        frozen: acts that began after their lease had run out, because their process was frozen right before.
        rejected: results in spools that the ledger refused for good, by the reason.
        overtaken: take-overs from a call that was alive and had its lease renewed.
        cells: how many calls were met, by the kind of blow and what they were at.
        unmet: a line for each of these that no call was met in.
    """

    effects: int
    acts: int = 0
    told: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    acts_again: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    take_overs: list[tuple[str, int, int]] = field(default_factory=list)
    released: Counter[str] = field(default_factory=Counter)
    blocked: set[str] = field(default_factory=set)
    too_late: int = 0
    frozen: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    overtaken: int = 0
    cells: Counter[tuple[str, str]] = field(default_factory=Counter)
    unmet: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def judge(
    effects: int, mode: str, world_log: Path, told: Iterable[Path], database: str, beginnings: Beginnings
) -> Verdict:
    """Compare the records, once everything has ended and a person has settled what was left open."""
    verdict = Verdict(effects)
    acts = _read_acts(world_log)
    verdict.acts = sum(map(len, acts.values()))
    rows, events = read_records(database)
    keys = [f"effect:{number}" for number in range(effects)]
    for key in keys:
        trail = events[rows[key]["id"]] if key in rows else []
        frozen = sum(was_frozen(key, trail, act.fence, beginnings) for act in acts[key])
        judge_number(verdict, key, kind_of(key, mode), acts[key], beginnings, frozen)
        if key not in rows:
            verdict.problems.append(f"{key}: the ledger does not know it")
    for key in (rows.keys() | acts.keys()) - set(keys):
        verdict.problems.append(f"{key}: nobody asked for it")
    for key, row in rows.items():
        trail = events[row["id"]]
        wrong = [
            *_wrong_row(row, trail, acts[key]),
            *wrong_acts(key, trail, [(act.fence, act.id) for act in acts[key]], beginnings),
            *wrong_keys(trail, acts[key]),
        ]
        verdict.problems += [f"{key}: {problem}" for problem in wrong]
        verdict.sources[row["source"]] += 1
        verdict.take_overs += [
            (key, event["fence"], event["at"]) for event in trail if event["type"] == "LEASE_EXPIRED"
        ]
        verdict.released.update(
            json.loads(event["detail"])["acted"] for event in trail if event["type"] == "LEASE_RELEASED"
        )
    for line in (line for file in told for line in file.read_text().splitlines()):
        _, key, text = line.split(" ", 2)
        judge_told(verdict, key, kind_of(key, mode), json.loads(text), rows.get(key))
    return verdict


def _read_acts(world_log: Path) -> dict[str, list[Act]]:
    acts: dict[str, list[Act]] = defaultdict(list)
    for line in world_log.read_text().splitlines():
        key, fence, act, at, idempotency_key = line.split()
        acts[key].append(Act(int(fence), act, int(at), idempotency_key))
    return acts


def judge_number(
    verdict: Verdict, key: str, kind: str, acts: Sequence[Act], beginnings: Beginnings, frozen: int = 0
) -> None:
    """Only with `observe` does the number of acts depend on how late an act lands, or begins."""
    verdict.kinds[kind] += 1
    verdict.acts_again[kind] += max(0, len(acts) - 1)
    late = [act for act in acts if (begun := beginnings.begun.get((key, act.fence))) and act.at > begun.at + _DELAY_MS]
    verdict.too_late += len(late)
    verdict.frozen += frozen
    if not acts:
        verdict.problems.append(f"{key}: nobody acted")
    elif len(acts) > 1 and kind != ACTING and (kind == BLOCKING or not (late or frozen)):
        verdict.problems.append(f"{key} ({kind}): acted {len(acts)} times: {acts}")


def judge_told(verdict: Verdict, key: str, kind: str, result: Any, row: Any) -> None:
    if result == BLOCKED:
        verdict.blocked.add(key)
        if kind != BLOCKING:
            verdict.problems.append(f"{key} ({kind}): a client left it to a person")
        return
    verdict.told += 1
    if row is not None and row["result_text"] and json.loads(row["result_text"]) != result:
        verdict.problems.append(f"{key}: an acknowledged result was lost: {result}")


def judge_spool(verdict: Verdict, spool: Path) -> None:
    """Nothing is left in a spool once an operator has recovered it."""
    with closing(sqlite3.connect(spool)) as file:
        for (key,) in file.execute("SELECT effect_key FROM entries"):
            verdict.problems.append(f"{key}: its result is left in a spool")
        verdict.rejected.update(dict(file.execute("SELECT code, count(*) FROM rejected GROUP BY code").fetchall()))


def _wrong_row(row: Any, events: list[Any], acts: Sequence[Act]) -> list[str]:
    problems = []
    if any(event["type"] == "FAILED" for event in events):
        problems.append("a failure is recorded, and no act has failed for certain")
    if row["status"] != "COMMITTED":
        return [*problems, f"it is stuck: {row['status']}"]
    result = json.loads(row["result_text"])
    if hashlib.sha256(row["result_text"].encode()).hexdigest() != row["result_sha256"]:
        problems.append("the result is not what was hashed")
    if result["id"] not in [act.id for act in acts]:
        problems.append(f"committed is {result['id']}, which the world does not know")
    if any(act.fence > row["fence"] for act in acts):
        problems.append("it was acted under a fence that the ledger never had")
    if [event["sequence"] for event in events] != list(range(1, row["event_count"] + 1)):
        problems.append("its events have gaps")
    return problems + wrong_story(row, events)


def wrong_keys(events: list[Any], acts: Sequence[Act]) -> list[str]:
    """Every attempt has the same key for the outside world, until somebody says that there was none."""
    resets = [event["fence"] for event in events if event["type"] == "RESET"]
    keys: dict[int, set[str]] = defaultdict(set)
    for act in acts:
        keys[sum(fence < act.fence for fence in resets)].add(act.idempotency_key)
    return [f"its attempts had several keys: {found}" for found in keys.values() if len(found) > 1]
