"""How many reads one API key may have under way, and in which order they are carried out.

A search (a list or a count) may have to look at every effect that its caller can see, and keep a core busy meanwhile.
So a node carries out few at a time, never two of one key, and keys take turns: however many one of them sends, those of
another wait for one of them at the most. What is more than a few is refused at once, before it costs anything.
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
"""Reads of single effects that a key may have under way: more than a client has connections."""
MAX_SEARCHES_OF_ALL = 1_000
_TURN_WITHIN_S = 10.0
"""With the time that it may take itself, less than clients wait for an answer."""
_RETRY_AFTER_S = 1

Read = Callable[[], Awaitable[Answer]]


class ReadLimit:
    """Lets reads through, one key's after another.

    Args:
        max_searches: how many searches a key may have under way or waiting.
        turn_within_s: how long a search may wait for its turn, in seconds.
    """

    def __init__(self, max_searches: int, *, turn_within_s: float = _TURN_WITHIN_S) -> None:
        self._max_searches = max_searches
        self._turn_within_s = turn_within_s
        self._searches: Counter[str] = Counter()
        self._lookups: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By key, in the order in which keys get their turns."""
        self._running: set[str] = set()

    async def answer(
        self, key_id: str, operation: str, read: Read, until_gone: Callable[[], Awaitable[None]]
    ) -> Answer:
        """Carry a read out.

        Args:
            key_id: whose.
            operation: which.
            read: carries it out; cancelled, it stops.
            until_gone: returns when the client has left: what nobody waits for is not carried out.

        Raises:
            Problem: 429, the key has too many under way; 503, it waited too long.
            ClientGone: as `until_gone` says.
        """
        if operation not in SEARCHES:
            with _Place(self._lookups, key_id, MAX_LOOKUPS):
                return await read()
        if self._searches.total() >= MAX_SEARCHES_OF_ALL:
            raise problems.too_many_reads(_RETRY_AFTER_S, "This node of the ledger")
        with _Place(self._searches, key_id, self._max_searches):
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
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key_id, deque()).append(turn)
        self._give_turns()
        try:
            await asyncio.wait((turn,), timeout=self._turn_within_s)
            if not turn.done():
                raise problems.no_turn_to_read(_RETRY_AFTER_S)
            return await read()
        finally:
            turns = self._waiting.pop(key_id, deque())
            if turn.done():
                self._running.discard(key_id)
            else:
                turns.remove(turn)
            if turns:
                self._waiting[key_id] = turns  # behind those of the other keys
            self._give_turns()

    def _give_turns(self) -> None:
        for key_id, turns in list(self._waiting.items()):
            if len(self._running) >= SEARCHES_AT_ONCE:
                return
            if key_id not in self._running:
                self._running.add(key_id)
                turns.popleft().set_result(None)
                if not turns:
                    del self._waiting[key_id]


class _Place:
    """One read's place among those of its key."""

    def __init__(self, places: Counter[str], key_id: str, most: int) -> None:
        if places[key_id] >= most:
            raise problems.too_many_reads(_RETRY_AFTER_S, "This API key")
        self._places = places
        self._key_id = key_id

    def __enter__(self) -> None:
        self._places[self._key_id] += 1

    def __exit__(self, *_exc_info: object) -> None:
        self._places[self._key_id] -= 1
        if not self._places[self._key_id]:
            del self._places[self._key_id]
