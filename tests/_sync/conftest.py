# Made from tests/_async/conftest.py by scripts/mirror.py. Do not edit.
"""A real served ledger, a network with faults, a client on virtual time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.helpers._sync.faulty_transport import SyncFaultyTransport
from tests.helpers._sync.virtual_runtime import SyncVirtualRuntime
from tests.helpers._sync.world import SyncWorld
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
def world(ledger: ServedLedger, clock: TestClock, api_key: str) -> Iterator[SyncWorld]:
    """All that a test of the client needs."""
    network = SyncFaultyTransport()
    made = SyncWorld(f"case-{next(_numbers)}", ledger, clock, SyncVirtualRuntime(clock), network, api_key)
    yield made
    made.close()
    network.close()
