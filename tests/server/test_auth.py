"""The life of an API key. Who may do what with one is in test_matrix.py."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import both_stores
from tests.helpers.served_ledger import ServedLedger, TestClock
from tests.server.conftest import Client
from verity._ledger.calls import Scope
from verity._ledger.problems import Problem
from verity._store.api_keys import ApiKey
from verity.server.api_keys import hash_api_key, issue, mint
from verity.server.auth import MAX_CACHED, MAX_UNKNOWN_LOOKUPS, UNKNOWN_LOOKUPS_AT_ONCE, Authenticator


@both_stores
def test_a_key_expires(served: ServedLedger, client_with: Client, clock: TestClock) -> None:
    client = client_with(served.create_key(lifetime_ms=60_000))
    assert client.get("/namespaces").status_code == 200
    clock.advance(59_999)
    assert client.get("/namespaces").status_code == 200
    clock.advance(1)
    assert client.get("/namespaces").status_code == 401


@both_stores
def test_a_key_is_revoked(served: ServedLedger, client_with: Client) -> None:
    key = served.create_key()
    client = client_with(key)
    assert client.get("/namespaces").status_code == 200
    record = served.store.find_key(hash_api_key(key))
    assert record is not None
    assert served.store.revoke_key(record.id, 1)
    assert client.get("/namespaces").status_code == 401


# -- the cache --


class Keys:
    """A storage of keys that counts its look-ups, and waits until it is told to answer."""

    def __init__(self, record: ApiKey | None) -> None:
        self.record = record
        self.lookups = 0
        self.fails = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def find_key(self, _sha256: bytes) -> ApiKey | None:
        self.lookups += 1
        await self.may_answer.wait()
        if self.fails:
            raise ConnectionError
        return self.record


class Cached:
    def __init__(self, keys: Keys, key: str) -> None:
        self.now_s = 100.0
        self.header = f"Bearer {key}".encode()
        self.callers = Authenticator(keys.find_key, cache_s=0.5, now_ms=lambda: 0, monotonic=lambda: self.now_s)

    async def ask(self) -> Scope:
        known = self.callers.authenticate_from_cache(self.header, admin_only=False)
        return known or await self.callers.authenticate(self.header, admin_only=False)


async def test_a_key_is_looked_up_once_in_a_while() -> None:
    key, record = issue("live", "agent", now=0, namespaces=["a"])
    keys = Keys(record)
    cached = Cached(keys, key)
    for _ in range(3):
        assert await cached.ask() == Scope("live", frozenset({"a"}), record.id)
    cached.now_s += 0.49
    await cached.ask()
    assert keys.lookups == 1
    keys.record = None
    cached.now_s += 0.02
    with pytest.raises(Problem) as refused:
        await cached.ask()
    assert refused.value.status == 401
    assert keys.lookups == 2


async def test_callers_share_a_lookup_and_one_who_leaves_spoils_nothing() -> None:
    key, record = issue("live", "agent", now=0)
    keys = Keys(record)
    cached = Cached(keys, key)
    keys.may_answer.clear()
    callers = [asyncio.ensure_future(cached.ask()) for _ in range(50)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.sleep(0)
    keys.may_answer.set()
    scopes = await asyncio.gather(*callers[1:])
    assert {scope.actor for scope in scopes} == {record.id}
    assert callers[0].cancelled()
    assert keys.lookups == 1


async def test_a_failed_lookup_is_not_remembered() -> None:
    key, record = issue("live", "agent", now=0)
    keys = Keys(record)
    keys.fails = True
    cached = Cached(keys, key)
    with pytest.raises(ConnectionError):
        await cached.ask()
    keys.fails = False
    assert (await cached.ask()).actor == record.id


async def test_what_can_be_no_key_costs_no_lookup() -> None:
    keys = Keys(None)
    with pytest.raises(Problem):
        await Cached(keys, mint("test")[:-1] + "!").ask()
    assert keys.lookups == 0


class Storage:
    """Lookups of several keys, each answered when it is told to be. One key exists. `ask` is an authenticator's."""

    def __init__(self, record: ApiKey) -> None:
        self.known = {record.sha256: record}
        self.asked: dict[bytes, asyncio.Future[None]] = {}
        self.now_s = 100.0
        self._callers = Authenticator(self.find_key, cache_s=0.5, now_ms=lambda: 0, monotonic=lambda: self.now_s)

    def ask(self, key: str) -> asyncio.Task[Scope]:
        return asyncio.ensure_future(self._callers.authenticate(f"Bearer {key}".encode(), admin_only=False))

    async def find_key(self, sha256: bytes) -> ApiKey | None:
        self.asked[sha256] = asyncio.get_running_loop().create_future()
        await self.asked[sha256]
        return self.known.get(sha256)

    def answer(self) -> None:
        for asked in self.asked.values():
            if not asked.done():
                asked.set_result(None)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_keys_that_nobody_has_keep_no_known_key_waiting() -> None:
    key, record = issue("live", "agent", now=0)
    storage = Storage(record)
    ask = storage.ask
    first = ask(key)
    await settle()
    storage.answer()
    assert (await first).actor == record.id
    storage.asked.clear()
    strangers = [ask(mint("live")) for _ in range(MAX_UNKNOWN_LOOKUPS)]
    await settle()
    assert len(storage.asked) == UNKNOWN_LOOKUPS_AT_ONCE
    storage.now_s += 1
    again = ask(key)
    await settle()
    assert record.sha256 in storage.asked
    refused = ask(mint("live"))
    await settle()
    assert refused.done()
    assert isinstance(problem := refused.exception(), Problem)
    assert problem.status == 503
    while not all(each.done() for each in strangers):
        storage.answer()
        await settle()
    assert (await again).actor == record.id
    assert all(isinstance(each.exception(), Problem) for each in strangers)
    one_more = ask(mint("live"))
    await settle()
    storage.answer()
    with pytest.raises(Problem) as unknown:
        await one_more
    assert unknown.value.status == 401


async def test_a_known_key_stays_known_when_the_storage_fails_in_a_flood() -> None:
    key, record = issue("live", "agent", now=0)
    storage = Storage(record)
    ask = storage.ask
    first = ask(key)
    await settle()
    storage.answer()
    await first
    storage.now_s += 1
    failed = ask(key)
    await settle()
    storage.asked[record.sha256].set_exception(ConnectionError())
    await settle()
    assert isinstance(failed.exception(), ConnectionError)
    strangers = [ask(mint("live")) for _ in range(MAX_UNKNOWN_LOOKUPS)]
    await settle()
    again = ask(key)
    await settle()
    storage.answer()
    assert (await again).actor == record.id
    while not all(each.done() for each in strangers):
        storage.answer()
        await settle()
    assert all(isinstance(each.exception(), Problem) for each in strangers)


async def test_keys_that_nobody_has_make_no_known_key_forgotten() -> None:
    key, record = issue("live", "agent", now=0)
    lookups = []

    async def find_key(sha256: bytes) -> ApiKey | None:
        lookups.append(sha256)
        return record if sha256 == record.sha256 else None

    callers = Authenticator(find_key, cache_s=60, now_ms=lambda: 0, monotonic=lambda: 100.0)
    for _ in range(2):
        await callers.authenticate(f"Bearer {key}".encode(), admin_only=False)
    for _ in range(MAX_CACHED + 10):
        with pytest.raises(Problem):
            await callers.authenticate(f"Bearer {mint('live')}".encode(), admin_only=False)
    await callers.authenticate(f"Bearer {key}".encode(), admin_only=False)
    assert lookups.count(record.sha256) == 1
