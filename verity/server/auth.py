"""Who calls: from an Authorization header to a scope, the only thing through which storage is reached.

A looked-up key is trusted for a moment (`key_cache_s`), so that storage is asked once per key and moment, not once per
request, and a revoked key ends within that moment. Callers that come while a key is being looked up share the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from verity._ledger.calls import Scope
from verity._store.api_keys import ApiKey
from verity.server import api_keys
from verity.server.problems import forbidden, unauthenticated

FindKey = Callable[[bytes], Coroutine[Any, Any, ApiKey | None]]
Lookup = asyncio.Future[ApiKey | None]

_MAX_CACHED = 10_000
_NEVER: tuple[float, Lookup | None] = (0.0, None)


class Authenticator:
    """Knows callers by their API keys.

    Args:
        find_key: looks a key up by its SHA-256.
        cache_s: how long an answer is trusted, in seconds.
        now_ms: ms since 1970; it decides when keys expire.
        monotonic: seconds; it decides how long an answer is trusted.
    """

    def __init__(
        self,
        find_key: FindKey,
        *,
        cache_s: float,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find_key = find_key
        self._cache_s = cache_s
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._cache: dict[bytes, tuple[float, Lookup | None]] = {}

    async def authenticate(self, header: bytes | None, *, admin_only: bool) -> Scope:
        """The scope of a caller.

        Raises:
            Problem: 401 without a valid key; 403 where the key's role may not do this.
        """
        scheme, _, text = (header or b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            raise unauthenticated()
        key = await self._look_up(text.strip())
        if key is None or key.revoked_at is not None:
            raise unauthenticated()
        if key.expires_at is not None and self._now_ms() >= key.expires_at:
            raise unauthenticated("The API key has expired.")
        if admin_only and key.role != "org_admin":
            raise forbidden(f"This call needs the role org_admin; the API key's role is {key.role}.")
        return Scope(key.environment, key.namespaces, key.id)

    async def _look_up(self, text: str) -> ApiKey | None:
        now = self._monotonic()
        sha256 = api_keys.hash_key(text)
        trusted_until, lookup = self._cache.get(sha256, _NEVER)
        if lookup is None or now >= trusted_until:
            if not api_keys.is_well_formed(text):
                raise unauthenticated()
            lookup = self._begin_lookup(sha256, now)
        # Shared and shielded: the caller who came first may leave, and the others still get the answer.
        return lookup.result() if lookup.done() else await asyncio.shield(lookup)

    def _begin_lookup(self, sha256: bytes, now: float) -> Lookup:
        lookup: Lookup = asyncio.ensure_future(self._find_key(sha256))
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[sha256] = (now + self._cache_s, lookup)

        def forget_failure(done: Lookup) -> None:
            """A storage that did not answer is asked again by the next caller."""
            failed = done.cancelled() or done.exception() is not None
            if failed and self._cache.get(sha256, _NEVER)[1] is done:
                del self._cache[sha256]

        lookup.add_done_callback(forget_failure)
        return lookup
