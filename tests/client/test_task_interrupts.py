"""An exception that a signal's handler raises in the thread of an event loop that uses the async client.

Between an act's end and its record it may come up in any step of Verity's: at one of them in each run. In callbacks of
the event loop itself nothing helps: the loop swallows what they raise, or ends.
"""

from __future__ import annotations

import gc
import opcode
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import httpx
import pytest

from tests.helpers.served_ledger import ServedLedger
from tests.steps.__main__ import Injector, Interrupt
from verity import EffectPolicy, EffectPreviouslyFailedError, SyncVerityClient, VerityApiError, VerityClient

ALWAYS = EffectPolicy(observe_when="always")
BACKENDS = ("asyncio", "trio")
EVERY = 29
"""All points take a minute."""
_CALLBACKS = ("settle", "wake", "_fire", "_call_in", "wait_then_call")


@pytest.fixture(scope="module")
def ledger() -> Iterator[ServedLedger]:
    with ServedLedger() as served:
        yield served


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    def interrupt(signum: int, frame: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


class _Points(Injector):
    """Leaves out where CPython does not look: a coroutine that goes on, and callbacks, of which nothing is promised."""

    def _meet(self, frame: FrameType) -> None:
        code = frame.f_code
        at = max(frame.f_lasti, 0)
        goes_on = code.co_code[at] == opcode.opmap.get("RESUME") and code.co_code[at + 1] & 3 >= 2
        if not goes_on and code.co_name not in _CALLBACKS:
            super()._meet(frame)


def _run(backend: str, fn: Callable[[], Any]) -> BaseException | None:
    try:
        anyio.run(fn, backend=backend)
    except BaseException as error:  # noqa: BLE001 - it is the outcome
        return error
    return None


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 looks for signals where no code can be ready")
@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("in_thread", [False, True], ids=["async act", "sync act"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_act_did_is_recorded_at_every_step(backend: str, tmp_path: Path, *, in_thread: bool, fails: bool) -> None:
    url = f"sqlite:///{tmp_path}/steps.db"
    with SyncVerityClient(url, namespace="n") as later:
        later.protect("first", act=lambda: 1)
        points, at = _Points(0), 1
        while points.where != "nowhere" or at == 1:
            key, acts, points = f"step-{at}", list[str](), _Points(at)

            def act(key: str = key, acts: list[str] = acts) -> str:
                acts.append(key)
                if fails:
                    raise LookupError(key)
                return key

            async def async_act(act: Callable[[], str] = act) -> str:
                return act()

            async def protect(key: str = key, act: Any = act if in_thread else async_act, points: Any = points) -> None:
                async with VerityClient(url, namespace="n") as client:
                    await client.protect("first", act=act)
                    sys.settrace(points.trace)
                    try:
                        await client.protect(key, act=act)
                    finally:
                        sys.settrace(None)

            outcome = _run(backend, protect)
            sys.settrace(None)
            try:
                status = later.effects.get(key).status
            except VerityApiError:
                status = "NONE"
            expected = ("FAILED" if fails else "COMMITTED",) if acts else ("NONE", "RUNNING", "IDLE", "EXPIRED")
            if fails and acts and "steps.py" in points.where:
                expected = (*expected, "EXPIRED")  # act's own exception does not come out of the step
            about = f"{status}: {outcome!r} at {points.where}"
            assert len(acts) <= 1, about
            assert status in expected, about
            at += EVERY
    gc.collect()  # coroutines that never ran are in cycles: this test ignores their warnings, a later one would not


class _Signalling(httpx.AsyncHTTPTransport):
    """Sends this process a signal inside the first request of one kind."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self._operation: str | None = operation

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(f"/{self._operation}"):
            self._operation = None
            signal.raise_signal(signal.SIGUSR1)
        return await super().handle_async_request(request)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("source", ["acted", "observed"])
def test_a_commit_is_finished_though_a_handler_raised_in_it(ledger: ServedLedger, backend: str, source: str) -> None:
    key, name = ledger.create_key(), f"commit-{backend}-{source}"

    async def protect() -> None:
        async with _Signalling("commit") as transport:
            client = VerityClient(ledger.base_url, key, "n", transport=transport)
            observe = (lambda: 1) if source == "observed" else None
            await client.protect(name, act=lambda: 1, observe=observe, policy=ALWAYS)

    assert isinstance(_run(backend, protect), Interrupt)
    with SyncVerityClient(ledger.base_url, key, "n") as later:
        assert later.effects.get(name).source == source


class _Interrupted(Exception):
    """The signal comes while it is described, once."""

    def __init__(self) -> None:
        super().__init__("declined")
        self.is_described = False

    def __str__(self) -> str:
        if not self.is_described:
            self.is_described = True
            signal.raise_signal(signal.SIGUSR1)
        return "declined"


def _decline() -> None:
    raise _Interrupted


@pytest.mark.parametrize("backend", [*BACKENDS, "sync"])
def test_a_failure_is_recorded_though_an_interrupt_comes_before_that(ledger: ServedLedger, backend: str) -> None:
    key, name = ledger.create_key(), f"fail-{backend}"
    with SyncVerityClient(ledger.base_url, key, "n") as client:

        async def protect() -> None:
            async with VerityClient(ledger.base_url, key, "n") as client:
                await client.protect(name, act=_decline)

        if backend == "sync":
            with pytest.raises(Interrupt):
                client.protect(name, act=_decline)
        else:
            assert isinstance(_run(backend, protect), Interrupt)
        with pytest.raises(EffectPreviouslyFailedError) as failed:
            client.protect(name, act=lambda: 1)
        assert failed.value.cached_error["message"] == "declined"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_handlers_exception_inside_act_leaves_the_outcome_unknown(ledger: ServedLedger, backend: str) -> None:
    key, name = ledger.create_key(), f"inside-{backend}"

    async def act() -> None:
        await anyio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGUSR1)

    async def protect() -> None:
        async with VerityClient(ledger.base_url, key, "n") as client:
            await client.protect(name, act=act)

    assert isinstance(_run(backend, protect), Interrupt)
    with SyncVerityClient(ledger.base_url, key, "n") as later:
        assert later.effects.get(name).status == "EXPIRED"


@pytest.mark.parametrize("backend", [*BACKENDS, "sync"])
@pytest.mark.parametrize("on_observe_error", ["raise", "act"])
def test_a_handlers_exception_comes_out_of_observe(ledger: ServedLedger, backend: str, on_observe_error: Any) -> None:
    acts: list[int] = []
    arguments: dict[str, Any] = {
        "act": lambda: acts.append(1),
        "on_observe_error": on_observe_error,
        "policy": ALWAYS,
    }
    key, name = ledger.create_key(), f"observe-{backend}-{on_observe_error}"

    async def observe() -> None:
        signal.raise_signal(signal.SIGUSR1)

    async def protect() -> None:
        async with VerityClient(ledger.base_url, key, "n") as client:
            await client.protect(name, observe=observe, **arguments)

    if backend == "sync":
        with SyncVerityClient(ledger.base_url, key, "n") as client, pytest.raises(Interrupt):
            client.protect(name, observe=lambda: signal.raise_signal(signal.SIGUSR1), **arguments)
    else:
        assert isinstance(_run(backend, protect), Interrupt)
    assert not acts
