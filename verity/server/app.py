"""The served ledger as an ASGI application.

For each request: find the endpoint, authenticate the caller, apply the limits, read the body, check it against the
contract, ask the store. This is plain ASGI without a framework. Answers have a few hundred bytes: a framework's request
and response objects would cost more than all these steps together.
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
from verity.server.effect_call_limiter import EffectCallLimiter, max_calls_for
from verity.server.exchange import AsgiExchange, AsgiReceive, AsgiScope, AsgiSend, ClientGone, Exchange, HttpRequest
from verity.server.logs import UNAUTHENTICATED, describe
from verity.server.metrics import Metrics, Outcome
from verity.server.rate_limiter import RateLimiter
from verity.server.read_limiter import ReadLimiter
from verity.server.router import Router
from verity.server.settings import ServerSettings
from verity.server.waiting import LeaseWaiters

_logger = logging.getLogger("verity.server")
_unauthenticated = logging.getLogger(UNAUTHENTICATED)

_MAX_QUERY_PARAMETERS = 50
_PREFIX = "/v1/"
_PROBES = ("/healthz", "/readyz", "/metrics")
_UNUSED_KEY_HASH = bytes(32)
_READY_WITHIN_S = 2.0
_TOO_MANY_REQUESTS = 429


class LedgerApp:
    """The application. Made by `create_app`.

    Attributes:
        metrics: what `/metrics` shows.
        serves_metrics: whether this application serves `/metrics`; if not, only `OperatorApp` does.
        waiting: the lease requests that wait.
    """

    def __init__(self, store: AsyncStore, settings: ServerSettings, now_ms: Callable[[], int]) -> None:
        self.metrics = Metrics(store, kept_s=settings.metrics_kept_s)
        self.serves_metrics = True
        self._store = store
        self._settings = settings
        self._rate_limiter = RateLimiter(settings.rate_limit)
        self._read_limiter = ReadLimiter(settings.max_searches)
        self._effect_call_limiter = EffectCallLimiter(store, max_calls_for(settings.max_batch))
        self._router = Router(read_endpoints(load_spec()))
        self.waiting = LeaseWaiters(store, settings.max_waits)
        self.metrics.watch_waits(lambda: self.waiting.waiting_count)
        self._authenticator = Authenticator(store.find_key, cache_s=settings.key_cache_s, now_ms=now_ms)

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Answer one request, as an ASGI application."""
        if scope["type"] != "http":
            raise RuntimeError(f"This application speaks HTTP, not {scope['type']}.")
        exchange = AsgiExchange(scope, receive, send)
        await self.serve(exchange.request, exchange)

    async def serve(self, request: HttpRequest, exchange: Exchange) -> None:
        """Answer one request."""
        if not request.path.startswith(_PREFIX):  # no spans for probes: they are frequent and say nothing
            return await self._serve(request, exchange, self._answer)
        with request.span:
            return await self._serve(request, exchange, self._answer)

    async def _serve(
        self,
        request: HttpRequest,
        exchange: Exchange,
        answer_request: Callable[[HttpRequest, Exchange], Awaitable[Answer]],
    ) -> None:
        request_id = request.request_id
        answer: Answer
        try:
            answer = await answer_request(request, exchange)
        except ClientGone:
            self._record(request, metrics.GONE)
            return
        except Problem as problem:
            answer = answer_problem(problem, request_id)
        except (StorageError, asyncio.TimeoutError) as error:
            # Raised by a probe or by the lookup of an API key. `store.answer` turns the store's errors into answers.
            _unauthenticated.error("the store did not answer: %s", describe(error), extra={"requestId": request_id})
            answer = answer_problem(problems.unavailable(), request_id)
        except asyncio.CancelledError:  # the server stops, and its drain timeout is over
            _logger.error("a request was cancelled: the server stops", extra={"requestId": request_id})
            await exchange.send(answer_problem(problems.unavailable(), request_id), request_id)
            self._record(request, 503)
            raise
        except Exception as error:  # noqa: BLE001 - the border: every error is answered as a problem
            _logger.error("a request failed: %s", describe(error), extra={"requestId": request_id})
            answer = answer_problem(problems.internal(), request_id)
        self._record(request, answer.status, answer.outcome)
        if request.key_id is not None:
            self._rate_limiter.record_answer(request.key_id, request.operation, answer)
        await exchange.send(answer, request_id)

    def _record(self, request: HttpRequest, status: int | str, outcome: Outcome | None = None) -> None:
        """Count the request, and log it if the access log is on."""
        seconds = time.perf_counter() - request.started_at
        self.metrics.count_request(request.operation, status, seconds, outcome)
        request.span.tell(request.operation, request.request_id, status)
        if self._settings.access_log:
            _logger.info(
                "%s %s",
                request.method,
                status,
                extra={
                    "requestId": request.request_id,
                    "operation": request.operation,
                    "durationMs": round(seconds * 1000, 1),
                },
            )

    def record_client_gone(self, request: HttpRequest) -> None:
        """Count a request whose client left before it had sent all of it."""
        with suppress(Problem):
            request.operation = self._router.find(request.method, request.path).endpoint.operation
        self._record(request, metrics.GONE)

    async def _answer(self, request: HttpRequest, exchange: Exchange) -> Answer:
        if not request.path.startswith(_PREFIX):
            return await self._answer_probe(request, serves_metrics=self.serves_metrics)
        headers = request.headers
        route = self._router.find(request.method, request.path)
        endpoint = route.endpoint
        operation = request.operation = endpoint.operation
        authorization = headers.get(b"authorization")
        caller = self._authenticator.authenticate_from_cache(authorization, admin_only=endpoint.admin_only)
        if caller is None:
            caller = await self._authenticator.authenticate(authorization, admin_only=endpoint.admin_only)
        key_id = caller.actor or ""
        connection = exchange.connection
        if connection is not None:
            connection.assign_to_key(key_id)
            if operation in READS and connection.has_too_much_unread():
                self.metrics.count_rate_limited()
                raise problems.too_much_unread()
        if self._rate_limiter.is_on:
            self._check_rate(key_id, operation)
            request.key_id = key_id
        body = await exchange.read_body(self._settings.max_body_bytes)
        self._rate_limiter.charge_body(key_id, len(body))
        query = endpoint.check_parameters(route.details, _read_query(request.query), headers)
        members = endpoint.check_body(body, self._settings.max_body_depth)
        idempotency_key = headers.get(b"idempotency-key")
        ledger_request = Request(
            caller,
            operation,
            route.in_path.get("namespace"),
            body,
            members,
            {**query, **route.in_path} if query else route.in_path,
            None if idempotency_key is None else idempotency_key.decode("latin-1"),
            request.request_id,
            read_trace_parent(headers.get(b"traceparent")),
        )
        if operation in READS:
            return await self._answer_read(ledger_request, exchange)
        has_left = _never if connection is None else connection.has_left
        if operation is Operation.LEASE_EFFECT and b"prefer" in headers:
            wait_s = read_wait_s(headers[b"prefer"].decode("latin-1"))
            if wait_s:
                check = partial(self._authenticator.authenticate, authorization, admin_only=endpoint.admin_only)
                ask = partial(self._effect_call_limiter.answer, has_left=has_left)
                return await self.waiting.answer_lease(ledger_request, wait_s, ask, exchange.until_gone, check)
        answer = await self._effect_call_limiter.answer(ledger_request, has_left)
        if self.waiting.waiting_count and answer.status == 200:
            self.waiting.wake_after(ledger_request)
        return answer

    async def _answer_read(self, ledger_request: Request, exchange: Exchange) -> Answer:
        def read() -> Awaitable[Answer]:
            return self._store.answer(ledger_request)

        try:
            key_id = ledger_request.scope.actor or ""
            return await self._read_limiter.answer(key_id, ledger_request.operation, read, exchange.until_gone)
        except Problem as problem:
            if problem.status == _TOO_MANY_REQUESTS:
                self.metrics.count_rate_limited()
            raise

    def _check_rate(self, key_id: str, operation: str) -> None:
        wait_s = self._rate_limiter.admit(key_id, operation)
        if wait_s:
            self.metrics.count_rate_limited()
            raise problems.rate_limited(math.ceil(wait_s))

    async def serve_operator(self, request: HttpRequest, exchange: Exchange) -> None:
        """Answer one request that came on the operators' address."""
        await self._serve(request, exchange, self._answer_operator)

    async def _answer_operator(self, request: HttpRequest, _exchange: Exchange) -> Answer:
        return await self._answer_probe(request, serves_metrics=True)

    async def _answer_probe(self, request: HttpRequest, *, serves_metrics: bool) -> Answer:
        """`/healthz`: the process answers. `/readyz`: its store answers, too. `/metrics`: for Prometheus."""
        if request.path not in _PROBES or (request.path == "/metrics" and not serves_metrics):
            raise problems.not_found()
        if request.method not in ("GET", "HEAD"):
            raise problems.method_not_allowed(["GET", "HEAD"])
        request.operation = request.path[1:]
        if request.path == "/metrics":
            return Answer(200, await self.metrics.render(), {"content-type": metrics.CONTENT_TYPE})
        if request.path == "/readyz":
            # Every request needs this lookup of the store. No API key has this hash.
            await asyncio.wait_for(self._store.find_key(_UNUSED_KEY_HASH), _READY_WITHIN_S)
        return Answer(200, b'{"status":"ok"}')


class OperatorApp:
    """The application on the operators' address: `/metrics`, `/healthz` and `/readyz`, and nothing of the API."""

    def __init__(self, app: LedgerApp) -> None:
        self.metrics = app.metrics
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Answer one request, as an ASGI application."""
        exchange = AsgiExchange(scope, receive, send)
        await self.serve(exchange.request, exchange)

    async def serve(self, request: HttpRequest, exchange: Exchange) -> None:
        """Answer one request."""
        await self._app.serve_operator(request, exchange)

    def record_client_gone(self, request: HttpRequest) -> None:
        """Count a request whose client left before it had sent all of it."""
        self._app.record_client_gone(request)


def create_app(
    store: AsyncStore,
    settings: ServerSettings | None = None,
    *,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> LedgerApp:
    """Make the application.

    Args:
        store: an open store. The caller closes it after the last request.
        settings: the defaults, if None.
        now_ms: the clock, in ms since 1970, that decides when API keys expire.
    """
    return LedgerApp(store, settings or ServerSettings(), now_ms)


def _never() -> bool:
    """Whether a client has left, where nothing is known of its connection."""
    return False


def _read_query(query: bytes) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        return parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_PARAMETERS
        )
    except ValueError:
        raise problems.invalid_request([{"path": "query", "message": "is not UTF-8, or is too long"}]) from None
