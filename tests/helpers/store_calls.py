"""`Caller`: sends single operations to a store, without HTTP, in few words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.helpers.openapi import SPEC
from verity._ledger.calls import Answer, Environment, Request, Scope
from verity._operations import Operation

STATUSES = {
    operation["operationId"]: operation["responses"].keys()
    for path in SPEC["paths"].values()
    for method, operation in path.items()
    if method != "parameters"
}


class Caller:
    """Sends single calls to a store, in one scope."""

    def __init__(
        self,
        store: Any,
        environment: Environment = "test",
        namespaces: Iterable[str] | None = None,
        namespace: str = "payments",
    ) -> None:
        self.store = store
        self.scope = Scope(environment, None if namespaces is None else frozenset(namespaces), "tester")
        self.namespace = namespace

    def request(self, operation: str, body: Any = None, *, key: str | None = None, **query: str) -> Request:
        in_namespace = operation.endswith("_effect") or operation in ("report_observe", "list_effect_events")
        return Request(
            scope=self.scope,
            operation=Operation(operation),
            namespace=self.namespace if in_namespace else None,
            body=b"" if body is None else json.dumps(body).encode(),
            query=query,
            idempotency_key=key,
            request_id="req_1",
        )

    def ask(self, operation: str, body: Any = None, *, key: str | None = None, **query: str) -> Answer:
        answer: Answer = self.store.answer(self.request(operation, body, key=key, **query))
        assert str(answer.status) in STATUSES[operation], f"openapi.yaml has no {answer.status} for {operation}"
        return answer

    def __call__(self, operation: str, body: Any = None, *, key: str | None = None, **query: str) -> Any:
        """The JSON of a success."""
        answer = self.ask(operation, body, key=key, **query)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def refused(self, operation: str, body: Any = None, **query: str) -> tuple[int, str]:
        """The status and the code of a refusal."""
        answer = self.ask(operation, body, **query)
        return answer.status, json.loads(answer.body)["error"]["code"]

    def commit(self, key: str, result: Any = "done") -> None:
        """Lease and commit."""
        self("commit_effect", {**self.tokens(self("lease_effect", {"effectKey": key})), "result": result})

    @staticmethod
    def tokens(lease: Any) -> dict[str, Any]:
        return {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
