"""Who may do what: every operation x role x environment x namespace, and the life of a key."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import httpx
import pytest

from tests import contract_hook
from tests.conftest import both_stores
from tests.served import ServedLedger, TestClock
from tests.server.conftest import Client
from verity._ledger.calls import Environment, Scope
from verity._store.api_keys import ApiKey, Role
from verity.server.api_keys import hash_key, issue, mint
from verity.server.auth import Authenticator
from verity.server.problems import Problem

ADMIN_ONLY = {"reset_effect", "resolve_effect"}
BODIES: dict[str, dict[str, Any]] = {
    "lease_effect": {},
    "commit_effect": {"fenceToken": 1, "leaseToken": "t", "result": None},
    "fail_effect": {"fenceToken": 1, "leaseToken": "t", "error": None},
    "renew_effect": {"fenceToken": 1, "leaseToken": "t"},
    "report_observe": {"fenceToken": 1, "leaseToken": "t", "hit": True},
    "reset_effect": {},
    "resolve_effect": {"result": None},
}
QUERIES = {
    "get_effect": {"effectKey": "there"},
    "list_effect_events": {"effectKey": "there"},
    "list_cases": {"workflowName": "w"},
    "list_runs": {"workflowName": "w", "caseId": "c"},
}
OPERATIONS = {
    about["operationId"]: (method.upper(), path)
    for path, item in contract_hook.SPEC["paths"].items()
    for method, about in item.items()
    if method != "parameters"
}


SECRET = "only test/payments knows this"
_numbers = itertools.count()


def call(client: httpx.Client, operation: str, namespace: str, effect_id: str, **more: Any) -> httpx.Response:
    method, path = OPERATIONS[operation]
    body = {"effectKey": "there", **BODIES[operation]} if operation in BODIES else None
    path = path.format(namespace=namespace, effectId=effect_id)
    return client.request(method, path, json=body, params=QUERIES.get(operation), **more)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("role", ["agent", "org_admin"])
@pytest.mark.parametrize("environment", ["test", "live"])
@pytest.mark.parametrize("bound", [None, "here", "elsewhere"])
def test_matrix(
    operation: str,
    role: Role,
    environment: Environment,
    bound: str | None,
    agent: httpx.Client,
    served: ServedLedger,
    client_with: Client,
) -> None:
    """A running effect of the environment `test`: who may do what with it, and who must not learn of it."""
    namespace = f"namespace{next(_numbers)}"
    seed = {"effectKey": "there", "workflowName": "w", "caseId": "c", "runId": SECRET, "inputJson": SECRET}
    effect_id = agent.post(f"/effects/{namespace}/lease", json=seed).json()["effectId"]
    binding = {None: [], "here": [namespace], "elsewhere": ["elsewhere"]}[bound]
    response = call(
        client_with(served.create_key(environment, role, namespaces=binding)), operation, namespace, effect_id
    )

    names_the_namespace = "{namespace}" in OPERATIONS[operation][1]
    if (operation in ADMIN_ONLY and role == "agent") or (names_the_namespace and bound == "elsewhere"):
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "forbidden"
    elif environment == "test" and bound != "elsewhere":
        if operation in BODIES:  # the lease is live, and the tokens that are sent are wrong
            assert response.status_code == 409
        else:
            assert response.status_code == 200
            assert any(name in response.text for name in (SECRET, namespace, '"w"', '"RUNNING":'))
    else:
        expected = {"lease_effect": 200}.get(
            operation, 404 if operation in BODIES or "get_effect" in operation else None
        )
        if operation == "list_effect_events":
            expected = 404
        assert response.status_code == (expected or 200)
        assert SECRET not in response.text
        assert namespace not in response.text
        if operation in ("list_workflows", "list_cases", "list_runs"):
            assert response.json() == {"items": []}
        if operation == "get_stats" and bound is not None:
            assert not any(response.json()["byStatus"].values())


@pytest.mark.parametrize(
    "header",
    [None, "x", "Basic dTpw", "Bearer", "Bearer vt_test_x", f"Bearer {mint('test')}", mint("test"), "Bearer \xe9"],
)
def test_every_operation_needs_a_key(header: str | None, client_with: Client) -> None:
    client = client_with(None)
    headers = {} if header is None else {b"authorization": header.encode("latin-1")}
    for operation in OPERATIONS:
        response = call(client, operation, "payments", "eff_0000000000000000", headers=headers)
        assert response.status_code == 401, operation
        assert response.headers["www-authenticate"] == 'Bearer realm="verity"'


@both_stores
def test_a_key_expires(served: ServedLedger, client_with: Client, clock: TestClock) -> None:
    client = client_with(served.create_key(lifetime_ms=60_000))
    assert client.get("/namespaces").status_code == 200
    clock.advance(59_999)
    assert client.get("/namespaces").status_code == 200
    clock.advance(1)
    assert client.get("/namespaces").status_code == 401


@both_stores
def test_a_key_is_revoked(served: ServedLedger, client_with: Client) -> None:
    key = served.create_key()
    client = client_with(key)
    assert client.get("/namespaces").status_code == 200
    record = served.store.find_key(hash_key(key))
    assert record is not None
    assert served.store.revoke_key(record.id, 1)
    assert client.get("/namespaces").status_code == 401


# -- the cache --


class Keys:
    """A storage of keys that counts its look-ups, and waits until it is told to answer."""

    def __init__(self, record: ApiKey | None) -> None:
        self.record = record
        self.lookups = 0
        self.fails = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def find_key(self, _sha256: bytes) -> ApiKey | None:
        self.lookups += 1
        await self.may_answer.wait()
        if self.fails:
            raise ConnectionError
        return self.record


class Cached:
    def __init__(self, keys: Keys, key: str) -> None:
        self.now_s = 100.0
        self.header = f"Bearer {key}".encode()
        self.callers = Authenticator(keys.find_key, cache_s=0.5, now_ms=lambda: 0, monotonic=lambda: self.now_s)

    async def ask(self) -> Scope:
        return await self.callers.authenticate(self.header, admin_only=False)


async def test_a_key_is_looked_up_once_in_a_while() -> None:
    key, record = issue("live", "agent", now=0, namespaces=["a"])
    keys = Keys(record)
    cached = Cached(keys, key)
    for _ in range(3):
        assert await cached.ask() == Scope("live", frozenset({"a"}), record.id)
    cached.now_s += 0.49
    await cached.ask()
    assert keys.lookups == 1
    keys.record = None
    cached.now_s += 0.02
    with pytest.raises(Problem) as refused:
        await cached.ask()
    assert refused.value.status == 401
    assert keys.lookups == 2


async def test_callers_share_a_lookup_and_one_who_leaves_spoils_nothing() -> None:
    key, record = issue("live", "agent", now=0)
    keys = Keys(record)
    cached = Cached(keys, key)
    keys.may_answer.clear()
    callers = [asyncio.ensure_future(cached.ask()) for _ in range(50)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.sleep(0)
    keys.may_answer.set()
    scopes = await asyncio.gather(*callers[1:])
    assert {scope.actor for scope in scopes} == {record.id}
    assert callers[0].cancelled()
    assert keys.lookups == 1


async def test_a_failed_lookup_is_not_remembered() -> None:
    key, record = issue("live", "agent", now=0)
    keys = Keys(record)
    keys.fails = True
    cached = Cached(keys, key)
    with pytest.raises(ConnectionError):
        await cached.ask()
    keys.fails = False
    assert (await cached.ask()).actor == record.id


async def test_what_can_be_no_key_costs_no_lookup() -> None:
    keys = Keys(None)
    with pytest.raises(Problem):
        await Cached(keys, mint("test")[:-1] + "!").ask()
    assert keys.lookups == 0
