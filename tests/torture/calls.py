"""How a client of the torture protects one effect: async and sync, and what its act does."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, TextIO
from uuid import uuid4

from tests.torture.history import ASKED, BEGUN, ENDED, LEASED, OVER
from tests.torture.notes import Notes
from tests.torture.plan import (
    ACTING,
    BLOCKED,
    BLOCKING,
    CANCELLED,
    HASTY,
    LATE,
    OBSERVED,
    REFUSED,
    SETTLE_S,
    TIMED_OUT,
    kind_of,
)
from tests.torture.world import AsyncWorldClient
from verity import (
    EffectPolicy,
    LeaseResponse,
    NotExecuted,
    OutcomeUnknown,
    OutcomeUnknownError,
    SyncVerityClient,
    VerityClient,
    VerityError,
    current_effect,
)

_POLICIES = {
    OBSERVED: EffectPolicy(settle_s=SETTLE_S),
    BLOCKING: EffectPolicy(settle_s=SETTLE_S),
    ACTING: EffectPolicy(settle_s=SETTLE_S, on_unknown="act"),
}
_CANCELLING = EffectPolicy(settle_s=SETTLE_S, on_lease_lost="cancel")
_TROUBLES = (NotExecuted, TimeoutError, OutcomeUnknown, KeyboardInterrupt)
"""What an act raises in its trouble."""


# What an act gives and what an observation finds are told apart: a commit that was confirmed and lost, and then made up
# for by an observation, is seen to be another one.
def _acted(made: str) -> dict[str, str]:
    return {"id": made, "by": f"act {uuid4().hex}"}


def _found(found: str) -> dict[str, str] | None:
    return {"id": found, "by": f"observe {uuid4().hex}"} if found else None


class _Call:
    """One client on one effect, and what it notes."""

    def __init__(self, notes: Notes, client: int, key: str) -> None:
        self._notes = notes
        self._plan = notes.plan
        self._client = client
        self._key = key
        self._fence = 0
        self._kind = kind_of(key, notes.plan.mode)
        self._policy = _CANCELLING if notes.plan.cancels(key) else _POLICIES[self._kind]
        self._is_hasty = notes.plan.is_hasty(client, key)

    def remember(self, lease: LeaseResponse) -> None:
        self._fence = int(lease.fence_token or 0)
        self.mark(LEASED)

    def mark(self, what: str) -> None:
        self._notes.mark(self._client, what, self._key, self._fence)

    def begin(self) -> None:
        self._fence = 0
        self.mark(ASKED)

    def trouble(self) -> str | None:
        return self._notes.plan.trouble_of(self._key, self._fence)

    def request(self, what: str) -> str:
        """A line for the world."""
        effect = current_effect()
        return f"{what} {self._key} {self._fence} {effect.idempotency_key if effect else '-'}"

    def dawdle_s(self) -> float:
        """How long to wait between act and commit; stragglers so long that others may be granted, and be at it."""
        if self._fence > 1 or not self._plan.is_straggler(self._key):
            return 0.0
        return self._plan.lease_ms / 1000 + random.random() * 1.5

    def hesitate_s(self) -> float:
        """How long to wait between observe and act, where somebody may have been there before."""
        return random.random() * 0.5 if self._fence > 1 else 0.0

    def fail(self, error: BaseException) -> bool:
        """Note that a call ended without a result. Returns whether it is to be made again."""
        self._fence = -1
        self.mark(OVER)
        if isinstance(error, OutcomeUnknownError) and self._kind == BLOCKING:
            self._notes.count("OutcomeUnknownError, and left to a person")
            return False
        if isinstance(error, OutcomeUnknownError) and self._policy is _CANCELLING:
            self._notes.count("OutcomeUnknownError of an act whose lease was lost, and asked again")
        elif isinstance(error, _TROUBLES):
            self._notes.count(f"{type(error).__name__} of act, and asked again")
        elif isinstance(error, VerityError):
            self._notes.count_error(error)
        else:
            raise error
        return True


class AsyncCall(_Call):
    """By way of the async client."""

    def __init__(self, notes: Notes, client: int, world: AsyncWorldClient, key: str) -> None:
        super().__init__(notes, client, key)
        self._world = world
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = ""

    async def act(self) -> Any:
        trouble = self.trouble()
        self.mark(BEGUN)
        if trouble == REFUSED:
            raise NotExecuted("refused before it was sent")
        if trouble == LATE:
            await self._world.ask(self.request("late"))
            raise OutcomeUnknown("no answer")
        if trouble == CANCELLED:
            self._cancel_within(0.03, CANCELLED)
        made = await self._world.ask(self.request("act"))
        if trouble == TIMED_OUT:
            raise TimeoutError
        await asyncio.sleep(self.dawdle_s())
        self.mark(ENDED)
        return _acted(made)

    async def observe(self) -> Any:
        found = await self._world.ask(f"find {self._key}")
        await asyncio.sleep(self.hesitate_s())
        return _found(found)

    def _cancel_within(self, seconds: float, why: str) -> None:
        assert self._task is not None
        self._cancelled = why
        asyncio.get_running_loop().call_later(random.random() * seconds, self._task.cancel)

    async def run(self, client: VerityClient) -> Any:
        while True:
            self.begin()
            self._cancelled = ""
            self._task = asyncio.create_task(self._protect(client))
            if self._is_hasty:
                self._is_hasty = False
                self._cancel_within(0.05, HASTY)
            try:
                result = await self._task
            except asyncio.CancelledError:
                if not self._cancelled:
                    raise
                self._fence = -1
                self.mark(OVER)
                self._notes.count(f"{self._cancelled}, and asked again")
            except (VerityError, *_TROUBLES) as error:
                if not self.fail(error):
                    return BLOCKED
            else:
                self.mark(OVER)
                return result
            await asyncio.sleep(random.random() * 0.2)

    async def _protect(self, client: VerityClient) -> Any:
        result: Any = await client.protect(
            self._key,
            act=self.act,
            observe=self.observe if self._kind == OBSERVED else None,
            on_lease=self.remember,
            lease_duration_ms=self._notes.plan.lease_ms,
            policy=self._policy,
        )
        return result


class SyncCall(_Call):
    """By way of the sync client."""

    def __init__(self, notes: Notes, client: int, world: TextIO, key: str) -> None:
        super().__init__(notes, client, key)
        self._world = world

    def act(self) -> Any:
        trouble = self.trouble()
        self.mark(BEGUN)
        if trouble == REFUSED:
            raise NotExecuted("refused before it was sent")
        if trouble == LATE:
            self._ask(self.request("late"))
            raise OutcomeUnknown("no answer")
        made = self._ask(self.request("act"))
        if trouble == TIMED_OUT:
            raise TimeoutError
        if trouble == CANCELLED:
            raise KeyboardInterrupt
        time.sleep(self.dawdle_s())
        self.mark(ENDED)
        return _acted(made)

    def observe(self) -> Any:
        found = self._ask(f"find {self._key}")
        time.sleep(self.hesitate_s())
        return _found(found)

    def _ask(self, line: str) -> str:
        self._world.write(f"{line}\n")
        self._world.flush()
        return self._world.readline().strip()

    def run(self, client: SyncVerityClient) -> Any:
        while True:
            self.begin()
            try:
                result: Any = client.protect(
                    self._key,
                    act=self.act,
                    observe=self.observe if self._kind == OBSERVED else None,
                    on_lease=self.remember,
                    lease_duration_ms=self._notes.plan.lease_ms,
                    policy=self._policy,
                )
            except (VerityError, *_TROUBLES) as error:
                if not self.fail(error):
                    return BLOCKED
            else:
                self.mark(OVER)
                return result
            time.sleep(random.random() * 0.2)
