"""The served ledger as an ASGI application.

A request goes one way: route, authenticate, read the body within its limit, check it against the contract, ask the
storage. It is plain ASGI: with answers of a few hundred bytes, a framework's request and response objects would cost
more than all of that together.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from urllib.parse import parse_qsl

from verity._ledger.calls import Answer, Request
from verity._ledger.prefer import read_wait_s
from verity._ledger.problems import Problem, answer_problem
from verity._operations import Operation
from verity._store.interface import AsyncStore, StorageError
from verity._store.reads import READS
from verity._tracing import read_trace_parent
from verity.server import metrics, problems
from verity.server.auth import Authenticator
from verity.server.contract import load_spec, read_endpoints
from verity.server.exchange import AsgiExchange, AsgiReceive, AsgiScope, AsgiSend, ClientGone, Exchange, HttpRequest
from verity.server.logs import UNAUTHENTICATED, describe
from verity.server.metrics import Metrics, Outcome
from verity.server.rates import RateLimit
from verity.server.router import Router
from verity.server.searches import ReadLimit
from verity.server.settings import ServerSettings
from verity.server.waiting import WaitingRoom

_logger = logging.getLogger("verity.server")
_unauthenticated = logging.getLogger(UNAUTHENTICATED)

_MAX_QUERY_PARAMETERS = 50
_PREFIX = "/v1/"
_PROBES = ("/healthz", "/readyz", "/metrics")
_NOBODY = bytes(32)
_READY_WITHIN_S = 2.0
_TOO_MANY = 429


class LedgerApp:
    """The application. Made by `create_app`.

    Attributes:
        metrics: what `/metrics` tells.
        tells_metrics: whether it tells it to its callers; if not, only `Operators` do.
    """

    def __init__(self, store: AsyncStore, settings: ServerSettings, now_ms: Callable[[], int]) -> None:
        self.metrics = Metrics(store, kept_s=settings.metrics_kept_s)
        self.tells_metrics = True
        self._store = store
        self._settings = settings
        self._rates = RateLimit(settings.rate_limit)
        self._reads = ReadLimit(settings.max_searches)
        self._router = Router(read_endpoints(load_spec()))
        self.waiting = WaitingRoom(store, settings.max_waits)
        self.metrics.watch_waits(lambda: self.waiting.waiting_count)
        self._callers = Authenticator(store.find_key, cache_s=settings.key_cache_s, now_ms=now_ms)

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Answer one request, as an ASGI application."""
        if scope["type"] != "http":
            raise RuntimeError(f"This application speaks HTTP, not {scope['type']}.")
        exchange = AsgiExchange(scope, receive, send)
        await self.serve(exchange.call, exchange)

    async def serve(self, call: HttpRequest, exchange: Exchange) -> None:
        """Answer one request."""
        if not call.path.startswith(_PREFIX):  # probes would fill a trace with noise
            return await self._serve(call, exchange, self._answer)
        with call.span:
            return await self._serve(call, exchange, self._answer)

    async def _serve(
        self, call: HttpRequest, exchange: Exchange, answer_call: Callable[[HttpRequest, Exchange], Awaitable[Answer]]
    ) -> None:
        request_id = call.request_id
        answer: Answer
        try:
            answer = await answer_call(call, exchange)
        except ClientGone:
            self._record(call, metrics.GONE)
            return
        except Problem as problem:
            answer = answer_problem(problem, request_id)
        except (StorageError, asyncio.TimeoutError) as error:
            # Only a probe, or who has a key to be looked up, gets here: calls are answered, whatever ails the storage.
            _unauthenticated.error("storage did not answer: %s", describe(error), extra={"requestId": request_id})
            answer = answer_problem(problems.unavailable(), request_id)
        except asyncio.CancelledError:  # the server ends, and its time to do so in good order is over
            _logger.error("a request was given up: the server ends", extra={"requestId": request_id})
            await exchange.send(answer_problem(problems.unavailable(), request_id), request_id)
            self._record(call, 503)
            raise
        except Exception as error:  # noqa: BLE001 - the border: whatever fails is answered as a problem
            _logger.error("a request failed: %s", describe(error), extra={"requestId": request_id})
            answer = answer_problem(problems.internal(), request_id)
        self._record(call, answer.status, answer.outcome)
        if call.key_id is not None:
            self._rates.end(call.key_id, call.operation, answer)
        await exchange.send(answer, request_id)

    def _record(self, call: HttpRequest, status: int | str, outcome: Outcome | None = None) -> None:
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

    def give_up(self, call: HttpRequest) -> None:
        """Take note of a request whose client left before it had sent all of it."""
        with suppress(Problem):
            call.operation = self._router.find(call.method, call.path).endpoint.operation
        self._record(call, metrics.GONE)

    async def _answer(self, call: HttpRequest, exchange: Exchange) -> Answer:
        if not call.path.startswith(_PREFIX):
            return await self._answer_probe(call, tells_metrics=self.tells_metrics)
        headers = call.headers
        route = self._router.find(call.method, call.path)
        endpoint = route.endpoint
        operation = call.operation = endpoint.operation
        authorization = headers.get(b"authorization")
        caller = self._callers.recall(authorization, admin_only=endpoint.admin_only)
        if caller is None:
            caller = await self._callers.authenticate(authorization, admin_only=endpoint.admin_only)
        key_id = caller.actor or ""
        connection = exchange.connection
        if connection is not None:
            connection.belong_to(key_id)
            if operation in READS and connection.is_behind():
                self.metrics.count_rate_limited()
                raise problems.too_much_unread()
        if self._rates.is_on:
            self._check_rate(key_id, operation)
            call.key_id = key_id
        body = await exchange.read_body(self._settings.max_body_bytes)
        self._rates.charge_body(key_id, len(body))
        query = endpoint.check_parameters(route.details, _read_query(call.query), headers)
        members = endpoint.check_body(body, self._settings.max_body_depth)
        idempotency_key = headers.get(b"idempotency-key")
        request = Request(
            caller,
            operation,
            route.in_path.get("namespace"),
            body,
            members,
            {**query, **route.in_path} if query else route.in_path,
            None if idempotency_key is None else idempotency_key.decode("latin-1"),
            call.request_id,
            read_trace_parent(headers.get(b"traceparent")),
        )
        if operation is Operation.LEASE_EFFECT and b"prefer" in headers:
            wait_s = read_wait_s(headers[b"prefer"].decode("latin-1"))
            if wait_s:
                check = partial(self._callers.authenticate, authorization, admin_only=endpoint.admin_only)
                return await self.waiting.answer_lease(request, wait_s, exchange.until_gone, check)
        if operation in READS:
            return await self._read(request, exchange)
        answer = await self._store.answer(request)
        if self.waiting.waiting_count and answer.status == 200:
            self.waiting.changed(request)
        return answer

    async def _read(self, request: Request, exchange: Exchange) -> Answer:
        def read() -> Awaitable[Answer]:
            return self._store.answer(request)

        try:
            return await self._reads.answer(request.scope.actor or "", request.operation, read, exchange.until_gone)
        except Problem as problem:
            if problem.status == _TOO_MANY:
                self.metrics.count_rate_limited()
            raise

    def _check_rate(self, key_id: str, operation: str) -> None:
        wait_s = self._rates.begin(key_id, operation)
        if wait_s:
            self.metrics.count_rate_limited()
            raise problems.rate_limited(math.ceil(wait_s))

    async def serve_operator(self, call: HttpRequest, exchange: Exchange) -> None:
        """Answer one request that came on the address for operators."""
        await self._serve(call, exchange, self._answer_operator)

    async def _answer_operator(self, call: HttpRequest, _exchange: Exchange) -> Answer:
        return await self._answer_probe(call, tells_metrics=True)

    async def _answer_probe(self, call: HttpRequest, *, tells_metrics: bool) -> Answer:
        """`/healthz`: the process answers. `/readyz`: its storage does, too. `/metrics`: for Prometheus."""
        if call.path not in _PROBES or (call.path == "/metrics" and not tells_metrics):
            raise problems.not_found()
        if call.method not in ("GET", "HEAD"):
            raise problems.method_not_allowed(["GET", "HEAD"])
        call.operation = call.path[1:]
        if call.path == "/metrics":
            return Answer(200, await self.metrics.render(), {"content-type": metrics.CONTENT_TYPE})
        if call.path == "/readyz":
            # Looking up a key that nobody has is what every request needs of the storage.
            await asyncio.wait_for(self._store.find_key(_NOBODY), _READY_WITHIN_S)
        return Answer(200, b'{"status":"ok"}')


class Operators:
    """What a node tells on an address for its operators alone: `/metrics` and the probes, and nothing of the API."""

    def __init__(self, app: LedgerApp) -> None:
        self.metrics = app.metrics
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Answer one request, as an ASGI application."""
        exchange = AsgiExchange(scope, receive, send)
        await self.serve(exchange.call, exchange)

    async def serve(self, call: HttpRequest, exchange: Exchange) -> None:
        """Answer one request."""
        await self._app.serve_operator(call, exchange)

    def give_up(self, call: HttpRequest) -> None:
        """Take note of a request whose client left before it had sent all of it."""
        self._app.give_up(call)


def create_app(
    store: AsyncStore,
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
    return LedgerApp(store, settings or ServerSettings(), now_ms)


def _read_query(query: bytes) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        return parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_PARAMETERS
        )
    except ValueError:
        raise problems.invalid_request([{"path": "query", "message": "is not UTF-8, or is too long"}]) from None
