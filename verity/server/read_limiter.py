"""Limits how many reads run at the same time, and shares them fairly between API keys.

A search (a list or a count) may have to read every effect that its caller can see, and keeps a core busy meanwhile. So
a node runs few searches at a time and never two of one key. Searches of one key wait in a queue, and the keys take
turns (round-robin): however many searches one key sends, another key waits for one of them at the most. Above its
limit, a key's search is refused at once, before it costs anything. Lookups of single effects are limited in number
only; they do not wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable

from verity._ledger.calls import Answer
from verity._store.reads import SEARCHES, SEARCHES_AT_ONCE
from verity.server import problems
from verity.server.exchange import ClientGone

MAX_LOOKUPS = 128
"""How many lookups a key may have under way: more than a client has connections."""
MAX_SEARCHES_PER_NODE = 1_000
_MAX_WAIT_S = 10.0
"""How long a search may wait for its permit, in seconds. This and the search's own time limit together are less than
a client's timeout.
"""
_RETRY_AFTER_S = 1

Read = Callable[[], Awaitable[Answer]]


class ReadLimiter:
    """Runs reads within the limits.

    Args:
        max_searches: how many searches a key may have, running and waiting.
        max_wait_s: how long a search may wait for its permit, in seconds.
    """

    def __init__(self, max_searches: int, *, max_wait_s: float = _MAX_WAIT_S) -> None:
        self._max_searches = max_searches
        self._max_wait_s = max_wait_s
        self._searches: Counter[str] = Counter()
        self._lookups: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """The permits that searches wait for, by API key, in the order in which the keys get one."""
        self._running: set[str] = set()

    async def answer(
        self, key_id: str, operation: str, read: Read, until_gone: Callable[[], Awaitable[None]]
    ) -> Answer:
        """Run a read, and return its answer.

        Args:
            key_id: the API key's id.
            operation: the read's operation.
            read: asks the store; stops when it is cancelled.
            until_gone: returns when the client has left; a search is then cancelled.

        Raises:
            Problem: 429, too many reads are under way; 503, the search waited too long for its permit.
            ClientGone: the client left before its search was done.
        """
        if operation not in SEARCHES:
            with _CountedRead(self._lookups, key_id, MAX_LOOKUPS):
                return await read()
        if self._searches.total() >= MAX_SEARCHES_PER_NODE:
            raise problems.too_many_reads(_RETRY_AFTER_S, "This node of the ledger")
        with _CountedRead(self._searches, key_id, self._max_searches):
            gone = asyncio.ensure_future(until_gone())
            search = asyncio.ensure_future(self._search(key_id, read))
            try:
                await asyncio.wait((gone, search), return_when=asyncio.FIRST_COMPLETED)
                if not search.done():
                    raise ClientGone
                return search.result()
            finally:
                gone.cancel()
                search.cancel()

    async def _search(self, key_id: str, read: Read) -> Answer:
        permit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key_id, deque()).append(permit)
        self._grant_permits()
        try:
            await asyncio.wait((permit,), timeout=self._max_wait_s)
            if not permit.done():
                raise problems.too_busy_to_read(_RETRY_AFTER_S)
            return await read()
        finally:
            permits = self._waiting.pop(key_id, deque())
            if permit.done():
                self._running.discard(key_id)
            else:
                permits.remove(permit)
            if permits:
                self._waiting[key_id] = permits  # behind the other keys
            self._grant_permits()

    def _grant_permits(self) -> None:
        for key_id, permits in list(self._waiting.items()):
            if len(self._running) >= SEARCHES_AT_ONCE:
                return
            if key_id not in self._running:
                self._running.add(key_id)
                permits.popleft().set_result(None)
                if not permits:
                    del self._waiting[key_id]


class _CountedRead:
    """Counts one read of a key while it is under way.

    Raises:
        Problem: 429, the key has reached its limit.
    """

    def __init__(self, counts: Counter[str], key_id: str, most: int) -> None:
        if counts[key_id] >= most:
            raise problems.too_many_reads(_RETRY_AFTER_S, "This API key")
        self._counts = counts
        self._key_id = key_id

    def __enter__(self) -> None:
        self._counts[self._key_id] += 1

    def __exit__(self, *_exc_info: object) -> None:
        self._counts[self._key_id] -= 1
        if not self._counts[self._key_id]:
            del self._counts[self._key_id]
