"""`current_effect()`: what act and observe can know about the effect that they run for.

The context variable of `nesting.py` leads to the call of `protect()`. The value is made when the caller's code asks for
it, so that an effect whose code never asks pays nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Protocol

from verity._attempt_key import make_attempt_key
from verity._clock import callers_monotonic, monotonic
from verity._concurrency.loops import thread_safe
from verity._concurrency.nesting import Inside, innermost_lease
from verity.values import LeaseResponse

_CHECK_EVERY_S = 1.0
"""An interrupt can prevent a wake-up, so a caller that waits also checks for itself."""


class HeldLease(Protocol):
    """The part of a lease that `CurrentEffect` shows. The lease keepers have it.

    Attributes:
        listeners: functions that are called, in any thread, when the lease is lost or the call is over.
    """

    listeners: list[Callable[[], None]]

    @property
    def is_lost(self) -> bool: ...
    @property
    def is_over(self) -> bool: ...
    def remaining_s(self) -> float: ...


class LeaseLost:
    """Tells act that its lease is lost: the ledger said so, or it expired without a confirmed renewal.

    From then on another holder may act. Once set, it stays set.

    .. versionadded:: 0.2
    """

    __slots__ = ("_lease",)

    def __init__(self, lease: HeldLease) -> None:
        self._lease = lease

    def __repr__(self) -> str:
        return f"<LeaseLost {'set' if self.is_set() else 'not set'}>"

    def is_set(self) -> bool:
        """Whether the lease is lost. Cheap: call it as often as you like, from any thread."""
        return self._lease.is_lost

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block this thread until the lease is lost. In a coroutine, use `wait_async()`.

        Args:
            timeout_s: how many seconds to wait at most; None for no limit.

        Returns:
            Whether the lease is lost. False if the time is up, or if `protect()` has ended with the lease kept.
        """
        end = None if timeout_s is None else monotonic() + timeout_s
        bell: SimpleQueue[None] = SimpleQueue()
        with self._listening(lambda: bell.put(None)):
            while not (self._lease.is_lost or self._lease.is_over):
                pause_s = self._longest_pause_s()
                if end is not None:
                    pause_s = min(pause_s, end - monotonic())
                    if pause_s <= 0:
                        return False
                try:
                    bell.get(timeout=pause_s)
                except Empty:
                    continue
        return self.is_set()

    async def wait_async(self) -> bool:
        """Wait until the lease is lost, on asyncio or trio. For a limit, use a timeout of asyncio, anyio or trio.

        Returns:
            Whether the lease is lost. False if `protect()` has ended with the lease kept.
        """
        import anyio

        rung = anyio.Event()
        with self._listening(thread_safe(rung.set)):
            while not (self._lease.is_lost or self._lease.is_over):
                with anyio.move_on_after(self._longest_pause_s()):
                    await rung.wait()
        return self.is_set()

    @contextmanager
    def _listening(self, ring: Callable[[], None]) -> Iterator[None]:
        self._lease.listeners.append(ring)
        try:
            yield
        finally:
            self._lease.listeners.remove(ring)

    def _longest_pause_s(self) -> float:
        return min(max(self._lease.remaining_s(), 0.0), _CHECK_EVERY_S)


class CurrentEffect:
    """The effect whose act or observe is running.

    Attributes:
        namespace: the effect's namespace.
        key: the effect key, with its suffix.
        effect_id: the ledger's id of the effect; None if the ledger did not name it.
        fence_token: the number of this grant. It rises with every grant, so a target that keeps the highest one can
            refuse a late write of an earlier holder. 0 if act runs unprotected (`on_unavailable="proceed"`).
        attempt: the number of this grant among the effect's grants, from 1; 0 if act runs unprotected.
        idempotency_key: at most 64 URL-safe characters, for a target that de-duplicates. It is the same for every
            attempt at the effect. A reset with mode `retry` changes it: the target would otherwise replay the failure
            that was just declared void.
        lease_lost: tells act that it no longer has the lease.

    .. versionadded:: 0.2
    """

    __slots__ = (
        "_lease",
        "attempt",
        "effect_id",
        "fence_token",
        "idempotency_key",
        "key",
        "lease_lost",
        "namespace",
    )

    def __init__(
        self, lease: HeldLease, grant: LeaseResponse | None, *, environment: str, namespace: str, key: str
    ) -> None:
        self._lease = lease
        self.namespace = namespace
        self.key = key
        self.effect_id = None if grant is None else grant.effect_id
        self.fence_token = (None if grant is None else grant.fence_token) or 0
        # A ledger that is older than attempt keys sends neither of the two.
        self.attempt = (None if grant is None else grant.attempt) or self.fence_token
        sent_key = None if grant is None else grant.attempt_key
        self.idempotency_key = sent_key or make_attempt_key(environment, namespace, key)
        self.lease_lost = LeaseLost(lease)

    def __repr__(self) -> str:
        return f"<CurrentEffect {self.key!r} in {self.namespace!r}, attempt {self.attempt}, fence {self.fence_token}>"

    @property
    def deadline(self) -> float:
        """When the lease expires unless it is renewed: seconds of Python's `time.monotonic`. Each renewal moves it.

        Infinite if act runs unprotected.
        """
        return callers_monotonic() + self.remaining_s()

    def remaining_s(self) -> float:
        """How many seconds are left of the lease, by its last confirmed renewal. Negative after its expiry."""
        return self._lease.remaining_s()


class NoLease:
    """Stands for the lease of an effect that runs unprotected. It can't be lost."""

    is_lost = False

    def __init__(self, inside: Inside, *, environment: str, namespace: str) -> None:
        self.listeners: list[Callable[[], None]] = []
        self._inside = inside
        self._described = CurrentEffect(self, None, environment=environment, namespace=namespace, key=inside.effect_key)

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self._inside.is_over

    def remaining_s(self) -> float:
        """Infinite: nothing expires."""
        return math.inf

    def describe(self) -> CurrentEffect:
        """What the caller's code can know about the effect."""
        return self._described


def current_effect() -> CurrentEffect | None:
    """The effect whose act or observe is running here; None outside of both.

    It works in coroutines and the tasks that they start, in worker threads of `VerityClient`, and in the sync client.
    Inside nested calls of `protect()`, it is the innermost effect.

    ```python
    def act() -> dict:
        effect = verity.current_effect()
        return stripe.Refund.create(charge=charge_id, idempotency_key=effect.idempotency_key)
    ```

    .. versionadded:: 0.2
    """
    lease = innermost_lease()
    return None if lease is None else lease.describe()
