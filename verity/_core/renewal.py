"""When to renew a lease, in seconds of the caller's own monotonic clock.

Time is counted from the moment the lease was *requested*: the ledger can't have started it earlier, so it
can't end before that moment plus its duration. No clock of the ledger is ever compared with ours.
"""

from __future__ import annotations

_SHORTEST_RETRY_S = 0.25


def next_renewal_at(requested_at: float, duration_s: float, fraction: float) -> float:
    """The moment to renew a lease that was requested (or renewed) at `requested_at`."""
    return requested_at + duration_s * fraction


def retry_renewal_after(now: float, requested_at: float, duration_s: float) -> float:
    """Seconds until the next try after a transient failure: sooner than usual, ever sooner towards the end.

    It goes on after the lease has run out, since a renewal is still accepted while nobody else was granted.
    """
    remaining_s = requested_at + duration_s - now
    return max(_SHORTEST_RETRY_S, min(duration_s * 0.1, remaining_s / 3) if remaining_s > 0 else duration_s * 0.1)


def renewal_timeout_s(duration_s: float, fraction: float, request_timeout_s: float) -> float:
    """The longest that one renewal may take, so that a second one still fits before the lease runs out."""
    return min(request_timeout_s, max(1.0, duration_s * (1 - fraction) / 2))
