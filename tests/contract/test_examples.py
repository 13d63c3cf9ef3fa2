"""Each example of openapi.yaml, executed against a real ledger on the day that the examples speak of.

What differs from ledger to ledger (ids and lease tokens) is masked; all else must be the same, times included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.helpers import openapi
from tests.helpers.openapi import SPEC
from tests.helpers.postgres import PostgresServer, execute
from tests.helpers.served_ledger import ServedLedger, TestClock, make_clock
from verity._store.purging import Purge

EXAMPLES = {name: example["value"] for name, example in SPEC["components"]["examples"].items()}
NOON = int(datetime.fromisoformat("2026-01-31T12:00:00+00:00").timestamp() * 1000)
OPERATION_OF = {"Lease": "lease", "Commit": "commit", "Fail": "fail", "Renew": "renew", "Release": "release"} | {
    "ReportObserve": "report-observe",
    "Reset": "reset",
    "Resolve": "resolve",
}


class Story:
    """What happened before an example's moment, told with the other examples."""

    def __init__(self, served: ServedLedger, clock: TestClock) -> None:
        self._served, self._clock = served, clock
        self._tokens: dict[str, Any] = {}

    def at(self, seconds: int) -> Story:
        """Seconds after noon."""
        self._clock.now_ms = NOON + seconds * 1000
        return self

    def http(self, role: Any = "org_admin") -> httpx.Client:
        headers = {} if role is None else {"Authorization": f"Bearer {self._served.create_key(role=role)}"}
        hooks: Any = {"response": [openapi.check]}
        return httpx.Client(base_url=self._served.base_url, headers=headers, event_hooks=hooks)

    def send(self, example: str, role: Any = "org_admin", **changes: Any) -> Any:
        """Send the example of a request, with the tokens that the ledger gave."""
        body = EXAMPLES[example] | changes
        if "leaseToken" in body:
            body |= self._tokens
        reply = self.post(OPERATION_OF[example.partition("Request")[0]], body, role)
        if reply.get("leaseToken"):
            self._tokens = {"fenceToken": reply["fenceToken"], "leaseToken": reply["leaseToken"]}
        return reply

    def post(self, call: str, body: Any, role: Any = "org_admin") -> Any:
        with self.http(role) as http:
            return http.post(f"/effects/payments/{call}", json=body).json()

    def get(self, path: str, **params: str) -> Any:
        with self.http() as http:
            return http.get(path, params=params).json()

    def lease(self) -> Any:
        return self.at(0).send("LeaseRequestRefund")

    def committed(self) -> Story:
        self.lease()
        self.at(1).send("CommitRequestRefund")
        return self

    def failed(self) -> Story:
        self.lease()
        self.at(1).send("FailRequestDeclined")
        return self

    def in_workflow(self) -> Story:
        self.at(0).send("LeaseRequestStep")
        self.at(1).send("CommitRequestRefund", effectKey=EXAMPLES["LeaseRequestStep"]["effectKey"])
        return self

    def renewed(self) -> Any:
        self.lease()
        return self.at(39).send("RenewRequestRefund")

    def released(self, example: str) -> Any:
        self.lease()
        return self.at(20).send(example)

    def observed(self) -> Any:
        self.lease()
        return self.send("ReportObserveRequestMiss")

    def conflicting(self) -> Any:
        self.lease()
        return self.send("LeaseRequestRefund")

    def overtaken(self) -> Any:
        self.lease()
        theirs = self._tokens
        self.at(61).send("LeaseRequestRefund")
        self._tokens = theirs
        return self.send("CommitRequestRefund")

    def purged(self) -> Any:
        self.committed()
        self._clock.now_ms = int(datetime.fromisoformat("2026-05-01T12:00:00+00:00").timestamp() * 1000)
        self._served.store.purge(Purge("test", before=self._clock.now_ms))
        return self.send("LeaseRequestRefund")

    def oversized(self) -> Any:
        self.lease()
        return self.send("CommitRequestRefund", result="x" * 65_536)


KEY = "refund:order_48392"
REPLIES: dict[str, Callable[[Story], Any]] = {
    "LeaseReplyGranted": Story.lease,
    "LeaseReplyCompleted": lambda story: story.committed().send("LeaseRequestRefund"),
    "LeaseReplyFailed": lambda story: story.failed().send("LeaseRequestRefund"),
    "CommitReplyAccepted": lambda story: (story.lease(), story.send("CommitRequestRefund"))[1],
    "CommitReplyRepeated": lambda story: story.committed().send("CommitRequestRefund"),
    "FailReplyRecorded": lambda story: (story.lease(), story.send("FailRequestDeclined"))[1],
    "FailReplyRepeated": lambda story: story.failed().send("FailRequestDeclined"),
    "RenewReplyRenewed": Story.renewed,
    "ReleaseReplyNotActed": lambda story: story.released("ReleaseRequestNotActed"),
    "ReleaseReplyTimedOut": lambda story: story.released("ReleaseRequestTimedOut"),
    "ReleaseReplyRepeated": lambda story: (
        story.released("ReleaseRequestTimedOut"),
        story.send("ReleaseRequestTimedOut"),
    )[1],
    "ReportObserveReplyReported": Story.observed,
    "ResetReplyReset": lambda story: story.failed().send("ResetRequestDeclined"),
    "ResolveReplyResolved": lambda story: story.failed().send("ResolveRequestFound"),
    "EffectCommitted": lambda story: story.committed().get("/effects/payments/effect", effectKey=KEY),
    "EffectPageOne": lambda story: story.committed().get("/effects"),
    "EventPageTrail": lambda story: story.committed().get("/effects/payments/events", effectKey=KEY),
    "NamespacePageOne": lambda story: story.committed().get("/namespaces"),
    "WorkflowPageOne": lambda story: story.in_workflow().get("/workflows"),
    "CasePageOne": lambda story: story.in_workflow().get("/cases", workflowName="refund_flow"),
    "RunPageOne": lambda story: story.in_workflow().get("/runs", workflowName="refund_flow", caseId="order_123"),
    "StatsOne": lambda story: story.committed().get("/stats"),
    "ProblemInvalidRequest": lambda story: story.post("lease", {}),
    "ProblemUnauthenticated": lambda story: story.send("LeaseRequestRefund", role=None),
    "ProblemForbidden": lambda story: story.send("ResetRequestDeclined", role="agent"),
    "ProblemNotFound": lambda story: story.get("/effects/payments/effect", effectKey=KEY),
    "ProblemLeaseConflict": Story.conflicting,
    "ProblemStaleFence": Story.overtaken,
    "ProblemPurged": Story.purged,
    "ProblemPayloadTooLarge": Story.oversized,
}

REQUESTS: dict[str, Callable[[Story], Any]] = {
    "LeaseRequestRefund": Story.lease,
    "LeaseRequestStep": lambda story: story.send("LeaseRequestStep"),
    "CommitRequestRefund": REPLIES["CommitReplyAccepted"],
    "FailRequestDeclined": REPLIES["FailReplyRecorded"],
    "RenewRequestRefund": Story.renewed,
    "ReleaseRequestNotActed": REPLIES["ReleaseReplyNotActed"],
    "ReleaseRequestTimedOut": REPLIES["ReleaseReplyTimedOut"],
    "ReportObserveRequestMiss": Story.observed,
    "ResetRequestDeclined": REPLIES["ResetReplyReset"],
    "ResetRequestRetry": lambda story: (story.lease(), story.send("ResetRequestRetry"))[1],
    "ResolveRequestFound": REPLIES["ResolveReplyResolved"],
}


@pytest.fixture(scope="module")
def on_postgres(postgres_server: PostgresServer) -> Iterator[tuple[ServedLedger, TestClock, str]]:
    """One ledger for all stories there: a database of its own would take each of them longer than the story."""
    url = postgres_server.create_database()
    clock = make_clock(url)
    with ServedLedger(url, clock=clock) as served:
        yield served, clock, url


@pytest.fixture(params=["sqlite", "postgres"])
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    if request.param == "postgres":
        served, clock, url = request.getfixturevalue("on_postgres")
        execute(url, "TRUNCATE effects, events, api_keys")
        yield Story(served, clock)
        return
    clock = TestClock(NOON)
    with ServedLedger(clock=clock) as served:
        yield Story(served, clock)


def masked(value: Any) -> Any:
    """The value without what each ledger makes anew; each in its documented form, though."""
    if isinstance(value, list):
        return [masked(item) for item in value]
    if not isinstance(value, dict):
        return value
    forms = {"effectId": r"eff_\w{16}", "leaseToken": r"[\w-]{10,}", "requestId": r"req_\w+"}
    value = {name: masked(item) for name, item in value.items()}
    for name in forms.keys() & value.keys():
        assert value[name] is None or re.fullmatch(forms[name], value[name])
        value[name] = value[name] and forms[name]
    return value


@pytest.mark.parametrize("name", REPLIES)
def test_a_ledger_answers_with_the_example(name: str, story: Story) -> None:
    assert masked(REPLIES[name](story)) == masked(EXAMPLES[name])


@pytest.mark.parametrize("name", REQUESTS)
def test_a_ledger_takes_the_example(name: str, story: Story) -> None:
    reply = REQUESTS[name](story)
    assert "error" not in reply
    assert reply["status"] in (
        "granted",
        "accepted",
        "recorded",
        "renewed",
        "reported",
        "released",
        "reset",
        "resolved",
    )


def test_no_example_is_left_out() -> None:
    assert sorted([*REPLIES, *REQUESTS]) == sorted(EXAMPLES)


def test_the_examples_of_parameters(story: Story) -> None:
    """The paths and queries that they make are those of the examples above, or name an effect that is not there."""
    story.in_workflow()
    parameters = SPEC["components"]["parameters"].values()
    examples = {each["name"]: each["example"] for each in parameters if "example" in each}
    assert examples == {"namespace": "payments", "effectKey": KEY, "workflowName": "refund_flow", "caseId": "order_123"}
    del examples["namespace"], examples["effectKey"]
    assert [run["runId"] for run in story.get("/runs", **examples)["items"]] == ["run_1"]
    by_id = SPEC["paths"]["/effect-ids/{effectId}"]["get"]["parameters"][0]["example"]
    assert story.get(f"/effect-ids/{by_id}")["error"]["code"] == "effect_not_found"
