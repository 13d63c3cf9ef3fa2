"""Back-off: how long to wait before the next request. A random number from 0 to 1 is an argument."""

from __future__ import annotations

import math
from typing import Protocol

from verity._limits import MAX_WAIT_S

MAX_WAITS = 50
"""How many lease requests of one client may wait at the ledger at a time: half of the client's connections.

Each such request occupies a connection. If they occupied all, commits and renewals would wait for a connection. Leases
that their holders keep alive would expire, and other callers would act, too.
"""

SEND_ATTEMPTS = 3
"""How many requests one call sends at most, if answers are lost or are transient errors."""

RELEASE_TIMEOUT_S = 2.0
"""The timeout in seconds of a release, and of the request before it, at the end of a call that has no outcome."""

_FIRST_RESEND_S = 0.2
_JITTER = 0.3


class ConflictRetry(Protocol):
    """How to wait for another holder. `verity.config.ConflictRetryConfig` documents and checks the fields."""

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

    The delay doubles from `initial_delay_s`. It is at least the server's `Retry-After`, and at most `max_delay_s`.
    """
    delay = _spread(_doubled(config.initial_delay_s, attempt, config.max_delay_s), random, enabled=config.jitter)
    return min(max(delay, retry_after_s or 0.0), config.max_delay_s)


def ledger_wait_s(config: ConflictRetry, delay_s: float) -> int:
    """How long the next lease request may wait at the ledger, in place of a delay before it; 0: it may not wait there.

    In whole seconds, rounded up: the ledger answers as soon as the effect changes.
    """
    if config.max_delay_s < 1:
        return 0
    return min(math.ceil(delay_s), int(config.max_delay_s), MAX_WAIT_S)


def may_wait_at_ledger(config: ConflictRetry, *, has_own_connections: bool) -> bool:
    """Whether lease requests may wait at the ledger.

    By default, only on connections of the client's own: a caller's transport may have too few of them.
    """
    return has_own_connections if config.wait is None else config.wait


def patience_s(config: ConflictRetry) -> float:
    """The sum of all delays of a call, in seconds, without jitter."""
    patience = 0.0
    for attempt in range(1, config.max_attempts):
        delay = _doubled(config.initial_delay_s, attempt, config.max_delay_s)
        if delay >= config.max_delay_s or not delay:
            return patience + (config.max_attempts - attempt) * delay
        patience += delay
    return patience


def attempt_after(config: ConflictRetry, waited_s: float) -> int:
    """The attempt (from 1) at which a call goes on after it waited for a leader. At least one more request is left."""
    for attempt in range(1, config.max_attempts - 1):
        waited_s -= _doubled(config.initial_delay_s, attempt, config.max_delay_s)
        if waited_s < 0 or not config.initial_delay_s:
            return attempt
    return max(1, config.max_attempts - 1)


def resend_delay(attempt: int, retry_after_s: float | None, max_delay_s: float, random: float) -> float:
    """Seconds to wait before a request is resent after transient failure number `attempt` (from 1)."""
    delay = _spread(_doubled(_FIRST_RESEND_S, attempt, max_delay_s), random, enabled=True)
    return min(max(delay, retry_after_s or 0.0), max_delay_s)


def _doubled(first_s: float, attempt: int, max_s: float) -> float:
    return min(first_s * 2.0 ** min(attempt - 1, 60), max_s)


def _spread(delay_s: float, random: float, *, enabled: bool) -> float:
    return delay_s * (1 - _JITTER + 2 * _JITTER * random) if enabled else delay_s
