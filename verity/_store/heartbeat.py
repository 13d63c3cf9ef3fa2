"""The heartbeat of a served ledger: twice a second, a node proves that the ledger can be written to.

A gap in the heartbeats is an outage: see `verity/_ledger/outages.py`. An embedded ledger has no heartbeat. Its
processes come and go, and a process that does not run is no outage.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from verity._ledger.outages import LONGEST_GRACE_MS, MAX_OUTAGES, Outage
from verity._ledger.shown import format_time

_logger = logging.getLogger("verity.ledger")

BEAT_EVERY_S = 0.5
BEAT_EVERY_MS = 500


@asynccontextmanager
async def beating(beat: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Call `beat` now, and every `BEAT_EVERY_S` seconds until the exit. It must handle the errors of its storage.

    The first beat is over before the entry returns: a node knows of the outage that ends with its start before it
    answers a request.
    """
    await beat()
    beats = asyncio.create_task(_beat_again(beat))
    try:
        yield
    finally:
        beats.cancel()
        with suppress(asyncio.CancelledError):
            await beats


async def _beat_again(beat: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(BEAT_EVERY_S)
        try:
            await beat()
        except Exception as error:  # noqa: BLE001 - whatever the store raises, the next beat comes
            _logger.error("a heartbeat failed: %s", type(error).__name__)


class Outages:
    """Tells of the outages that this process has recorded: in the log, and to one watcher."""

    def __init__(self) -> None:
        self._watch: Callable[[Outage], None] | None = None
        self._unwatched: deque[Outage] = deque(maxlen=MAX_OUTAGES)

    def watch(self, watch: Callable[[Outage], None]) -> None:
        """Have `watch` called with each outage, also with those from before, in any thread."""
        self._watch = watch
        while self._unwatched:
            watch(self._unwatched.popleft())

    def tell(self, outage: Outage) -> None:
        """Tell of an outage."""
        _log(outage)
        if self._watch is None:
            self._unwatched.append(outage)
        else:
            self._watch(outage)


def _log(outage: Outage) -> None:
    _logger.warning(
        "No holder could renew its lease for %.1f s, until %s: the ledger was away, frozen or could not write, or its "
        "clock jumped forward. Leases that expired meanwhile are not taken over before their holders had the time to "
        "renew them, until %s at most.",
        (outage.ended_at - outage.began_at) / 1000,
        format_time(outage.ended_at),
        format_time(outage.ended_at + LONGEST_GRACE_MS),
    )
