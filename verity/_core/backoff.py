"""How long to wait before the next request. Randomness comes in as a number from 0 to 1."""

from __future__ import annotations

import math
from typing import Protocol

from verity._limits import MAX_WAIT_S

MAX_WAITS = 50
"""How many requests of one client a ledger may hold at a time: half of its connections.

A held request has its connection to itself. If all were held, commits and renewals would wait for one: leases that
their holders keep alive would run out, and others would act, too.
"""

SEND_ATTEMPTS = 3
"""Requests in all for one logical call whose answers are lost or transient."""

_FIRST_RESEND_S = 0.2
_JITTER = 0.3


class ConflictRetry(Protocol):
    """How to wait for another holder: `ConflictRetryConfig` is documented where it is checked, above this room."""

    @property
    def max_attempts(self) -> int: ...
    @property
    def initial_delay_s(self) -> float: ...
    @property
    def max_delay_s(self) -> float: ...
    @property
    def jitter(self) -> bool: ...
    @property
    def wait(self) -> bool | None: ...


def conflict_delay(config: ConflictRetry, attempt: int, retry_after_s: float | None, random: float) -> float:
    """Seconds to wait after lease request number `attempt` (from 1) met a live lease.

    Doubles from `initial_delay_s`; never shorter than the server's `Retry-After`, never longer than `max_delay_s`.
    """
    delay = _spread(_doubled(config.initial_delay_s, attempt, config.max_delay_s), random, enabled=config.jitter)
    return min(max(delay, retry_after_s or 0.0), config.max_delay_s)


def ledger_wait_s(config: ConflictRetry, delay_s: float) -> int:
    """Whole seconds for which a ledger may hold the next lease request, instead of a delay before it; 0: it may not.

    Rounded up, since a ledger answers as soon as there is something to say.
    """
    if config.max_delay_s < 1:
        return 0
    return min(math.ceil(delay_s), int(config.max_delay_s), MAX_WAIT_S)


def may_wait_at_ledger(config: ConflictRetry, *, has_own_connections: bool) -> bool:
    """Whether a ledger may hold lease requests: of a caller's own transport nobody knows how many it can spare."""
    return has_own_connections if config.wait is None else config.wait


def patience_s(config: ConflictRetry) -> float:
    """How long all delays of a call take together, in seconds."""
    patience = 0.0
    for attempt in range(1, config.max_attempts):
        delay = _doubled(config.initial_delay_s, attempt, config.max_delay_s)
        if delay >= config.max_delay_s or not delay:
            return patience + (config.max_attempts - attempt) * delay
        patience += delay
    return patience


def attempt_after(config: ConflictRetry, waited_s: float) -> int:
    """The attempt (from 1) that a call has come to which has waited in line for so long. One more is always left."""
    for attempt in range(1, config.max_attempts - 1):
        waited_s -= _doubled(config.initial_delay_s, attempt, config.max_delay_s)
        if waited_s < 0 or not config.initial_delay_s:
            return attempt
    return max(1, config.max_attempts - 1)


def resend_delay(attempt: int, retry_after_s: float | None, max_delay_s: float, random: float) -> float:
    """Seconds to wait before a request is sent again after transient failure number `attempt` (from 1)."""
    delay = _spread(_doubled(_FIRST_RESEND_S, attempt, max_delay_s), random, enabled=True)
    return min(max(delay, retry_after_s or 0.0), max_delay_s)


def _doubled(first_s: float, attempt: int, max_s: float) -> float:
    return min(first_s * 2.0 ** min(attempt - 1, 60), max_s)


def _spread(delay_s: float, random: float, *, enabled: bool) -> float:
    return delay_s * (1 - _JITTER + 2 * _JITTER * random) if enabled else delay_s
