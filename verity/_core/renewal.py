"""When to renew a lease, in seconds of the client's monotonic clock.

A lease is counted from the moment at which it was *requested*. The ledger granted it later, so it does not expire
before that moment plus its duration. The clocks of the client and the ledger are not compared.

A ledger may grant less than was asked for. It tells so: the answer has the expiry and, in its `Date`, the time by the
ledger's clock. The told remainder counts where it is shorter, and never where it is longer.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from verity._core.replies import read_http_date
from verity._rfc3339 import parse_time

_SHORTEST_RETRY_S = 0.25
_USUAL_LENGTH = len("2026-02-02T02:40:30.000Z")
_DATE_STEP_S = 1.0
"""A `Date` has whole seconds: it may be a second behind the clock."""
_SHORTEST_PLAN_S = 1.0
"""A told remainder leads to one renewal a second at most, however short it is."""


def told_remainder_s(expires_at: object, date: str | None, now_ns: int) -> float | None:
    """The seconds that an answer gives the lease; None if it does not tell. At most a second too many.

    Args:
        expires_at: the answer's `leaseExpiresAt`.
        date: the answer's `Date` header.
        now_ns: the client's wall clock, in ns since 1970. It stands in for a `Date` that is missing or invalid.
    """
    expiry = _read_expiry(expires_at) if isinstance(expires_at, str) else None
    if expiry is None:
        return None
    said_at_s = None if date is None else _read_date(date)
    return expiry.timestamp() - (now_ns / 1e9 if said_at_s is None else said_at_s)


def _read_expiry(text: str) -> datetime | None:
    """As `parse_time`. The form that ledgers write takes a tenth of its time: each protected effect has an expiry."""
    if len(text) == _USUAL_LENGTH and text.endswith("Z"):
        try:
            return datetime.fromisoformat(text[:-1] + "+00:00")
        except ValueError:
            return None
    return parse_time(text)


@lru_cache(maxsize=4)
def _read_date(date: str) -> float | None:
    """The seconds since 1970 of a `Date` header. All answers of one second have the same."""
    at = read_http_date(date)
    return None if at is None else at.timestamp()


def held_s(asked_s: float, told_s: float | None, *, took_s: float, fraction: float, is_renewal: bool) -> float:
    """How long a lease lasts, in seconds from the request for it: what was asked for, or less if the ledger tells less.

    Args:
        asked_s: the duration that the client asked for.
        told_s: the remainder that the answer told; None if it told none.
        took_s: the seconds between the request and its answer.
        fraction: the part of the duration after which the lease is renewed.
        is_renewal: whether the answer confirms at this moment that the client holds the lease. An answer to a lease
            request may be about a grant of an earlier request with the same idempotency key.
    """
    if told_s is None or told_s >= asked_s - _DATE_STEP_S or told_s < -took_s - _DATE_STEP_S:
        # The last case: no lease expires before it was requested. The clocks disagree, so the remainder tells nothing.
        return asked_s
    # A skewed clock must not end in renewals without a pause, nor keep act from ever beginning.
    shortest_s = _SHORTEST_PLAN_S / fraction + (took_s if is_renewal else 0.0)
    return min(asked_s, max(told_s - _DATE_STEP_S, shortest_s))


def next_renewal_at(requested_at: float, duration_s: float, fraction: float) -> float:
    """The moment to renew a lease whose grant or last renewal was requested at `requested_at`."""
    return requested_at + duration_s * fraction


def retry_renewal_after(now: float, requested_at: float, duration_s: float, *, is_short: bool = False) -> float:
    """Seconds until the next attempt after a transient failure; the delays get shorter towards the expiry.

    Attempts go on after the expiry: the ledger accepts a renewal until it has granted the effect to another holder.

    Args:
        now: the moment of the failure.
        requested_at: when the lease, or its last renewal, was requested.
        duration_s: how long it lasts from then.
        is_short: whether it is shorter than was asked for.
    """
    remaining_s = requested_at + duration_s - now
    delay_s = min(duration_s * 0.1, remaining_s / 3) if remaining_s > 0 else duration_s * 0.1
    return max(_SHORTEST_PLAN_S if is_short else _SHORTEST_RETRY_S, delay_s)


def renewal_timeout_s(duration_s: float, fraction: float, request_timeout_s: float) -> float:
    """The timeout of one renewal, in seconds, so that a second one still fits before the lease expires."""
    return min(request_timeout_s, max(1.0, duration_s * (1 - fraction) / 2))
