"""Lease requests with `Prefer: wait=N` (RFC 7240): they wait on the node until the effect is decided or can be granted.

A waiting request costs memory and nothing else. A call on this node that changes the effect wakes the effect's waiters
at once. For changes by other nodes, and for leases that expire, one task polls the store: one query for all effects
that have waiters, and only while there are any. A woken request asks the store for the lease again, so that a needless
wake-up does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from verity._ledger.calls import Answer, Request
from verity._ledger.raw_json import read_members
from verity._operations import Operation
from verity._store.interface import AsyncStore
from verity._store.lease_states import EffectName, LeaseState

_logger = logging.getLogger("verity.server")

_POLL_EVERY_S = 0.1
_POLL_PAUSE_FACTOR = 5
"""The pause after a poll is at least so many times as long as the poll took."""

DECIDING = frozenset({Operation.COMMIT_EFFECT, Operation.FAIL_EFFECT, Operation.RESOLVE_EFFECT})
CHANGING = DECIDING | {Operation.RESET_EFFECT, Operation.RELEASE_EFFECT}


class _Waiter:
    """One waiting request. A wake-up while it asks the store is not lost: the next `sleep` returns at once."""

    __slots__ = ("_is_woken", "_wakeup")

    def __init__(self) -> None:
        self._is_woken = False
        self._wakeup: asyncio.Future[None] | None = None

    def wake(self) -> None:
        self._is_woken = True
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    async def sleep(self, gone: asyncio.Future[Any], timeout_s: float) -> None:
        """Return when it is woken, the client is gone, or the time is over."""
        if not self._is_woken:
            self._wakeup = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._wakeup, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        self._is_woken = False


class LeaseWaiters:
    """The lease requests that wait on one node.

    Args:
        store: the store that is polled.
        max_waits: how many requests may wait; one more is answered at once. One API key may have half of them.
    """

    def __init__(self, store: AsyncStore, max_waits: int) -> None:
        self._store = store
        self._max_waits = max_waits
        self._waiters: dict[EffectName, deque[_Waiter]] = {}
        self._polling: asyncio.Task[None] | None = None
        self._is_closing = False
        self._waiting_by_key: Counter[str | None] = Counter()
        self.waiting_count = 0
        """How many requests wait now."""

    async def answer_lease(
        self,
        request: Request,
        wait_s: int,
        ask: Callable[[Request], Awaitable[Answer]],
        until_gone: Callable[[], Awaitable[Any]],
        check: Callable[[], Awaitable[Any]],
    ) -> Answer:
        """Carry a lease request out. If another holder's lease is live, wait for up to `wait_s` seconds.

        Args:
            request: the lease request. The store gets the same one after each wake-up: one logical request.
            wait_s: how long to wait, in seconds.
            ask: carries the request out.
            until_gone: returns when the client has left; the request then stops waiting.
            check: raises if the caller's API key was revoked or expired meanwhile.
        """
        owner = request.scope.actor
        if self._is_closing or not self._has_room(owner):
            return await ask(request)
        name = name_of(request)
        waiter = _Waiter()
        waiters = self._waiters.setdefault(name, deque())
        waiters.append(waiter)  # before it asks the store, so that no change can be missed
        self.waiting_count += 1
        self._waiting_by_key[owner] += 1
        gone: asyncio.Task[Any] | None = None
        end = asyncio.get_running_loop().time() + wait_s
        try:
            while True:
                answer = await ask(request)
                left_s = end - asyncio.get_running_loop().time()
                if answer.outcome[0] != "lease_conflict" or left_s <= 0 or self._is_closing:
                    break
                gone = gone or asyncio.ensure_future(until_gone())
                if await self._sleep(waiter, gone, left_s):
                    break
                await check()
        finally:
            if gone is not None:
                gone.cancel()
            self._remove(name, waiters, waiter)
            self._waiting_by_key[owner] -= 1
            if not self._waiting_by_key[owner]:
                del self._waiting_by_key[owner]
        return replace(answer, headers={**answer.headers, "preference-applied": "wait"})

    def wake_after(self, request: Request) -> None:
        """Wake the effect's waiters after a call on this node that may have decided, released or reset it."""
        waiters = self._waiters.get(name_of(request)) if request.operation in CHANGING else None
        if waiters:
            self._wake(waiters, wake_all=request.operation in DECIDING)

    def close(self) -> None:
        """Answer all waiting requests now, and let no request wait from now on."""
        self._is_closing = True
        for waiters in self._waiters.values():
            self._wake(waiters, wake_all=True)

    async def _sleep(self, waiter: _Waiter, gone: asyncio.Future[Any], left_s: float) -> bool:
        """Wait for a wake-up, or until the time is over; returns whether the client is gone."""
        if self._polling is None:
            self._polling = asyncio.get_running_loop().create_task(self._poll_store())
        await waiter.sleep(gone, left_s)
        return gone.done()

    def _has_room(self, owner: str | None) -> bool:
        return self.waiting_count < self._max_waits and 2 * self._waiting_by_key[owner] < self._max_waits

    def _remove(self, name: EffectName, waiters: deque[_Waiter], waiter: _Waiter) -> None:
        self.waiting_count -= 1
        waiters.remove(waiter)
        if not waiters:
            self._waiters.pop(name, None)

    @staticmethod
    def _wake(waiters: deque[_Waiter], *, wake_all: bool) -> None:
        """Wake all waiters, or the one that waited longest: after an expiry, a release or a reset only one gets it."""
        for waiter in waiters if wake_all else [waiters[0]]:
            waiter.wake()

    async def _poll_store(self) -> None:
        loop = asyncio.get_running_loop()
        has_failed = False
        while self._waiters:
            began_at = loop.time()
            names = list(self._waiters)
            try:
                for name, lease_state in zip(names, await self._store.lease_states(names), strict=True):
                    self._wake_if_ready(name, lease_state)
                has_failed = False
            except Exception as error:  # noqa: BLE001 - whatever the store raises, the requests wait on and the next poll comes
                if not has_failed:
                    _logger.warning("the store could not be polled for waiting requests: %s", type(error).__name__)
                has_failed = True
            await asyncio.sleep(max(_POLL_EVERY_S, (loop.time() - began_at) * _POLL_PAUSE_FACTOR))
        self._polling = None

    def _wake_if_ready(self, name: EffectName, lease_state: LeaseState) -> None:
        waiters = self._waiters.get(name)
        if waiters and not lease_state.remaining_ms:
            self._wake(waiters, wake_all=lease_state.is_decided)


def name_of(request: Request) -> EffectName:
    """The name of the effect in a request whose body was checked."""
    members = read_members(request.body) if request.members is None else request.members
    return EffectName(request.scope.environment, request.namespace or "", members.values["effectKey"])
