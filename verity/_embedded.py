"""The ledger in the caller's own process, behind `sqlite://` base URLs.

Stands where the generated client expects an HTTP client, so that everything above it is the same as with a served
ledger, and so are the answers: both come from `_ledger`, through the same store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import httpx

from verity._core.payload import encode_json
from verity._ledger.calls import Environment, Request, Scope
from verity._store.registry import OpenLedger, open_ledger
from verity._tracing import trace_headers

_OPERATIONS = {
    ("POST", "lease"): "lease_effect",
    ("POST", "commit"): "commit_effect",
    ("POST", "fail"): "fail_effect",
    ("POST", "renew"): "renew_effect",
    ("POST", "report-observe"): "report_observe",
    ("POST", "reset"): "reset_effect",
    ("POST", "resolve"): "resolve_effect",
    ("GET", "effect"): "get_effect",
    ("GET", "events"): "list_effect_events",
}
_LISTS = {
    "effects": "list_effects",
    "namespaces": "list_namespaces",
    "workflows": "list_workflows",
    "cases": "list_cases",
    "runs": "list_runs",
    "stats": "get_stats",
}


class _EmbeddedSender:
    def __init__(self, url: str, environment: Environment, *, ledger: OpenLedger | None = None) -> None:
        self._ledger = ledger or open_ledger(url)
        self._scope = Scope(environment, actor="embedded")
        self._closed = False

    def with_timeout(self, timeout_s: float) -> Any:  # noqa: ARG002 - the storage has its own limits
        """The same sender: no network, nothing to time out."""
        return self

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._ledger.close()

    def _read(
        self, method: str, url: str, headers: Mapping[str, str] | None, json: Any, params: Mapping[str, Any] | None
    ) -> Request:
        return read_request(self._scope, method, url, headers, json, params)


class AsyncEmbeddedSender(_EmbeddedSender):
    """Answers the generated client's async calls."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Carry the call out; raises only what says that the ledger can't be used at all."""
        answer = await self._ledger.loops.answer(self._read(method, url, headers, json, params))
        return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body)

    async def aclose(self) -> None:
        """Let go of the ledger."""
        self._close()


class SyncEmbeddedSender(_EmbeddedSender):
    """Answers the generated client's sync calls."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Carry the call out; raises only what says that the ledger can't be used at all."""
        answer = self._ledger.threads.answer(self._read(method, url, headers, json, params))
        return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body)

    def close(self) -> None:
        """Let go of the ledger."""
        self._close()


def read_request(
    scope: Scope,
    method: str,
    url: str,
    headers: Mapping[str, str] | None,
    json: Any,
    params: Mapping[str, Any] | None,
) -> Request:
    """The call that the generated client would have sent over HTTP."""
    operation, namespace, query = _route(method.upper(), url)
    if params:
        query |= {name: str(value) for name, value in params.items()}
    return Request(
        scope=scope,
        operation=operation,
        namespace=namespace,
        body=b"" if json is None else encode_json(json),
        query=query,
        idempotency_key=headers.get("Idempotency-Key") if headers else None,
        request_id="embedded",
        trace_parent=trace_headers().get("traceparent"),
    )


def _route(method: str, url: str) -> tuple[str, str | None, dict[str, str]]:
    """(operation, namespace, path values) of a path that the generated client made."""
    parts = [unquote(part) for part in url.strip("/").split("/")]
    if len(parts) == 3 and parts[0] == "effects":
        return _OPERATIONS[method, parts[2]], parts[1], {}
    if len(parts) == 2 and parts[0] == "effect-ids":
        return "get_effect_by_id", None, {"effectId": parts[1]}
    return _LISTS[parts[0]], None, {}
