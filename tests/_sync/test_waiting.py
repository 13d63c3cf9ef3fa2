# Made from tests/_async/test_waiting.py by scripts/mirror.py. Do not edit.
"""Waiting for another holder: in real time, since it is the ledger that waits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.helpers._sync.faulty_transport import Says, SyncFaultyTransport
from tests.helpers._sync.world import SyncWorld
from tests.helpers.concurrency import SyncBackground, sync_until
from tests.helpers.served_ledger import ServedLedger
from verity import ConflictRetryConfig, EffectPolicy, LeaseConflictError, SyncVerityClient, VerityApiError
from verity._concurrency import SyncRuntime
from verity._core.backoff import MAX_WAITS
from verity._sync.acquisition import SINGLE_FLIGHT
from verity._sync.pool import MAX_CONNECTIONS

LONG = ConflictRetryConfig(initial_delay_s=15.0, jitter=False, wait=True)
"""Long enough for whatever a test does meanwhile, however busy the machine is."""


class Contest:
    """A holder of an effect, and a client whose calls have to wait for it."""

    def __init__(self, holder: SyncVerityClient, client: SyncVerityClient, network: SyncFaultyTransport | None) -> None:
        self.holder, self.client, self.network = holder, client, network
        self.lease: Any = None
        self.acts = 0

    def hold(self, duration_ms: int = 30_000) -> None:
        self.lease = self.holder.request_lease("payments", {"effectKey": "k", "leaseDurationMs": duration_ms})

    def commit(self, result: Any = "theirs") -> None:
        tokens = {name: self.lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
        self.holder.commit("payments", {**tokens, "result": result})

    def fail(self) -> None:
        tokens = {name: self.lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
        self.holder.fail("payments", {**tokens, "error": "declined"})

    def act(self) -> str:
        self.acts += 1
        return "ours"

    def protect(self) -> Any:
        return self.client.protect("k", act=self.act, policy=EffectPolicy(on_unknown="act"))

    def in_line(self) -> int:
        """How many calls were refused the lease and wait now."""
        return sum(map(len, SINGLE_FLIGHT.flights.values()))

    def held(self) -> int:
        """How many requests asked to be held."""
        assert self.network is not None
        return sum("prefer" in each.headers for each in self.network.sent)


def _nothing() -> None:
    """A request that goes through."""


@pytest.fixture
def served() -> Iterator[ServedLedger]:
    with ServedLedger() as served:
        yield served


@pytest.fixture
def contest(served: ServedLedger) -> Iterator[Contest]:
    network = SyncFaultyTransport()
    key = served.create_key()
    with (
        SyncVerityClient(served.base_url, key, "payments") as holder,
        SyncVerityClient(served.base_url, key, "payments", transport=network, conflict_retry=LONG) as client,
    ):
        yield Contest(holder, client, network)
    network.close()


@pytest.fixture(params=["file", "memory"])
def embedded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Contest]:
    url = f"sqlite:///{tmp_path}/v.db" if request.param == "file" else "sqlite://"
    with SyncVerityClient(url, namespace="payments") as client, SyncVerityClient(url, namespace="payments") as other:
        yield Contest(other if request.param == "file" else client, client, None)


def test_who_waits_has_the_result_with_the_second_request(contest: Contest, served: ServedLedger) -> None:
    contest.hold()
    with SyncBackground() as background:
        background.start(contest.protect)
        sync_until(lambda: served.app.waiting.waiting_count == 1)
        contest.commit()
    assert background.outcomes == ["theirs"]
    assert contest.acts == 0
    assert contest.network is not None
    assert [each.headers.get("prefer") for each in contest.network.sent] == [None, "wait=15"]


def test_of_many_that_wait_for_one_effect_one_asks(contest: Contest, served: ServedLedger) -> None:
    contest.hold()
    with SyncBackground() as background:
        for _ in range(40):
            background.start(contest.protect)
        sync_until(lambda: contest.in_line() == 40 and served.app.waiting.waiting_count == 1)
        contest.commit()
    assert background.outcomes == ["theirs"] * 40
    assert contest.held() == 1
    assert contest.acts == 0


def test_clients_of_one_process_stand_in_one_line(served: ServedLedger) -> None:
    key = served.create_key()
    clients = [SyncVerityClient(served.base_url, key, "payments", conflict_retry=LONG) for _ in range(4)]
    contest = Contest(clients[0], clients[1], None)
    contest.hold()
    with SyncBackground() as background:
        for client in clients[1:]:
            background.start(partial(client.protect, "k", act=contest.act))
        sync_until(lambda: contest.in_line() == 3 and served.app.waiting.waiting_count == 1)
        contest.commit()
    assert background.outcomes == ["theirs"] * 3
    assert contest.acts == 0
    for client in clients:
        client.close()


@pytest.mark.parametrize("other", ["key", "pace", "transport"])
def test_who_may_be_answered_otherwise_stands_in_another_line(other: str, served: ServedLedger) -> None:
    """A tenant's result is nobody else's, and nobody waits at another's pace."""
    key = served.create_key("test")
    network = SyncFaultyTransport()
    others: dict[str, Any] = {
        "key": {"api_key": served.create_key("live")},
        "pace": {"conflict_retry": ConflictRetryConfig(initial_delay_s=14.0, jitter=False)},
        "transport": {"transport": network},
    }
    arguments: dict[str, Any] = {"namespace": "payments", "api_key": key, "conflict_retry": LONG}
    client = SyncVerityClient(served.base_url, **arguments)
    another = SyncVerityClient(served.base_url, **{**arguments, **others[other]})
    contest, theirs = Contest(client, client, None), Contest(another, another, None)
    contest.hold()
    if other == "key":
        theirs.hold()
    with SyncBackground() as background:
        background.start(contest.protect)
        background.start(theirs.protect)
        sync_until(lambda: served.app.waiting.waiting_count == 2)
        contest.commit("one")
        if other == "key":
            theirs.commit("two")
    assert sorted(background.outcomes) == (["one", "two"] if other == "key" else ["one", "one"])
    assert contest.acts + theirs.acts == 0
    for each in (client, another):
        each.close()
    network.close()


def test_what_failed_is_everybodys_answer_too(contest: Contest, served: ServedLedger) -> None:
    contest.hold()
    with SyncBackground() as background:
        for _ in range(5):
            background.start(contest.protect)
        sync_until(lambda: contest.in_line() == 5 and served.app.waiting.waiting_count == 1)
        contest.fail()
    assert [type(each).__name__ for each in background.outcomes] == ["EffectPreviouslyFailedError"] * 5
    assert contest.held() == 1


def test_a_lease_that_runs_out_is_granted_to_one_of_those_who_wait(contest: Contest) -> None:
    contest.hold(5_000)
    with SyncBackground() as background:
        for _ in range(8):
            background.start(contest.protect)
    assert background.outcomes == ["ours"] * 8
    assert contest.acts == 1


def test_when_the_one_who_asks_is_answered_with_an_error_the_next_one_asks(contest: Contest) -> None:
    contest.hold()
    assert contest.network is not None
    contest.network.faults["lease"] = [_nothing, Says(403, b"{}", once=lambda: contest.in_line() == 2)]
    with SyncBackground() as background:
        background.start(contest.protect)
        sync_until(lambda: contest.network is not None and not contest.network.faults["lease"])
        background.start(contest.protect)
        sync_until(lambda: contest.held() == 2)
        contest.commit()
    assert sorted(map(str, background.outcomes))[1] == "theirs"
    assert contest.acts == 0


def test_patience_ends(contest: Contest) -> None:
    contest.hold()
    retry = ConflictRetryConfig(max_attempts=2, initial_delay_s=0.01, max_delay_s=1)
    client = SyncVerityClient(
        contest.client._settings.base_url, contest.client._settings.api_key, "payments", conflict_retry=retry
    )
    with client, SyncBackground() as background:
        for _ in range(3):
            background.start(lambda: client.protect("k", act=contest.act))
    assert [type(each) for each in background.outcomes] == [LeaseConflictError] * 3
    assert any(each.waited for each in background.outcomes)
    assert contest.acts == 0


def test_an_older_ledger_is_asked_after_delays_as_ever(world: SyncWorld) -> None:
    client = world.new_client(conflict_retry=ConflictRetryConfig(max_attempts=4, wait=True))
    world.network.faults["lease"] = [Says(409, b"{}")] * 3
    assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.runtime.slept == [0.5, 1.0]
    assert [each.headers.get("prefer") for each in world.network.sent[:4]] == [None, "wait=1", None, None]


@pytest.mark.parametrize("retry", [{"wait": False}, {"wait": True, "max_delay_s": 0.9}, {}])
def test_a_client_that_may_not_wait_sleeps(retry: Any, world: SyncWorld) -> None:
    client = world.new_client(conflict_retry=ConflictRetryConfig(**retry))
    world.network.faults["lease"] = [Says(409, b"{}")]
    assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert [each.headers.get("prefer") for each in world.network.sent[:2]] == [None, None]
    assert world.runtime.slept == [0.5]


def test_each_has_a_result_of_its_own(contest: Contest, served: ServedLedger) -> None:
    contest.hold()
    with SyncBackground() as background:
        for _ in range(3):
            background.start(contest.protect)
        sync_until(lambda: contest.network is not None and len(contest.network.sent) == 4)
        sync_until(lambda: served.app.waiting.waiting_count == 1)
        contest.commit({"items": []})
    for number, result in enumerate(background.outcomes):
        result["items"].append(number)
    assert background.outcomes == [{"items": [0]}, {"items": [1]}, {"items": [2]}]


class Sleepers(SyncRuntime):
    """Those who sleep do so until it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeping = 0
        self.is_over = False

    def sleep(self, seconds: float) -> None:
        self.sleeping += 1
        sync_until(lambda: self.is_over, 120.0)


def test_what_is_held_leaves_connections_for_those_who_act(served: ServedLedger) -> None:
    """More calls wait, each for another effect, than the client has connections."""
    key = served.create_key()
    retry = ConflictRetryConfig(initial_delay_s=20.0, max_delay_s=20.0)
    runtime = Sleepers()
    keys = [f"k{number}" for number in range(MAX_CONNECTIONS + 10)]
    with (
        SyncVerityClient(served.base_url, key, "payments") as holder,
        SyncVerityClient(served.base_url, key, "payments", conflict_retry=retry, _runtime=runtime) as client,
    ):
        grants: list[Any] = [holder.request_lease("payments", {"effectKey": each}) for each in keys]
        with SyncBackground() as background:
            for each in keys:
                background.start(partial(client.protect, each, act=_nothing))
            sync_until(lambda: served.app.waiting.waiting_count + runtime.sleeping == len(keys))
            assert served.app.waiting.waiting_count == MAX_WAITS < MAX_CONNECTIONS
            client.protect("mine", act=_nothing)
            assert served.app.waiting.waiting_count == MAX_WAITS, "it did not wait for one of them to end"
            for grant in grants:
                tokens = {name: grant[name] for name in ("effectKey", "fenceToken", "leaseToken")}
                holder.commit("payments", {**tokens, "result": "theirs"})
            runtime.is_over = True
    assert background.outcomes == ["theirs"] * len(keys)


def test_an_embedded_ledger_waits_too(embedded: Contest) -> None:
    embedded.hold()
    with SyncBackground() as background:
        for _ in range(5):
            background.start(embedded.protect)
        sync_until(lambda: embedded.in_line() == 5)
        embedded.commit()
    assert background.outcomes == ["theirs"] * 5
    assert embedded.acts == 0
    assert not SINGLE_FLIGHT.flights


def test_a_request_that_is_held_in_vain_gives_its_place_back(world: SyncWorld) -> None:
    """One call that is refused more often than requests may be held at a time."""
    many = MAX_WAITS + 5
    retry = ConflictRetryConfig(max_attempts=many + 1, initial_delay_s=1.0, max_delay_s=1.0, wait=True)
    client = world.new_client(conflict_retry=retry)
    world.network.faults["lease"] = [Says(409, b"{}", {"preference-applied": "wait"})] * many
    assert client.protect(world.key, act=world.act) == {"refund": "re_1"}
    leases = [each.headers.get("prefer") for each in world.network.sent if each.operation == "lease"]
    assert leases == [None] + ["wait=1"] * many
    assert not world.runtime.slept


def test_nobody_waits_in_line_for_longer_than_its_patience(contest: Contest) -> None:
    """The one whose turn it is has no answer before the next one has given up."""
    contest.hold()
    assert contest.network is not None
    retry = ConflictRetryConfig(max_attempts=2, initial_delay_s=0.5, max_delay_s=1.0, wait=True)
    url, key = contest.client._settings.base_url, contest.client._settings.api_key
    client = SyncVerityClient(url, key, "payments", transport=contest.network, conflict_retry=retry)
    with client, SyncBackground() as background:
        contest.network.faults["lease"] = [_nothing, Says(403, b"{}", once=lambda: len(background.outcomes) == 1)]
        background.start(lambda: client.protect("k", act=contest.act))
        sync_until(lambda: contest.held() == 1)
        background.start(lambda: client.protect("k", act=contest.act))
    assert [type(each) for each in background.outcomes] == [LeaseConflictError, VerityApiError]
    assert contest.network.operations() == ["lease"] * 3
    assert contest.acts == 0
