"""Looking at effects that somebody waits for, without asking for a lease."""

from __future__ import annotations

from typing import NamedTuple

from verity._ledger.calls import Environment
from verity._ledger.effect import Status


class EffectName(NamedTuple):
    """An effect's full name."""

    environment: Environment
    namespace: str
    key: str


class LeaseState(NamedTuple):
    """Whether a lease request would still meet another holder."""

    remaining_ms: int
    """For how long, by the ledger's own clock; 0: it would not."""
    is_decided: bool
    """Whether everybody who asks would get the outcome, and not one of them the lease."""


NO_LEASE = LeaseState(0, is_decided=False)
"""Of an effect that is not there."""


def read_lease_state(status: str, lease_expires_at: int, now: int) -> LeaseState:
    """What an effect's row says."""
    if status == Status.RUNNING:
        return LeaseState(max(0, lease_expires_at - now), is_decided=False)
    return LeaseState(0, is_decided=status != Status.IDLE)
