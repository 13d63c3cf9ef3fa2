"""The ledger in the caller's own process, behind `sqlite://` base URLs.

The senders of this module take the place of the HTTP client below the generated client. So the code above them is the
same as for a served ledger. The answers are the same, too: both ledgers make them with `_ledger` and `_store`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import apsw

from verity._clock import monotonic
from verity._core.payload import encode_json
from verity._ledger.calls import Answer, Environment, Request, Scope
from verity._ledger.paths import match
from verity._ledger.prefer import read_wait_s
from verity._ledger.raw_json import read_members
from verity._operations import Operation
from verity._store.lease_states import EffectName
from verity._store.sqlite.registry import OpenLedger, open_ledger
from verity._store.sqlite.store import SqliteStore
from verity._tracing import trace_headers

if TYPE_CHECKING:
    import httpx

_CHECK_EVERY_S = 0.05


class _Wait:
    """How a lease request with `Prefer: wait=N` waits while another holder's lease is live.

    It checks the lease again and again, because the other holder may be in another process. This is cheap: of a
    process's calls on one effect only one waits here, and a check is one read, for which no writer waits.
    """

    def __init__(self, store: SqliteStore, request: Request, headers: Mapping[str, str] | None) -> None:
        self.asked_s = read_wait_s((headers or {}).get("Prefer"))
        self._store = store
        self._request = request
        self._end = monotonic() + self.asked_s

    def should_wait(self, answer: Answer) -> bool:
        """Whether to wait after this answer."""
        return bool(self.asked_s) and answer.outcome[0] == "lease_conflict" and monotonic() < self._end

    def should_ask_again(self) -> bool:
        """Whether the lease is not live any more, so that the request should be repeated."""
        key = read_members(self._request.body).values["effectKey"]
        name = EffectName(self._request.scope.environment, self._request.namespace or "", key)
        try:
            (state,) = self._store.lease_states([name])
        except apsw.Error:  # the repeated request will be answered with the storage's error
            return True
        return not state.remaining_ms


@dataclass(slots=True)
class EmbeddedResponse:
    """The part of an `httpx.Response` that the client reads.

    Three real responses would take a twelfth of an effect's CPU time.

    Attributes:
        status_code: the HTTP status that a served ledger would answer with.
        headers: the headers, with lower-case names.
        content: the JSON body.
        extensions: always empty. Over HTTP, `verity/_async/pool.py` adds some.
    """

    status_code: int
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)
    extensions: Mapping[str, Any] = field(default_factory=dict, repr=False)


def _to_response(answer: Answer, wait: _Wait) -> httpx.Response:
    headers = {**answer.headers, "preference-applied": "wait"} if wait.asked_s else answer.headers
    # The generated client passes it on unchanged, and `_async/ledger.py` reads only these attributes.
    return cast("httpx.Response", EmbeddedResponse(answer.status, headers, answer.body))


class _EmbeddedSender:
    has_own_connections: bool = True
    """Many requests may wait at once: there are no connections that they would use up."""
    is_remote: bool = False
    own_errors: tuple[type[Exception], ...] = (apsw.Error, OSError)
    """The exceptions of the storage."""

    def __init__(self, url: str, environment: Environment, *, ledger: OpenLedger | None = None) -> None:
        self._ledger = ledger or open_ledger(url)
        self._scope = Scope(environment, actor="embedded")
        self.caller: object = (self._ledger, environment)
        self._closed = False

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._ledger.close()


class AsyncEmbeddedSender(_EmbeddedSender):
    """The sender of async clients."""

    def with_timeout(self, timeout_s: float) -> AsyncEmbeddedSender:  # noqa: ARG002 - the storage has its own limits
        """The same sender: there is no network, so nothing can time out."""
        return self

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Carry out a call. Raises VerityError if the ledger can't be used."""
        request = read_request(self._scope, method, url, headers=headers, json=json, params=params)
        wait = _Wait(self._ledger.store, request, headers)
        answer = await self._ledger.answer(request)
        while wait.should_wait(answer):
            import anyio  # only here: a program that does not wait does not need it

            await anyio.sleep(_CHECK_EVERY_S)
            if await self._ledger.reads.run_for_node(wait.should_ask_again):
                answer = await self._ledger.answer(request)
        return _to_response(answer, wait)

    async def aclose(self) -> None:
        """Close the ledger, unless others in this process use it."""
        self._close()


class SyncEmbeddedSender(_EmbeddedSender):
    """The sender of sync clients."""

    def with_timeout(self, timeout_s: float) -> SyncEmbeddedSender:  # noqa: ARG002 - the storage has its own limits
        """The same sender: there is no network, so nothing can time out."""
        return self

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Carry out a call. Raises VerityError if the ledger can't be used."""
        request = read_request(self._scope, method, url, headers=headers, json=json, params=params)
        wait = _Wait(self._ledger.store, request, headers)
        answer = self._ledger.answer_here(request)
        while wait.should_wait(answer):
            time.sleep(_CHECK_EVERY_S)
            if wait.should_ask_again():
                answer = self._ledger.answer_here(request)
        return _to_response(answer, wait)

    def close(self) -> None:
        """Close the ledger, unless others in this process use it."""
        self._close()


def read_request(
    scope: Scope,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    params: Mapping[str, Any] | None = None,
) -> Request:
    """Make a `Request` from what the generated client gives to an HTTP client."""
    operation, query = _route(method.upper(), url)
    namespace = query.pop("namespace", None)
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


def _route(method: str, url: str) -> tuple[Operation, dict[str, str]]:
    """The operation of a request, and the values of its path parameters."""
    found = match(url)
    if found is None:
        raise LookupError(f"{url} is no path of the API")
    operation = found.operations[method]
    names = _PARAMETERS[operation]
    return operation, dict(zip(names, map(unquote, found.values), strict=True))


_PARAMETERS = {operation: re.findall(r"\{(\w+)\}", operation.path) for operation in Operation}
