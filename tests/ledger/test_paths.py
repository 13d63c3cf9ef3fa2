"""Each store does what the transition table says: PostgreSQL's fast path, its slow path, SQLite and the table alone.

The same random scripts get the same answers and leave equal rows and events. More of them (minutes):

    python -m pytest tests/ledger/test_paths.py --hypothesis-profile=long
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.helpers.ledgers import KINDS, Command, Ledger, Step
from tests.helpers.openapi import SPEC
from tests.helpers.postgres import PostgresServer
from tests.helpers.store_calls import Caller
from verity._rfc3339 import parse_time

DURATIONS = st.sampled_from([5_000, 30_000, 120_000])
PAYLOADS = st.sampled_from([None, 0, "", {"a": [1, 1.5]}, 'quoted "\\" and ü'])
SETTLE = st.sampled_from([0, 5_000, 30_000])
FENCES = st.integers(1, 4)
SOURCES = st.sampled_from(["acted", "observed"])
MODES = st.sampled_from(["verify", "retry"])
GRANTS: st.SearchStrategy[int | None] = st.sampled_from([-1, -1, -1, 0])
NO_GRANT: st.SearchStrategy[int | None] = st.none()
NO_HEADERS: st.SearchStrategy[dict[str, str]] = st.just({})
TRACE_PARENTS = st.sampled_from([f"00-{digit * 32}-{digit * 16}-01" for digit in "12"])


def labels(*names: str) -> dict[str, st.SearchStrategy[str]]:
    """Each with values that no other has."""
    return {name: st.sampled_from([f"{name} 1", f"{name} 2"]) for name in names}


def calls(
    operation: str,
    required: dict[str, Any],
    optional: dict[str, Any],
    grants: st.SearchStrategy[int | None] = NO_GRANT,
    headers: st.SearchStrategy[dict[str, str]] = NO_HEADERS,
) -> st.SearchStrategy[Command]:
    bodies = st.fixed_dictionaries(required, optional=optional)
    return st.tuples(st.just(operation), bodies, grants, headers).map(Command._make)


LEASES = calls(
    "lease_effect",
    {},
    {
        "leaseDurationMs": DURATIONS,
        "inputJson": PAYLOADS,
        **labels("effectName", "agentId", "workflowName", "caseId", "runId"),
    },
    headers=st.fixed_dictionaries(
        {}, optional={"idempotency_key": st.sampled_from(["one", "two"]), "trace_parent": TRACE_PARENTS}
    ),
)
COMMITS = calls("commit_effect", {"result": PAYLOADS}, {"source": SOURCES, **labels("runId")}, GRANTS)
OTHERS = (
    calls("fail_effect", {"error": PAYLOADS}, {"source": SOURCES, **labels("runId")}, GRANTS)
    | calls("renew_effect", {}, {"extensionMs": DURATIONS}, GRANTS)
    | calls("release_effect", {"acted": st.sampled_from(["no", "unknown"])}, {"settleMs": SETTLE}, GRANTS)
    | calls("report_observe", {"hit": st.booleans()}, {"durationMs": st.integers(0, 9)}, GRANTS)
    | calls("reset_effect", {}, {"mode": MODES, "force": st.booleans(), "expectedFence": FENCES, **labels("reason")})
    | calls("resolve_effect", {"result": PAYLOADS}, {"expectedFence": FENCES, **labels("reason")})
)
STEPS = st.tuples(
    st.sampled_from([0, 1, 4_999, 5_000, 200_000]),
    st.dictionaries(st.sampled_from(["k1", "k2", "k3"]), LEASES | COMMITS | OTHERS, min_size=1),
).map(Step._make)


@pytest.fixture(scope="module")
def ledgers(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ledger]]:
    path: Path = tmp_path_factory.mktemp("ledgers")
    ledgers = {kind: Ledger(kind, path, postgres_server.create_database) for kind in KINDS}
    yield ledgers
    for ledger in ledgers.values():
        ledger.close()


def test_every_path_does_what_the_table_says(ledgers: dict[str, Ledger]) -> None:
    namespaces = (f"n{number}" for number in itertools.count())

    # Effects are leased first, so that few scripts consist of refusals alone. Scripts are short: nothing is shrunk.
    @settings(max_examples=settings().max_examples // 4, deadline=None, phases=[Phase.reuse, Phase.generate])
    @given(first=LEASES, then=st.lists(STEPS, min_size=1, max_size=8))
    def check(first: Command, then: list[Step]) -> None:
        namespace = next(namespaces)
        script = [Step(0, {"k1": first, "k2": Command("lease_effect", {})}), *then]
        done = {}
        for kind, ledger in ledgers.items():
            ledger.run(namespace, script)
            done[kind] = ledger.dump()
        for kind in KINDS[1:]:
            for what, expected in done["table"].items():
                assert done[kind][what] == expected, (kind, what)

    check()


LEASE = {
    "effectName": "charge",
    "agentId": "agent",
    "leaseDurationMs": 6_000,
    "inputJson": {"an": "input"},
    "workflowName": "order",
    "caseId": "case",
    "runId": "run",
}
FENCE = object()
"""Stands for the effect's fence."""
BODIES: dict[str, dict[str, Any]] = {
    "lease_effect": LEASE,
    "commit_effect": {"result": {"a": "result"}, "source": "observed", "runId": "run of the commit"},
    "fail_effect": {"error": {"an": "error"}, "source": "observed", "runId": "run of the failure"},
    "renew_effect": {"extensionMs": 77_000},
    "release_effect": {"acted": "unknown", "settleMs": 7_000},
    "report_observe": {"hit": False, "durationMs": 12},
    "reset_effect": {"mode": "retry", "force": True, "expectedFence": FENCE, "reason": "why it was reset"},
    "resolve_effect": {"result": {"found": "out"}, "expectedFence": FENCE, "reason": "how it was found out"},
}
"""A call of each operation: all of its properties, with values that no other has. Without those that are in each."""
IN_EACH = {"effectKey", "fenceToken", "leaseToken"}
TRACE_PARENT = f"00-{'7' * 32}-{'7' * 16}-01"


def test_the_bodies_have_all_properties() -> None:
    """Whoever adds one to openapi.yaml is told to read it back, too."""
    for path in SPEC["paths"].values():
        for method, operation in path.items():
            if method == "post":
                reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                properties = SPEC["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
                assert set(BODIES[operation["operationId"]]) == set(properties) - IN_EACH


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("is_taken_over", [False, True], ids=["first grant", "take-over"])
@pytest.mark.parametrize("operation", BODIES)
def test_every_property_of_a_request_is_read_back(
    ledgers: dict[str, Ledger], kind: str, operation: str, is_taken_over: bool
) -> None:
    ledger, body = ledgers[kind], dict(BODIES[operation])
    if "expectedFence" in body:
        body["expectedFence"] = 1 + is_taken_over
    by_admin = operation in ("reset_effect", "resolve_effect")
    lease = Command("lease_effect", LEASE, headers={"idempotency_key": "mine", "trace_parent": TRACE_PARENT})
    others = {name: f"other {name}" for name in LEASE if name not in ("leaseDurationMs", "inputJson")}
    taken_over = [Step(0, {"k": Command("lease_effect", others)}), Step(200_000, {"k": lease})]
    script = taken_over if is_taken_over else [Step(0, {"k": lease})]
    if operation == "resolve_effect":
        script.append(Step(6_000, {}))
    if operation != "lease_effect":
        script.append(Step(0, {"k": Command(operation, body, None if by_admin else -1)}))
    namespace = f"{operation} {kind} {is_taken_over}"
    ledger.run(namespace, script)
    call = Caller(ledger, namespace=namespace)
    effect = call("get_effect", effectKey="k")
    event = call("list_effect_events", effectKey="k")["items"][-1]
    detail = event["detail"]

    assert {name: effect[name] for name in LEASE} == LEASE
    assert effect["traceParent"] == TRACE_PARENT
    assert event.get("agentId") == (None if by_admin else "agent")
    assert event.get("runId") == (None if by_admin else body.get("runId", "run"))
    assert detail.get("actor") == ("tester" if by_admin else None)
    assert _read_back(operation, effect, event, ledger) == body
    if operation in ("commit_effect", "fail_effect"):
        assert detail["source"] == body["source"]


def _read_back(operation: str, effect: Any, event: Any, ledger: Ledger) -> dict[str, Any]:
    """A body's properties, as the effect and its last event show them."""
    detail = event["detail"]
    match operation:
        case "lease_effect":
            assert effect["leaseDurationMs"] == detail["leaseDurationMs"]
            return {name: effect[name] for name in LEASE}
        case "commit_effect" | "fail_effect":
            outcome = "result" if operation == "commit_effect" else "error"
            return {outcome: effect[outcome], "source": effect["source"], "runId": event["runId"]}
        case "renew_effect":
            return {"extensionMs": _ms_until(effect["leaseExpiresAt"], ledger)}
        case "release_effect":
            assert detail["settleMs"] == _ms_until(effect["settlesAt"], ledger)
            return {"acted": detail["acted"], "settleMs": detail["settleMs"]}
        case "report_observe":
            return {"hit": event["type"] == "OBSERVE_HIT", "durationMs": detail["durationMs"]}
        case _:
            return _read_back_by_admin(operation, effect, detail)


def _read_back_by_admin(operation: str, effect: Any, detail: Any) -> dict[str, Any]:
    said = {name: detail[name] for name in ("expectedFence", "reason")}
    if operation == "reset_effect":
        assert detail["mode"] == {"expired": "verify", "reset": "retry"}[effect["priorState"]]
        return {"mode": detail["mode"], "force": detail["forced"], **said}
    return {"result": effect["result"], **said}


def _ms_until(text: str, ledger: Ledger) -> int:
    time = parse_time(text)
    assert time is not None
    return round(time.timestamp() * 1000) - ledger.clock.now_ms
