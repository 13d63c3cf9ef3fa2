"""Limits the rate of requests of each API key on this node, with token buckets in the node's memory.

A request takes tokens by its cost. The holder's calls (commits, failures, renewals and releases) are never refused
because of the key's other requests: the act may have happened, and the ledger must learn its outcome. Only holder's
calls that change nothing (with a stale lease, say) take tokens from a second bucket. While that is empty, holder's
calls are refused.
"""

from __future__ import annotations

from collections.abc import Callable

from verity._clock import monotonic
from verity._ledger.calls import Answer
from verity._operations import Operation
from verity._store.reads import SEARCHES

HOLDER_CALLS = frozenset(
    {Operation.COMMIT_EFFECT, Operation.FAIL_EFFECT, Operation.RENEW_EFFECT, Operation.RELEASE_EFFECT}
)
"""A holder's calls about an effect that it was granted. Refusing one could lose the outcome of an act."""

SEARCH_COST = 10
BYTES_PER_TOKEN = 65_536
"""A request costs one more token for each of these in its body."""

_MAX_BUCKETS = 10_000
_LARGEST_DEBT_S = 10.0
_LARGEST_NO_EFFECT_DEBT_S = 2.0
_HAS_EFFECT = frozenset({"accepted", "recorded", "renewed", "released"})


class TokenBuckets:
    """A token bucket for each API key. A full bucket has the tokens of one second.

    Args:
        per_s: tokens a second; above 0.
        largest_debt_s: how many tokens a bucket may lack until it is full, in seconds' worth of tokens.
        monotonic: the clock, in seconds.
    """

    def __init__(self, per_s: int, largest_debt_s: float, monotonic: Callable[[], float]) -> None:
        self._per_s = per_s
        self._largest_debt_s = largest_debt_s
        self._monotonic = monotonic
        # For each key, when its bucket is full again. That alone gives the number of tokens in it.
        self._full_at: dict[str, float] = {}

    def wait_s(self, key_id: str, cost: float = 1) -> float:
        """Seconds until the bucket has `cost` tokens; 0.0 is now. A cost above a full bucket needs a full bucket."""
        now = self._monotonic()
        wait_s = max(self._full_at.get(key_id, now), now) + min(cost / self._per_s, 1.0) - now - 1.0
        return wait_s if wait_s > 1e-9 else 0.0

    def charge(self, key_id: str, cost: float = 1) -> None:
        """Take tokens out. The bucket may go below zero, as far as `largest_debt_s` allows."""
        now = self._monotonic()
        if len(self._full_at) >= _MAX_BUCKETS:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        full_at = max(self._full_at.get(key_id, now), now) + cost / self._per_s
        self._full_at[key_id] = min(full_at, now + self._largest_debt_s)


class RateLimiter:
    """A key may send one second's requests at once, and then `per_s` a second.

    The holder's calls are admitted even if the bucket is empty. It then goes below zero, by nine seconds' worth at the
    most, and the key's other requests wait longer. Holder's calls that changed nothing also take from a second bucket
    of the same size. While that one is empty, the key's holder's calls are refused, too: for a second and the time of
    one token at the most.

    Args:
        per_s: requests a second; 0 is no limit.
        monotonic: the clock, in seconds.
    """

    def __init__(self, per_s: int, *, monotonic: Callable[[], float] = monotonic) -> None:
        self.is_on = per_s > 0
        self._requests = TokenBuckets(per_s, _LARGEST_DEBT_S, monotonic)
        self._no_effect = TokenBuckets(per_s, _LARGEST_NO_EFFECT_DEBT_S, monotonic)

    def admit(self, key_id: str, operation: str) -> float:
        """Decide whether a request may go on, and take its tokens if it may.

        Returns:
            0.0 if it is admitted, otherwise the seconds after which it would be.
        """
        if not self.is_on:
            return 0.0
        cost = SEARCH_COST if operation in SEARCHES else 1
        wait_s = self._no_effect.wait_s(key_id) if operation in HOLDER_CALLS else self._requests.wait_s(key_id, cost)
        if not wait_s:
            self._requests.charge(key_id, cost)
        return wait_s

    def charge_body(self, key_id: str, size: int) -> None:
        """Take the tokens for the body, of `size` bytes, of an admitted request."""
        if self.is_on and size >= BYTES_PER_TOKEN:
            self._requests.charge(key_id, size // BYTES_PER_TOKEN)

    def record_answer(self, key_id: str, operation: str, answer: Answer) -> None:
        """Take the tokens for an admitted holder's call that changed nothing, as its answer says."""
        is_ours = answer.status >= 500  # the ledger's fault: not charged
        if self.is_on and operation in HOLDER_CALLS and answer.outcome[0] not in _HAS_EFFECT and not is_ours:
            self._no_effect.charge(key_id)
