"""An act or observe of the async client that returns something to await, as where an `await` was forgotten."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from verity import EffectPolicy, EffectPreviouslyFailedError, ObserveFailedError, VerityClient, VerityValidationError

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class _Awaitable:
    """One that is no coroutine."""

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def __await__(self) -> Any:
        yield from anyio.lowlevel.checkpoint().__await__()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


async def _coroutine(outcome: Any) -> Any:
    return await _Awaitable(outcome)


@pytest.mark.parametrize("inner", [_Awaitable, _coroutine])
async def test_what_act_returns_to_await_is_a_part_of_act(tmp_path: Path, inner: Any) -> None:
    async def act(outcome: Any) -> Any:
        return inner(outcome)

    async with VerityClient(f"sqlite:///{tmp_path}/v.db", namespace="n") as client:
        assert await client.protect("works", act=lambda: act([7])) == [7]
        with pytest.raises(LookupError):
            await client.protect("fails", act=lambda: act(LookupError("declined")))
        with pytest.raises(EffectPreviouslyFailedError):
            await client.protect("fails", act=lambda: act(7))

        async def itself() -> Any:
            return client.protect("itself", act=lambda: 1)

        with pytest.raises(VerityValidationError, match="inside its own act"):
            await client.protect("itself", act=itself)


@pytest.mark.parametrize("inner", [_Awaitable, _coroutine])
async def test_what_observe_returns_to_await_is_a_part_of_observe(tmp_path: Path, inner: Any) -> None:
    async def observe() -> Any:
        return inner(LookupError("no answer"))

    always = EffectPolicy(observe_when="always")
    async with VerityClient(f"sqlite:///{tmp_path}/v.db", namespace="n", policy=always) as client:
        with pytest.raises(ObserveFailedError):
            await client.protect("observe", act=lambda: 1, observe=observe)
        assert await client.protect("act", act=lambda: 2, observe=observe, on_observe_error="act") == 2


async def test_an_act_that_refuses_its_arguments_has_not_failed(tmp_path: Path) -> None:
    async def act(given: int, missing: int) -> int:
        return given + missing

    async with VerityClient(f"sqlite:///{tmp_path}/v.db", namespace="n") as client:
        wrong: Any = partial(act, 1)
        with pytest.raises(TypeError, match="missing"):
            await client.protect("refused", act=wrong)
        assert (await client.effects.get("refused")).status == "EXPIRED", "it is not certain that it did nothing"
