"""A base for stores that are not real: it has no leases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from verity._ledger.calls import Environment
from verity._store.interface import AsyncStore
from verity._store.lease_states import EffectName, LeaseState


class StoreDouble(AsyncStore):
    """What is left to say of it are answers and API keys."""

    async def lease_states(self, names: Sequence[EffectName]) -> list[LeaseState]:
        return []

    async def expired_for_s(self) -> Mapping[Environment, float]:
        return {}
