"""Waiting without polling: lease requests with `Prefer: wait=N` (RFC 7240) that are parked until there is an answer.

A parked request costs memory and nothing else. What this node decides wakes its waiters at once; for what other nodes
decide, and for leases that run out, one task looks at all effects that somebody waits for, in one query for all of
them, and only while somebody waits. Whoever is woken asks for the lease again, so a wake-up too many does no harm.
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

_LOOK_EVERY_S = 0.1
_SHARE = 5
"""Looking takes at most this part of the time: after a slow look there is a longer pause."""

DECIDING = frozenset({Operation.COMMIT_EFFECT, Operation.FAIL_EFFECT, Operation.RESOLVE_EFFECT})
CHANGING = DECIDING | {Operation.RESET_EFFECT}


class _Waiter:
    """One parked request. What wakes it while it asks is not lost."""

    __slots__ = ("_is_woken", "_sleeps")

    def __init__(self) -> None:
        self._is_woken = False
        self._sleeps: asyncio.Future[None] | None = None

    def wake(self) -> None:
        self._is_woken = True
        if self._sleeps is not None and not self._sleeps.done():
            self._sleeps.set_result(None)

    async def sleep(self, gone: asyncio.Future[Any], timeout_s: float) -> None:
        """Return when it is woken, the client has gone, or the time is over."""
        if not self._is_woken:
            self._sleeps = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._sleeps, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        self._is_woken = False


class WaitingRoom:
    """The parked requests of one node.

    Args:
        storage: is asked for leases, and looked at.
        max_waits: how many requests may be parked; one more is answered at once. Of these one API key may have half.
    """

    def __init__(self, store: AsyncStore, max_waits: int) -> None:
        self._store = store
        self._max_waits = max_waits
        self._waiters: dict[EffectName, deque[_Waiter]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._is_closing = False
        self._waiting_by_key: Counter[str | None] = Counter()
        self.waiting_count = 0
        """How many requests are parked now."""

    async def answer_lease(
        self,
        request: Request,
        wait_s: int,
        until_gone: Callable[[], Awaitable[Any]],
        check: Callable[[], Awaitable[Any]],
    ) -> Answer:
        """Carry a lease request out, and where another holder's lease is live, wait for up to `wait_s` seconds.

        Args:
            request: the same each time it is sent, so that it is one logical request to the ledger.
            wait_s: how long to wait.
            until_gone: returns when the client has left, who need not be answered any more.
            check: raises where the client may no longer ask, as its API key was revoked while it waited.
        """
        owner = request.scope.actor
        if self._is_closing or not self._has_room(owner):
            return await self._store.answer(request)
        name = name_of(request)
        waiter = _Waiter()
        waiters = self._waiters.setdefault(name, deque())
        waiters.append(waiter)  # before it asks, so that it can't miss what is decided meanwhile
        self.waiting_count += 1
        self._waiting_by_key[owner] += 1
        gone: asyncio.Task[Any] | None = None
        end = asyncio.get_running_loop().time() + wait_s
        try:
            while True:
                answer = await self._store.answer(request)
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
            self._leave(name, waiters, waiter)
            self._waiting_by_key[owner] -= 1
            if not self._waiting_by_key[owner]:
                del self._waiting_by_key[owner]
        return replace(answer, headers={**answer.headers, "preference-applied": "wait"})

    def changed(self, request: Request) -> None:
        """This node carried out a call that may be what others wait for."""
        waiters = self._waiters.get(name_of(request)) if request.operation in CHANGING else None
        if waiters:
            self._wake(waiters, everybody=request.operation in DECIDING)

    def close(self) -> None:
        """Answer everybody now, and park nobody any more."""
        self._is_closing = True
        for waiters in self._waiters.values():
            self._wake(waiters, everybody=True)

    async def _sleep(self, waiter: _Waiter, gone: asyncio.Future[Any], left_s: float) -> bool:
        """Wait to be woken or for the time to be over; true: the client has gone."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look_while_somebody_waits())
        await waiter.sleep(gone, left_s)
        return gone.done()

    def _has_room(self, owner: str | None) -> bool:
        return self.waiting_count < self._max_waits and 2 * self._waiting_by_key[owner] < self._max_waits

    def _leave(self, name: EffectName, waiters: deque[_Waiter], waiter: _Waiter) -> None:
        self.waiting_count -= 1
        waiters.remove(waiter)
        if not waiters:
            self._waiters.pop(name, None)

    @staticmethod
    def _wake(waiters: deque[_Waiter], *, everybody: bool) -> None:
        """All, where each gets an answer; else the one that waited longest, since only one gets the lease."""
        for waiter in waiters if everybody else [waiters[0]]:
            waiter.wake()

    async def _look_while_somebody_waits(self) -> None:
        loop = asyncio.get_running_loop()
        has_failed = False
        while self._waiters:
            began_at = loop.time()
            names = list(self._waiters)
            try:
                for name, look in zip(names, await self._store.lease_states(names), strict=True):
                    self._wake_if_ready(name, look)
                has_failed = False
            except Exception as error:  # noqa: BLE001 - whatever ails the storage, they wait on and it is looked at again
                if not has_failed:
                    _logger.warning("effects that are waited for could not be looked at: %s", type(error).__name__)
                has_failed = True
            await asyncio.sleep(max(_LOOK_EVERY_S, (loop.time() - began_at) * _SHARE))
        self._looking = None

    def _wake_if_ready(self, name: EffectName, look: LeaseState) -> None:
        waiters = self._waiters.get(name)
        if waiters and not look.remaining_ms:
            self._wake(waiters, everybody=look.is_decided)


def name_of(request: Request) -> EffectName:
    """The effect that a request whose body was checked is about."""
    members = read_members(request.body) if request.members is None else request.members
    return EffectName(request.scope.environment, request.namespace or "", members.values["effectKey"])
