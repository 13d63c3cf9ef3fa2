"""A served ledger per module and kind of store, and clients whose every answer is checked against the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.helpers import openapi
from tests.helpers.served_ledger import ServedLedger, TestClock, make_clock

Client = Callable[..., httpx.Client]


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's; only the clients know trio, too."""
    return "asyncio"


@pytest.fixture(scope="module")
def clock(database: str) -> TestClock:
    return make_clock(database)


@pytest.fixture(scope="module")
def served(database: str, clock: TestClock) -> Iterator[ServedLedger]:
    with ServedLedger(database, clock=clock) as ledger:
        yield ledger


@pytest.fixture(scope="module")
def client_with(served: ServedLedger) -> Iterator[Client]:
    """Makes clients: `client_with(key)`."""
    clients: list[httpx.Client] = []

    def make(key: str | None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        client = httpx.Client(
            base_url=served.base_url, headers=headers, event_hooks={"response": [openapi.check]}, timeout=30
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def agent(served: ServedLedger, client_with: Client) -> httpx.Client:
    return client_with(served.create_key())


@pytest.fixture(scope="module")
def admin(served: ServedLedger, client_with: Client) -> httpx.Client:
    return client_with(served.create_key(role="org_admin"))


@pytest.fixture
def effect_key(request: pytest.FixtureRequest) -> str:
    """A key of this test's own."""
    return f"effect of {request.node.nodeid}"


@pytest.fixture
def grant(agent: httpx.Client, effect_key: str) -> dict[str, Any]:
    """A lease on the test's effect, as the tokens that commit, fail and renew take."""
    lease = agent.post("/effects/payments/lease", json={"effectKey": effect_key}).json()
    return {"effectKey": effect_key, "fenceToken": lease["fenceToken"], "leaseToken": lease["leaseToken"]}
