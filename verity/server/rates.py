"""How many requests an API key may send: a token bucket for each, in this node's memory."""

from __future__ import annotations

import time
from collections.abc import Callable

_MAX_BUCKETS = 10_000
_LARGEST_DEBT = 10


class RateLimit:
    """A key may send what it would have been allowed in a second at once, and then `per_s` a second.

    What must not be refused is let through on credit, up to ten seconds' worth: later calls pay for it.

    Args:
        per_s: requests a second; 0 is no limit.
        monotonic: seconds.
    """

    def __init__(self, per_s: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self.is_on = per_s > 0
        self._monotonic = monotonic
        # The time at which each key's bucket would be full again is all that needs to be known of it.
        self._full_at: dict[str, float] = {}

    def take(self, key_id: str, *, must: bool = False) -> float:
        """Take one request's token.

        Args:
            key_id: whose.
            must: whether the request is let through in any case.

        Returns:
            0.0 where it is let through, or the seconds after which it would be.
        """
        if not self._per_s:
            return 0.0
        now = self._monotonic()
        full_at = max(self._full_at.get(key_id, now), now) + 1 / self._per_s
        wait_s = full_at - now - 1.0
        if wait_s > 1e-9 and not must:
            return wait_s
        if len(self._full_at) >= _MAX_BUCKETS:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        self._full_at[key_id] = min(full_at, now + _LARGEST_DEBT)
        return 0.0
