"""How many effect calls of one API key a node hands to its store at a time.

A store carries calls out in batches, in the order in which they arrive. Without a limit, a key with thousands of calls
under way would delay every other key's calls by all of them. So a node hands over a limited number for each key. The
key's other calls wait here, in order. They delay no other key, and none of them is refused.

The limit counts separately for renewals, for a holder's other calls (commits, failures and releases), and for all
other calls. So a key's leases delay neither its renewals nor its commits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from verity._ledger.calls import Answer, Request
from verity._operations import Operation
from verity._store.interface import AsyncStore
from verity.server.exchange import ClientGone
from verity.server.rate_limiter import HOLDER_CALLS

MIN_CALLS = 512
_CHECK_EVERY_S = 1.0

_GROUPS = {
    Operation.RENEW_EFFECT: 2,
    Operation.COMMIT_EFFECT: 1,
    Operation.FAIL_EFFECT: 1,
    Operation.RELEASE_EFFECT: 1,
}
"""Operations that are counted together; all others are group 0."""


def max_calls_for(max_batch: int) -> int:
    """The limit for a store with batches of `max_batch` calls: one batch under way and the next one full."""
    return max(MIN_CALLS, 2 * max_batch)


_Name = tuple[str | None, int]
"""A key's id and a group."""


class _Queue:
    """The calls of one key and group that wait. It exists from the first one on, until a check finds it empty."""

    __slots__ = ("has_moved", "turns")

    def __init__(self) -> None:
        self.turns: deque[asyncio.Future[None]] = deque()
        self.has_moved = True
        """Whether one of the key's calls has been answered since the last check."""

    def let_next_go_on(self) -> bool:
        """Let the call that has waited longest go on; False: none waits."""
        while self.turns:
            turn = self.turns.popleft()
            if not turn.done():  # else its task was cancelled
                turn.set_result(None)
                return True
        return False


class EffectCallLimiter:
    """Hands effect calls to the store, a limited number of each key at a time.

    If none of a key's calls is answered for a second or two (another transaction may hold their rows), as many again
    are handed over. So calls that are blocked don't block the rest of their key.

    Args:
        store: carries the calls out.
        max_calls: how many calls of one key and group may be at the store at a time.
        check_every_s: how often a queue is checked for calls that are blocked, in seconds.
    """

    def __init__(self, store: AsyncStore, max_calls: int, *, check_every_s: float = _CHECK_EVERY_S) -> None:
        self._store = store
        self._max_calls = max_calls
        self._check_every_s = check_every_s
        self._at_store: dict[_Name, int] = {}
        self._queues: dict[_Name, _Queue] = {}

    async def answer(self, request: Request, has_left: Callable[[], bool]) -> Answer:
        """Carry an effect call out.

        Args:
            request: the call.
            has_left: whether its client has closed the connection.

        Raises:
            ClientGone: the client left while the call waited here. It was not carried out. A commit, a failure or a
                renewal is carried out all the same.
        """
        name = (request.scope.actor, _GROUPS.get(request.operation, 0))
        count = self._at_store.get(name, 0)
        must_wait = count >= self._max_calls
        if must_wait:
            await self._wait(name)
        else:
            self._at_store[name] = count + 1
        try:
            if must_wait and request.operation not in HOLDER_CALLS and has_left():
                raise ClientGone
            return await self._store.answer(request)
        finally:
            self._leave(name)

    async def _wait(self, name: _Name) -> None:
        """Return when a call that was answered has handed its place over."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue()
            loop.call_later(self._check_every_s, self._check, name, queue)
        turn: asyncio.Future[None] = loop.create_future()
        queue.turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given a place before
                self._leave(name)
            raise

    def _leave(self, name: _Name) -> None:
        """Hand a call's place over to the next one."""
        queue = self._queues.get(name) if self._queues else None
        if queue is not None:
            queue.has_moved = True
            if queue.let_next_go_on():
                return
        count = self._at_store[name] - 1
        if count:
            self._at_store[name] = count
        else:
            del self._at_store[name]

    def _check(self, name: _Name, queue: _Queue) -> None:
        """Let more calls go on if none was answered since the last check."""
        if not queue.turns:
            del self._queues[name]
            return
        if not queue.has_moved:
            for _ in range(self._max_calls):
                self._at_store[name] += queue.let_next_go_on()
        queue.has_moved = False
        asyncio.get_running_loop().call_later(self._check_every_s, self._check, name, queue)
