"""Who may do what: every operation of openapi.yaml x key x environment x binding, on both stores.

The rules are written down here, by hand; an operation without one fails. Whatever the status: no answer shows anything
of another scope (tests/helpers/tenants.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.conftest import both_stores
from tests.helpers import openapi
from tests.helpers.served_ledger import ServedLedger, TestClock, make_clock
from tests.helpers.tenants import OPERATIONS, PLACE, Caller, Sight, Tenant, all_tenants, body_of, send
from verity._ledger.calls import ENVIRONMENTS
from verity.server.api_keys import hash_api_key, mint


class Rule(NamedTuple):
    """What an operation answers: on an effect whose lease is live, to a caller with wrong tokens."""

    roles: str
    names: str
    """How it says what it is about: `path` or `query` (a namespace), or `id`."""
    there: int
    """The status where the effect is in the caller's scope."""
    absent: int
    """The status where the caller's environment has no such effect, but the other one does."""


ALL, ADMINS = "agent org_admin", "org_admin"
RULES = {
    "lease_effect": Rule(ALL, "path", 409, 200),
    "commit_effect": Rule(ALL, "path", 409, 404),
    "fail_effect": Rule(ALL, "path", 409, 404),
    "renew_effect": Rule(ALL, "path", 409, 404),
    "release_effect": Rule(ALL, "path", 409, 404),
    "report_observe": Rule(ALL, "path", 409, 404),
    "reset_effect": Rule(ADMINS, "path", 409, 404),
    "resolve_effect": Rule(ADMINS, "path", 409, 404),
    "get_effect": Rule(ALL, "path", 200, 404),
    "list_effect_events": Rule(ALL, "path", 200, 404),
    "get_effect_by_id": Rule(ALL, "id", 200, 404),
    "list_effects": Rule(ALL, "query", 200, 200),
    "list_namespaces": Rule(ALL, "nothing", 200, 200),
    "list_workflows": Rule(ALL, "query", 200, 200),
    "list_cases": Rule(ALL, "query", 200, 200),
    "list_runs": Rule(ALL, "query", 200, 200),
    "get_stats": Rule(ALL, "query", 200, 200),
}
QUERIES = {
    "list_cases": {"workflowName": PLACE["workflowName"]},
    "list_runs": {"workflowName": PLACE["workflowName"], "caseId": PLACE["caseId"]},
}
HERE, ANOTHER, THIRD = "here", "another", "third"
BINDINGS: tuple[tuple[str, ...], ...] = ((), (HERE,), (ANOTHER,), (HERE, ANOTHER), (ANOTHER, THIRD))
SHARED = "the same key everywhere"


def expected(rule: Rule, caller: Caller, *, is_there: bool, names_namespace: bool) -> int:
    """The rules of roles and bindings."""
    if caller.role not in rule.roles.split():
        return 403
    if not caller.reaches(HERE):
        if rule.names == "id":
            return 404
        if names_namespace:
            return 403
    return rule.there if is_there else rule.absent


class World:
    """A ledger with effects of six tenants, and callers of every kind."""

    def __init__(self, served: ServedLedger, clock: TestClock) -> None:
        self.served = served
        self.clock = clock
        self.sight = Sight(all_tenants((HERE, ANOTHER, THIRD)))
        self.callers = [
            Caller(served, environment, role, binding)
            for environment in ENVIRONMENTS
            for role in ("agent", "org_admin")
            for binding in BINDINGS
        ]
        self._owners = {caller.environment: caller for caller in self.callers if not caller.namespaces}
        for tenant in self.sight.tenants:
            self.make(tenant, SHARED)

    def make(self, tenant: Tenant, key: str) -> str:
        """An effect of a tenant, its lease live; returns its id."""
        owner = self._owners[tenant.environment]
        body = body_of("lease_effect", tenant, key)
        self.sight.note(tenant, key, owner.send("lease_effect", tenant.namespace, body=body))
        return self.sight.effects[tenant, key].effect_id

    def close(self) -> None:
        for caller in self.callers:
            caller.http.close()


@pytest.fixture(scope="module")
def world(database: str) -> Iterator[World]:
    clock = make_clock(database)
    with ServedLedger(database, clock=clock) as served:
        world = World(served, clock)
        yield world
        world.close()


def test_every_operation_has_a_rule() -> None:
    assert sorted(RULES) == sorted(OPERATIONS)
    for operation, (method, path) in OPERATIONS.items():
        about = openapi.SPEC["paths"][path][method.lower()]
        parameters = [openapi.resolve(each["$ref"]) if "$ref" in each else each for each in about.get("parameters", [])]
        in_query = any((each["name"], each["in"]) == ("namespace", "query") for each in parameters)
        place = "path" if "{namespace}" in path else "id" if "{" in path else "query" if in_query else "nothing"
        assert RULES[operation].names == place, operation
        assert (about["tags"] == ["administration"]) is (RULES[operation].roles == ADMINS), operation


@both_stores
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("is_shared", [True, False], ids=["a key that all have", "a key that one tenant has"])
def test_matrix(operation: str, is_shared: bool, world: World) -> None:
    rule = RULES[operation]
    wrong: list[Any] = []
    for number, caller in enumerate(world.callers):
        key = SHARED if is_shared else f"{operation} {number}"
        owner = Tenant(caller.environment if is_shared else "test", HERE)
        effect_id = world.sight.effects[owner, key].effect_id if is_shared else world.make(owner, key)
        is_there = owner.environment == caller.environment
        for names_namespace in (True, False) if rule.names == "query" else (rule.names == "path",):
            query: dict[str, str] = dict(QUERIES.get(operation, {}))
            query |= {"effectKey": key} if rule.names == "path" and rule.there == 200 else {}
            query |= {"namespace": HERE} if rule.names == "query" and names_namespace else {}
            own = Tenant(caller.environment, HERE)
            body = body_of(operation, own, key)
            answer = caller.send(operation, HERE, body=body, effect_id=effect_id, **query)
            openapi.check(answer)
            wanted = expected(rule, caller, is_there=is_there, names_namespace=names_namespace)
            world.sight.note(own, key, answer)
            leaks = world.sight.leaks(caller, answer)
            if answer.status_code != wanted or leaks:
                wrong.append((caller, query, answer.status_code, wanted, leaks, answer.text[:300]))
            if (
                rule.there == 200
                and wanted == 200
                and is_there
                and caller.reaches(HERE)
                and rule.names in ("path", "id")
            ):
                assert owner.mark in answer.text  # a test that looks for marks must be able to find one
    assert wrong == []


NO_KEYS = [None, "x", "Basic dTpw", "Bearer", "Bearer vt_test_x", f"Bearer {mint('test')}", mint("test"), "Bearer \xe9"]


@both_stores
def test_nobody_gets_in_without_a_valid_key(world: World) -> None:
    served, tenant = world.served, Tenant("test", HERE)
    effect_id = world.sight.effects[tenant, SHARED].effect_id
    expired, revoked = served.create_key(lifetime_ms=1), served.create_key(role="org_admin")
    assert served.store.revoke_key(served.store.find_key(hash_api_key(revoked)).id, 1)
    world.clock.advance(1)
    with httpx.Client(base_url=served.base_url, trust_env=False) as http:
        for header in (*NO_KEYS, f"Bearer {expired}", f"Bearer {revoked}"):
            http.headers = httpx.Headers([] if header is None else [(b"authorization", header.encode("latin-1"))])
            for operation in OPERATIONS:
                answer = send(http, operation, HERE, body=body_of(operation, tenant, SHARED), effect_id=effect_id)
                assert answer.status_code == 401, (operation, header)
                assert answer.headers["www-authenticate"] == 'Bearer realm="verity"'
                assert effect_id not in answer.text
