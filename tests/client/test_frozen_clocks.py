"""Test tools that make time stand still, or travel (freezegun, time-machine), change nothing of how Verity waits."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

import verity
from verity import ConflictRetryConfig, LeaseConflictError, SyncVerityClient
from verity._concurrency import SyncRuntime
from verity._concurrency.single_flight import SyncSingleFlight
from verity._store.sqlite.clocks import now_ms

VERITY = Path(verity.__file__).parent
ONE_SECOND = ConflictRetryConfig(max_attempts=2, initial_delay_s=1.0, max_delay_s=1.0, jitter=False)


@pytest.fixture(params=["2001-01-01", "2101-01-01"])
def frozen(request: pytest.FixtureRequest) -> Iterator[None]:
    with freeze_time(request.param):
        assert time.monotonic() == time.monotonic(), "it stands still"
        yield


def _within_30_s(call: Callable[[], Any]) -> Any:
    """What it returns or raises; what waits for ever is a failure, not a test that hangs."""
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:  # noqa: BLE001 - it is the outcome
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result(30)


@pytest.mark.usefixtures("frozen")
def test_an_embedded_ledger_holds_a_request_no_longer_than_asked() -> None:
    with SyncVerityClient("sqlite://", namespace="n", conflict_retry=ONE_SECOND) as client:
        client.request_lease("n", {"effectKey": "k"})
        with pytest.raises(LeaseConflictError) as caught:
            _within_30_s(lambda: client.protect("k", act=lambda: 1))
    assert caught.value.waited


@pytest.mark.usefixtures("frozen")
def test_timers_fire() -> None:
    runtime = SyncRuntime()
    fired = threading.Event()
    runtime.call_later(0.05, fired.set)
    assert fired.wait(30)
    runtime.close()


@pytest.mark.usefixtures("frozen")
def test_patience_in_a_line_ends() -> None:
    flights = SyncSingleFlight()
    assert flights.join("k").wait_to_lead(30)
    assert not _within_30_s(lambda: flights.join("k").wait_to_lead(0.05))


def test_a_lease_runs_out_by_the_machines_clock(tmp_path: Path) -> None:
    """Another process, or this one outside the test, holds a lease; a clock that was turned on must not end it."""
    url = f"sqlite:///{tmp_path}/verity.db"
    with SyncVerityClient(url, namespace="n") as client:
        before = now_ms()
        client.request_lease("n", {"effectKey": "k"})
        with freeze_time("2101-01-01"):
            assert before <= now_ms() < before + 60_000
            with pytest.raises(LeaseConflictError):
                client.protect("k", act=lambda: 1, on_conflict="throw")


def test_nothing_in_the_clients_and_stores_waits_by_a_clock_that_tests_replace() -> None:
    """`verity._clock` has the one that they don't; tests may replace what is looked up in `time` at each call."""
    replaced = re.compile(r"\btime\.(monotonic|time|time_ns|perf_counter)\(|from time import")
    sources = [
        *(
            path
            for part in ("_async", "_concurrency", "_core", "_ledger", "_store")
            for path in (VERITY / part).rglob("*.py")
        ),
        VERITY / "_embedded.py",
        *(VERITY / "server" / f"{name}.py" for name in ("auth", "metrics", "rate_limiter")),
    ]
    assert len(sources) > 40
    assert [str(path) for path in sources if replaced.search(path.read_text(encoding="utf-8"))] == []
