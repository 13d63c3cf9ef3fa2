"""When to renew a lease, in seconds of the client's monotonic clock.

A lease is counted from the moment at which it was *requested*. The ledger granted it later, so it does not expire
before that moment plus its duration. The clocks of the client and the ledger are never compared.
"""

from __future__ import annotations

_SHORTEST_RETRY_S = 0.25


def next_renewal_at(requested_at: float, duration_s: float, fraction: float) -> float:
    """The moment to renew a lease whose grant or last renewal was requested at `requested_at`."""
    return requested_at + duration_s * fraction


def retry_renewal_after(now: float, requested_at: float, duration_s: float) -> float:
    """Seconds until the next attempt after a transient failure; the delays get shorter towards the expiry.

    Attempts go on after the expiry: the ledger accepts a renewal until it has granted the effect to another holder.
    """
    remaining_s = requested_at + duration_s - now
    return max(_SHORTEST_RETRY_S, min(duration_s * 0.1, remaining_s / 3) if remaining_s > 0 else duration_s * 0.1)


def renewal_timeout_s(duration_s: float, fraction: float, request_timeout_s: float) -> float:
    """The timeout of one renewal, in seconds, so that a second one still fits before the lease expires."""
    return min(request_timeout_s, max(1.0, duration_s * (1 - fraction) / 2))
