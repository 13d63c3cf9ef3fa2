"""Lease states: what a node reads about the effects that lease requests wait for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from verity._ledger.calls import Environment
from verity._ledger.effect import Status
from verity._ledger.outages import Outage, extended, settled_at


class EffectName(NamedTuple):
    """An effect's full name."""

    environment: Environment
    namespace: str
    key: str


class LeaseState(NamedTuple):
    """How the ledger would answer a lease request for an effect: refuse it, give the outcome, or grant the lease."""

    remaining_ms: int
    """For how long nobody is granted (the lease is live, in grace, or settles), in ms by the ledger's clock."""
    is_decided: bool
    """Whether all lease requests would be answered with the outcome. Otherwise one would be granted the lease."""


NO_LEASE = LeaseState(0, is_decided=False)
"""The state of an effect that does not exist."""


def read_lease_state(
    status: str, lease_expires_at: int, settles_at: int | None, updated_at: int, now: int, outages: Iterable[Outage]
) -> LeaseState:
    """The lease state of an effect's row. Times are ms since 1970."""
    if status not in (Status.RUNNING, Status.IDLE):
        return LeaseState(0, is_decided=True)
    free_at = now
    if settles_at is not None:
        free_at = settled_at(settles_at, updated_at, outages)
    elif status == Status.RUNNING:
        is_live = lease_expires_at > now
        free_at = lease_expires_at if is_live else extended(lease_expires_at, updated_at, outages)
    return LeaseState(max(0, free_at - now), is_decided=False)
