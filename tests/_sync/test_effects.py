# Made from tests/_async/test_effects.py by scripts/mirror.py. Do not edit.
"""`verity.effects`: the reads, reset and resolve, on a served and an embedded ledger."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tests.helpers._sync.faulty_transport import LOSE_ANSWER, LOSE_REQUEST, Says
from tests.helpers._sync.world import SyncWorld
from verity import (
    EffectEvent,
    EffectGroup,
    EffectPolicy,
    EffectPreviouslyFailedError,
    EffectRecord,
    LeaseConflictError,
    LedgerStats,
    OutcomeUnknownError,
    Page,
    SyncVerityClient,
    VerityApiError,
    VerityConfigError,
    VerityConnectionError,
    VerityValidationError,
)
from verity._store.purging import Purge
from verity.records import ResetMode


@pytest.fixture(params=["served", "embedded"])
def client(request: pytest.FixtureRequest, world: SyncWorld) -> Iterator[SyncVerityClient]:
    """A client with a namespace of the test's own, on each kind of ledger."""
    if request.param == "served":
        yield world.new_client(namespace=f"ns of {world.key}")
    else:
        with SyncVerityClient("sqlite://", "vt_test_any", namespace=f"ns of {world.key}") as embedded:
            yield embedded


def act() -> dict[str, str]:
    return {"refund_id": "re_1"}


def decline() -> dict[str, str]:
    raise LookupError("card expired")


def fail(client: SyncVerityClient, key: str) -> None:
    with pytest.raises(LookupError):
        client.protect(key, act=decline)


# --- reads ---


def test_one_effect_by_key_and_by_id(client: SyncVerityClient) -> None:
    client.protect("refund:1", act=act, effect_name="stripe.refund", agent_id="w-1", input_json={"order": 7})
    effect = client.effects.get("refund:1")
    assert type(effect) is EffectRecord
    assert effect["effectKey"] == effect.effect_key == "refund:1"
    assert effect["namespace"] == effect.namespace
    assert (effect.status, effect.source, effect.fence_token, effect.prior_state) == ("COMMITTED", "acted", 1, "none")
    assert (effect.effect_name, effect.agent_id, effect.lease_duration_ms) == ("stripe.refund", "w-1", 30_000)
    assert (effect.input_json, effect.result, effect.error) == ({"order": 7}, {"refund_id": "re_1"}, None)
    assert (effect.workflow_name, effect.case_id, effect.run_id) == (None, None, None)
    assert (effect.lease_expires_at, effect.purged_at) == (None, None)
    assert effect.created_at
    assert effect.updated_at
    assert effect.effect_id
    assert client.effects.get_by_id(effect.effect_id) == effect


def test_an_effect_is_a_read_only_mapping_without_payloads_in_its_repr(client: SyncVerityClient) -> None:
    client.protect("refund:1", act=act, input_json="secret-in")
    effect = client.effects.get("refund:1")
    listed = [each for each in client.effects.list()]
    assert listed == [effect]
    shown = repr([effect, listed, client.effects.list().first_page(), client.effects])
    assert "refund:1" in shown
    assert "COMMITTED" in shown
    assert "re_1" not in shown
    assert "secret-in" not in shown
    with pytest.raises(AttributeError, match="read-only"):
        effect.status = "FAILED"  # type: ignore[misc]  # that is the point
    for twin in (copy.deepcopy(effect), pickle.loads(pickle.dumps(effect))):
        assert type(twin) is EffectRecord
        assert (twin, twin.request_id) == (effect, effect.request_id)


def test_an_effect_that_is_not_there(client: SyncVerityClient) -> None:
    with pytest.raises(VerityApiError, match="Check the namespace, the effect key") as caught:
        client.effects.get("nothing")
    assert (caught.value.status_code, caught.value.code, caught.value.effect_key) == (
        404,
        "effect_not_found",
        "nothing",
    )
    with pytest.raises(VerityApiError, match="effect_not_found"):
        client.effects.get_by_id("eff_0000000000000000")
    with pytest.raises(VerityApiError, match="effect_not_found"):
        client.effects.events("nothing").first_page()


def test_the_trail_tells_the_effects_life(client: SyncVerityClient) -> None:
    always = EffectPolicy(observe_when="always")
    client.protect("refund:1", observe=lambda: None, act=act, agent_id="w-1", policy=always)
    events = [event for event in client.effects.events("refund:1", page_size=2)]
    assert [event.type for event in events] == ["LEASE_GRANTED", "OBSERVE_MISS", "COMMITTED"]
    assert [event["sequence"] for event in events] == [event.sequence for event in events] == [1, 2, 3]
    assert all(isinstance(event, EffectEvent) and event.at for event in events)
    assert {(event.fence_token, event.agent_id, event.run_id) for event in events} == {(1, "w-1", None)}
    assert events[0].detail["leaseDurationMs"] == 30_000
    assert events[2].detail["source"] == "acted"


def test_a_list_fetches_pages_as_it_goes(world: SyncWorld) -> None:
    client = world.new_client(namespace=f"ns of {world.key}")
    for number in range(5):
        client.request_lease(f"ns of {world.key}", {"effectKey": f"k{number}"})
    world.network.sent.clear()
    effects = client.effects.list(page_size=2)
    assert not world.network.sent, "nothing is asked before somebody wants it"
    seen = []
    for effect in effects:
        seen.append(effect.effect_key)
        if len(seen) == 3:
            break
    assert seen == ["k4", "k3", "k2"]
    assert [sent.body["limit"] for sent in world.network.sent] == ["2", "2"]
    assert [effect.effect_key for effect in effects] == ["k4", "k3", "k2", "k1", "k0"], "it starts anew"


def test_a_list_page_by_page(client: SyncVerityClient) -> None:
    for number in range(5):
        client.protect(f"k{number}", act=act)
    pages = [page for page in client.effects.list(page_size=2).pages()]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [page.next_cursor is None for page in pages] == [False, False, True]
    first = client.effects.list(page_size=2).first_page()
    assert isinstance(first, Page)
    assert first.items == pages[0].items
    assert [effect.effect_key for effect in first] == ["k4", "k3"]
    rest = client.effects.list(page_size=2, cursor=first.next_cursor)
    assert [effect.effect_key for effect in rest] == ["k2", "k1", "k0"]


def test_new_effects_neither_repeat_nor_hide_others_while_a_list_is_read(client: SyncVerityClient) -> None:
    for number in range(4):
        client.protect(f"k{number}", act=act)
    seen = []
    for effect in client.effects.list(page_size=1):
        seen.append(effect.effect_key)
        client.protect(f"late-{len(seen)}", act=act)
    assert seen == ["k3", "k2", "k1", "k0"]


def test_filters(client: SyncVerityClient) -> None:
    client.protect("refund:1", act=act, agent_id="w-1")
    fail(client, "refund:2")
    run = client.workflow("flow").case("order_1").run("run_1", namespace=client.effects._namespace)
    run.protect("step", act=act)
    listing = client.effects.list

    def keys(**filters: Any) -> list[str | None]:
        return [effect.effect_key for effect in listing(**filters)]

    assert keys() == ["order_1:step", "refund:2", "refund:1"]
    assert keys(status="COMMITTED") == ["order_1:step", "refund:1"]
    assert keys(status="FAILED") == ["refund:2"]
    assert keys(status="EXPIRED") == []
    assert keys(search="fund:") == ["refund:2", "refund:1"]
    assert keys(agent_id="w-1") == ["refund:1"]
    assert keys(namespace="elsewhere") == []
    here = client.effects._namespace
    assert keys(workflow_name="flow", case_id="order_1", run_id="run_1", namespace=here) == ["order_1:step"]
    assert keys(run_id="run_2") == []
    created = (client.effects.get("refund:1")).created_at
    assert created
    moment = datetime.fromisoformat(created.replace("Z", "+00:00"))
    assert len(keys(since=created)) == 3
    assert len(keys(since=moment, until=moment + timedelta(hours=1))) == 3
    assert keys(until=created) == []
    elsewhere = moment.astimezone(timezone(timedelta(hours=5)))
    assert keys(until=elsewhere) == []
    assert len(keys(since=elsewhere.isoformat())) == 3


def test_which_namespaces_a_list_looks_in(world: SyncWorld) -> None:
    here, there = f"here {world.key}", f"there {world.key}"
    client = world.new_client(namespace=here)
    client.protect(f"{world.key} a", act=act)
    client.protect(f"{world.key} b", act=act, namespace=there)
    client.workflow(there).case(world.key).run().protect("c", act=act)

    def namespaces(of: SyncVerityClient, **filters: Any) -> set[str | None]:
        return {effect.namespace for effect in of.effects.list(**filters)}

    mine = {"search": world.key}
    assert namespaces(client, **mine) == {here}
    assert namespaces(client, **mine, namespace=there) == {there}
    assert namespaces(client, **mine, all_namespaces=True) == {here, there}
    assert namespaces(client, workflow_name=there) == {there}, "a workflow has a namespace of its own"
    nowhere = world.new_client(namespace=None)
    assert namespaces(nowhere, **mine) == {here, there}
    with pytest.raises(VerityConfigError, match="namespace is missing"):
        nowhere.effects.get(f"{world.key} a")
    assert (nowhere.effects.get(f"{world.key} b", namespace=there)).status == "COMMITTED"
    assert (client.effects.stats()).by_status["COMMITTED"] == 1
    assert (client.effects.stats(namespace=there)).by_status["COMMITTED"] == 2
    assert (client.effects.stats(all_namespaces=True)).by_status["COMMITTED"] >= 3


def test_groups_and_counts(client: SyncVerityClient) -> None:
    run = client.workflow("flow").case("order_1").run("run_1")
    run.protect("charge", act=act)
    run.protect("notify", act=act)
    effects = client.effects
    groups: list[EffectGroup] = [
        _only(effects.workflows(namespace="flow")),
        _only(effects.cases("flow", namespace="flow")),
        _only(effects.runs("flow", "order_1", namespace="flow")),
    ]
    assert {(group.workflow_name, group.effects) for group in groups} == {("flow", 2)}
    assert [group.case_id for group in groups] == [None, "order_1", "order_1"]
    assert [group.run_id for group in groups] == [None, None, "run_1"]
    assert all(group.created_at and group.updated_at for group in groups)
    assert "flow" in [group.namespace for group in effects.namespaces(page_size=1)]
    stats = effects.stats(namespace="flow", since=datetime(2020, 1, 1, tzinfo=timezone.utc))
    assert type(stats) is LedgerStats
    assert stats.by_status["COMMITTED"] == 2
    assert stats.events["LEASE_GRANTED"] == 2
    assert stats.since == "2020-01-01T00:00:00.000Z"
    assert stats.oldest_expired_at is None


def _only(groups: Any) -> EffectGroup:
    found = [group for group in groups]
    assert len(found) == 1
    assert isinstance(found[0], EffectGroup)
    return found[0]


def test_an_expired_effect_is_found(world: SyncWorld) -> None:
    client = world.new_client(namespace=f"ns of {world.key}")
    client.request_lease(f"ns of {world.key}", {"effectKey": "stuck", "leaseDurationMs": 5000})
    world.clock.advance(5000)
    (effect,) = [each for each in client.effects.list(status="EXPIRED")]
    assert (effect.effect_key, effect.status) == ("stuck", "EXPIRED")
    assert effect.lease_expires_at == (client.effects.stats()).oldest_expired_at


# --- reset ---


def test_a_failed_effect_is_reset_and_acted_again(client: SyncVerityClient) -> None:
    fail(client, "refund:1")
    assert (client.effects.get("refund:1")).error["message"] == "card expired"
    done = client.effects.reset("refund:1", reason="another card", mode="retry")
    assert (done.status, done.fence_token) == ("reset", 1)
    assert (client.effects.get("refund:1")).status == "IDLE"
    assert (client.effects.reset("refund:1", mode="retry")).status == "already_reset"
    events = [event for event in client.effects.events("refund:1")]
    assert events[-1].type == "RESET"
    assert events[-1].detail["reason"] == "another card"
    assert client.protect("refund:1", act=act) == {"refund_id": "re_1"}
    assert (client.effects.get("refund:1")).prior_state == "reset"


def test_a_lost_answer_to_a_reset_is_asked_for_again(world: SyncWorld) -> None:
    fail(world.client, world.key)
    world.network.faults["reset"] = [LOSE_ANSWER, LOSE_REQUEST]
    assert (world.client.effects.reset(world.key)).status == "already_reset"
    assert world.network.operations().count("reset") == 3


def test_what_the_next_holder_finds_after_a_reset(world: SyncWorld) -> None:
    modes: list[tuple[ResetMode, str]] = [("verify", "expired"), ("retry", "reset")]
    for mode, prior_state in modes:
        key = f"{world.key} {mode}"
        world.client.request_lease("payments", {"effectKey": key, "leaseDurationMs": 5000})
        world.clock.advance(5000)
        assert (world.client.effects.reset(key, mode=mode)).fence_token == 2
        assert (world.client.effects.get(key)).prior_state == prior_state
        assert (world.client.request_lease("payments", {"effectKey": key})).prior_state == prior_state
    fail(world.client, world.key)
    world.client.effects.reset(world.key)
    assert (world.client.effects.get(world.key)).prior_state == "expired", "verify is the default"


def test_force_takes_an_effect_away_from_its_holder(client: SyncVerityClient) -> None:
    here = str(client.effects._namespace)
    lease = client.request_lease(here, {"effectKey": "refund:1"})
    with pytest.raises(LeaseConflictError):
        client.effects.reset("refund:1")
    done = client.effects.reset("refund:1", force=True, reason="its machine is gone")
    assert (done.status, done.fence_token) == ("reset", 2)
    tokens = {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
    with pytest.raises(VerityApiError, match="stale_fence"):
        client.commit(here, {**tokens, "result": 1})
    with pytest.raises(OutcomeUnknownError):
        client.protect("refund:1", act=act)
    assert client.protect("refund:1", act=act, observe=lambda: None) == {"refund_id": "re_1"}


def test_a_purged_effect_stays_decided(world: SyncWorld) -> None:
    client = world.new_client(namespace=f"ns of {world.key}")
    client.protect("refund:1", act=act)
    world.clock.advance(1)
    world.ledger.store.purge(Purge("test", before=world.clock.now_ms, namespace=f"ns of {world.key}"))
    effect = client.effects.get("refund:1")
    assert effect.status == "COMMITTED"
    assert effect.purged_at
    assert "result" not in effect
    assert [event for event in client.effects.events("refund:1")] == []
    for change in (lambda: client.effects.reset("refund:1"), lambda: client.effects.resolve("refund:1", 1)):
        with pytest.raises(VerityApiError, match="effect_purged") as caught:
            change()
        assert caught.value.status_code == 410


def test_a_forced_reset_is_sent_once(world: SyncWorld) -> None:
    fail(world.client, world.key)
    world.network.faults["reset"] = [LOSE_ANSWER]
    with pytest.raises(VerityConnectionError, match="whether the ledger carried it out is unknown"):
        world.client.effects.reset(world.key, force=True)
    assert world.network.operations().count("reset") == 1, "a second one could hit the next holder"


def test_what_was_released_in_doubt_is_listed_as_expired_and_can_be_decided_at_once(client: SyncVerityClient) -> None:
    here = str(client.effects._namespace)
    for key, acted in (("doubtful", "unknown"), ("given back", "no")):
        lease = client.request_lease(here, {"effectKey": key})
        tokens = {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
        client.release(here, {**tokens, "acted": acted, "settleMs": 600_000})
    (found,) = [effect for effect in client.effects.list(status="EXPIRED")]
    assert (found.effect_key, found.status, found.attempt) == ("doubtful", "EXPIRED", 1)
    assert found.settles_at
    assert found.lease_expires_at
    assert found.settles_at > found.lease_expires_at
    assert [effect.effect_key for effect in client.effects.list(status="IDLE")] == ["given back"]
    trail = [event for event in client.effects.events("doubtful")]
    assert [event.type for event in trail] == ["LEASE_GRANTED", "LEASE_RELEASED"]
    assert trail[-1].detail["settlesAt"] == found.settles_at
    with pytest.raises(LeaseConflictError):
        client.request_lease(here, {"effectKey": "doubtful"})
    assert (client.effects.reset("doubtful", mode="retry")).status == "reset"
    lease = client.request_lease(here, {"effectKey": "doubtful"})
    assert (lease.prior_state, lease.attempt) == ("reset", 2)


def test_a_change_that_names_another_fence_is_refused(world: SyncWorld) -> None:
    effects = world.client.effects

    def expire() -> None:
        world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5000})
        world.clock.advance(5000)

    expire()
    seen = effects.get(world.key)
    expire()
    for change in (
        lambda: effects.reset(world.key, expected_fence=seen.fence_token),
        lambda: effects.reset(world.key, force=True, expected_fence=seen.fence_token),
        lambda: effects.resolve(world.key, 1, expected_fence=seen.fence_token),
    ):
        with pytest.raises(VerityApiError, match="Look at the effect again") as caught:
            change()
        assert caught.value.code == "stale_fence"
    seen = effects.get(world.key)
    assert (seen.status, seen.fence_token, seen.attempt) == ("EXPIRED", 2, 2)
    world.network.faults["resolve"] = [LOSE_ANSWER]
    assert (effects.resolve(world.key, 1, expected_fence=2)).status == "already_committed"


def test_a_committed_effect_is_never_reset(client: SyncVerityClient) -> None:
    client.protect("refund:1", act=act)
    with pytest.raises(VerityApiError, match="effect_finished"):
        client.effects.reset("refund:1", force=True)
    assert (client.effects.get("refund:1")).status == "COMMITTED"


def test_a_live_lease_is_not_reset(world: SyncWorld) -> None:
    world.client.request_lease("payments", {"effectKey": world.key})
    effects = world.client.effects
    for change in (lambda: effects.reset(world.key), lambda: effects.resolve(world.key, {"refund": 1})):
        with pytest.raises(LeaseConflictError, match="Wait until it is released") as caught:
            change()
        assert caught.value.lease_expires_at
    assert (world.client.effects.get(world.key)).status == "RUNNING"


# --- resolve ---


def test_what_failed_but_happened_is_resolved_for_all_later_callers(client: SyncVerityClient) -> None:
    fail(client, "refund:1")
    found = {"refund_id": "re_7", "parts": (1, None)}
    done = client.effects.resolve("refund:1", found, reason="found in the dashboard")
    assert (done.status, done.fence_token) == ("resolved", 2)
    assert (client.effects.resolve("refund:1", found)).status == "already_committed"
    effect = client.effects.get("refund:1")
    assert (effect.status, effect.source, effect.result) == (
        "COMMITTED",
        "resolved",
        {"refund_id": "re_7", "parts": [1, None]},
    )
    assert client.protect("refund:1", act=decline) == effect.result
    with pytest.raises(VerityApiError, match="effect_finished"):
        client.effects.resolve("refund:1", {"refund_id": "re_8"})


def test_an_expired_effect_is_resolved_and_its_holder_shut_out(world: SyncWorld) -> None:
    lease = world.client.request_lease("payments", {"effectKey": world.key, "leaseDurationMs": 5000})
    world.clock.advance(5000)
    assert (world.client.effects.resolve(world.key, None)).status == "resolved"
    effect = world.client.effects.get(world.key)
    assert "result" in effect
    assert effect.result is None
    tokens = {name: lease[name] for name in ("effectKey", "fenceToken", "leaseToken")}
    with pytest.raises(VerityApiError, match="stale_fence"):
        world.client.commit("payments", {**tokens, "result": 1})


def test_an_agents_key_may_read_and_not_change(world: SyncWorld) -> None:
    fail(world.client, world.key)
    agent = world.new_client(api_key=world.ledger.create_key(role="agent"))
    assert (agent.effects.get(world.key)).status == "FAILED"
    for change in (lambda: agent.effects.reset(world.key), lambda: agent.effects.resolve(world.key, {"refund": 1})):
        with pytest.raises(VerityApiError, match="role") as caught:
            change()
        assert (caught.value.status_code, caught.value.code) == (403, "forbidden")
    with pytest.raises(EffectPreviouslyFailedError):
        world.client.protect(world.key, act=act)


# --- what is refused before it is sent ---


@pytest.mark.parametrize(
    ("call", "arguments", "parameter"),
    [
        ("list", {"status": "expired"}, "status"),
        ("list", {"status": ["EXPIRED"]}, "status"),
        ("list", {"search": ""}, "search"),
        ("list", {"search": "x" * 1025}, "search"),
        ("list", {"search": "\ud800"}, "search"),
        ("list", {"workflow_name": 7}, "workflow_name"),
        ("list", {"agent_id": "x" * 257}, "agent_id"),
        ("list", {"since": "yesterday"}, "since"),
        ("list", {"since": "2026-01-31T12:00:00"}, "since"),
        ("list", {"since": "2026-02-30T12:00:00Z"}, "since"),
        ("list", {"since": datetime(2026, 1, 31, tzinfo=timezone.utc).replace(tzinfo=None)}, "since"),
        ("list", {"until": 1_770_000_000}, "until"),
        ("list", {"until": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))}, "until"),
        ("list", {"page_size": 0}, "page_size"),
        ("list", {"page_size": 501}, "page_size"),
        ("list", {"page_size": True}, "page_size"),
        ("list", {"cursor": ""}, "cursor"),
        ("list", {"cursor": 7}, "cursor"),
        ("list", {"all_namespaces": "yes"}, "all_namespaces"),
        ("list", {"all_namespaces": True, "namespace": "payments"}, "all_namespaces"),
        ("list", {"namespace": ".."}, "namespace"),
        ("get", {"effect_key": ""}, "effect_key"),
        ("get", {"effect_key": "k", "namespace": "a/b"}, "namespace"),
        ("get_by_id", {"effect_id": "../keys"}, "effect_id"),
        ("get_by_id", {"effect_id": 7}, "effect_id"),
        ("events", {"effect_key": None}, "effect_key"),
        ("cases", {"workflow_name": None}, "workflow_name"),
        ("runs", {"workflow_name": "flow", "case_id": ""}, "case_id"),
        ("stats", {"since": "now"}, "since"),
        ("reset", {"effect_key": "k", "mode": "again"}, "mode"),
        ("reset", {"effect_key": "k", "force": 1}, "force"),
        ("reset", {"effect_key": "k", "reason": ""}, "reason"),
        ("reset", {"effect_key": "k", "reason": "x" * 1025}, "reason"),
        ("reset", {"effect_key": "k", "expected_fence": "1"}, "expected_fence"),
        ("resolve", {"effect_key": "k", "result": 1, "expected_fence": 0}, "expected_fence"),
        ("resolve", {"effect_key": "k", "result": {1, 2}}, "result"),
        ("resolve", {"effect_key": "k", "result": "x" * 65_536}, "result"),
        ("resolve", {"effect_key": "", "result": 1}, "effect_key"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused_before_it_is_sent(
    world: SyncWorld, call: str, arguments: dict[str, Any], parameter: str
) -> None:
    with pytest.raises((VerityValidationError, VerityConfigError)) as caught:
        getattr(world.client.effects, call)(**arguments)
    assert isinstance(caught.value, (VerityValidationError, VerityConfigError))
    assert caught.value.parameter == parameter
    assert parameter in str(caught.value)
    assert not world.network.sent


def test_a_closed_client_asks_nothing(world: SyncWorld) -> None:
    effects = world.client.effects
    listed = effects.list()
    world.client.close()
    with pytest.raises(VerityConfigError, match="closed"):
        listed.first_page()
    with pytest.raises(VerityConfigError, match="closed"):
        effects.list()
    with pytest.raises(VerityConfigError, match="closed"):
        effects.get("k")


# --- a network and ledgers of all kinds ---


def test_reads_are_sent_again_where_the_answer_is_lost(world: SyncWorld) -> None:
    world.client.protect(world.key, act=act)
    world.network.faults["effect"] = [LOSE_ANSWER, Says(503, b"busy")]
    assert (world.client.effects.get(world.key)).status == "COMMITTED"
    world.network.faults["effects"] = [LOSE_REQUEST]
    assert [each.effect_key for each in world.client.effects.list(search=world.key)] == [world.key]


def test_a_page_that_could_not_be_had_is_asked_for_again(world: SyncWorld) -> None:
    client = world.new_client(namespace=f"ns of {world.key}")
    for number in range(3):
        client.protect(f"k{number}", act=act)
    pages = client.effects.list(page_size=2).pages()
    seen = [effect.effect_key for effect in pages.__next__()]
    world.network.faults["effects"] = [LOSE_REQUEST] * 3
    with pytest.raises(VerityConnectionError, match="list_effects got no answer"):
        pages.__next__()
    seen += [effect.effect_key for effect in pages.__next__()]
    assert seen == ["k2", "k1", "k0"]
    with pytest.raises(StopIteration):
        pages.__next__()


@pytest.mark.parametrize(
    "answer",
    [b"<html>", b"[]", b"{}", b'{"items": {}}', b'{"items": [7]}', b'{"items": [], "nextCursor": 7}'],
    ids=lambda answer: answer.decode(),
)
def test_a_page_that_cannot_be_understood_is_no_empty_page(world: SyncWorld, answer: bytes) -> None:
    world.network.faults["effects"] = [Says(200, answer)]
    with pytest.raises(VerityApiError, match="cannot be understood") as caught:
        world.client.effects.list().first_page()
    assert caught.value.code == "invalid_response"


@pytest.mark.parametrize("answer", [b"{}", b'{"status": "COMMITTED"}', b'{"effectKey": "k", "status": 7}'])
def test_an_effect_that_cannot_be_understood_is_none(world: SyncWorld, answer: bytes) -> None:
    world.network.faults["effect"] = [Says(200, answer)]
    with pytest.raises(VerityApiError, match="cannot be understood"):
        world.client.effects.get("k")


@pytest.mark.parametrize("change", ["reset", "resolve"])
def test_a_change_is_not_confirmed_by_a_proxys_page(world: SyncWorld, change: str) -> None:
    world.network.faults[change] = [Says(200, b'{"ok": true}')]
    effects = world.client.effects
    with pytest.raises(VerityApiError, match="cannot be understood"):
        (effects.reset("k") if change == "reset" else effects.resolve("k", 1))


def test_a_list_that_runs_in_a_circle_ends_with_an_error(world: SyncWorld) -> None:
    page = Says(200, b'{"items": [{"effectKey": "k", "status": "IDLE"}], "nextCursor": "1"}')
    world.network.faults["effects"] = [page, page]
    effects = world.client.effects.list().__iter__()
    assert (effects.__next__()).effect_key == "k"
    with pytest.raises(VerityApiError, match="from a page to itself"):
        effects.__next__()


def test_a_newer_ledgers_words_are_taken_as_they_come(world: SyncWorld) -> None:
    item = b'{"effectKey": "k", "status": "PAUSED", "region": "eu", "fenceToken": 3}'
    world.network.faults["effects"] = [Says(200, b'{"items": [' + item + b'], "nextCursor": null, "total": 1}')]
    (effect,) = [each for each in world.client.effects.list()]
    assert (effect.status, effect["region"], effect.created_at) == ("PAUSED", "eu", None)
    world.network.faults["events"] = [Says(200, b'{"items": [{"type": "MOVED", "detail": null}]}')]
    (event,) = [each for each in world.client.effects.events("k")]
    assert (event.type, event.detail, event.at) == ("MOVED", {}, None)
