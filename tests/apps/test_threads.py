"""One sync client used from many threads at once."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tests.helpers.concurrency import sync_until
from tests.helpers.http_relay import Relay
from tests.helpers.served_ledger import ServedLedger
from verity import ConflictRetryConfig, SyncVerityClient
from verity._concurrency import SyncRuntime
from verity._sync.acquisition import SINGLE_FLIGHT

T = TypeVar("T")
THREADS = 64
MAX_CONNECTIONS = 100
WITHIN_S = 60.0
RETRY = ConflictRetryConfig(max_attempts=100_000, initial_delay_s=0.01, max_delay_s=0.05)


class Waiters(SyncRuntime):
    """Waits for an event instead of sleeping."""

    def __init__(self) -> None:
        super().__init__()
        self.over = threading.Event()

    def sleep(self, seconds: float) -> None:
        assert self.over.wait(WITHIN_S)


def count_waiting() -> int:
    """How many calls stand in line for another holder's effect."""
    return sum(map(len, SINGLE_FLIGHT.flights.values()))


@pytest.fixture
def served() -> Iterator[ServedLedger]:
    with ServedLedger() as served:
        yield served


@pytest.fixture
def runtime() -> Waiters:
    return Waiters()


@pytest.fixture(params=["embedded", "http"])
def client(request: pytest.FixtureRequest, tmp_path: Path, runtime: Waiters) -> Iterator[SyncVerityClient]:
    if request.param == "embedded":
        url, key = f"sqlite:///{tmp_path}/verity.db", None
    else:
        served = request.getfixturevalue("served")
        url, key = served.base_url, served.create_key()
    with SyncVerityClient(url, key, "threads", conflict_retry=RETRY, _runtime=runtime) as client:
        yield client


def at_once(threads: int, call: Callable[[int], T]) -> list[T]:
    """What `call(number)` returns, in a thread for each number, all begun at the same moment."""
    ready = threading.Barrier(threads)

    def run(number: int) -> T:
        ready.wait(WITHIN_S)
        return call(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


@pytest.fixture
def new_timer_threads() -> Callable[[], list[threading.Thread]]:
    """Those begun since the test began; another test's may still be on its way out."""

    def all_of_them() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "verity-timers"}

    others = all_of_them()
    return lambda: list(all_of_them() - others)


def test_one_key_acts_once(client: SyncVerityClient, runtime: Waiters) -> None:
    acts = []

    def act() -> str:
        acts.append(threading.get_ident())
        sync_until(lambda: count_waiting() == THREADS - 1)  # all the others have been refused the lease
        runtime.over.set()
        return uuid.uuid4().hex

    results = at_once(THREADS, lambda _: client.protect("the one", act=act))
    assert len(acts) == 1
    assert results == [results[0]] * THREADS


def test_keys_of_their_own_act_once_each_with_one_timer_thread(
    client: SyncVerityClient, new_timer_threads: Callable[[], list[threading.Thread]]
) -> None:
    acts: Counter[str] = Counter()
    everybody_acts = threading.Barrier(THREADS)
    timers: list[int] = []

    def protect(number: int) -> str:
        def act() -> str:
            acts[f"{number}"] += 1
            everybody_acts.wait(WITHIN_S)
            timers.append(len(new_timer_threads()))
            return f"{number}"

        return client.protect(f"effect {number}", act=act)

    assert at_once(THREADS, protect) == [f"{number}" for number in range(THREADS)]
    assert acts == {f"{number}": 1 for number in range(THREADS)}
    assert timers == [1] * THREADS


def test_closing_the_client_ends_its_thread(
    client: SyncVerityClient, new_timer_threads: Callable[[], list[threading.Thread]]
) -> None:
    timers = client.protect("effect", act=lambda: len(new_timer_threads()))
    (thread,) = new_timer_threads()
    client.close()
    thread.join(WITHIN_S)
    assert (timers, new_timer_threads()) == (1, [])


def test_connections_are_bounded_and_used_again(served: ServedLedger) -> None:
    """The relay lets nothing through before 100 threads have connected; the others wait for one of their places.

    Each asks on one connection and commits on another at the most.
    """
    threads = MAX_CONNECTIONS + 28
    with Relay(served.base_url) as relay:
        relay.hold = MAX_CONNECTIONS
        with SyncVerityClient(relay.base_url, served.create_key(), "threads", request_timeout_s=WITHIN_S) as client:
            results = at_once(threads, lambda number: client.protect(f"effect {number}", act=lambda: number))
        assert results == list(range(threads))
        assert MAX_CONNECTIONS <= relay.opened <= 2 * MAX_CONNECTIONS
