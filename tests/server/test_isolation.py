"""Random calls across all scopes, a few thousand. `nox -s isolation` sends a hundred thousand."""

from __future__ import annotations

import pytest

from tests.conftest import both_stores
from tests.helpers.isolation import Intruders, Leak
from tests.helpers.noisy_neighbour import LOADS, NoisyNeighbour, in_background
from tests.helpers.served_ledger import ServedLedger


@both_stores
def test_nobody_learns_of_another_tenant(served: ServedLedger) -> None:
    intruders = Intruders(served, seed=20260131)
    neighbour = NoisyNeighbour([served.base_url], served.create_key(), leaves_traces=False)
    with in_background(neighbour):
        intruders.run(100)
    intruders.run(900)
    assert set(intruders.statuses) == {200, 403, 404, 409}
    assert min(intruders.statuses.values()) > 50
    assert set(neighbour.answered) <= set(LOADS)
    assert {"counts", "metrics", "useless commits"} <= set(neighbour.answered)
    intruders.close()


def test_a_leak_would_be_seen(served: ServedLedger) -> None:
    """Where callers see more than they are thought to, the run says so at once."""
    intruders = Intruders(served, seed=1)
    for caller in intruders.callers:
        caller.environment = "test"
    with pytest.raises(Leak):
        intruders.run(200)
    intruders.close()
