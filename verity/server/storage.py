"""What the app needs of storage, and how each kind of store gets there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import apsw

from verity._ledger.calls import Answer, Environment, Request
from verity._store.api_keys import ApiKey
from verity._store.looks import EffectName, Look
from verity._store.registry import OpenLedger


class StorageError(Exception):
    """Storage did not answer."""


class Pool(NamedTuple):
    """A store's connections to its database."""

    size: int
    idle: int


class Storage(Protocol):
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

    async def look(self, names: Sequence[EffectName]) -> list[Look]:  # noqa: ARG002 - as with `watch_batches`
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


class SqliteStorage(Storage):
    """A SQLite file: blocking by nature, so that its work is done in threads."""

    def __init__(self, ledger: OpenLedger) -> None:
        self._ledger = ledger

    async def answer(self, request: Request) -> Answer:
        """Carry a call out: a read on a connection of its own, an effect call in a group commit."""
        return await self._ledger.answer(request)

    async def find_key(self, sha256: bytes) -> ApiKey | None:
        """The API key with this hash."""
        try:
            return await self._ledger.reads.look(lambda: self._ledger.store.find_key(sha256))
        except apsw.Error as error:
            raise StorageError(type(error).__name__) from error

    async def look(self, names: Sequence[EffectName]) -> list[Look]:
        """Look at effects that somebody waits for."""
        try:
            return await self._ledger.reads.look(lambda: self._ledger.store.look(names))
        except apsw.Error as error:
            raise StorageError(type(error).__name__) from error

    async def expired_for_s(self) -> Mapping[Environment, float]:
        """By environment, how long ago the oldest lease ran out that nobody took over."""
        try:
            ages_ms = await self._ledger.reads.look(self._ledger.store.expired_for_ms)
        except apsw.Error as error:
            raise StorageError(type(error).__name__) from error
        return {environment: age_ms / 1000 for environment, age_ms in ages_ms.items()}

    def watch_batches(self, watch: Callable[[int], None]) -> None:
        """Have `watch` called with the number of operations of each transaction."""
        self._ledger.loops.watch = watch
