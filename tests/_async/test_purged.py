"""What was purged is never acted on again, on a served and an embedded ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers._async.world import AsyncWorld
from verity import VerityApiError, VerityClient
from verity._store.purging import Purge
from verity._store.sqlite.store import SqliteStore

FOR_EVER = 2**62


class Purged:
    """A client, and a way to purge all that is decided on its ledger."""

    def __init__(self, client: VerityClient, store: SqliteStore, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self._store = store
        self.acts = 0

    async def act(self) -> int:
        self.acts += 1
        return self.acts

    async def decline(self) -> int:
        self.acts += 1
        raise LookupError("declined")

    def purge(self) -> int:
        """How many it purged."""
        purge = Purge("test", before=FOR_EVER, namespace=self.namespace)
        while not purge.done:  # a batch also reads the effects of other tests
            purge = self._store.purge(purge)
        return purge.purged

    async def assert_refused(self, key: str) -> None:
        """Whoever asks is told so, and nothing is done, whatever `observe` would find."""
        for observe in (None, lambda: None):
            with pytest.raises(VerityApiError, match="Never act on this key again") as caught:
                await self.client.protect(key, act=self.act, observe=observe)
            assert (caught.value.status_code, caught.value.code) == (410, "effect_purged")


@pytest.fixture(params=["served", "embedded"])
async def purged(request: pytest.FixtureRequest, world: AsyncWorld, tmp_path: Path) -> AsyncIterator[Purged]:
    namespace = f"ns of {world.key}"
    if request.param == "served":
        yield Purged(world.new_client(namespace=namespace), world.ledger.store, namespace)
        return
    store = SqliteStore(str(tmp_path / "v.db"))  # as if in another process
    async with VerityClient(f"sqlite:///{tmp_path}/v.db", "vt_test_any", namespace=namespace) as client:
        yield Purged(client, store, namespace)
    store.close()


async def test_what_was_committed_is_not_acted_on_again(purged: Purged) -> None:
    assert await purged.client.protect("refund", act=purged.act) == 1
    assert purged.purge() == 1
    await purged.assert_refused("refund")
    assert purged.acts == 1


async def test_what_failed_is_not_acted_on_again(purged: Purged) -> None:
    with pytest.raises(LookupError):
        await purged.client.protect("refund", act=purged.decline)
    assert purged.purge() == 1
    await purged.assert_refused("refund")
    assert purged.acts == 1


async def test_a_holder_at_work_is_not_disturbed(purged: Purged) -> None:
    async def act() -> int:
        assert purged.purge() == 0
        return await purged.act()

    assert await purged.client.protect("refund", act=act) == 1
    assert await purged.client.protect("refund", act=purged.act) == 1
    assert purged.acts == 1


async def test_a_commit_whose_answer_was_lost_is_confirmed_after_a_purge(purged: Purged) -> None:
    lease = await purged.client.request_lease(purged.namespace, {"effectKey": "refund"})
    tokens = {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
    first = await purged.client.commit(purged.namespace, {**tokens, "result": 1})
    assert purged.purge() == 1
    second = await purged.client.commit(purged.namespace, {**tokens, "result": 1})
    assert (first.status, second.status) == ("accepted", "already_committed")
    with pytest.raises(VerityApiError, match="effect_finished"):
        await purged.client.fail(purged.namespace, {**tokens, "error": "late"})
    with pytest.raises(VerityApiError, match="effect_finished"):
        await purged.client.renew(purged.namespace, tokens)
    with pytest.raises(VerityApiError, match="effect_purged"):
        await purged.client.report_observe(purged.namespace, {**tokens, "hit": True})
    await purged.assert_refused("refund")
