"""What users write, as a type checker sees it: mypy and pyright must both agree with every `assert_type` here."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from verity import (
    CommitRequestBody,
    CommitUncertainError,
    ConflictRetryConfig,
    EffectEvent,
    EffectRecord,
    Found,
    LeaseRequestBody,
    LeaseResponse,
    Page,
    SyncVerityClient,
    VerityClient,
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


def settings() -> VerityClient:
    return VerityClient(
        base_url="https://api.useverity.io/v1",
        api_key="vt_test_x",
        conflict_retry=ConflictRetryConfig(max_attempts=3),
    )


def errors(error: CommitUncertainError) -> tuple[str | None, Any]:
    return error.effect_key, error.result


async def wrong(verity: VerityClient, sync: SyncVerityClient) -> None:
    """Each of these must be rejected: an ignore that is not needed is an error of its own."""
    await verity.protect("k", act=make_refund())  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await verity.protect("k")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await verity.protect("k", act=make_refund, on_conflict="explode")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    verity.effects.list(status="LOST")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sync.protect("k", act=make_refund_sync, lease_duration_ms="60s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
