"""How much an API key may ask of a node: token buckets, in the node's memory.

Requests count by what they cost. A holder that finishes what it was granted is never refused for what it asked for
before: whatever it tells of has happened. But who tells of nothing, again and again, pays for that.
"""

from __future__ import annotations

from collections.abc import Callable

from verity._clock import monotonic
from verity._ledger.calls import Answer
from verity._operations import Operation
from verity._store.reads import SEARCHES

FINISHING = frozenset({Operation.COMMIT_EFFECT, Operation.FAIL_EFFECT, Operation.RENEW_EFFECT})
"""What a holder says of an effect that it was granted. Refused, it would leave behind what nobody knows of."""

COST_OF_A_SEARCH = 10
BYTES_FOR_ONE = 65_536
"""Each whole number of them in a body costs as much as a request."""

_MAX_BUCKETS = 10_000
_LARGEST_DEBT_S = 10.0
_LARGEST_USELESS_DEBT_S = 2.0
_DOES_SOMETHING = frozenset({"accepted", "recorded", "renewed"})


class Buckets:
    """A bucket for each API key, which holds a second's worth.

    Args:
        per_s: what comes into it in a second; above 0.
        largest_debt_s: for how many seconds' worth a key may be in debt.
        monotonic: seconds.
    """

    def __init__(self, per_s: int, largest_debt_s: float, monotonic: Callable[[], float]) -> None:
        self._per_s = per_s
        self._largest_debt_s = largest_debt_s
        self._monotonic = monotonic
        # The time at which each key's bucket would be full again is all that needs to be known of it.
        self._full_at: dict[str, float] = {}

    def wait_s(self, key_id: str, cost: float = 1) -> float:
        """In how many seconds there is enough; 0.0 is now. What costs more than a bucket holds needs a full one."""
        now = self._monotonic()
        wait_s = max(self._full_at.get(key_id, now), now) + min(cost / self._per_s, 1.0) - now - 1.0
        return wait_s if wait_s > 1e-9 else 0.0

    def charge(self, key_id: str, cost: float = 1) -> None:
        """Take it out, on credit where there is not enough."""
        now = self._monotonic()
        if len(self._full_at) >= _MAX_BUCKETS:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        full_at = max(self._full_at.get(key_id, now), now) + cost / self._per_s
        self._full_at[key_id] = min(full_at, now + self._largest_debt_s)


class RateLimit:
    """A key may send what it would have been allowed in a second at once, and then `per_s` a second.

    What must not be refused is let through on credit, up to ten seconds' worth: later calls pay for it. Commits,
    failures and renewals that came to nothing have a bucket of their own, of the same size: whoever has emptied it has
    to wait with the next ones, too, for two seconds at the most.

    Args:
        per_s: requests a second; 0 is no limit.
        monotonic: seconds.
    """

    def __init__(self, per_s: int, *, monotonic: Callable[[], float] = monotonic) -> None:
        self.is_on = per_s > 0
        self._requests = Buckets(per_s, _LARGEST_DEBT_S, monotonic)
        self._useless = Buckets(per_s, _LARGEST_USELESS_DEBT_S, monotonic)

    def begin(self, key_id: str, operation: str) -> float:
        """Let a request through, or not.

        Returns:
            0.0 where it is let through, or the seconds after which it would be.
        """
        if not self.is_on:
            return 0.0
        cost = COST_OF_A_SEARCH if operation in SEARCHES else 1
        wait_s = self._useless.wait_s(key_id) if operation in FINISHING else self._requests.wait_s(key_id, cost)
        if not wait_s:
            self._requests.charge(key_id, cost)
        return wait_s

    def charge_body(self, key_id: str, size: int) -> None:
        """A request that was let through has a body of so many bytes."""
        if self.is_on and size >= BYTES_FOR_ONE:
            self._requests.charge(key_id, size // BYTES_FOR_ONE)

    def end(self, key_id: str, operation: str, answer: Answer) -> None:
        """A request that was let through has its answer."""
        is_ours = answer.status >= 500  # the ledger's fault
        if self.is_on and operation in FINISHING and answer.outcome[0] not in _DOES_SOMETHING and not is_ours:
            self._useless.charge(key_id)
