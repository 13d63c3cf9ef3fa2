"""The Prometheus metrics of a node, at `/metrics`. No API key, namespace, effect key or payload is in a label."""

from __future__ import annotations

import asyncio
import logging
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from verity._clock import monotonic
from verity._ledger.calls import ENVIRONMENTS, Environment
from verity._ledger.codec import GRACE
from verity._ledger.outages import Outage
from verity._store.interface import AsyncStore
from verity.server.logs import describe

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GONE = "gone"
"""The status label of a request whose client left before it was answered."""

_LATENCIES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_OLDEST_KEPT_S = 5.0
_OLDEST_WITHIN_S = 1.0

_logger = logging.getLogger("verity.server")

Outcome = tuple[str, str]


class Metrics:
    """The metrics of one application, in a registry of their own.

    Args:
        store: the store; at a scrape it is asked for the expired leases and its connection pool.
        kept_s: how long the text of a scrape is cached for the next scrapes, in seconds.
        monotonic: the clock, in seconds, for what is cached.
    """

    def __init__(self, store: AsyncStore, *, kept_s: float = 0.0, monotonic: Callable[[], float] = monotonic) -> None:
        self._kept_s = kept_s
        self._monotonic = monotonic
        self._rendered_at = -math.inf
        self._rendering: asyncio.Task[bytes] | None = None
        self._registry = registry = CollectorRegistry()
        self._requests = _Requests()
        registry.register(self._requests)
        self._outcomes = _outcomes(registry)
        self._rate_limited = Counter(
            "verity_rate_limited",
            "Requests refused because their API key sent too many, or has too many reads under way.",
            registry=registry,
        )
        self._cut = Counter(
            "verity_connections_cut",
            "Connections that the ledger ended: a slow sender or reader, too many of them, or too much left unread.",
            ["reason"],
            registry=registry,
        )
        self.count_slow_sender: Callable[[], None] = self._cut.labels("slow_sender").inc
        self.count_slow_reader: Callable[[], None] = self._cut.labels("slow_reader").inc
        self.count_unread: Callable[[], None] = self._cut.labels("unread").inc
        self.count_connection_too_many: Callable[[], None] = self._cut.labels("too_many").inc
        self.count_rate_limited: Callable[[], None] = self._rate_limited.inc
        batches = Histogram(
            "verity_group_commit_size", "Operations in one transaction.", buckets=_BATCH_SIZES, registry=registry
        )
        store.watch_batches(batches.observe)
        outages = Counter(
            "verity_outages", "Outages that this node has recorded: no holder could renew.", registry=registry
        )
        seconds = Counter("verity_outage_seconds", "How long those outages lasted together.", registry=registry)

        def count_outage(outage: Outage) -> None:
            outages.inc()
            seconds.inc((outage.ended_at - outage.began_at) / 1000)

        store.watch_outages(count_outage)
        self._oldest = _OldestExpired(store, monotonic)
        self._oldest_age = Gauge(
            "verity_oldest_expired_effect_age_seconds",
            "How long ago the oldest lease expired that nobody has taken over; NaN if the store does not answer.",
            ["environment"],
            registry=registry,
        )
        self._watch_pool(store)
        ProcessCollector(registry=registry)

    def count_request(self, operation: str, status: int | str, seconds: float, outcome: Outcome | None = None) -> None:
        """Count a request that is done."""
        self._requests.count(operation, status, seconds)
        if outcome is not None:
            count_outcome = self._outcomes.get(outcome) or self._outcomes.get((outcome[0], ""))
            if count_outcome is not None:
                count_outcome()

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Report how many connections are open."""
        self._gauge("verity_open_connections", "Open connections.", count)

    def watch_waits(self, count: Callable[[], int]) -> None:
        """Report how many lease requests wait for another holder."""
        self._gauge("verity_open_waits", "Lease requests that wait for another holder's effect to be decided.", count)

    async def render(self) -> bytes:
        """The text of a scrape. Making it takes some ms of the node's one thread: so scrapes share and cache it."""
        rendering = self._rendering
        if rendering is None or (rendering.done() and self._monotonic() >= self._rendered_at + self._kept_s):
            self._rendered_at = self._monotonic()
            rendering = self._rendering = asyncio.create_task(self._render())
        return await asyncio.shield(rendering)

    async def _render(self) -> bytes:
        ages = await self._oldest.read()
        for environment in ENVIRONMENTS:
            age_s = math.nan if ages is None else ages.get(environment, 0.0)
            self._oldest_age.labels(environment).set(age_s)
        return generate_latest(self._registry)

    def _watch_pool(self, store: AsyncStore) -> None:
        if store.pool() is None:
            return
        self._gauge("verity_pool_connections", "Connections to the database.", lambda: _pool(store)[0])
        self._gauge("verity_pool_idle_connections", "Idle connections to the database.", lambda: _pool(store)[1])

    def _gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        Gauge(name, documentation, registry=self._registry).set_function(read)


class _Requests(Collector):
    """Counts requests and their latencies in plain numbers, and makes metrics of them at a scrape.

    This costs a request a third of what the library's own counters cost.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int | str], int] = {}
        self._latencies: dict[str, tuple[list[int], list[float]]] = {}
        """By operation: how many were in each bucket, and the sum of their seconds."""

    def count(self, operation: str, status: int | str, seconds: float) -> None:
        """Count one request."""
        self._counts[operation, status] = self._counts.get((operation, status), 0) + 1
        latencies = self._latencies.get(operation)
        if latencies is None:
            latencies = self._latencies[operation] = ([0] * (len(_LATENCIES_S) + 1), [0.0])
        buckets, sums = latencies
        buckets[bisect_left(_LATENCIES_S, seconds)] += 1
        sums[0] += seconds

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        requests = CounterMetricFamily(
            "verity_requests", "Answered requests by operation and status.", labels=["operation", "status"]
        )
        for (operation, status), count in self._counts.items():
            requests.add_metric([operation, str(status)], count)
        yield requests
        latencies = HistogramMetricFamily(
            "verity_request_duration_seconds",
            "From a request's headers to its answer, by operation.",
            labels=["operation"],
        )
        bounds = [*map(str, _LATENCIES_S), "+Inf"]
        for operation, (buckets, sums) in self._latencies.items():
            latencies.add_metric([operation], list(zip(bounds, accumulate(buckets), strict=True)), sums[0])
        yield latencies


def _pool(store: AsyncStore) -> tuple[int, int]:
    return store.pool() or (0, 0)


def _outcomes(registry: CollectorRegistry) -> dict[Outcome, Callable[[], None]]:
    """The counter for each outcome of a call. An empty detail stands for all details."""
    granted = Counter(
        "verity_leases_granted",
        "Leases granted by the effect's prior state: `expired` is one taken over from a holder whose lease expired.",
        ["prior_state"],
        registry=registry,
    )
    renewed = Counter("verity_leases_renewed", "Leases renewed.", registry=registry)
    released = Counter(
        "verity_leases_released",
        "Leases given back without an outcome: `no`, the holder has not acted; `unknown`, it may have acted.",
        ["acted"],
        registry=registry,
    )
    cached = Counter(
        "verity_leases_decided", "Lease requests answered with the effect's outcome.", ["outcome"], registry=registry
    )
    conflicts = Counter(
        "verity_conflicts", "Calls refused for the effect's state, by error code.", ["code"], registry=registry
    )
    in_grace = Counter(
        "verity_grace_conflicts",
        "Calls refused because a lease expired in an outage, and its holder still has time to renew it.",
        registry=registry,
    )

    def count_in_grace() -> None:
        conflicts.labels("lease_conflict").inc()
        in_grace.inc()

    commits = Counter("verity_commits", "Results recorded by source.", ["source"], registry=registry)
    failures = Counter("verity_failures", "Failures recorded.", registry=registry)
    resets = Counter("verity_resets", "Effects reset.", registry=registry)
    return {
        **{("granted", state): granted.labels(state).inc for state in ("none", "expired", "reset")},
        ("renewed", ""): renewed.inc,
        **{("released", acted): released.labels(acted).inc for acted in ("no", "unknown")},
        ("cached_completed", ""): cached.labels("completed").inc,
        ("cached_failed", ""): cached.labels("failed").inc,
        **{
            (code, ""): conflicts.labels(code).inc
            for code in ("lease_conflict", "stale_fence", "effect_finished", "not_failed")
        },
        ("lease_conflict", GRACE): count_in_grace,
        **{("accepted", source): commits.labels(source).inc for source in ("acted", "observed")},
        ("resolved", "resolved"): commits.labels("resolved").inc,
        ("recorded", ""): failures.inc,
        ("reset", ""): resets.inc,
    }


class _OldestExpired:
    """Asks the store for expired leases, every few seconds at the most. A scrape waits one second for it at most."""

    def __init__(self, store: AsyncStore, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._asked_at = -math.inf
        self._reading: asyncio.Task[Mapping[Environment, float] | None] | None = None

    async def read(self) -> Mapping[Environment, float] | None:
        """How long ago the oldest lease expired, in seconds by environment; None if the store does not answer."""
        reading = self._reading
        if reading is None or (reading.done() and self._monotonic() >= self._asked_at + _OLDEST_KEPT_S):
            self._asked_at = self._monotonic()
            reading = self._reading = asyncio.create_task(self._ask())
        await asyncio.wait((reading,), timeout=_OLDEST_WITHIN_S)
        return reading.result() if reading.done() else None

    async def _ask(self) -> Mapping[Environment, float] | None:
        try:
            return await self._store.expired_for_s()
        except Exception as error:  # noqa: BLE001 - a scrape shows the other metrics whatever the store raises
            _logger.warning("the store did not say which lease expired first: %s", describe(error))
            return None
