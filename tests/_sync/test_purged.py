# Made from tests/_async/test_purged.py by scripts/mirror.py. Do not edit.
"""What was purged is never acted on again, on a served and an embedded ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers._sync.world import SyncWorld
from verity import SyncVerityClient, VerityApiError
from verity._store.purging import Purge
from verity._store.sqlite.store import SqliteStore

FOR_EVER = 2**62


class Purged:
    """A client, and a way to purge all that is decided on its ledger."""

    def __init__(self, client: SyncVerityClient, store: SqliteStore, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self._store = store
        self.acts = 0

    def act(self) -> int:
        self.acts += 1
        return self.acts

    def decline(self) -> int:
        self.acts += 1
        raise LookupError("declined")

    def purge(self) -> int:
        """How many it purged."""
        purge = Purge("test", before=FOR_EVER, namespace=self.namespace)
        while not purge.done:  # a batch also reads the effects of other tests
            purge = self._store.purge(purge)
        return purge.purged

    def assert_refused(self, key: str) -> None:
        """Whoever asks is told so, and nothing is done, whatever `observe` would find."""
        for observe in (None, lambda: None):
            with pytest.raises(VerityApiError, match="Never act on this key again") as caught:
                self.client.protect(key, act=self.act, observe=observe)
            assert (caught.value.status_code, caught.value.code) == (410, "effect_purged")


@pytest.fixture(params=["served", "embedded"])
def purged(request: pytest.FixtureRequest, world: SyncWorld, tmp_path: Path) -> Iterator[Purged]:
    namespace = f"ns of {world.key}"
    if request.param == "served":
        yield Purged(world.new_client(namespace=namespace), world.ledger.store, namespace)
        return
    store = SqliteStore(str(tmp_path / "v.db"))  # as if in another process
    with SyncVerityClient(f"sqlite:///{tmp_path}/v.db", "vt_test_any", namespace=namespace) as client:
        yield Purged(client, store, namespace)
    store.close()


def test_what_was_committed_is_not_acted_on_again(purged: Purged) -> None:
    assert purged.client.protect("refund", act=purged.act) == 1
    assert purged.purge() == 1
    purged.assert_refused("refund")
    assert purged.acts == 1


def test_what_failed_is_not_acted_on_again(purged: Purged) -> None:
    with pytest.raises(LookupError):
        purged.client.protect("refund", act=purged.decline)
    assert purged.purge() == 1
    purged.assert_refused("refund")
    assert purged.acts == 1


def test_a_holder_at_work_is_not_disturbed(purged: Purged) -> None:
    def act() -> int:
        assert purged.purge() == 0
        return purged.act()

    assert purged.client.protect("refund", act=act) == 1
    assert purged.client.protect("refund", act=purged.act) == 1
    assert purged.acts == 1


def test_a_commit_whose_answer_was_lost_is_confirmed_after_a_purge(purged: Purged) -> None:
    lease = purged.client.request_lease(purged.namespace, {"effectKey": "refund"})
    tokens = {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
    first = purged.client.commit(purged.namespace, {**tokens, "result": 1})
    assert purged.purge() == 1
    second = purged.client.commit(purged.namespace, {**tokens, "result": 1})
    assert (first.status, second.status) == ("accepted", "already_committed")
    with pytest.raises(VerityApiError, match="effect_finished"):
        purged.client.fail(purged.namespace, {**tokens, "error": "late"})
    with pytest.raises(VerityApiError, match="effect_finished"):
        purged.client.renew(purged.namespace, tokens)
    with pytest.raises(VerityApiError, match="effect_purged"):
        purged.client.report_observe(purged.namespace, {**tokens, "hit": True})
    purged.assert_refused("refund")
