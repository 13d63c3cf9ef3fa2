"""Who calls: from an Authorization header to a scope, the only thing through which storage is reached.

A looked-up key is trusted for a moment (`key_cache_s`), so that storage is asked once per key and moment, not once per
request, and a revoked key ends within that moment. Callers that come while a key is being looked up share the answer.

Anybody can make up keys that look like keys. So those that nobody has wait in a line of their own, with those that this
node has not seen yet, and are kept apart from the known ones: however many come, a known key is looked up at once.
"""

from __future__ import annotations

import asyncio
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
STRANGERS_AT_ONCE = 4
"""How many keys that this node does not know are looked up at the same time."""
MAX_STRANGERS = 1_000
"""How many may be under way or wait for that; one more is refused until there is room."""


class _Known:
    """A key that is being, or was, looked up."""

    __slots__ = ("lookup", "scope", "trusted_until")

    def __init__(self, lookup: Lookup, trusted_until: float) -> None:
        self.lookup = lookup
        self.trusted_until = trusted_until
        self.scope: Scope | None = None
        """What the key may touch, once a caller was let in with it."""


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
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        self._find_key = find_key
        self._cache_s = cache_s
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._cache: dict[bytes, _Known] = {}
        """Keys that exist, and were let in or refused lately."""
        self._strangers: dict[bytes, _Known] = {}
        """All others: nobody has them, or they are looked up for the first time."""
        self._strangers_under_way = 0
        self._turns = asyncio.Semaphore(STRANGERS_AT_ONCE)

    def recall(self, header: bytes | None, *, admin_only: bool) -> Scope | None:
        """The scope of a caller who was let in a moment ago; None says nothing, and `authenticate` has to be asked.

        Raises:
            Problem: as `authenticate` does.
        """
        known = self._cache.get(api_keys.hash_api_key(_read_key(header)))
        if known is None or known.scope is None or self._monotonic() >= known.trusted_until:
            return None
        return self._let_in(known, admin_only=admin_only)

    async def authenticate(self, header: bytes | None, *, admin_only: bool) -> Scope:
        """The scope of a caller.

        Raises:
            Problem: 401 without a valid key; 403 where the key's role may not do this; 503, too many unknown keys are
                being looked up.
        """
        known = self._look_up(_read_key(header))
        # Shared and shielded: the caller who came first may leave, and the others still get the answer.
        await asyncio.shield(known.lookup)
        return self._let_in(known, admin_only=admin_only)

    def _let_in(self, known: _Known, *, admin_only: bool) -> Scope:
        key = known.lookup.result()
        if key is None or key.revoked_at is not None:
            raise unauthenticated()
        if key.expires_at is not None and self._now_ms() >= key.expires_at:
            raise unauthenticated("The API key has expired.")
        if admin_only and key.role != "org_admin":
            raise forbidden(f"This call needs the role org_admin; the API key's role is {key.role}.")
        if known.scope is None:
            known.scope = Scope(key.environment, key.namespaces, key.id)
        return known.scope

    def _look_up(self, key: str) -> _Known:
        now = self._monotonic()
        sha256 = api_keys.hash_api_key(key)
        known = self._cache.get(sha256) or self._strangers.get(sha256)
        if known is None or now >= known.trusted_until:
            if not api_keys.is_well_formed(key):
                raise unauthenticated()
            known = self._begin_lookup(sha256, now)
        return known

    def _begin_lookup(self, sha256: bytes, now: float) -> _Known:
        is_known = sha256 in self._cache
        if not is_known and self._strangers_under_way >= MAX_STRANGERS:
            raise too_many_unknown_keys()
        find_key, cache = (self._find_key, self._cache) if is_known else (self._find_stranger, self._strangers)
        lookup: Lookup = asyncio.ensure_future(find_key(sha256))
        known = _Known(lookup, now + self._cache_s)
        _keep(cache, sha256, known)

        def end(done: Lookup) -> None:
            """A storage that did not answer is asked again by the next caller."""
            failed = done.cancelled() or done.exception() is not None
            if cache.get(sha256) is not known:
                return
            if failed:
                del cache[sha256]
            elif not is_known and done.result() is not None:
                _keep(self._cache, sha256, cache.pop(sha256))

        lookup.add_done_callback(end)
        return known

    async def _find_stranger(self, sha256: bytes) -> ApiKey | None:
        self._strangers_under_way += 1
        try:
            async with self._turns:
                return await self._find_key(sha256)
        finally:
            self._strangers_under_way -= 1


def _keep(cache: dict[bytes, _Known], sha256: bytes, known: _Known) -> None:
    """Remember it, and where there are too many, forget the one that was looked up longest ago."""
    cache.pop(sha256, None)
    if len(cache) >= MAX_CACHED:
        del cache[next(iter(cache))]
    cache[sha256] = known


def _read_key(header: bytes | None) -> str:
    """The key in an Authorization header.

    Raises:
        Problem: 401, there is none.
    """
    if header is None or header[:7].lower() != b"bearer ":
        raise unauthenticated()
    return header[7:].decode("latin-1").strip()
