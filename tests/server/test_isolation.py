"""Random calls across all scopes, a few thousand. `nox -s isolation` sends a hundred thousand."""

from __future__ import annotations

import pytest

from tests.conftest import both_stores
from tests.isolation import Intruders, Leak
from tests.served import ServedLedger


@both_stores
def test_nobody_learns_of_another_tenant(served: ServedLedger) -> None:
    intruders = Intruders(served, seed=20260131)
    intruders.run(1_000)
    assert set(intruders.statuses) == {200, 403, 404, 409}
    assert min(intruders.statuses.values()) > 50
    intruders.close()


def test_a_leak_would_be_seen(served: ServedLedger) -> None:
    """Where callers see more than they are thought to, the run says so at once."""
    intruders = Intruders(served, seed=1)
    for caller in intruders.callers:
        caller.environment = "test"
    with pytest.raises(Leak):
        intruders.run(200)
    intruders.close()
