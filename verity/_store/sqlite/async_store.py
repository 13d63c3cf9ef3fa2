"""The SQLite store for event loops."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import apsw

from verity._ledger.calls import Answer, Environment, Request
from verity._ledger.outages import Outage
from verity._store.api_keys import ApiKey
from verity._store.heartbeat import beating
from verity._store.interface import AsyncStore, StorageError
from verity._store.lease_states import EffectName, LeaseState
from verity._store.sqlite.loops import LoopThreads
from verity._store.sqlite.registry import OpenLedger

_logger = logging.getLogger("verity.ledger")


class AsyncSqliteStore(AsyncStore):
    """A ledger in a SQLite file. SQLite blocks, so all work is done in threads."""

    def __init__(self, ledger: OpenLedger) -> None:
        self._ledger = ledger

    async def answer(self, request: Request) -> Answer:
        """Carry out a call: a read on a connection of its own, an effect call in a group commit."""
        return await self._ledger.answer(request)

    async def find_key(self, sha256: bytes) -> ApiKey | None:
        """The API key with this hash, even if it is revoked or has expired; None: there is none."""
        try:
            return await self._ledger.reads.run_for_node(lambda: self._ledger.store.find_key(sha256))
        except apsw.Error as error:
            raise StorageError(type(error).__name__) from error

    async def lease_states(self, names: Sequence[EffectName]) -> list[LeaseState]:
        """The lease states of effects that requests wait for, in the order of the names."""
        try:
            return await self._ledger.reads.run_for_node(lambda: self._ledger.store.lease_states(names))
        except apsw.Error as error:
            raise StorageError(type(error).__name__) from error

    async def expired_for_s(self) -> Mapping[Environment, float]:
        """By environment, how many seconds ago the oldest lease expired that was not taken over."""
        try:
            ages_ms = await self._ledger.reads.run_for_node(self._ledger.store.expired_for_ms)
        except apsw.Error as error:
            raise StorageError(type(error).__name__) from error
        return {environment: age_ms / 1000 for environment, age_ms in ages_ms.items()}

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Have the heartbeat of a node: see `verity/_store/heartbeat.py`. It has a thread of its own."""
        thread = LoopThreads("verity-ledger-heartbeat")

        async def beat() -> None:
            try:
                await thread.run(lambda _is_wanted: self._ledger.store.beat())
            except apsw.Error as error:  # nothing was written, so this is an outage if it lasts
                _logger.debug("a heartbeat was not written: %s", type(error).__name__)

        self._ledger.store.heartbeat.is_node = True
        try:
            async with beating(beat):
                yield
        finally:
            self._ledger.store.heartbeat.is_node = False
            thread.close()

    def watch_batches(self, watch: Callable[[int], None]) -> None:
        """Have `watch` called with the number of calls in each transaction."""
        self._ledger.loops.watch = watch

    def watch_outages(self, watch: Callable[[Outage], None]) -> None:
        """Have `watch` called with each outage that this process has recorded."""
        self._ledger.store.heartbeat.recorded.watch(watch)
