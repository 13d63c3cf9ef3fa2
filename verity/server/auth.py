"""Authentication: from an Authorization header to a `Scope`. The store carries out calls only with a scope.

The result of a key's lookup is cached for `key_cache_s`. The store is then asked once in that time and not once a
request, and a revoked key is refused after that time at the latest. Requests that come while their key is being looked
up share one lookup.

Anybody can send well-formed keys that do not exist. So keys that this node does not know (they do not exist, or it has
not seen them yet) have a cache and a small number of lookups of their own. However many unknown keys are sent, a known
key is looked up at once and stays in the cache.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

from verity._clock import monotonic
from verity._ledger.calls import Scope
from verity._store.api_keys import ApiKey
from verity.server import api_keys
from verity.server.problems import forbidden, too_many_unknown_keys, unauthenticated

FindKey = Callable[[bytes], Coroutine[Any, Any, ApiKey | None]]
Lookup = asyncio.Future[ApiKey | None]

MAX_CACHED = 10_000
UNKNOWN_LOOKUPS_AT_ONCE = 4
"""How many unknown keys are looked up at the same time."""
MAX_UNKNOWN_LOOKUPS = 1_000
"""How many lookups of unknown keys may run or wait; a request with one more is answered with 503."""


class _CachedKey:
    """A key whose lookup is under way or done."""

    __slots__ = ("lookup", "scope", "trusted_until")

    def __init__(self, lookup: Lookup, trusted_until: float) -> None:
        self.lookup = lookup
        self.trusted_until = trusted_until
        self.scope: Scope | None = None
        """What the key may touch; None until a request with it was authorized."""


class Authenticator:
    """Authenticates callers by their API keys.

    Args:
        find_key: looks a key up by its SHA-256.
        cache_s: how long a lookup's result is used, in seconds.
        now_ms: the clock, in ms since 1970, that decides when keys expire.
        monotonic: the clock, in seconds, for `cache_s`.
    """

    def __init__(
        self,
        find_key: FindKey,
        *,
        cache_s: float,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        self._find_key = find_key
        self._cache_s = cache_s
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._known: dict[bytes, _CachedKey] = {}
        """Keys that exist, revoked and expired ones included."""
        self._unknown: dict[bytes, _CachedKey] = {}
        """All other keys: they do not exist, or their first lookup is under way."""
        self._unknown_lookups = 0
        self._unknown_permits = asyncio.Semaphore(UNKNOWN_LOOKUPS_AT_ONCE)

    def authenticate_from_cache(self, header: bytes | None, *, admin_only: bool) -> Scope | None:
        """The scope of a caller from the cache, without waiting; None if the caller must use `authenticate`.

        Raises:
            Problem: as `authenticate` does.
        """
        cached = self._known.get(api_keys.hash_api_key(_read_key(header)))
        if cached is None or cached.scope is None or self._monotonic() >= cached.trusted_until:
            return None
        return self._authorize(cached, admin_only=admin_only)

    async def authenticate(self, header: bytes | None, *, admin_only: bool) -> Scope:
        """The scope of a caller.

        Raises:
            Problem: 401, there is no valid key; 403, the key's role may not do this; 503, too many unknown keys are
                being looked up.
        """
        cached = self._look_up(_read_key(header))
        # Several requests share the lookup. The shield keeps it running if one of them is cancelled.
        await asyncio.shield(cached.lookup)
        return self._authorize(cached, admin_only=admin_only)

    def _authorize(self, cached: _CachedKey, *, admin_only: bool) -> Scope:
        key = cached.lookup.result()
        if key is None or key.revoked_at is not None:
            raise unauthenticated()
        if key.expires_at is not None and self._now_ms() >= key.expires_at:
            raise unauthenticated("The API key has expired.")
        if admin_only and key.role != "org_admin":
            raise forbidden(f"This call needs the role org_admin; the API key's role is {key.role}.")
        if cached.scope is None:
            cached.scope = Scope(key.environment, key.namespaces, key.id)
        return cached.scope

    def _look_up(self, key: str) -> _CachedKey:
        now = self._monotonic()
        sha256 = api_keys.hash_api_key(key)
        cached = self._known.get(sha256) or self._unknown.get(sha256)
        if cached is None or now >= cached.trusted_until:
            if not api_keys.is_well_formed(key):
                raise unauthenticated()
            cached = self._begin_lookup(sha256, now)
        return cached

    def _begin_lookup(self, sha256: bytes, now: float) -> _CachedKey:
        is_known = sha256 in self._known
        if not is_known and self._unknown_lookups >= MAX_UNKNOWN_LOOKUPS:
            raise too_many_unknown_keys()
        find_key, cache = (self._find_key, self._known) if is_known else (self._find_unknown, self._unknown)
        lookup: Lookup = asyncio.ensure_future(find_key(sha256))
        cached = _CachedKey(lookup, now + self._cache_s)
        _remember(cache, sha256, cached)

        def end(done: Lookup) -> None:
            """Trust no failed lookup, so that the next request tries again; move a key that exists to the known."""
            failed = done.cancelled() or done.exception() is not None
            if cache.get(sha256) is not cached:
                return
            if failed and is_known:
                cached.trusted_until = -math.inf  # not forgotten: in a flood it would be refused as an unknown key
            elif failed:
                del cache[sha256]
            elif not is_known and done.result() is not None:
                _remember(self._known, sha256, cache.pop(sha256))

        lookup.add_done_callback(end)
        return cached

    async def _find_unknown(self, sha256: bytes) -> ApiKey | None:
        self._unknown_lookups += 1
        try:
            async with self._unknown_permits:
                return await self._find_key(sha256)
        finally:
            self._unknown_lookups -= 1


def _remember(cache: dict[bytes, _CachedKey], sha256: bytes, cached: _CachedKey) -> None:
    """Cache a key. If the cache is full, it drops the key that was looked up longest ago."""
    cache.pop(sha256, None)
    if len(cache) >= MAX_CACHED:
        del cache[next(iter(cache))]
    cache[sha256] = cached


def _read_key(header: bytes | None) -> str:
    """The key in an Authorization header.

    Raises:
        Problem: 401, there is no key.
    """
    if header is None or header[:7].lower() != b"bearer ":
        raise unauthenticated()
    return header[7:].decode("latin-1").strip()
