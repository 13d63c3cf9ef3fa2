"""How long to wait before the next request. Randomness comes in as a number from 0 to 1."""

from __future__ import annotations

from verity.config import ConflictRetryConfig

SEND_ATTEMPTS = 3
"""Requests in all for one logical call whose answers are lost or transient."""

_FIRST_RESEND_S = 0.2
_JITTER = 0.3


def conflict_delay(config: ConflictRetryConfig, attempt: int, retry_after_s: float | None, random: float) -> float:
    """Seconds to wait after lease request number `attempt` (from 1) met a live lease.

    Doubles from `initial_delay_s`; never shorter than the server's `Retry-After`, never longer than `max_delay_s`.
    """
    delay = _spread(_doubled(config.initial_delay_s, attempt, config.max_delay_s), random, enabled=config.jitter)
    return min(max(delay, retry_after_s or 0.0), config.max_delay_s)


def resend_delay(attempt: int, retry_after_s: float | None, max_delay_s: float, random: float) -> float:
    """Seconds to wait before a request is sent again after transient failure number `attempt` (from 1)."""
    delay = _spread(_doubled(_FIRST_RESEND_S, attempt, max_delay_s), random, enabled=True)
    return min(max(delay, retry_after_s or 0.0), max_delay_s)


def _doubled(first_s: float, attempt: int, max_s: float) -> float:
    return min(first_s * 2.0 ** min(attempt - 1, 60), max_s)


def _spread(delay_s: float, random: float, *, enabled: bool) -> float:
    return delay_s * (1 - _JITTER + 2 * _JITTER * random) if enabled else delay_s
