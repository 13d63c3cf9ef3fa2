"""What users write, as a type checker sees it: mypy and pyright must both agree with every `assert_type` here."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from verity import (
    CommitRequestBody,
    CommitUncertainError,
    ConflictRetryConfig,
    CurrentEffect,
    EffectEvent,
    EffectPolicy,
    EffectRecord,
    Found,
    LeaseLost,
    LeaseRequestBody,
    LeaseResponse,
    NotExecuted,
    OutcomeUnknown,
    OutcomeUnknownError,
    Page,
    ReleaseRequestBody,
    ReleaseResponse,
    SyncVerityClient,
    VerityClient,
    current_effect,
)

if sys.version_info >= (3, 11):
    from typing import assert_type
else:
    from typing_extensions import assert_type


class Refund(dict[str, str]):
    """A result of the user's own."""


async def make_refund() -> Refund:
    return Refund(id="re_1")


def make_refund_sync() -> Refund:
    return Refund(id="re_1")


async def find_refund() -> Refund | None:
    return None


async def count(start: int) -> int:
    return start


async def list_refunds() -> Found[list[Refund]] | None:
    return Found([])


async def async_colour(verity: VerityClient) -> None:
    assert_type(await verity.protect("k", act=make_refund), Refund)
    assert_type(await verity.protect("k", act=make_refund_sync), Refund)
    assert_type(await verity.protect("k", observe=find_refund, act=make_refund), Refund)
    assert_type(await verity.protect("k", observe=lambda: None, act=make_refund), Refund)
    assert_type(await verity.protect("k", observe=list_refunds, act=make_refund), Refund)
    assert_type(await verity.protect("k", observe=lambda: Found(None), act=make_refund), Refund)
    assert_type(Found(1).value, int)
    assert_type(await verity.protect("k", act=partial(count, 1)), int)
    assert_type(await verity.protect("k", act=lambda: count(1)), int)
    run = verity.workflow("refund_flow").case("order_1").run()
    assert_type(await run.protect("step", act=make_refund), Refund)
    lease = await verity.request_lease("payments", LeaseRequestBody(effect_key="k"))
    assert_type(lease, LeaseResponse)
    assert_type(lease.fence_token, int | None)
    token: int = lease["fenceToken"]
    await verity.commit("payments", CommitRequestBody(effect_key="k", fence_token=token, lease_token="t", result=None))
    await verity.commit("payments", {"effectKey": "k", "fenceToken": token, "leaseToken": "t", "result": None})


def sync_colour(verity: SyncVerityClient) -> None:
    assert_type(verity.protect("k", act=make_refund_sync), Refund)
    assert_type(verity.protect("k", observe=lambda: None, act=lambda: 7), int)
    run = verity.workflow("refund_flow").case("order_1").run()
    assert_type(run.protect("step", act=make_refund_sync), Refund)


async def reads(verity: VerityClient, sync: SyncVerityClient) -> None:
    async for effect in verity.effects.list(status="EXPIRED"):
        assert_type(effect, EffectRecord)
        assert_type(effect.effect_key, str | None)
    async for page in verity.effects.events("k").pages():
        assert_type(page, Page[EffectEvent])
    assert_type(await verity.effects.get("k"), EffectRecord)
    assert_type(list(sync.effects.list()), list[EffectRecord])
    assert_type([event.type for page in sync.effects.events("k").pages() for event in page], list[str])


async def what_act_knows() -> str:
    effect = current_effect()
    assert_type(effect, CurrentEffect | None)
    if effect is None:
        raise NotExecuted("not inside act")
    assert_type(effect.effect_id, str | None)
    assert_type(effect.fence_token, int)
    assert_type(effect.attempt, int)
    assert_type(effect.deadline, float)
    assert_type(effect.remaining_s(), float)
    assert_type(effect.lease_lost, LeaseLost)
    if effect.lease_lost.is_set() or effect.lease_lost.wait(0.1) or await effect.lease_lost.wait_async():
        raise OutcomeUnknown("stopped halfway")
    assert_type(effect.idempotency_key, str)
    return effect.idempotency_key


async def unknown_outcomes(verity: VerityClient, sync: SyncVerityClient) -> None:
    policy = EffectPolicy(on_unknown="act", ambiguous=(TimeoutError,), definite=(LookupError,), settle_s=5)
    assert_type(await verity.protect("k", act=make_refund, policy=policy), Refund)
    assert_type(sync.protect("k", act=make_refund_sync, policy=policy), Refund)
    assert_type(await verity.workflow("w").case("c").run(policy=policy).protect("s", act=what_act_knows), str)
    assert_type(sync.workflow("w").case("c").run(policy=policy).protect("s", act=make_refund_sync), Refund)
    body = ReleaseRequestBody(effect_key="k", fence_token=1, lease_token="t", acted="no")
    assert_type(await verity.release("payments", body), ReleaseResponse)
    assert_type(sync.release("payments", body).settles_at, str | None)


def settings() -> VerityClient:
    return VerityClient(
        base_url="https://api.useverity.io/v1",
        api_key="vt_test_x",
        conflict_retry=ConflictRetryConfig(max_attempts=3),
        policy=EffectPolicy(on_unavailable="proceed"),
        spool=Path("verity.spool"),
        spool_when="always",
    )


def errors(error: CommitUncertainError, unknown: OutcomeUnknownError) -> tuple[str | None, Any, bool, int | None]:
    return error.effect_key, error.result, error.spooled, unknown.fence_token


async def wrong(verity: VerityClient, sync: SyncVerityClient) -> None:
    """Each of these must be rejected: an ignore that is not needed is an error of its own."""
    await verity.protect("k", act=make_refund())  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await verity.protect("k")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await verity.protect("k", act=make_refund, on_conflict="explode")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await verity.protect("k", act=make_refund, policy="act")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    EffectPolicy(on_unknown="raise")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SyncVerityClient(spool=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    verity.effects.list(status="LOST")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sync.protect("k", act=make_refund_sync, lease_duration_ms="60s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
