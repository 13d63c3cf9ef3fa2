"""What the server needs of a store. There are two: `AsyncSqliteStore` and `AsyncPostgresStore`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from verity._ledger.calls import Answer, Environment, Request
from verity._store.api_keys import ApiKey
from verity._store.lease_states import EffectName, LeaseState

MAX_BATCH = 256
"""The most calls in one transaction, unless a server is told otherwise."""


class StorageError(Exception):
    """Storage did not answer."""


class Pool(NamedTuple):
    """A store's connections to its database."""

    size: int
    idle: int


class AsyncStore(Protocol):
    """Where a served ledger keeps its effects and keys, seen from an event loop. Without the last four, which are for
    waiting and `/metrics`, an implementation that inherits from this works, too.
    """

    async def answer(self, request: Request) -> Answer:
        """Carry a call out, durably. Storage that fails is a 503, never an exception."""
        ...

    async def find_key(self, sha256: bytes) -> ApiKey | None:
        """The API key with this hash, also if it is revoked or has expired.

        Raises:
            StorageError: storage did not answer.
        """
        ...

    async def lease_states(self, names: Sequence[EffectName]) -> list[LeaseState]:  # noqa: ARG002 - as with `watch_batches`
        """Look at effects that somebody waits for, all of them at once, without disturbing anybody.

        Raises:
            StorageError: storage did not answer, or can't look.
        """
        raise StorageError(f"{type(self).__name__} can't look at effects")

    async def expired_for_s(self) -> Mapping[Environment, float]:
        """By environment, how long ago the oldest lease ran out that nobody took over; none is absent. Cheap.

        Raises:
            StorageError: storage did not answer.
        """
        return {}

    def pool(self) -> Pool | None:
        """The connections at this moment; None where there is no pool."""
        return None

    def watch_batches(self, watch: Callable[[int], None]) -> None:  # noqa: ARG002 - whoever has no batches needs no name
        """Have `watch` called, in any thread, with the number of operations of each transaction."""
        return
