"""How long the client goes on trying to commit a result while the ledger is away, and when it tries next.

A commit is idempotent, and the ledger accepts it until it has granted the effect to another holder. So to try again is
safe, and a restart of the ledger need not end in an uncertain commit.
"""

from __future__ import annotations

from dataclasses import dataclass

from verity._core.backoff import SEND_ATTEMPTS, resend_delay
from verity._core.replies import TRANSIENT_STATUSES, is_transient
from verity.errors import VerityApiError, VerityError

RETRY_TIMEOUT_S = 5.0
"""The timeout of each try after the first one: connections into a cut network must not use up the patience."""

_LONGEST_DELAY_S = 2.0
"""The longest delay that the client chooses. A ledger's `Retry-After` may be longer."""

_AWAY_STATUSES = TRANSIENT_STATUSES | {502, 503, 504}


def may_be_back(error: VerityError) -> bool:
    """Whether the ledger may soon be back: there was no answer, or it was 408, 425, 429, 502, 503 or 504.

    Or the answer is not the ledger's: a proxy before it shows a page, redirects to one, or has no route for a while.
    """
    if isinstance(error, VerityApiError):
        status = error.status_code
        return status in _AWAY_STATUSES or status < 400 or (status == 404 and error.code is None)
    return is_transient(error)


@dataclass
class CommitTries:
    """The tries of one commit. Made at the first failure, and kept when the commit is started again.

    Attributes:
        began_at: when the commit began, on the client's monotonic clock.
        patience_s: for how many seconds from then the commit is tried at least.
        lease_s: how long the lease lasts. The commit is tried no longer than this, or than `patience_s`.
        max_delay_s: the longest delay that a ledger's `Retry-After` can cause.
        failed: the number of tries that failed.
        is_pausing: whether the client waits for the next try.
        is_last: whether no further try may follow.
    """

    began_at: float
    patience_s: float
    lease_s: float
    max_delay_s: float
    failed: int = 0
    is_pausing: bool = False
    is_last: bool = False
    _errors: int = 0

    def delay_after(
        self, error: VerityError, *, now: float, expires_at: float, is_interrupted: bool, random: float
    ) -> float | None:
        """The seconds until the next try, after one that failed; None: no further try.

        Args:
            error: how the try failed.
            now: the client's monotonic clock.
            expires_at: when the lease expires, by its last confirmed renewal.
            is_interrupted: whether a cancellation or an interrupt waits for the commit to end.
            random: from 0 to 1.
        """
        self.failed += 1
        if self.is_last:
            return None
        if not may_be_back(error):
            if not is_transient(error):
                return None
            # Such as 500: the ledger is there, and cannot do it.
            self._errors += 1
            if self._errors >= SEND_ATTEMPTS:
                return None
        until = self.began_at + max(self.patience_s, min(expires_at - self.began_at, self.lease_s))
        if now >= until and self.failed >= SEND_ATTEMPTS:
            return None
        # Beyond the tries that each call has, a short `max_delay_s` must not make the client press a ledger in trouble.
        longest_s = min(self.max_delay_s, _LONGEST_DELAY_S) if self.failed < SEND_ATTEMPTS else _LONGEST_DELAY_S
        delay_s = resend_delay(self.failed, None, longest_s, random)
        if is_interrupted:
            self.is_last = True
            return delay_s
        if isinstance(error, VerityApiError) and error.retry_after_s is not None:
            delay_s = min(max(delay_s, error.retry_after_s), self.max_delay_s)
        return min(delay_s, until - now) if now < until else delay_s  # the last try comes when the patience ends
