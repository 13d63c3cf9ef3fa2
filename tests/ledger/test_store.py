"""What every store must do: run on each kind of store."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.helpers.served_ledger import TestClock
from tests.helpers.store_calls import Caller
from tests.helpers.stores import Bench, DatabaseRefused, Store
from verity._ledger.effect import Effect
from verity._limits import MAX_PAYLOAD_BYTES
from verity._operations import Operation
from verity._store.purging import BATCH, Purge
from verity._store.reads import first_that_fit


@pytest.fixture
def store(bench: Bench) -> Store:
    return cast(Store, bench.store)


def test_the_life_of_an_effect(call: Caller, clock: TestClock) -> None:
    lease = call("lease_effect", {"effectKey": "k", "leaseDurationMs": 5000, "agentId": "a"})
    assert (lease["status"], lease["fenceToken"], lease["priorState"]) == ("granted", 1, "none")
    assert lease["leaseExpiresAt"] == "2026-02-02T02:40:05.000Z"
    assert call.refused("lease_effect", {"effectKey": "k"}) == (409, "lease_conflict")
    assert call.ask("lease_effect", {"effectKey": "k"}).headers["retry-after"] == "1"
    assert call("renew_effect", call.tokens(lease))["status"] == "renewed"
    assert call("report_observe", {**call.tokens(lease), "hit": False, "durationMs": 3})["status"] == "reported"
    clock.advance(5000)
    second = call("lease_effect", {"effectKey": "k"})
    assert (second["fenceToken"], second["priorState"]) == (2, "expired")
    assert second["leaseToken"] != lease["leaseToken"]
    assert call.refused("commit_effect", {**call.tokens(lease), "result": 1}) == (409, "stale_fence")
    body = {**call.tokens(second), "result": {"id": 1}, "source": "acted"}
    assert call("commit_effect", body)["status"] == "accepted"
    assert call("commit_effect", body)["status"] == "already_committed"
    cached = call("lease_effect", {"effectKey": "k"})
    assert (cached["status"], cached["cachedResult"], cached["leaseToken"]) == ("cached_completed", {"id": 1}, None)
    assert call.refused("fail_effect", {**call.tokens(second), "error": 1}) == (409, "effect_finished")


def test_every_answer_says_which_effect_it_is_about(call: Caller, clock: TestClock) -> None:
    """Also one that is refused: a client takes no answer to another request."""
    about = {"namespace": "payments", "effectKey": "k"}

    def said(operation: str, body: Any, *, tokens: Any = None) -> Any:
        answer = json.loads(call.ask(operation, {**body, "effectKey": "k"}).body)
        answer = answer["error"]["details"] if "error" in answer else answer
        assert {name: answer.get(name) for name in about} == about
        assert tokens is None or answer["fenceToken"] == tokens["fenceToken"]
        return answer

    none = {"fenceToken": 7, "leaseToken": "t"}
    said("renew_effect", none, tokens=none)
    said("reset_effect", {})
    lease = said("lease_effect", {})
    said("lease_effect", {})
    tokens = call.tokens(lease)
    for operation, body in (("renew_effect", {}), ("report_observe", {"hit": True}), ("fail_effect", {"error": 1})):
        said(operation, {**tokens, **body}, tokens=tokens)
    said("lease_effect", {})
    said("commit_effect", {**tokens, "result": 1}, tokens=tokens)
    said("commit_effect", {**none, "result": 1}, tokens=none)
    said("reset_effect", {})
    said("resolve_effect", {"result": 1})
    tokens = call.tokens(said("lease_effect", {}))
    for _ in range(2):
        said("commit_effect", {**tokens, "result": 1}, tokens=tokens)
    said("lease_effect", {})
    clock.advance(5000)
    page = call("list_effect_events", effectKey="k")
    assert {name: page[name] for name in about} == about
    assert json.loads(call.ask("get_effect", effectKey="no").body)["error"]["details"] == {"effectKey": "no"}


def test_a_holder_does_not_fill_the_trail(store: Store, call: Caller, clock: TestClock) -> None:
    """One after the other, and many at once."""
    lease = call("lease_effect", {"effectKey": "k"})
    tokens = call.tokens(lease)
    for _ in range(20):
        clock.advance(10)
        assert call("renew_effect", tokens)["status"] == "renewed"
        assert call("report_observe", {**tokens, "hit": False})["status"] == "reported"
    clock.advance(10)
    requests = [call.request("report_observe", {**tokens, "hit": False}) for _ in range(50)]
    requests += [call.request("renew_effect", tokens) for _ in range(50)]
    assert {answer.status for answer in store.answer_batch(requests)} == {200}
    clock.advance(60_000)
    second = call.tokens(call("lease_effect", {"effectKey": "k"}))
    answers = store.answer_batch([call.request("report_observe", {**second, "hit": True}) for _ in range(50)])
    assert {answer.status for answer in answers} == {200}
    kinds = Counter(event["type"] for event in call("list_effect_events", effectKey="k", limit="500")["items"])
    assert kinds == {"LEASE_GRANTED": 2, "LEASE_EXPIRED": 1, "LEASE_RENEWED": 1, "OBSERVE_MISS": 8, "OBSERVE_HIT": 8}


def test_failing_resetting_resolving(call: Caller, clock: TestClock) -> None:
    lease = call("lease_effect", {"effectKey": "k", "leaseDurationMs": 5000})
    assert call.refused("reset_effect", {"effectKey": "k"}) == (409, "lease_conflict")
    assert call("fail_effect", {**call.tokens(lease), "error": None})["status"] == "recorded"
    failed = call("lease_effect", {"effectKey": "k"})
    assert (failed["status"], failed["cachedError"]) == ("cached_failed", None)
    assert call("reset_effect", {"effectKey": "k", "reason": "again", "mode": "retry"})["status"] == "reset"
    assert call.refused("resolve_effect", {"effectKey": "k", "result": 1}) == (409, "not_failed")
    again = call("lease_effect", {"effectKey": "k", "leaseDurationMs": 5000})
    assert (again["priorState"], again["fenceToken"]) == ("reset", 2)
    clock.advance(5000)
    assert call("resolve_effect", {"effectKey": "k", "result": 7, "reason": "found"})["fenceToken"] == 3
    assert call("lease_effect", {"effectKey": "k"})["cachedResult"] == 7
    events = call("list_effect_events", effectKey="k")["items"]
    assert [event["type"] for event in events] == ["LEASE_GRANTED", "FAILED", "RESET", "LEASE_GRANTED", "RESOLVED"]
    assert events[2]["detail"] == {"actor": "tester", "reason": "again", "mode": "retry"}


def test_a_lease_is_taken_away_by_force_alone(call: Caller) -> None:
    lease = call("lease_effect", {"effectKey": "k"})
    assert call.refused("reset_effect", {"effectKey": "k", "force": False}) == (409, "lease_conflict")
    assert call("reset_effect", {"effectKey": "k", "force": True})["fenceToken"] == 2
    assert call.refused("commit_effect", {**call.tokens(lease), "result": 1}) == (409, "stale_fence")
    again = call("lease_effect", {"effectKey": "k"})
    assert (again["priorState"], again["fenceToken"]) == ("expired", 3)
    assert call.refused("reset_effect", {"effectKey": "k", "mode": "perhaps"}) == (400, "invalid_request")


def test_what_is_purged_keeps_its_key_from_being_acted_on(store: Store, call: Caller, clock: TestClock) -> None:
    call.commit("old", {"big": "x" * 1000})
    failed = call("lease_effect", {"effectKey": "failed", "inputJson": "secret"})
    late = {**call.tokens(failed), "error": "declined"}
    call("fail_effect", late)
    call("lease_effect", {"effectKey": "running"})
    clock.advance(1000)
    call.commit("new")
    purge = store.purge(Purge("test", before=clock.now_ms))
    assert (purge.purged, purge.done) == (2, True)
    assert store.purge(Purge("test", before=clock.now_ms)).purged == 0
    assert store.purge(Purge("live", before=clock.now_ms + 1)).purged == 0
    for key in ("old", "failed"):
        for operation, body in (("lease", {}), ("reset", {"force": True}), ("resolve", {"result": 1})):
            assert call.refused(f"{operation}_effect", {"effectKey": key, **body}) == (410, "effect_purged")
        assert call("list_effect_events", effectKey=key)["items"] == []
        shown = call("get_effect", effectKey=key)
        assert shown["purgedAt"] == "2026-02-02T02:40:01.000Z"
        assert not {"result", "error", "inputJson"} & set(shown)
    assert call("fail_effect", late)["status"] == "already_failed"
    assert call.refused("report_observe", {**call.tokens(failed), "hit": True}) == (410, "effect_purged")
    assert call("lease_effect", {"effectKey": "new"})["cachedResult"] == "done"
    assert call.refused("lease_effect", {"effectKey": "running"}) == (409, "lease_conflict")


def test_a_purge_goes_in_batches_and_can_be_taken_up_again(store: Store, call: Caller, clock: TestClock) -> None:
    for number in range(BATCH + 1):
        call.commit(f"k{number}")
    clock.advance(1)
    first = store.purge(Purge("test", before=clock.now_ms, namespace="payments"))
    assert (first.purged, first.done) == (BATCH, False)
    rest = store.purge(first)
    assert (rest.purged, rest.done) == (BATCH + 1, True)
    call.namespace = "elsewhere"
    call.commit("k")
    clock.advance(1)
    assert store.purge(Purge("test", before=clock.now_ms, namespace="payments")).purged == 0


@pytest.mark.parametrize(
    "text", ["1.10", "1e400", '"\\u00e9"', "[ 1, 2 ]", "null", "12345678901234567890", '{"\\u0000":"a\\u0000"}']
)
def test_a_payload_comes_back_as_the_text_that_was_sent(store: Store, call: Caller, text: str) -> None:
    lease = call("lease_effect", {"effectKey": "k"})
    request = call.request("commit_effect")
    body = json.dumps({**call.tokens(lease), "result": "RESULT"}).replace('"RESULT"', text)
    (answer,) = store.answer_batch([type(request)(request.scope, Operation.COMMIT_EFFECT, "payments", body.encode())])
    assert answer.status == 200
    assert f'"cachedResult":{text}}}' in call.ask("lease_effect", {"effectKey": "k"}).body.decode()
    assert f'"result":{text}}}' in call.ask("get_effect", effectKey="k").body.decode()


def test_an_idempotency_key_repeats_the_grant(call: Caller) -> None:
    first = call("lease_effect", {"effectKey": "k"}, key="one")
    assert call("lease_effect", {"effectKey": "k"}, key="one") == first
    assert call.ask("lease_effect", {"effectKey": "k"}, key="two").status == 409
    assert call.ask("lease_effect", {"effectKey": "k"}).status == 409


def test_scopes_are_apart(store: Store) -> None:
    test, live = Caller(store, "test"), Caller(store, "live")
    bound, other = Caller(store, "test", ["payments"]), Caller(store, "test", ["mail"], namespace="mail")
    test.commit("k", "of test")
    live.commit("k", "of live")
    other.commit("k", "of mail")
    assert test("lease_effect", {"effectKey": "k"})["cachedResult"] == "of test"
    assert live("lease_effect", {"effectKey": "k"})["cachedResult"] == "of live"
    assert bound("lease_effect", {"effectKey": "k"})["cachedResult"] == "of test"
    stranger = Caller(store, "test", ["mail"])
    body = {"effectKey": "k", "fenceToken": 1, "leaseToken": "x", "result": 1, "error": 1, "hit": True}
    for operation in ("lease", "commit", "fail", "renew", "reset", "resolve"):
        assert stranger.refused(f"{operation}_effect", body) == (403, "forbidden")
    assert stranger.refused("report_observe", body) == (403, "forbidden")
    assert stranger.refused("get_effect", effectKey="k") == (403, "forbidden")
    assert stranger.refused("list_effects", namespace="payments") == (403, "forbidden")
    assert [item["namespace"] for item in stranger("list_effects")["items"]] == ["mail"]
    assert [item["namespace"] for item in stranger("list_namespaces")["items"]] == ["mail"]
    assert stranger("get_stats")["byStatus"]["COMMITTED"] == 1
    effect_id = test("get_effect", effectKey="k")["effectId"]
    assert bound("get_effect_by_id", effectId=effect_id)["result"] == "of test"
    assert stranger.refused("get_effect_by_id", effectId=effect_id) == (404, "effect_not_found")
    assert live.refused("get_effect_by_id", effectId=effect_id) == (404, "effect_not_found")


def test_the_lists(call: Caller, clock: TestClock) -> None:
    for number in range(5):
        place = {"workflowName": "flow", "caseId": f"c{number % 2}", "runId": f"r{number}"}
        lease = call("lease_effect", {"effectKey": f"order_{number}", "agentId": f"a{number % 2}", **place})
        if number == 0:
            call("fail_effect", {**call.tokens(lease), "error": "x"})
        if number == 1:
            call("commit_effect", {**call.tokens(lease), "result": "x"})
        clock.advance(10_000)
    keys = ["order_4", "order_3", "order_2", "order_1", "order_0"]

    def listed(**query: str) -> list[str]:
        return [item["effectKey"] for item in call("list_effects", **query)["items"]]

    assert listed() == keys
    assert listed(status="FAILED") == ["order_0"]
    assert listed(status="COMMITTED") == ["order_1"]
    assert listed(status="EXPIRED") == ["order_2"]
    assert listed(status="RUNNING") == ["order_4", "order_3"]
    assert listed(status="IDLE") == []
    assert listed(search="der_3") == ["order_3"]
    assert listed(search="%") == []
    assert listed(agentId="a1") == ["order_3", "order_1"]
    assert listed(workflowName="flow", caseId="c1", runId="r3") == ["order_3"]
    assert listed(namespace="mail") == []
    assert listed(since="2026-02-02T02:40:20Z") == ["order_4", "order_3", "order_2"]
    assert listed(until="2026-02-02T03:40:20+01:00") == ["order_1", "order_0"]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while len(seen) <= len(keys):
        page = call("list_effects", limit="2", **cursor)
        seen += [item["effectKey"] for item in page["items"]]
        if "nextCursor" not in page:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert seen == keys
    assert [item["caseId"] for item in call("list_cases", workflowName="flow")["items"]] == ["c0", "c1"]
    assert [item["effects"] for item in call("list_cases", workflowName="flow")["items"]] == [3, 2]
    assert len(call("list_runs", workflowName="flow", caseId="c0")["items"]) == 3
    (workflow,) = call("list_workflows")["items"]
    assert (workflow["workflowName"], workflow["effects"]) == ("flow", 5)
    first = call("list_runs", workflowName="flow", caseId="c0", limit="2")
    rest = call("list_runs", workflowName="flow", caseId="c0", limit="2", cursor=first["nextCursor"])
    assert (len(first["items"]), len(rest["items"])) == (2, 1)
    stats = call("get_stats")
    assert stats["byStatus"] == {"IDLE": 0, "RUNNING": 2, "EXPIRED": 1, "COMMITTED": 1, "FAILED": 1}
    assert stats["events"]["LEASE_GRANTED"] == 5
    assert stats["oldestExpiredAt"] == "2026-02-02T02:40:50.000Z"
    trail = call("list_effect_events", effectKey="order_0", limit="1")
    assert [item["type"] for item in trail["items"]] == ["LEASE_GRANTED"]
    assert [
        item["type"] for item in call("list_effect_events", effectKey="order_0", cursor=trail["nextCursor"])["items"]
    ] == ["FAILED"]


@pytest.mark.parametrize(
    "query",
    [{"limit": "x"}, {"cursor": "-1"}, {"cursor": "٣"}, {"since": "yesterday"}, {"until": ""}, {"search": "a\0"}],
)
def test_a_wrong_filter_is_told(call: Caller, query: dict[str, str]) -> None:
    assert call.refused("list_effects", **query) == (400, "invalid_request")


def test_a_page_of_large_payloads_ends_early_and_the_next_one_goes_on(call: Caller) -> None:
    """An effect has two payloads here. With the largest that there are, four effects fill a page exactly."""
    largest = "x" * (MAX_PAYLOAD_BYTES - len('""'))
    for number in range(5):
        lease = call("lease_effect", {"effectKey": f"{number}", "inputJson": largest})
        call("commit_effect", {**call.tokens(lease), "result": largest})
    pages: list[list[str]] = []
    cursor: dict[str, str] = {}
    while len(pages) < 10:
        page = call("list_effects", **cursor)
        pages.append([item["effectKey"] for item in page["items"]])
        if "nextCursor" not in page:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert pages == [["4", "3", "2", "1"], ["0"]]


@pytest.mark.parametrize(
    ("sizes", "fit"), [((10, 300), 1), ((300, 90), 1), ((90, 90, 90), 2), ((90, 160), 2), ((90,), 1), ((), 0)]
)
def test_a_page_holds_what_fits_and_one_effect_at_least(sizes: tuple[int, ...], fit: int) -> None:
    empty = Effect._make([None] * len(Effect._fields))
    effects = [empty._replace(input_text="x" * size) for size in sizes]
    assert first_that_fit(effects, max_chars=250) == effects[:fit]


@pytest.mark.parametrize("cursor", [2**31 - 1, 2**31, 2**63 - 1, 10**19 - 1])
def test_a_cursor_may_be_as_large_as_it_likes(call: Caller, cursor: int) -> None:
    call.commit("k")
    for operation in ("list_effect_events", "list_namespaces", "list_workflows"):
        assert call(operation, effectKey="k", cursor=str(cursor))["items"] == []
    assert call("list_effects", cursor=str(cursor))["items"] == (
        [] if cursor <= 2**31 else call("list_effects")["items"]
    )


def test_what_is_not_there(call: Caller) -> None:
    assert call.refused("get_effect", effectKey="k") == (404, "effect_not_found")
    assert call.refused("list_effect_events", effectKey="k") == (404, "effect_not_found")
    assert call.refused("get_effect_by_id", effectId="nonsense") == (404, "effect_not_found")
    assert call.refused("reset_effect", {"effectKey": "k"}) == (404, "effect_not_found")


def test_ids_are_in_the_order_of_creation(call: Caller, clock: TestClock) -> None:
    ids = []
    for number in range(20):
        ids.append(call("lease_effect", {"effectKey": f"k{number}"})["effectId"])
        clock.advance(number % 3)
    assert ids == sorted(ids)
    assert len(set(ids)) == 20


# --- the database itself keeps the rules ---


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE effects SET status = 'RUNNING', result_text = NULL",
        "UPDATE effects SET result_text = '8'",
        "UPDATE effects SET fence = 9",
        "UPDATE effects SET source = 'observed'",
        "UPDATE effects SET fence = 0",
        "UPDATE effects SET status = 'LOST'",
        "INSERT INTO events SELECT * FROM events",
        "DELETE FROM effects",
        "UPDATE effects SET effect_key = 'another'",
        "UPDATE effects SET namespace = 'another'",
        "UPDATE effects SET id = id + 1",
        "UPDATE events SET fence = 2",
        "DELETE FROM events",
        "DELETE FROM events WHERE sequence = 2",
        "UPDATE effects SET purged_at = 1, result_text = NULL, status = 'FAILED'",
    ],
)
def test_the_database_refuses_what_the_table_would_never_do(bench: Bench, call: Caller, change: str) -> None:
    call.commit("k", 7)
    with pytest.raises(DatabaseRefused):
        bench.execute(change)
    assert call("lease_effect", {"effectKey": "k"})["cachedResult"] == 7


@pytest.mark.parametrize("skipped", [2, 5])
def test_events_have_no_gaps_in_the_database(bench: Bench, call: Caller, skipped: int) -> None:
    call.commit("k", 7)
    columns = bench.columns_of("events")
    copied = ", ".join(f"sequence + {skipped}" if name == "sequence" else name for name in columns)
    with pytest.raises(DatabaseRefused, match="an event before this one is missing"):
        bench.execute(f"INSERT INTO events SELECT {copied} FROM events WHERE sequence = 2")


def test_one_bad_call_leaves_the_others_alone(store: Store, call: Caller) -> None:
    requests = [
        call.request("lease_effect", {"effectKey": "a"}),
        call.request("lease_effect", {}),
        call.request("lease_effect", {"effectKey": "big", "inputJson": "x" * 65_535}),
        call.request("commit_effect", {"effectKey": "b", "fenceToken": 1, "leaseToken": "x", "result": 1}),
        call.request("commit_effect", {"effectKey": "b", "fenceToken": 10**30, "leaseToken": "x", "result": 1}),
        call.request("lease_effect", {"effectKey": "a"}),
        call.request("lease_effect", {"effectKey": "c"}),
    ]
    answers = store.answer_batch(requests)
    assert [answer.status for answer in answers] == [200, 400, 413, 404, 404, 409, 200]
    assert json.loads(answers[1].body)["error"]["details"][0]["path"] == "/effectKey"


def test_the_same_lease_many_times_at_once_is_granted_once(store: Store, call: Caller) -> None:
    answers = store.answer_batch([call.request("lease_effect", {"effectKey": "k"}) for _ in range(50)])
    assert sorted(answer.status for answer in answers) == [200] + [409] * 49


def test_the_fence_never_goes_down_in_the_database(bench: Bench, call: Caller, clock: TestClock) -> None:
    for _ in range(2):
        call("lease_effect", {"effectKey": "k", "leaseDurationMs": 5000})
        clock.advance(5000)
    with pytest.raises(DatabaseRefused, match="never goes down"):
        bench.execute("UPDATE effects SET fence = 1")


@pytest.mark.parametrize(
    ("operation", "body", "path"),
    [
        ("lease_effect", {}, "/effectKey"),
        ("lease_effect", {"effectKey": ""}, "/effectKey"),
        ("lease_effect", {"effectKey": 7}, "/effectKey"),
        ("lease_effect", {"effectKey": "a\0"}, "/effectKey"),
        ("lease_effect", {"effectKey": "k", "runId": "\0"}, "/runId"),
        ("commit_effect", {"effectKey": "k", "fenceToken": 1, "leaseToken": "\0", "result": 1}, "/leaseToken"),
        ("reset_effect", {"effectKey": "k", "reason": "\0"}, "/reason"),
        ("lease_effect", {"effectKey": "k", "leaseDurationMs": True}, "/leaseDurationMs"),
        ("commit_effect", {"effectKey": "k", "leaseToken": "t", "result": 1}, "/fenceToken"),
        ("commit_effect", {"effectKey": "k", "fenceToken": 1, "leaseToken": "t"}, "/result"),
        ("fail_effect", {"effectKey": "k", "fenceToken": 1, "leaseToken": "t"}, "/error"),
        ("resolve_effect", {"effectKey": "k"}, "/result"),
    ],
)
def test_a_store_that_is_asked_directly_takes_nothing_for_granted(
    operation: str, body: dict[str, Any], path: str, call: Caller
) -> None:
    answer = call.ask(operation, body)
    problem = json.loads(answer.body)["error"]
    assert (answer.status, problem["code"], problem["details"][0]["path"]) == (400, "invalid_request", path)


@pytest.mark.parametrize("fence", [2**31, 2**63 - 1, 2**63, 10**30, 1.5e300])
def test_a_fence_beyond_any_that_was_given_is_stale(call: Caller, fence: float) -> None:
    lease = call.tokens(call("lease_effect", {"effectKey": "k"}))
    wrong = {**lease, "fenceToken": fence, "result": 1, "error": 1, "hit": True}
    for operation in ("commit_effect", "fail_effect", "renew_effect", "report_observe"):
        assert call.refused(operation, wrong) == (409, "stale_fence")
    assert call("commit_effect", {**lease, "fenceToken": 1.0, "result": 1})["status"] == "accepted"


def test_an_effect_call_names_its_namespace(call: Caller) -> None:
    for operation in ("lease_effect", "get_effect"):
        request = replace(call.request(operation, {"effectKey": "k"}, effectKey="k"), namespace=None)
        assert call.store.answer(request).status == 400


def test_a_body_that_is_not_json_is_refused(call: Caller) -> None:
    (answer,) = call.store.answer_batch([replace(call.request("lease_effect", {}), body=b"{")])
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "invalid_request")


def test_a_request_and_an_answer_show_no_body(call: Caller) -> None:
    request = call.request("lease_effect", {"effectKey": "secret"})
    answer = call.ask("lease_effect", {"effectKey": "secret"})
    assert (repr(request), repr(answer)) == ("<Request lease_effect req_1>", "<Answer 200>")


def test_the_oldest_expired_effect_of_each_environment(call: Caller, store: Store, clock: TestClock) -> None:
    live = Caller(store, "live")
    assert store.expired_for_ms() == {}
    for key in ("finished", "older", "newer"):
        call("lease_effect", {"effectKey": key, "leaseDurationMs": 5000})
        clock.advance(1000)
    live("lease_effect", {"effectKey": "not yet", "leaseDurationMs": 120_000})
    call.commit("another")
    assert store.expired_for_ms() == {}
    clock.advance(10_000)
    call("commit_effect", {**call.tokens(call("lease_effect", {"effectKey": "finished"})), "result": 1})
    assert store.expired_for_ms() == {"test": 7000}
    call("lease_effect", {"effectKey": "older"})
    assert store.expired_for_ms() == {"test": 6000}
    clock.advance(120_000)
    assert store.expired_for_ms()["live"] == 10_000


def test_a_lease_that_expired_in_an_outage_is_not_taken_over_at_once(bench: Bench, call: Caller) -> None:
    clock = bench.clock
    lease = call("lease_effect", {"effectKey": "k", "leaseDurationMs": 5000})
    other = call("lease_effect", {"effectKey": "other", "leaseDurationMs": 5000})
    began_at = clock()
    clock.advance(10_000)
    bench.execute("UPDATE heartbeat SET outages = ?", f"{began_at}:{clock()}")
    answer = call.ask("lease_effect", {"effectKey": "k"})
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], answer.outcome) == (409, "lease_conflict", ("lease_conflict", "grace"))
    assert error["details"] == {
        "namespace": "payments",
        "effectKey": "k",
        "leaseExpiresAt": "2026-02-02T02:40:15.000Z",
        "grace": True,
    }
    assert "time to renew" in error["message"]
    for operation, body in (("reset_effect", {}), ("resolve_effect", {"result": 1})):
        assert call.refused(operation, {"effectKey": "k", **body}) == (409, "lease_conflict")
    assert call("renew_effect", call.tokens(lease))["leaseExpiresAt"] == "2026-02-02T02:40:15.000Z"
    clock.advance(5_000)
    assert call("lease_effect", {"effectKey": "other"})["priorState"] == "expired"
    assert call("lease_effect", {"effectKey": "k"})["priorState"] == "expired"
    assert call.refused("commit_effect", {**call.tokens(other), "result": 1}) == (409, "stale_fence")
