"""Lease states: what a node reads about the effects that lease requests wait for."""

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
    """How the ledger would answer a lease request for an effect: refuse it, give the outcome, or grant the lease."""

    remaining_ms: int
    """How long the lease still lasts, in ms by the ledger's clock; 0: there is no live lease."""
    is_decided: bool
    """Whether all lease requests would be answered with the outcome. Otherwise one would be granted the lease."""


NO_LEASE = LeaseState(0, is_decided=False)
"""The state of an effect that does not exist."""


def read_lease_state(status: str, lease_expires_at: int, now: int) -> LeaseState:
    """The lease state of an effect's row. Times are ms since 1970."""
    if status == Status.RUNNING:
        return LeaseState(max(0, lease_expires_at - now), is_decided=False)
    return LeaseState(0, is_decided=status != Status.IDLE)
