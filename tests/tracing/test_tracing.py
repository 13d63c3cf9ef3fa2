"""Spans on a host's provider: of clients and of a server, joined by the trace context that the ledger keeps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from tests.helpers._async.virtual_runtime import AsyncVirtualRuntime
from tests.helpers.served_ledger import ServedLedger, TestClock
from verity import (
    CommitUncertainError,
    ConflictRetryConfig,
    EffectPolicy,
    EffectPreviouslyFailedError,
    LeaseConflictError,
    NotExecuted,
    ObserveFailedError,
    OutcomeUnknownError,
    SyncVerityClient,
    VerityClient,
)

SECRET = "secret-4111"


def set_provider(provider: TracerProvider | None) -> None:
    """A process has one provider for good; a test needs one of its own, and leaves none behind."""
    trace._TRACER_PROVIDER_SET_ONCE = Once()
    trace._TRACER_PROVIDER = None
    if provider is not None:
        trace.set_tracer_provider(provider)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    set_provider(provider)
    yield exporter
    set_provider(None)


@pytest.fixture
def served() -> Iterator[ServedLedger]:
    with ServedLedger(clock=TestClock()) as ledger:
        yield ledger


def client_of(served: ServedLedger, **settings: Any) -> SyncVerityClient:
    return SyncVerityClient(
        served.base_url, served.create_key(), "payments", conflict_retry=ConflictRetryConfig(enabled=False), **settings
    )


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def trace_parent(context: trace.SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def test_one_trace_from_the_caller_to_the_ledger(served: ServedLedger, spans: InMemorySpanExporter) -> None:
    with client_of(served) as client:
        assert client.protect("k", act=lambda: 1, effect_name="stripe.refund") == 1
        (protect,) = named(spans, "verity.protect")
        record = client.effects.get("k")
    assert attributes(protect) == {
        "verity.namespace": "payments",
        "verity.effect_name": "stripe.refund",
        "verity.outcome": "acted",
    }
    context = protect.get_span_context()
    assert context is not None
    for name in ("verity.lease_effect", "verity.commit_effect"):
        (span,) = named(spans, name)
        assert span.kind is trace.SpanKind.SERVER
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == (context.trace_id, context.span_id)
        assert attributes(span)["verity.operation"] == name.removeprefix("verity.")
        assert attributes(span)["verity.request_id"].startswith("req_")
        assert attributes(span)["http.response.status_code"] == 200
    assert record["traceParent"] == trace_parent(context)


async def test_the_async_client_and_what_act_opens(served: ServedLedger, spans: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("host")

    async def act() -> int:
        with tracer.start_as_current_span("inner"):
            return 1

    async with VerityClient(served.base_url, served.create_key(), "payments") as client:
        with tracer.start_as_current_span("outer"):
            await client.protect("k", act=act)
            assert trace.get_current_span().is_recording()
    (outer,), (protect,), (inner,) = named(spans, "outer"), named(spans, "verity.protect"), named(spans, "inner")
    assert protect.parent == outer.get_span_context()
    assert inner.parent == protect.get_span_context()


def test_the_embedded_ledger_keeps_the_context_too(spans: InMemorySpanExporter) -> None:
    with SyncVerityClient("sqlite://", namespace="payments") as client:
        client.protect("k", act=lambda: 1)
        (protect,) = named(spans, "verity.protect")
        context = protect.get_span_context()
        assert context is not None
        assert client.effects.get("k")["traceParent"] == trace_parent(context)


def test_outcomes(served: ServedLedger, spans: InMemorySpanExporter) -> None:
    def no() -> None:
        raise ValueError(SECRET)

    def interrupted() -> None:
        raise KeyboardInterrupt

    def timed_out() -> None:
        raise TimeoutError

    def not_executed() -> None:
        raise NotExecuted

    always = EffectPolicy(observe_when="always", settle_s=0)
    with client_of(served) as client:
        client.protect("acted", act=lambda: 1)
        client.protect("acted", act=lambda: 1)
        client.protect("observed", act=lambda: 1, observe=lambda: 1, policy=always)
        client.request_lease("payments", {"effectKey": "held"})
        for key, error, parts in (
            ("failed", ValueError, {"act": no}),
            ("failed", EffectPreviouslyFailedError, {"act": no}),
            ("unobserved", ObserveFailedError, {"act": no, "observe": no, "policy": always}),
            ("held", LeaseConflictError, {"act": no}),
            ("sold out", NotExecuted, {"act": not_executed}),
            ("slow", TimeoutError, {"act": timed_out, "policy": always}),
            ("slow", OutcomeUnknownError, {"act": no}),
            ("uncertain", CommitUncertainError, {"act": object}),
            ("interrupted", KeyboardInterrupt, {"act": interrupted}),
        ):
            with pytest.raises(error):
                client.protect(key, **parts)
    protects = named(spans, "verity.protect")
    assert [attributes(span)["verity.outcome"] for span in protects] == [
        "acted", "cached", "observed", "failed", "failed_before", "observe_failed", "conflict",
        "not_executed", "unknown", "blocked", "uncertain", "cancelled",
    ]  # fmt: skip
    failures = [span for span in protects if not span.status.is_unset]
    assert [attributes(span)["error.type"] for span in failures] == [
        "ValueError", "EffectPreviouslyFailedError", "ObserveFailedError", "LeaseConflictError", "NotExecuted",
        "TimeoutError", "OutcomeUnknownError", "CommitUncertainError",
    ]  # fmt: skip


def test_the_outcome_of_an_act_that_lost_its_lease(served: ServedLedger, spans: InMemorySpanExporter) -> None:
    async def main() -> None:
        runtime = AsyncVirtualRuntime(TestClock())

        async def act() -> None:
            await runtime.advance(31)
            await anyio.sleep_forever()

        policy = EffectPolicy(on_lease_lost="cancel")
        key = served.create_key()
        async with VerityClient(served.base_url, key, "n", auto_renew=False, _runtime=runtime) as client:
            with pytest.raises(OutcomeUnknownError):
                await client.protect("lost", act=act, policy=policy)

    anyio.run(main)
    assert [attributes(span)["verity.outcome"] for span in named(spans, "verity.protect")] == ["unknown"]


def test_the_outcome_of_an_effect_without_a_lease(spans: InMemorySpanExporter) -> None:
    def no() -> None:
        raise ValueError(SECRET)

    policy = EffectPolicy(on_unavailable="proceed")
    with SyncVerityClient("http://127.0.0.1:9/v1", "vt_test_x", "payments", policy=policy) as client:
        assert client.protect("k", act=lambda: 1) == 1
        with pytest.raises(ValueError, match=SECRET):
            client.protect("k", act=no)
    assert [attributes(span)["verity.outcome"] for span in named(spans, "verity.protect")] == ["unprotected", "failed"]


def test_no_span_tells_of_keys_payloads_or_messages(served: ServedLedger, spans: InMemorySpanExporter) -> None:
    def no() -> None:
        raise ValueError(SECRET)

    with client_of(served) as client:
        client.protect(f"key-{SECRET}", act=lambda: SECRET, input_json=SECRET)
        with pytest.raises(ValueError, match=SECRET):
            client.protect(f"other-{SECRET}", act=no)
    text = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "verity.lease_effect" in text
    assert SECRET not in text
    assert "vt_test_" not in text


def test_a_provider_that_fails_changes_nothing(served: ServedLedger) -> None:
    class Failing(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            raise RuntimeError("the exporter is down")

        def on_end(self, span: ReadableSpan) -> None:
            raise RuntimeError("the exporter is down")

    class FailingAtTheEnd(Failing):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            """This one fails late."""

    processors: Sequence[SpanProcessor] = (Failing(), FailingAtTheEnd())
    for number, processor in enumerate(processors):
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        set_provider(provider)
        try:
            with client_of(served) as client:
                assert client.protect(f"k{number}", act=lambda: 1) == 1
            assert not trace.get_current_span().get_span_context().is_valid
        finally:
            set_provider(None)


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", False),
        ("nonsense'; DROP TABLE effects", False),
    ],
)
def test_what_the_ledger_keeps_of_a_header(header: str, kept: bool, served: ServedLedger) -> None:
    """Also where nothing here is traced: the context is the sender's."""
    headers = {"Authorization": f"Bearer {served.create_key()}", "traceparent": header}
    with httpx.Client(base_url=served.base_url, headers=headers) as client:
        assert client.post("/effects/a/lease", json={"effectKey": "k"}).status_code == 200
        effect = client.get("/effects/a/effect", params={"effectKey": "k"}).json()
    assert effect.get("traceParent") == (header if kept else None)


def test_a_host_without_opentelemetry_does_not_get_it() -> None:
    code = (
        "import sys; from verity import SyncVerityClient\n"
        "with SyncVerityClient('sqlite://', namespace='a') as client: client.protect('k', act=lambda: 1)\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
