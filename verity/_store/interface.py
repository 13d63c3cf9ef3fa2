"""The interface of a store for the server. `AsyncSqliteStore` and `AsyncPostgresStore` implement it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from verity._ledger.calls import Answer, Environment, Request
from verity._ledger.outages import Outage
from verity._store.api_keys import ApiKey
from verity._store.lease_states import EffectName, LeaseState

MAX_BATCH = 256
"""The most calls in one transaction, by default."""


class StorageError(Exception):
    """The store's storage did not answer."""


class Pool(NamedTuple):
    """A store's connections to its database."""

    size: int
    idle: int


class AsyncStore(Protocol):
    """Where a served ledger keeps its effects and API keys, for event loops. The last three methods have defaults."""

    @abstractmethod
    async def answer(self, request: Request) -> Answer:
        """Carry out a call, durably. If the storage fails, the answer is a 503; no exception is raised."""
        ...

    @abstractmethod
    async def find_key(self, sha256: bytes) -> ApiKey | None:
        """The API key with this hash, even if it is revoked or has expired; None: there is none.

        Raises:
            StorageError: the storage did not answer.
        """
        ...

    @abstractmethod
    async def lease_states(self, names: Sequence[EffectName]) -> list[LeaseState]:
        """The lease states of effects that requests wait for, in the order of the names, by one read.

        Raises:
            StorageError: the storage did not answer.
        """
        ...

    @abstractmethod
    async def expired_for_s(self) -> Mapping[Environment, float]:
        """By environment, how many seconds ago the oldest lease expired that was not taken over.

        An environment without such a lease is absent. The read must be cheap: `/metrics` asks for it.

        Raises:
            StorageError: the storage did not answer.
        """
        ...

    def pool(self) -> Pool | None:
        """The connections at this moment; None: there is no pool."""
        return None

    def watch_batches(self, watch: Callable[[int], None]) -> None:  # noqa: ARG002 - an implementation without batches does not use it
        """Have `watch` called with the number of calls in each transaction, in any thread."""
        return

    def watch_outages(self, watch: Callable[[Outage], None]) -> None:  # noqa: ARG002 - an implementation without a heartbeat does not use it
        """Have `watch` called with each outage that this node has recorded, in any thread."""
        return
