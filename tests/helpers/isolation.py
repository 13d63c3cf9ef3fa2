"""Random calls that try to read other tenants' data, with others' namespaces, keys, tokens, ids and cursors.

`tests/server/test_isolation.py` is the short run, `python -m scripts.isolation` one of any length.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from tests.helpers import openapi
from tests.helpers.served_ledger import ServedLedger
from tests.helpers.tenants import OPERATIONS, PLACE, Caller, Sight, Tenant, all_tenants, body_of
from verity._ledger.calls import ENVIRONMENTS

NAMESPACES = ("payments", "mail", "payments2", "päyments")
BINDINGS: tuple[tuple[str, ...], ...] = ((), *((each,) for each in NAMESPACES), NAMESPACES[:2], NAMESPACES[1:])
ADMINS_ONLY = {"reset_effect", "resolve_effect"}
HOLDERS_ONLY = {"commit_effect", "fail_effect", "renew_effect", "release_effect", "report_observe"}
_WEIGHTS = {"lease_effect": 4, "commit_effect": 2, "fail_effect": 2, "reset_effect": 3}


class Leak(AssertionError):
    """An answer that its caller must not have got."""


class Intruders:
    """Callers of every scope on one ledger, and what has happened so far.

    Args:
        served: an empty ledger.
        seed: the same one makes the same calls.
    """

    def __init__(self, served: ServedLedger, seed: int) -> None:
        self.statuses: Counter[int] = Counter()
        self._rng = random.Random(seed)
        self._sight = Sight(all_tenants(NAMESPACES))
        self.callers = [
            Caller(served, environment, role, binding)
            for environment in ENVIRONMENTS
            for role in ("agent", "org_admin")
            for binding in BINDINGS
        ]

    def run(self, requests: int, tell: Callable[[int], None] = lambda _done: None) -> None:
        """Send so many calls.

        Raises:
            Leak: with what was seen, by whom, and the call.
        """
        operations = list(OPERATIONS)
        weights = [_WEIGHTS.get(operation, 1) for operation in operations]
        for number in range(requests):
            (operation,) = self._rng.choices(operations, weights)
            keys = 10 + number // 1000  # so that there is something new to fight for
            self._try(operation, self._rng.choice(self.callers), f"key {self._rng.randrange(keys)}")
            tell(number + 1)

    def close(self) -> None:
        for caller in self.callers:
            caller.http.close()

    def _try(self, operation: str, caller: Caller, key: str) -> None:
        sight, rng = self._sight, self._rng
        own = Tenant(caller.environment, rng.choice(NAMESPACES))
        others = [tenant for tenant in sight.tenants if (tenant, key) in sight.effects]
        target = sight.effects.get((rng.choice([own, *others]), key))
        tokens = target.tokens if target is not None and rng.random() < 0.9 else None
        more: dict[str, Any] = {"force": rng.random() < 0.3} if operation == "reset_effect" else {}
        effect_id = rng.choice(list(sight.by_id)) if sight.by_id else "eff_0000000000000000"
        names_namespace = "{namespace}" in OPERATIONS[operation][1]
        query = {} if names_namespace and operation in HOLDERS_ONLY | ADMINS_ONLY else self._query(operation, own, key)
        answer = caller.send(
            operation, own.namespace, body=body_of(operation, own, key, tokens, **more), effect_id=effect_id, **query
        )
        openapi.check(answer)
        self.statuses[answer.status_code] += 1
        before = sight.effects.get((own, key))
        sight.note(own, key, answer)
        found = sight.leaks(caller, answer)
        names_namespace = names_namespace or "namespace" in query
        if (operation in ADMINS_ONLY and caller.role != "org_admin") or (
            names_namespace and not caller.reaches(own.namespace)
        ):
            found += self._unless(answer, 403)
        elif operation == "get_effect_by_id":
            is_there = effect_id in sight.by_id and caller.may_see(sight.by_id[effect_id].tenant)
            found += self._unless(answer, 200 if is_there else 404)
        elif operation in HOLDERS_ONLY and answer.status_code == 200 and (before is None or before is not target):
            found.append("a lease of somebody else was good for it")
        if found:
            raise Leak(f"{operation} by {caller} at {own}, {key!r}: {found}: {answer.status_code} {answer.text[:500]}")

    def _query(self, operation: str, own: Tenant, key: str) -> dict[str, str]:
        rng = self._rng
        if operation in ("get_effect", "list_effect_events"):
            return {"effectKey": key}
        query: dict[str, str] = {}
        if operation in ("list_cases", "list_runs"):
            query["workflowName"] = PLACE["workflowName"]
        if operation == "list_runs":
            query["caseId"] = PLACE["caseId"]
        takes_one = operation in ("list_effects", "list_workflows", "list_cases", "list_runs", "get_stats")
        if takes_one and rng.random() < 0.5:
            query["namespace"] = own.namespace
        if operation == "list_effects":
            query["limit"] = str(rng.choice([1, 3, 50, 500]))
            if rng.random() < 0.5 and self._sight.by_id:
                query["cursor"] = str(int(rng.choice(list(self._sight.by_id))[4:], 16) + rng.choice([-1, 0, 1]))
        return query

    @staticmethod
    def _unless(answer: httpx.Response, status: int) -> list[str]:
        return [] if answer.status_code == status else [f"not {status}"]
