from __future__ import annotations

import anyio

from tests.helpers.concurrency import AsyncBackground, async_until
from verity._concurrency import AsyncLimiter, Permit


async def test_a_wake_up_that_did_not_come_is_made_up_for_by_the_next_one() -> None:
    """An exception of a signal handler can end `wake_next()` at its entry."""
    limiter = AsyncLimiter(2)
    permits = [Permit() for _ in range(4)]
    for permit in permits[:2]:
        await limiter.acquire(permit)
    async with AsyncBackground() as background:
        for permit in permits[2:]:
            background.start(lambda permit=permit: limiter.acquire(permit))  # type: ignore[misc]
        await async_until(lambda: all(permit.wake is not None for permit in permits[2:]))
        limiter.permits.pop(permits[0])  # returned, and nobody is woken
        limiter.permits.pop(permits[1])
        limiter.wake_next()
        with anyio.fail_after(30):
            await async_until(lambda: all(permit.wake is None for permit in permits[2:]))
