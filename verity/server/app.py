"""The served ledger as an ASGI application.

A request goes one way: route, authenticate, read the body within its limit, check it against the contract, ask the
storage. It is plain ASGI: with answers of a few hundred bytes, a framework's request and response objects would cost
more than all of that together.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from verity._ledger import calls
from verity._ledger.calls import Answer, Request
from verity._ledger.prefer import read_wait_s
from verity._tracing import RequestSpan, read_trace_parent
from verity.server import metrics, problems
from verity.server.auth import Authenticator
from verity.server.contract import load_spec, read_operations
from verity.server.logs import describe
from verity.server.metrics import Metrics, Outcome
from verity.server.problems import Problem
from verity.server.rates import RateLimit
from verity.server.router import Router
from verity.server.settings import ServerSettings
from verity.server.storage import Storage, StorageError
from verity.server.waiting import WaitingRoom

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = dict[bytes, bytes]

_logger = logging.getLogger("verity.server")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
_MAX_QUERY_PARAMETERS = 50
# What a holder says of an effect that it was granted. Refused, it would leave behind what nobody knows of.
_FINISHING = frozenset({"commit_effect", "fail_effect", "renew_effect"})
_PREFIX = "/v1"
_LEASE = "lease_effect"
_PROBES = ("/healthz", "/readyz", "/metrics")
_NOBODY = bytes(32)
_READY_WITHIN_S = 2.0
_LINGER_BYTES = 8 * 1024 * 1024
_LINGER_S = 2.0


class _ClientGone(Exception):
    """The client closed the connection before it had sent its request."""


class _Call:
    """What is known of one request by and by."""

    __slots__ = ("headers", "method", "operation", "path", "request_id", "span", "started_at")

    def __init__(self, scope: Scope) -> None:
        self.started_at = time.perf_counter()
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("latin-1")
        self.headers: Headers = dict(scope["headers"])
        self.request_id = _read_request_id(self.headers)
        self.operation = "unknown"
        self.span = RequestSpan(self.headers)


class LedgerApp:
    """The application. Made by `create_app`.

    Attributes:
        metrics: what `/metrics` tells.
    """

    def __init__(self, storage: Storage, settings: ServerSettings, now_ms: Callable[[], int]) -> None:
        self.metrics = Metrics(storage)
        self._storage = storage
        self._settings = settings
        self._rates = RateLimit(settings.rate_limit)
        self._router = Router(read_operations(load_spec()))
        self.waiting = WaitingRoom(storage, settings.max_waits)
        self.metrics.watch_waits(lambda: self.waiting.parked)
        self._callers = Authenticator(storage.find_key, cache_s=settings.key_cache_s, now_ms=now_ms)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"This application speaks HTTP, not {scope['type']}.")
        call = _Call(scope)
        if not call.path.startswith(_PREFIX + "/"):  # probes would fill a trace with noise
            return await self._serve(call, scope, receive, send)
        with call.span:
            return await self._serve(call, scope, receive, send)

    async def _serve(self, call: _Call, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = call.request_id
        answer: Answer
        try:
            answer = await self._answer(call, scope, receive)
        except _ClientGone:
            self._record(call, metrics.GONE)
            return
        except Problem as problem:
            answer = problems.to_answer(problem, request_id)
        except (StorageError, asyncio.TimeoutError) as error:
            _logger.error("storage did not answer: %s", describe(error), extra={"requestId": request_id})
            answer = problems.to_answer(problems.unavailable(), request_id)
        except asyncio.CancelledError:  # the server ends, and its time to do so in good order is over
            _logger.error("a request was given up: the server ends", extra={"requestId": request_id})
            await _send_answer(send, problems.to_answer(problems.unavailable(), request_id), request_id, more=False)
            self._record(call, 503)
            raise
        except Exception as error:  # noqa: BLE001 - the border: whatever fails is answered as a problem
            _logger.error("a request failed: %s", describe(error), extra={"requestId": request_id})
            answer = problems.to_answer(problems.internal(), request_id)
        await _send_answer(send, answer, request_id, more=answer.status == 413)
        self._record(call, answer.status, answer.outcome)
        if answer.status == 413:
            await _linger(receive, send)

    def _record(self, call: _Call, status: int | str, outcome: Outcome | None = None) -> None:
        """Count the request, and log it where that is wished for."""
        seconds = time.perf_counter() - call.started_at
        self.metrics.count_request(call.operation, status, seconds, outcome)
        call.span.tell(call.operation, call.request_id, status)
        if self._settings.access_log:
            _logger.info(
                "%s %s",
                call.method,
                status,
                extra={
                    "requestId": call.request_id,
                    "operation": call.operation,
                    "durationMs": round(seconds * 1000, 1),
                },
            )

    async def _answer(self, call: _Call, scope: Scope, receive: Receive) -> Answer:
        if not call.path.startswith(_PREFIX + "/"):
            return await self._answer_probe(call)
        headers = call.headers
        operation, in_path = self._router.find(call.method, call.path[len(_PREFIX) :])
        call.operation = operation.name
        caller = await self._callers.authenticate(headers.get(b"authorization"), admin_only=operation.admin_only)
        self._check_rate(caller, operation.name)
        body = await _read_body(headers, receive, self._settings.max_body_bytes)
        parameters = operation.check_parameters(in_path, _read_query(scope["query_string"]), headers)
        members = operation.check_body(body, self._settings.max_body_depth)
        idempotency_key = headers.get(b"idempotency-key")
        request = Request(
            scope=caller,
            operation=operation.name,
            namespace=in_path.get("namespace"),
            body=body,
            members=members,
            query=parameters,
            idempotency_key=None if idempotency_key is None else idempotency_key.decode("latin-1"),
            request_id=call.request_id,
            trace_parent=read_trace_parent(headers.get(b"traceparent")),
        )
        wait_s = 0
        if operation.name == _LEASE and b"prefer" in headers:
            wait_s = read_wait_s(headers[b"prefer"].decode("latin-1"))
        if wait_s:
            authorization = headers.get(b"authorization")
            check = partial(self._callers.authenticate, authorization, admin_only=operation.admin_only)
            return await self.waiting.answer_lease(request, wait_s, receive, check)
        answer = await self._storage.answer(request)
        if self.waiting.parked and answer.status == 200:
            self.waiting.changed(request)
        return answer

    def _check_rate(self, caller: calls.Scope, operation: str) -> None:
        wait_s = self._rates.take(caller.actor or "", must=operation in _FINISHING)
        if wait_s:
            self.metrics.count_rate_limited()
            raise problems.rate_limited(math.ceil(wait_s))

    async def _answer_probe(self, call: _Call) -> Answer:
        """`/healthz`: the process answers. `/readyz`: its storage does, too. `/metrics`: for Prometheus."""
        if call.path not in _PROBES:
            raise problems.not_found()
        if call.method not in ("GET", "HEAD"):
            raise problems.method_not_allowed(["GET", "HEAD"])
        call.operation = call.path[1:]
        if call.path == "/metrics":
            return Answer(200, await self.metrics.render(), {"content-type": metrics.CONTENT_TYPE})
        if call.path == "/readyz":
            # Looking up a key that nobody has is what every request needs of the storage.
            await asyncio.wait_for(self._storage.find_key(_NOBODY), _READY_WITHIN_S)
        return Answer(200, b'{"status":"ok"}')


def create_app(
    storage: Storage,
    settings: ServerSettings | None = None,
    *,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> LedgerApp:
    """Make the application.

    Args:
        storage: an open storage; it stays the caller's to close, after the last request.
        settings: the defaults, if None.
        now_ms: ms since 1970; it decides when API keys expire.
    """
    return LedgerApp(storage, settings or ServerSettings(), now_ms)


def _read_request_id(headers: Headers) -> str:
    """The caller's own id of the request where it is a sane one, or a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    # No secret. What is drawn from the system costs a call and gives up the interpreter's lock, for each request.
    return f"req_{random.getrandbits(96):024x}"


def _read_query(query: bytes) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        return parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_PARAMETERS
        )
    except ValueError:
        raise problems.invalid_request([{"path": "query", "message": "is not UTF-8, or is too long"}]) from None


async def _read_body(headers: Headers, receive: Receive, max_bytes: int) -> bytes:
    length = headers.get(b"content-length")
    if length is not None and int(length) > max_bytes:
        raise problems.body_too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise problems.body_too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _send_answer(send: Send, answer: Answer, request_id: str, *, more: bool) -> None:
    headers = [(b"content-length", b"%d" % len(answer.body)), (b"x-request-id", request_id.encode())]
    if answer.headers:
        headers += [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    if "content-type" not in answer.headers:
        headers.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": more})


async def _linger(receive: Receive, send: Send) -> None:
    """Take in, for a moment, what a client still sends of a body that was refused.

    A connection that is closed on unread data is reset, and the reset may take the answer away with it.
    """

    async def discard() -> None:
        size, more = 0, True
        while more and size < _LINGER_BYTES:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)

    try:
        await asyncio.wait_for(discard(), _LINGER_S)
    except asyncio.TimeoutError:
        _logger.debug("a client went on sending a body that was refused")
    await send({"type": "http.response.body", "body": b"", "more_body": False})
