"""Ledgers that must behave the same: the transition table alone, SQLite, and PostgreSQL by its fast and its slow path.

`Ledger.run` sends one script to a ledger. `Ledger.dump` returns its answers and its rows. Ids and lease tokens are
random, so the dump has the number of their grant in their place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers.served_ledger import TestClock
from tests.helpers.store_calls import Caller
from tests.helpers.stores import Bench
from verity._ledger.calls import Answer, Request
from verity._ledger.codec import answer_decision, read_call
from verity._ledger.commands import REPORTS_AMONG, Context
from verity._ledger.effect import Effect, Event, EventType, to_row
from verity._ledger.problems import Problem, answer_problem
from verity._ledger.transitions import apply
from verity._store.events import EVENT_COLUMNS, to_event_row
from verity._store.names import COLUMNS, hash_effect_name
from verity._store.postgres.pending import PrimaryKey

KINDS = ("table", "memory", "postgres", "slow path")
BEGIN_MS = 1_770_000_000_000
_COLUMNS = ["environment", "key_hash", *COLUMNS.split(", ")]
_OF_EVENTS = ", ".join(f"events.{name}" for name in EVENT_COLUMNS)


class Command(NamedTuple):
    """One call of a script.

    Attributes:
        operation: the operation.
        body: the request body, without effect key and tokens.
        grant: the number of the grant whose tokens are sent: 0 is the effect's first grant, -1 the latest.
        headers: the headers of a lease request.
    """

    operation: str
    body: dict[str, Any]
    grant: int | None = None
    headers: dict[str, Any] = {}  # noqa: RUF012 - never changed; a NamedTuple has no default factory


class Step(NamedTuple):
    """Calls on different effects at the same moment, and the pause before them."""

    pause_ms: int
    commands: dict[str, Command]


class Table:
    """The transition table alone, without a store."""

    def __init__(self) -> None:
        self.clock = TestClock()
        self.effects: dict[PrimaryKey, Effect] = {}
        self.events: dict[PrimaryKey, list[Event]] = {}
        self._made = 0

    def answer(self, request: Request) -> Answer:
        """Decide, and remember what was decided."""
        try:
            call = read_call(request)
        except Problem as problem:
            return answer_problem(problem, request.request_id)
        name = (call.environment, call.namespace, hash_effect_name(call.environment, call.namespace, call.key))
        before, events, now = self.effects.get(name), self.events.setdefault(name, []), self.clock()
        kinds = [event.type for event in events[-REPORTS_AMONG:] if before is not None and event.fence == before.fence]
        reports = kinds.count(EventType.OBSERVE_HIT) + kinds.count(EventType.OBSERVE_MISS)
        context = Context(call.namespace, call.key, now, self._new, lambda: f"t{self._new()}", lambda: reports)
        decision = apply(before, call.command, context)
        if decision.events and decision.effect is not None:
            self.effects[name] = decision.effect
            events.extend(decision.events)
        return answer_decision(call, decision, now)

    def answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        """In their order."""
        return [self.answer(request) for request in requests]

    def _new(self) -> int:
        self._made += 1
        return self._made


class Ledger:
    """A ledger of one of the `KINDS`.

    Args:
        kind: one of `KINDS`.
        path: a directory for a SQLite file.
        make_url: creates a PostgreSQL database and returns its URL.
    """

    def __init__(self, kind: str, path: Path, make_url: Callable[[], str]) -> None:
        self.kind = kind
        self._table = Table() if kind == "table" else None
        self.bench = None if self._table else Bench("postgres" if kind == "slow path" else kind, path, make_url)
        self.store: Any = self._table or (self.bench and self.bench.store)
        self.clock = self._table.clock if self._table else self._bench.clock
        self._calls = Caller(self)
        self._grants: dict[str, list[dict[str, Any]]] = {}
        self._answers: list[Any] = []

    @property
    def _bench(self) -> Bench:
        assert self.bench is not None
        return self.bench

    def answer(self, request: Request) -> Answer:
        """Carry one call out, by the path that the kind names."""
        answer: Answer = self.store.answer(request) if not request.body else self.answer_batch([request])[0]
        return answer

    def answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Carry calls out at the same time, by the path that the kind names."""
        if self.kind == "slow path":
            dispatcher = self.store._store._calls
            for request in requests:
                with suppress(Problem):
                    dispatcher._detours[_name_of(request)] = dispatcher._others
        answers: list[Answer] = self.store.answer_batch(requests)
        return answers

    def run(self, namespace: str, script: Sequence[Step]) -> None:
        """Carry a script out, in a namespace that no other script had."""
        self._calls = Caller(self, namespace=namespace)
        self._grants, self._answers = {}, []
        self.clock.now_ms = BEGIN_MS
        for step in script:
            self.clock.advance(step.pause_ms)
            requests = [self._request(key, command) for key, command in step.commands.items()]
            for key, answer in zip(step.commands, self.answer_batch(requests), strict=True):
                body = json.loads(answer.body)
                if body.get("status") == "granted" and body not in self._grants.setdefault(key, []):
                    self._grants[key].append(body)
                self._answers.append((answer.status, answer.headers, answer.outcome, self._numbered(key, body)))

    def _request(self, key: str, command: Command) -> Request:
        body = {"effectKey": key, **command.body}
        if command.grant is not None:
            grants = self._grants.get(key)
            tokens = grants[command.grant % len(grants)] if grants else {"fenceToken": 1, "leaseToken": "none"}
            body |= {name: tokens[name] for name in ("fenceToken", "leaseToken")}
        return replace(self._calls.request(command.operation, body), **command.headers)

    def dump(self) -> dict[str, Any]:
        """The answers to the script, and the rows that it left in the tables."""
        namespace = self._calls.namespace
        if self._table is not None:
            names = sorted((name for name in self._table.effects if name[1] == namespace), key=self._key_of)
            rows = [(name[0], name[2], *to_row(self._table.effects[name])) for name in names]
            events: list[Any] = [
                (self._key_of(name), *to_event_row(sequence, event))
                for name in names
                for sequence, event in enumerate(self._table.events[name], 1)
            ]
        else:
            rows = self._bench.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM effects WHERE namespace = ? ORDER BY effect_key", namespace
            )
            events = self._bench.execute(
                f"SELECT effects.effect_key, {_OF_EVENTS} FROM events JOIN effects ON effects.id = events.effect"
                " WHERE effects.namespace = ? ORDER BY effects.effect_key, events.sequence",
                namespace,
            )
        return {"answers": self._answers, "rows": [self._comparable(row) for row in rows], "events": events}

    def _key_of(self, name: PrimaryKey) -> str:
        assert self._table is not None
        return self._table.effects[name].key

    def _comparable(self, values: Sequence[Any]) -> dict[str, Any]:
        row = dict(zip(_COLUMNS, values, strict=True))
        del row["id"]
        grants = [grant["leaseToken"] for grant in self._grants.get(row["effect_key"], [])]
        row["lease_token"] = None if row["lease_token"] is None else grants.index(row["lease_token"])
        if str(row["idempotency_key"]).startswith("once:"):
            row["idempotency_key"] = None  # PostgreSQL's store makes one up for a request that has none
        return row

    def _numbered(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        grants = [grant["leaseToken"] for grant in self._grants.get(key, [])]
        tokens = {"leaseToken": grants.index(body["leaseToken"])} if body.get("leaseToken") else {}
        return {name: value for name, value in body.items() if name != "effectId"} | tokens

    def close(self) -> None:
        """Close the store."""
        if self.bench is not None:
            self.bench.check_all_rows()
            self.bench.store.close()


def _name_of(request: Request) -> PrimaryKey:
    call = read_call(request)
    return call.environment, call.namespace, hash_effect_name(call.environment, call.namespace, call.key)
