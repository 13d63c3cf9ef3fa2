"""Tenants of one ledger, and what each of them may see.

A tenant is a namespace of an environment. All tenants use the same effect keys, cases and runs, so that only their
scopes keep them apart. Every secret of a tenant contains its `mark`. `Sight` searches all answers, errors included, for
marks, ids and counts of other tenants.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from tests.helpers.openapi import SPEC
from tests.helpers.served_ledger import ServedLedger
from verity._ledger.calls import ENVIRONMENTS, Environment
from verity._ledger.transitions import MAX_REPORTS
from verity._store.api_keys import Role

OPERATIONS: dict[str, tuple[str, str]] = {
    about["operationId"]: (method.upper(), path)
    for path, item in SPEC["paths"].items()
    for method, about in item.items()
    if method != "parameters"
}
"""The method and the path of each operation of openapi.yaml."""

PLACE = {"workflowName": "flow", "caseId": "case", "runId": "run"}
"""Where every tenant's effects belong."""
_EFFECT_ID = re.compile(r"eff_[0-9a-f]{16}")


class Tenant(NamedTuple):
    """Whose data it is."""

    environment: Environment
    namespace: str

    @property
    def mark(self) -> str:
        """The text that every secret of this tenant contains."""
        return f"<secret of {self.namespace} in {self.environment}>"


def body_of(operation: str, tenant: Tenant, key: str, tokens: Any = None, **more: Any) -> dict[str, Any] | None:
    """The body of an effect call, with the tenant's mark wherever there is room for one; None for a read."""
    tokens = {"fenceToken": 1, "leaseToken": "wrong"} if tokens is None else tokens
    bodies: dict[str, dict[str, Any]] = {
        "lease_effect": {"inputJson": [tenant.mark], "agentId": tenant.mark, "effectName": tenant.mark, **PLACE},
        "commit_effect": {**tokens, "result": tenant.mark},
        "fail_effect": {**tokens, "error": {"message": tenant.mark}},
        "renew_effect": tokens,
        "release_effect": {**tokens, "acted": "no"},
        "report_observe": {**tokens, "hit": False},
        "reset_effect": {"reason": tenant.mark},
        "resolve_effect": {"result": tenant.mark, "reason": tenant.mark},
    }
    return {**bodies[operation], **more, "effectKey": key} if operation in bodies else None


@dataclass
class Kept:
    """The data of one effect that the ledger is known to have."""

    tenant: Tenant
    effect_id: str
    status: str = "RUNNING"
    tokens: dict[str, Any] = field(default_factory=dict)
    lease_expires_at: str = ""
    reports: int = 0
    """Of the current grant."""

    def is_new(self, word: str, said: dict[str, Any]) -> bool:
        """Whether an answer is of a call that left a new event. Calls that a holder repeats leave a limited number."""
        if word == "reported":
            self.reports += 1
            return self.reports <= MAX_REPORTS
        return word != "renewed" or said["leaseExpiresAt"] != self.lease_expires_at


def send(
    http: httpx.Client, operation: str, where: str, *, body: Any = None, effect_id: str = "", **query: str
) -> httpx.Response:
    """Send one call; `where` is the namespace in its path, if there is one."""
    method, path = OPERATIONS[operation]
    return http.request(method, path.format(namespace=where, effectId=effect_id), json=body, params=query or None)


class Caller:
    """An API key with a connection, and the tenants that it may see."""

    def __init__(
        self, served: ServedLedger, environment: Environment, role: Role, namespaces: tuple[str, ...] = ()
    ) -> None:
        self.environment = environment
        self.role = role
        self.namespaces = namespaces
        key = served.create_key(environment, role, namespaces=namespaces)
        self.http = httpx.Client(
            base_url=served.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
        )

    def __repr__(self) -> str:
        return f"<{self.role} of {self.environment}, bound to {list(self.namespaces) or 'nothing'}>"

    def may_see(self, tenant: Tenant) -> bool:
        """Whether the tenant is in this caller's scope."""
        return tenant.environment == self.environment and self.reaches(tenant.namespace)

    def reaches(self, namespace: str) -> bool:
        """Whether the key is not bound to others."""
        return not self.namespaces or namespace in self.namespaces

    def send(self, operation: str, where: str, **parts: Any) -> httpx.Response:
        """Send one call."""
        return send(self.http, operation, where, **parts)


class Sight:
    """Knows the data of all tenants, and finds in an answer the data that its caller must not see."""

    def __init__(self, tenants: list[Tenant]) -> None:
        self.tenants = tenants
        self.effects: dict[tuple[Tenant, str], Kept] = {}
        self.by_id: dict[str, Kept] = {}
        self.events: dict[Tenant, Counter[str]] = {tenant: Counter() for tenant in tenants}

    def note(self, tenant: Tenant, key: str, answer: httpx.Response) -> None:
        """Remember what an effect call has changed."""
        if answer.request.method == "GET" or answer.status_code != 200:
            return
        said = answer.json()
        kept = self.effects.get((tenant, key))
        if kept is None:
            kept = self.effects[tenant, key] = self.by_id[said["effectId"]] = Kept(tenant, said["effectId"])
        word = said["status"]
        if word == "granted":
            kept.tokens = {name: said[name] for name in ("effectKey", "fenceToken", "leaseToken")}
            kept.reports = 0
        if word in _CHANGES:
            status, event = _CHANGES[word]
            kept.status = status or kept.status
            self.events[tenant][event] += kept.is_new(word, said)
        kept.lease_expires_at = said.get("leaseExpiresAt", kept.lease_expires_at)

    def leaks(self, caller: Caller, answer: httpx.Response, asked_for: str = "") -> list[str]:
        """The parts of the answer that this caller must not see. `asked_for` is an effect id that it sent."""
        text = answer.text + repr(answer.headers)
        found = [
            f"the mark of {tenant}" for tenant in self.tenants if not caller.may_see(tenant) and tenant.mark in text
        ]
        for effect_id in {*_EFFECT_ID.findall(text)} - {asked_for}:
            kept = self.by_id.get(effect_id)
            if kept is not None and not caller.may_see(kept.tenant):
                found.append(f"the id of an effect of {kept.tenant}")
        if answer.status_code == 200 and answer.request.method == "GET":
            found += self._wrong_numbers(caller, answer)
        return found

    def _wrong_numbers(self, caller: Caller, answer: httpx.Response) -> list[str]:
        """Counts and cursors have no marks: they are compared with what is known."""
        path = answer.request.url.path.removeprefix("/v1")
        query = dict(answer.request.url.params)
        said = answer.json()
        seen = [
            kept
            for kept in self.effects.values()
            if caller.may_see(kept.tenant) and query.get("namespace", kept.tenant.namespace) == kept.tenant.namespace
        ]
        if path == "/stats":
            tenants = [each for each in self.tenants if caller.may_see(each)]
            tenants = [each for each in tenants if query.get("namespace", each.namespace) == each.namespace]
            events = sum((self.events[tenant] for tenant in tenants), Counter[str]())
            expected: Any = (Counter(kept.status for kept in seen), events)
            actual: Any = (+Counter(said["byStatus"]), +Counter(said["events"]))
        elif path == "/namespaces":
            expected = Counter(kept.tenant.namespace for kept in seen)
            actual = {item["namespace"]: item["effects"] for item in said["items"]}
        elif path in ("/workflows", "/cases", "/runs"):
            expected = [len(seen)] if seen else []
            actual = [item["effects"] for item in said["items"]]
        elif path == "/effects":
            newest_first = sorted((kept.effect_id for kept in seen), reverse=True)
            after = int(query.get("cursor", 2**63 - 1))
            wanted = [each for each in newest_first if int(each[4:], 16) < after]
            limit = int(query.get("limit", "50"))
            expected = (wanted[:limit], int(wanted[limit - 1][4:], 16) if len(wanted) > limit else None)
            cursor = said.get("nextCursor")
            actual = ([item["effectId"] for item in said["items"]], None if cursor is None else int(cursor))
        else:
            return []  # of one effect
        return [] if expected == actual else [f"{path}: {json.dumps(said)[:300]} instead of {expected}"]


_CHANGES = {
    "granted": ("RUNNING", "LEASE_GRANTED"),
    "renewed": (None, "LEASE_RENEWED"),
    "released": ("IDLE", "LEASE_RELEASED"),
    "reported": (None, "OBSERVE_MISS"),
    "accepted": ("COMMITTED", "COMMITTED"),
    "recorded": ("FAILED", "FAILED"),
    "reset": ("IDLE", "RESET"),
    "resolved": ("COMMITTED", "RESOLVED"),
}
"""The status, where it changes, and the event that go with a word of an answer."""


def all_tenants(namespaces: tuple[str, ...]) -> list[Tenant]:
    """One for each environment and namespace."""
    return [Tenant(environment, namespace) for environment in ENVIRONMENTS for namespace in namespaces]
