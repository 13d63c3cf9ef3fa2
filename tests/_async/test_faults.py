"""The network loses things and the ledger has bad moments: nothing acts twice, no result is lost."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers._async.faulty_transport import LOSE_ANSWER, LOSE_REQUEST, Says
from tests.helpers._async.world import AsyncWorld
from verity import (
    CommitUncertainError,
    EffectPreviouslyFailedError,
    VerityApiError,
    VerityConnectionError,
    VerityValidationError,
)

TRANSIENT = [
    LOSE_REQUEST,
    LOSE_ANSWER,
    Says(408),
    Says(425, b"{}"),
    Says(429, b'{"error": "slow down"}'),
    Says(500, b"<html>oops</html>"),
    Says(502, b"\xff\xfe"),
    Says(503, b"[]"),
    Says(520, b'{"error": {"code": 7}}'),
    Says(599, b"null"),
]


@pytest.mark.parametrize("fault", TRANSIENT, ids=str)
@pytest.mark.parametrize("operation", ["lease", "commit"])
async def test_two_transient_faults_are_survived(world: AsyncWorld, operation: str, fault: Any) -> None:
    world.network.faults[operation] = [fault, fault]
    assert await world.client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]
    assert world.network.operations().count(operation) == 3
    assert world.runtime.slept == [0.2, 0.4]
    assert (await world.effect())["fenceToken"] == 1, "a repeated lease request gets the same grant"


async def test_a_lease_request_is_sent_again_with_the_same_idempotency_key(world: AsyncWorld) -> None:
    world.network.faults["lease"] = [LOSE_ANSWER]
    await world.client.protect(world.key, act=world.act)
    first, second, _ = world.network.sent
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    await world.client.protect(world.key, act=world.act)
    assert world.network.sent[-1].headers["idempotency-key"] != first.headers["idempotency-key"]


@pytest.mark.parametrize("fault", TRANSIENT, ids=str)
async def test_no_lease_after_three_attempts_means_that_nothing_was_done(world: AsyncWorld, fault: Any) -> None:
    world.network.faults["lease"] = [fault] * 3
    expected = VerityApiError if isinstance(fault, Says) else VerityConnectionError
    with pytest.raises(expected) as caught:
        await world.client.protect(world.key, act=world.act)
    assert type(caught.value) is expected
    assert caught.value.effect_key == world.key
    assert world.network.operations() == ["lease"] * 3
    assert not world.acts


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 418, 422, 499, 301, 304])
async def test_a_definite_refusal_is_not_repeated(world: AsyncWorld, status: int) -> None:
    world.network.faults["lease"] = [Says(status, b"<html>no</html>")]
    with pytest.raises(VerityApiError) as caught:
        await world.client.protect(world.key, act=world.act)
    assert caught.value.status_code == status
    assert caught.value.code is None
    assert world.network.operations() == ["lease"]


async def test_what_a_server_says_is_shown_without_an_api_key(world: AsyncWorld) -> None:
    problem = b'{"error": {"code": "unauthenticated", "message": "vt_live_s3-cr_et is\\nunknown"}}'
    world.network.faults["lease"] = [Says(401, problem)]
    with pytest.raises(VerityApiError, match=r"\(unauthenticated: vt_live_… is unknown\)") as caught:
        await world.client.protect(world.key, act=world.act)
    assert caught.value.message == "vt_live_… is unknown"


async def test_what_a_server_says_in_place_of_a_code_is_cut_and_cleaned_too(world: AsyncWorld) -> None:
    problem = b'{"error": {"code": "vt_live_s3-cr_et\\n' + b"x" * 100_000 + b'"}}'
    world.network.faults["lease"] = [Says(401, problem)]
    with pytest.raises(VerityApiError, match=r"\(vt_live_… x") as caught:
        await world.client.protect(world.key, act=world.act)
    assert len(str(caught.value)) < 500
    assert len(caught.value.code or "") == 300


async def test_retry_after_is_honoured_but_not_beyond_the_longest_delay(world: AsyncWorld) -> None:
    world.network.faults["commit"] = [Says(503, headers={"retry-after": "3"}), Says(503, headers={"retry-after": "99"})]
    await world.client.protect(world.key, act=world.act)
    assert world.runtime.slept == [3.0, 15.0]


async def test_a_retry_after_that_makes_no_sense_loses_no_result(world: AsyncWorld) -> None:
    never = {"retry-after": "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"}
    world.network.faults["commit"] = [Says(503, headers=never)]
    assert await world.client.protect(world.key, act=world.act) == {"refund": "re_1"}
    assert world.network.operations() == ["lease", "commit", "commit"]


# --- the commit is not confirmed ---


@pytest.mark.parametrize("fault", TRANSIENT, ids=str)
async def test_an_unconfirmed_commit_is_uncertain_and_never_a_failure(world: AsyncWorld, fault: Any) -> None:
    world.network.faults["commit"] = [fault] * 100
    with pytest.raises(CommitUncertainError, match="not confirmed") as caught:
        await world.client.protect(world.key, observe=world.find, act=world.act)
    error = caught.value
    assert error.effect_key == world.key
    assert error.result == {"refund": "re_1"}
    assert isinstance(error.commit_error, (VerityApiError, VerityConnectionError))
    assert error.__cause__ is error.commit_error
    assert error.request_id, "of the lease where the commit got no answer"
    assert "fail" not in world.network.operations()
    assert "re_1" not in str(error)
    assert "re_1" not in repr(error)
    world.network.faults.clear()
    world.clock.advance(30_000)
    assert await world.client.protect(world.key, observe=world.find, act=world.act) == {"refund": "re_1"}
    assert world.acts == [world.key]


async def test_a_commit_that_is_refused_is_uncertain_at_once(world: AsyncWorld) -> None:
    async def act_too_slowly() -> dict[str, str]:
        world.clock.advance(30_000)
        await world.client.request_lease("payments", {"effectKey": world.key})
        return await world.act()

    client = world.new_client(auto_renew=False)
    with pytest.raises(CommitUncertainError) as caught:
        await client.protect(world.key, act=act_too_slowly)
    assert isinstance(caught.value.commit_error, VerityApiError)
    assert caught.value.commit_error.code == "stale_fence"
    assert caught.value.request_id == caught.value.commit_error.request_id
    assert world.network.operations() == ["lease", "lease", "commit"]


@pytest.mark.parametrize("answer", [b"", b"<html>welcome</html>", b"[]", b"{}", b'"accepted"', b'{"status": 1}'])
async def test_a_success_that_cannot_be_understood_confirms_nothing(world: AsyncWorld, answer: bytes) -> None:
    world.network.faults["commit"] = [Says(200, answer)] * 100
    with pytest.raises(CommitUncertainError) as caught:
        await world.client.protect(world.key, act=world.act)
    assert isinstance(caught.value.commit_error, VerityApiError)
    assert caught.value.commit_error.code == "invalid_response"


async def test_an_observed_result_whose_commit_fails_is_uncertain_and_does_not_act(world: AsyncWorld) -> None:
    await world.crash_after_act()
    world.network.faults["commit"] = [LOSE_REQUEST] * 100
    with pytest.raises(CommitUncertainError, match="observe found") as caught:
        await world.client.protect(world.key, observe=world.find, act=world.act, on_observe_error="act")
    assert caught.value.result == {"refund": "re_1"}
    assert world.acts == [world.key]


class Evil(dict[str, Any]):
    """A result whose code raises while it is read."""

    def items(self) -> Any:
        raise RuntimeError("boo")


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _circular() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


NOT_JSON = {
    "object": object(),
    "bytes": b"x",
    "set": {1},
    "nan": float("nan"),
    "inf": {"a": [float("-inf")]},
    "surrogate": "a\udc80",
    "surrogate key": {"a\udc80": 1},
    "int key": {1: "a"},
    "tuple key": {(1, 2): "a"},
    "circular": _circular(),
    "deep": _nested(10_000),
    "huge int": 10**5000,
    "evil": Evil(a=1),
    "too large": "x" * 65_535,
    "too large in bytes": "日" * 21_845,
}


@pytest.mark.parametrize("result", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_a_result_that_cannot_be_recorded_is_uncertain_and_kept(world: AsyncWorld, result: Any) -> None:
    async def act() -> Any:
        world.acts.append("once")
        return result

    with pytest.raises(CommitUncertainError) as caught:
        await world.client.protect(world.key, act=act)
    assert caught.value.result is result
    assert isinstance(caught.value.commit_error, VerityValidationError)
    assert str(caught.value.commit_error).startswith("result")
    assert world.network.operations() == ["lease"]


@pytest.mark.parametrize("result", ["日" * 12_000, "x" * 65_534, "日" * 21_844, _nested(200)], ids=lambda _: "fits")
async def test_the_largest_results_fit(world: AsyncWorld, result: Any) -> None:
    """36 KB of Japanese is 36 KB, not 72 KB of escapes; 65,536 bytes are allowed."""
    assert await world.client.protect(world.key, act=lambda: result) == result
    assert await world.client.protect(world.key, act=world.act) == result


# --- the failure is not recorded ---


async def test_fail_is_tried_three_times(world: AsyncWorld) -> None:
    world.network.faults["fail"] = [LOSE_ANSWER, Says(500)]
    with pytest.raises(ZeroDivisionError) as caught:
        await world.client.protect(world.key, act=lambda: 1 // 0)
    assert not getattr(caught.value, "__notes__", [])
    assert world.network.operations() == ["lease", "fail", "fail", "fail"]
    with pytest.raises(EffectPreviouslyFailedError):
        await world.client.protect(world.key, act=world.act)


async def test_a_failure_that_is_not_recorded_comes_out_with_a_note(world: AsyncWorld) -> None:
    world.network.faults["fail"] = [LOSE_REQUEST] * 3
    with pytest.raises(ZeroDivisionError) as caught:
        await world.client.protect(world.key, act=lambda: 1 // 0)
    (note,) = caught.value.__notes__  # type: ignore[attr-defined]  # Python 3.11 on
    assert world.key in note
    assert "could not record" in note


# --- whatever a transport raises ---


class Odd(Exception):
    """Nothing that httpx knows."""


@pytest.mark.parametrize(
    "error", [OSError("disk"), RuntimeError("closed"), Odd("?"), UnicodeDecodeError("utf-8", b"", 0, 1, "x")]
)
async def test_whatever_a_transport_raises_is_a_lost_answer(world: AsyncWorld, error: Exception) -> None:
    def fault() -> None:
        raise error

    world.network.faults["lease"] = [fault] * 3
    with pytest.raises(VerityConnectionError, match=type(error).__name__) as caught:
        await world.client.protect(world.key, act=world.act)
    assert caught.value.__cause__ is error
