"""What the app needs of storage, and how each kind of store gets there."""

from __future__ import annotations

import asyncio
from typing import Protocol

import apsw

from verity._ledger.calls import Answer, Request
from verity._store.api_keys import ApiKey
from verity._store.registry import OpenLedger


class StorageError(Exception):
    """Storage did not answer."""


class Storage(Protocol):
    """Where a served ledger keeps its effects and keys, seen from an event loop."""

    async def answer(self, request: Request) -> Answer:
        """Carry a call out, durably. Storage that fails is a 503, never an exception."""
        ...

    async def find_key(self, sha256: bytes) -> ApiKey | None:
        """The API key with this hash, also if it is revoked or has expired.

        Raises:
            StorageError: storage did not answer.
        """
        ...


class SqliteStorage:
    """A SQLite file: blocking by nature, so that its work is done in threads."""

    def __init__(self, ledger: OpenLedger) -> None:
        self._ledger = ledger

    async def answer(self, request: Request) -> Answer:
        """Carry a call out in a group commit."""
        return await self._ledger.loops.answer(request)

    async def find_key(self, sha256: bytes) -> ApiKey | None:
        """The API key with this hash."""
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self._ledger.store.find_key, sha256)
        except apsw.Error as error:
            raise StorageError(type(error).__name__) from error
