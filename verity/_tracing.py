"""Spans on the host program's OpenTelemetry provider, if it has set one.

A host with a provider has imported OpenTelemetry. So tracing costs other hosts one lookup in `sys.modules`, and this
module never imports OpenTelemetry first. No span contains an effect key, a payload, or an exception's message, which
may contain either. A provider that fails must not change an effect's outcome: its errors are suppressed here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from verity._core.interruption import is_from_handler
from verity._version import __version__
from verity.errors import (
    CommitUncertainError,
    EffectPreviouslyFailedError,
    LeaseConflictError,
    ObserveFailedError,
    OutcomeUnknownError,
)

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_TRACE_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_OUTCOMES: tuple[tuple[type[BaseException], str], ...] = (
    (EffectPreviouslyFailedError, "failed_before"),
    (LeaseConflictError, "conflict"),
    (ObserveFailedError, "observe_failed"),
    (OutcomeUnknownError, "blocked"),
    (CommitUncertainError, "uncertain"),
    (Exception, "error"),
    (BaseException, "cancelled"),
)


class _Quietly:
    """`suppress(Exception)`, except for what a signal handler raises: that belongs to the caller."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return isinstance(error, Exception) and not is_from_handler(error)


class _Tracers:
    """Caches the tracer of the host's provider."""

    def __init__(self) -> None:
        self._provider: object = None
        self._tracer: Tracer | None = None

    def find(self) -> Tracer | None:
        """Return the tracer, or None if the host has set no provider."""
        if "opentelemetry.trace" not in sys.modules:
            return None
        with _Quietly():
            from opentelemetry import trace

            provider = trace.get_tracer_provider()
            if provider is not self._provider:
                # A proxy stands for a provider that the host has not set yet.
                is_set = not isinstance(provider, trace.ProxyTracerProvider)
                self._tracer = provider.get_tracer("verity", __version__) if is_set else None
                self._provider = provider
            return self._tracer
        return None


_tracers = _Tracers()


class _CurrentSpan:
    """A span that is current inside `with`. It does nothing if the host has set no provider."""

    def __init__(self) -> None:
        self._span: Span | None = None
        self._token: Any = None

    def _begin(self, name: str, options: Callable[[], dict[str, Any]]) -> None:
        tracer = _tracers.find()
        if tracer is None:
            return
        with _Quietly():
            from opentelemetry import context, trace

            self._span = tracer.start_span(name, record_exception=False, set_status_on_exception=False, **options())
            self._token = context.attach(trace.set_span_in_context(self._span))

    def _tell(self, attributes: Mapping[str, str | int]) -> None:
        if self._span is not None:
            with _Quietly():
                self._span.set_attributes(attributes)

    def _end(self, error: BaseException | None) -> None:
        if self._span is None:
            return
        from opentelemetry import context
        from opentelemetry.trace import StatusCode

        with _Quietly():
            context.detach(self._token)
            if isinstance(error, Exception):
                self._span.set_attribute("error.type", type(error).__name__)
                self._span.set_status(StatusCode.ERROR)
            self._span.end()


class EffectSpan(_CurrentSpan):
    """The span of one `protect()`.

    Attributes:
        outcome: the outcome in one word. If none is set, the exception decides it.
    """

    def __init__(self, namespace: str, effect_name: str | None) -> None:
        super().__init__()
        self._namespace = namespace
        self._effect_name = effect_name
        self.outcome: str | None = None

    def __enter__(self) -> EffectSpan:
        self._begin("verity.protect", self._about)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        outcome = self.outcome or next((word for known, word in _OUTCOMES if isinstance(error, known)), "")
        self._tell({"verity.outcome": outcome})
        self._end(error)

    def _about(self) -> dict[str, Any]:
        attributes = {"verity.namespace": self._namespace}
        if self._effect_name is not None:
            attributes["verity.effect_name"] = self._effect_name
        return {"attributes": attributes}


class RequestSpan(_CurrentSpan):
    """The span of one request to a server: a child of the client's span, if the request names that in its headers."""

    def __init__(self, headers: Mapping[bytes, bytes]) -> None:
        super().__init__()
        self._headers = headers

    def __enter__(self) -> RequestSpan:
        self._begin("verity.request", self._below_the_sender)
        return self

    def tell(self, operation: str, request_id: str, status: int | str) -> None:
        """Set the operation, the request id and the HTTP status."""
        if self._span is not None:
            with _Quietly():
                self._span.update_name(f"verity.{operation}")
            known: dict[str, str | int] = {"verity.operation": f"{operation}", "verity.request_id": request_id}
            if isinstance(status, int):
                known["http.response.status_code"] = status
            self._tell(known)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(error)

    def _below_the_sender(self) -> dict[str, Any]:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        options: dict[str, Any] = {"kind": trace.SpanKind.SERVER}
        # If the host's own middleware has opened a span, that span is the parent.
        if not trace.get_current_span().get_span_context().is_valid:
            names = ("traceparent", "tracestate")
            carrier = {name: self._headers.get(name.encode(), b"").decode("latin-1") for name in names}
            options["context"] = TraceContextTextMapPropagator().extract(carrier)
        return options


def trace_headers() -> dict[str, str]:
    """Return the headers with the current span's context; none if the host has set no provider."""
    headers: dict[str, str] = {}
    if _tracers.find() is not None:
        with _Quietly():
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            TraceContextTextMapPropagator().inject(headers)
    return headers


def read_trace_parent(header: bytes | None) -> str | None:
    """Return a valid W3C `traceparent`, or None."""
    return header.decode() if header is not None and _TRACE_PARENT.fullmatch(header) else None
