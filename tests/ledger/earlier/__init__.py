"""What every version of the schema holds: one ledger with effects in all states, as the code of its time wrote it.

Each is kept in `KIND-VERSION.json`. Whoever adds a migration records the new version's, once its code is done, with
`python -m tests.ledger.earlier`; the data of the versions before is there already, and is never recorded again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.helpers.store_calls import Caller
from verity._store.api_keys import ApiKey
from verity._store.purging import Purge

HERE = Path(__file__).parent
TABLES = ("effects", "events", "api_keys")
RESULT = '{"refund_id":"re_1","amount":1.10,"note":"\\u00e9"}'
ERROR = '{"message":"declined","fee":2.50}'
PLACE = {"workflowName": "flow", "caseId": "case", "runId": "run", "agentId": "worker", "effectName": "refund"}
KEYS = [
    ApiKey("key_1", bytes(32), "test", "agent", None, None, 1, None, None),
    ApiKey("key_2", b"\1" * 32, "live", "org_admin", frozenset({"mail", "payments"}), "ops", 2, 9, 3),
]
NAMES = ["done", "observed", "failed", "resolved", "told reset", "told expired", "purged", "purged failure", "expired"]
NAMES += ["settling", "given back", "given back in doubt"]


def names_in(kind: str, version: int) -> list[str]:
    """What a version of a kind has."""
    absent = {"settling", "given back", "given back in doubt"} if version < 4 else set()
    if (kind, version) == ("sqlite", 1):
        absent |= {"told expired", "purged", "purged failure"}
    return [name for name in NAMES if name not in absent]


def fill(store: Any, clock: Any) -> None:
    """Have effects in every state, in all that a ledger may hold."""
    call = Caller(store)

    def send(operation: str, lease: Any, field: str, text: str) -> None:
        body = json.dumps({**call.tokens(lease), field: "TEXT"}).replace('"TEXT"', text)
        (answer,) = store.answer_batch([replace(call.request(operation), body=body.encode())])
        assert answer.status == 200, answer.body

    for key in ("purged", "purged failure"):
        lease = call("lease_effect", {"effectKey": key, "inputJson": [1]})
        send(*(("fail_effect", lease, "error", ERROR) if "failure" in key else ("commit_effect", lease, "result", "1")))
    clock.advance(1)
    store.purge(Purge("test", before=clock.now_ms))
    send("commit_effect", call("lease_effect", {"effectKey": "done", "inputJson": {"a": 1}, **PLACE}), "result", RESULT)
    observed = call("lease_effect", {"effectKey": "observed"})
    call("report_observe", {**call.tokens(observed), "hit": True, "durationMs": 3})
    call("commit_effect", {**call.tokens(observed), "result": None, "source": "observed"})
    for key in ("failed", "told reset", "told expired"):
        send("fail_effect", call("lease_effect", {"effectKey": key}), "error", ERROR)
    call("reset_effect", {"effectKey": "told reset", "mode": "retry", "reason": "mended"})
    call("reset_effect", {"effectKey": "told expired", "mode": "verify"})
    for key in ("resolved", "expired", "given back in doubt"):
        call("lease_effect", {"effectKey": key, "leaseDurationMs": 5000})
    clock.advance(5000)
    call("resolve_effect", {"effectKey": "resolved", "result": RESULT, "reason": "in the dashboard"})
    call("lease_effect", {"effectKey": "expired", "leaseDurationMs": 5000})
    clock.advance(5000)
    Caller(store, "live").commit("done", "of live")
    Caller(store, namespace="mail").commit("done", "of mail")
    live = call("lease_effect", {"effectKey": "live", "leaseDurationMs": 60_000, "inputJson": "x", **PLACE}, key="once")
    call("renew_effect", {**call.tokens(live), "extensionMs": 120_000})
    for key, acted in (("settling", "unknown"), ("given back", "no"), ("given back in doubt", "no")):
        tokens = call.tokens(call("lease_effect", {"effectKey": key}))
        call("release_effect", {**tokens, "acted": acted, "settleMs": 600_000})
    for each in KEYS:
        store.insert_key(each)


def path_of(kind: str, version: int) -> Path:
    """Where a version's data is."""
    return HERE / f"{kind}-{version}.json"


def write(kind: str, version: int, execute: Any) -> None:
    """Keep what the tables hold; `execute` runs a statement and returns rows as dictionaries."""
    tables = {table: execute(f"SELECT * FROM {table}") for table in TABLES}
    tables["events"].sort(key=lambda row: (row["effect"], row["sequence"]))
    text = json.dumps(tables, indent=1, default=lambda value: {"hex": value.hex()})
    path_of(kind, version).write_text(f"{text}\n", encoding="utf-8")


def read(kind: str, version: int) -> list[tuple[str, tuple[Any, ...]]]:
    """The statements, with their values, that bring a version's data back."""

    def value_of(found: Any) -> Any:
        return bytes.fromhex(found["hex"]) if isinstance(found, dict) else found

    tables = json.loads(path_of(kind, version).read_text(encoding="utf-8"))
    return [
        (
            f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
            tuple(value_of(found) for found in row.values()),
        )
        for table in TABLES
        for row in tables[table]
    ]
