"""A real served ledger, a network with faults, a client on virtual time."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.helpers._async.faulty_transport import AsyncFaultyTransport
from tests.helpers._async.virtual_runtime import AsyncVirtualRuntime
from tests.helpers._async.world import AsyncWorld
from tests.helpers.served_ledger import ServedLedger, TestClock

_numbers = itertools.count()


@pytest.fixture(scope="session")
def clock() -> TestClock:
    """One clock for the session's ledger; it only goes forward."""
    return TestClock()


@pytest.fixture(scope="session")
def ledger(clock: TestClock) -> Iterator[ServedLedger]:
    """One served ledger for the session; every test has effects of its own."""
    with ServedLedger(clock=clock) as served:
        yield served


@pytest.fixture(scope="session")
def api_key(ledger: ServedLedger) -> str:
    return ledger.create_key(role="org_admin")


@pytest.fixture
async def world(ledger: ServedLedger, clock: TestClock, api_key: str) -> AsyncIterator[AsyncWorld]:
    """All that a test of the client needs."""
    network = AsyncFaultyTransport()
    made = AsyncWorld(f"case-{next(_numbers)}", ledger, clock, AsyncVirtualRuntime(clock), network, api_key)
    yield made
    await made.close()
    await network.aclose()
