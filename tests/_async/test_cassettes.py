"""The client against what a real ledger answered once: it sends the same, and makes the same of the answers.

Each scenario runs against the answers of the present ledger and against those of an older one, which knows no
`release` and no `attemptKey`. The transport is the client's own, so these tests also prove that vcrpy sees it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.helpers._async.virtual_runtime import AsyncVirtualRuntime
from tests.helpers.cassettes import BASE_URL, CASSETTES, OLDER, RECORDING, cassette
from tests.helpers.served_ledger import ServedLedger, TestClock
from verity import (
    CommitRequestBody,
    CommitUncertainError,
    ConflictRetryConfig,
    EffectPreviouslyFailedError,
    FailRequestBody,
    LeaseConflictError,
    NotExecuted,
    OutcomeUnknownError,
    ReleaseRequestBody,
    RenewRequestBody,
    ReportObserveBody,
    VerityApiError,
    VerityClient,
)

only_present = pytest.mark.parametrize("played", [CASSETTES], indirect=True, ids=lambda directory: directory.name)
only_older = pytest.mark.parametrize("played", [OLDER], indirect=True, ids=lambda directory: directory.name)
REFUND = {"refund_id": "re_1", "note": "返金"}


class Played:
    """A client that talks to the cassette, and its time."""

    def __init__(self, client: VerityClient, clock: TestClock, runtime: AsyncVirtualRuntime) -> None:
        self.client, self.clock, self.runtime = client, clock, runtime
        self.acts = 0

    async def act(self) -> dict[str, str]:
        self.acts += 1
        return REFUND

    async def decline(self) -> None:
        raise LookupError("card expired")


@pytest.fixture(params=[CASSETTES, OLDER], ids=lambda directory: directory.name)
async def played(request: pytest.FixtureRequest) -> AsyncIterator[Played]:
    if RECORDING and request.param == OLDER:
        pytest.skip("the older ledger has been recorded")
    clock = TestClock()
    runtime = AsyncVirtualRuntime(clock)
    with ExitStack() as stack:
        base_url, api_key = BASE_URL, "vt_test_any"
        if RECORDING:
            served = stack.enter_context(ServedLedger(clock=clock))
            base_url, api_key = served.base_url, served.create_key()
        tape = stack.enter_context(cassette(request.node.originalname.removeprefix("test_"), request.param))
        retry = ConflictRetryConfig(wait=False)  # the ledger would hold requests in real time
        async with VerityClient(base_url, api_key, "payments", conflict_retry=retry, _runtime=runtime) as client:
            yield Played(client, clock, runtime)
        assert RECORDING or tape.all_played, "the client sent less than it did"


async def test_protect_acts_once(played: Played) -> None:
    for _ in range(2):
        result = await played.client.protect(
            "refund:1", act=played.act, effect_name="stripe.refund", agent_id="worker-7", input_json={"order": 1}
        )
        assert result == REFUND
    assert played.acts == 1


async def test_protect_after_a_crash(played: Played) -> None:
    async def find() -> dict[str, str] | None:
        return REFUND

    await played.client.request_lease("payments", {"effectKey": "refund:1", "leaseDurationMs": 5000})
    played.clock.advance(5000)
    leases: list[Any] = []
    assert await played.client.protect("refund:1", observe=find, act=played.act, on_lease=leases.append) == REFUND
    assert [lease.prior_state for lease in leases] == ["expired"]
    assert played.acts == 0


async def test_protect_waits_for_another_holder(played: Played) -> None:
    lease = await played.client.request_lease("payments", {"effectKey": "refund:1"})
    tokens: Any = {"effect_key": "refund:1", "fence_token": 1, "lease_token": lease.lease_token}

    async def commit() -> None:
        await played.client.commit("payments", CommitRequestBody(**tokens, result=REFUND))

    played.runtime.call_later(1.5, commit)
    assert await played.client.protect("refund:1", act=played.act) == REFUND
    assert played.acts == 0
    assert len(played.runtime.slept) > 1


async def test_protect_gives_up_on_another_holder(played: Played) -> None:
    await played.client.request_lease("payments", {"effectKey": "refund:1"})
    with pytest.raises(LeaseConflictError) as caught:
        await played.client.protect("refund:1", act=played.act, on_conflict="throw")
    assert (caught.value.status_code, caught.value.code) == (409, "lease_conflict")
    assert caught.value.request_id == "req_1" or RECORDING


async def test_protect_of_what_failed(played: Played) -> None:
    with pytest.raises(LookupError):
        await played.client.protect("refund:1", act=played.decline)
    with pytest.raises(EffectPreviouslyFailedError) as caught:
        await played.client.protect("refund:1", act=played.act)
    assert caught.value.cached_error["message"] == "card expired"
    assert played.acts == 0


async def test_protect_overtaken(played: Played) -> None:
    async def act_for_too_long() -> str:
        played.clock.advance(5000)
        await played.client.request_lease("payments", {"effectKey": "refund:1"})
        return "done"

    with pytest.raises(CommitUncertainError) as caught:
        await played.client.protect("refund:1", act=act_for_too_long, lease_duration_ms=5000)
    assert isinstance(caught.value.commit_error, VerityApiError)
    assert caught.value.commit_error.code == "stale_fence"


async def test_workflow(played: Played) -> None:
    run = played.client.workflow("refund_flow").case("order_123").run(run_id="run_1", agent_id="worker-7")
    assert await run.protect("validate_order", act=played.act) == REFUND
    assert await run.protect("process_refund", act=played.act, key_suffix="2") == REFUND
    assert played.acts == 2


async def test_low_level_calls(played: Played) -> None:
    client = played.client
    lease = await client.request_lease("mail", {"effectKey": "mail:1", "inputJson": None})
    tokens: Any = {"effect_key": "mail:1", "fence_token": lease["fenceToken"], "lease_token": lease["leaseToken"]}
    observed = ReportObserveBody(**tokens, hit=False, duration_ms=7)
    assert (await client.report_observe("mail", observed)).status == "reported"
    assert (await client.renew("mail", RenewRequestBody(**tokens, extension_ms=60_000))).status == "renewed"
    commit = CommitRequestBody(**tokens, result=None, source="acted")
    assert (await client.commit("mail", commit)).status == "accepted"
    assert (await client.commit("mail", commit)).status == "already_committed"
    with pytest.raises(VerityApiError) as caught:
        await client.fail("mail", FailRequestBody(**tokens, error={"message": "late"}))
    assert (caught.value.status_code, caught.value.code) == (409, "effect_finished")
    cached = await client.request_lease("mail", {"effectKey": "mail:1"})
    assert (cached.status, cached.cached_result, cached.lease_token) == ("cached_completed", None, None)


async def test_low_level_refusals(played: Played) -> None:
    tokens: Any = {"effect_key": "mail:1", "fence_token": 1, "lease_token": "lease-token-0"}
    with pytest.raises(VerityApiError) as caught:
        await played.client.commit("mail", CommitRequestBody(**tokens, result=1))
    assert (caught.value.status_code, caught.value.code) == (404, "effect_not_found")
    lease = await played.client.request_lease("mail", {"effectKey": "mail:1"})
    tokens["lease_token"] = lease["leaseToken"]
    assert (await played.client.fail("mail", FailRequestBody(**tokens, error="bounced"))).status == "recorded"
    assert (await played.client.fail("mail", FailRequestBody(**tokens, error="bounced"))).status == "already_failed"
    with pytest.raises(VerityApiError) as caught:
        await played.client.commit("mail", CommitRequestBody(**tokens, result=1))
    assert (caught.value.status_code, caught.value.code) == (409, "effect_finished")


@only_present
async def test_low_level_release(played: Played) -> None:
    client = played.client
    lease = await client.request_lease("mail", {"effectKey": "mail:1"})
    tokens: Any = {"effect_key": "mail:1", "fence_token": 1, "lease_token": lease["leaseToken"]}
    for status in ("released", "already_released"):
        assert (await client.release("mail", ReleaseRequestBody(**tokens, acted="no"))).status == status
    again = await client.request_lease("mail", {"effectKey": "mail:1"})
    assert (again.prior_state, again.attempt, again.attempt_key) == ("none", 2, lease.attempt_key)
    tokens |= {"fence_token": 2, "lease_token": again["leaseToken"]}
    release = ReleaseRequestBody(**tokens, acted="unknown", settle_ms=5000)
    assert (await client.release("mail", release)).status == "released"
    with pytest.raises(LeaseConflictError):
        await client.request_lease("mail", {"effectKey": "mail:1"})
    played.clock.advance(5000)
    assert (await client.request_lease("mail", {"effectKey": "mail:1"})).prior_state == "expired"


# An older ledger answers a release with 404. The lease expires by itself, and the caller hears of what it waits for.


@only_older
async def test_release_of_what_is_in_doubt(played: Played) -> None:
    await played.client.request_lease("payments", {"effectKey": "refund:1", "leaseDurationMs": 5000})
    played.clock.advance(5000)
    with pytest.raises(OutcomeUnknownError):
        await played.client.protect("refund:1", act=played.act)
    assert played.acts == 0


@only_older
async def test_release_of_what_did_not_happen(played: Played) -> None:
    async def refuse() -> None:
        raise NotExecuted("the card has no number")

    with pytest.raises(NotExecuted, match="no number"):
        await played.client.protect("refund:1", act=refuse)


@only_older
async def test_release_of_what_may_have_happened(played: Played) -> None:
    async def time_out() -> None:
        raise TimeoutError("no answer from the bank")

    with pytest.raises(TimeoutError, match="the bank"):
        await played.client.protect("refund:1", act=time_out)
