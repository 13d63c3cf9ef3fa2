"""An exception that a signal's handler, or another thread, raises in a thread that uses the sync client."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import httpx
import pytest
import trio

from tests.helpers.concurrency import sync_until
from tests.helpers.served_ledger import ServedLedger
from tests.steps import __main__ as steps
from tests.steps.__main__ import Injector
from verity import (
    ActNotStartedError,
    CommitUncertainError,
    EffectPolicy,
    SyncVerityClient,
    VerityClient,
    VerityConnectionError,
    VerityError,
)
from verity._concurrency import SyncRuntime
from verity._concurrency.nesting import Inside
from verity._concurrency.single_flight import SyncSingleFlight

pytestmark = pytest.mark.untraced


class Interrupt(Exception):
    """As a worker's soft time limit raises it."""


@pytest.fixture(scope="module")
def ledger() -> Iterator[ServedLedger]:
    with ServedLedger() as served:
        yield served


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Sets what a handler of SIGUSR1 does."""
    before = signal.getsignal(signal.SIGUSR1)

    def handle(do: Callable[[], Any]) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: do())

    yield handle
    signal.signal(signal.SIGUSR1, before)


def _raise(error: BaseException) -> Any:
    raise error


class Signalling(httpx.HTTPTransport):
    """Sends this process a signal inside the first requests of one kind, and lists all."""

    def __init__(self, operation: str, times: int = 1, *, wraps: bool = False) -> None:
        super().__init__()
        self._operation = operation
        self._times = times
        self._wraps = wraps
        self.sent: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.url.path.rsplit("/", 1)[-1])
        if self.sent[-1] == self._operation and self.sent.count(self._operation) <= self._times:
            try:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                signal.raise_signal(signal.SIGUSR1)
            except OSError as error:
                if not self._wraps:
                    raise
                raise httpx.ReadTimeout("as httpx does with a socket's") from error
        return super().handle_request(request)


def _client(ledger: ServedLedger, transport: httpx.BaseTransport | None = None, **settings: Any) -> SyncVerityClient:
    return SyncVerityClient(ledger.base_url, ledger.create_key(), "payments", transport=transport, **settings)


def _status(ledger: ServedLedger, key: str) -> str | None:
    with _client(ledger) as other:
        return other.effects.get(key).status


# --- a signal's handler that raises ---


@pytest.mark.parametrize("error", [Interrupt(), TimeoutError("as an alarm's handler raises it")])
def test_what_a_handler_raises_in_a_request_is_no_lost_answer(
    ledger: ServedLedger, on_signal: Callable[..., None], error: Exception
) -> None:
    on_signal(lambda: _raise(error))
    with Signalling("lease", wraps=True) as transport, _client(ledger, transport) as client:
        with pytest.raises(type(error)) as caught:
            client.protect(f"request-{type(error).__name__}", act=lambda: 1)
        assert caught.value is error
        assert transport.sent == ["lease", "lease", "release"], "the ledger may have granted it"


@pytest.mark.parametrize("run", [anyio.run, trio.run])
def test_what_a_handler_raises_in_a_request_of_a_task_is_no_lost_answer(
    ledger: ServedLedger, on_signal: Callable[..., None], run: Callable[..., None]
) -> None:
    on_signal(lambda: _raise(Interrupt()))

    class Signals(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            signal.raise_signal(signal.SIGUSR1)
            raise AssertionError("unreachable: the handler raises")

    async def protect() -> None:
        client = VerityClient(ledger.base_url, ledger.create_key(), "payments", transport=Signals())
        with pytest.raises(Interrupt):
            await client.protect("task", act=lambda: 1)

    run(protect)


def test_what_a_handler_raised_before_is_no_interrupt(ledger: ServedLedger, on_signal: Callable[..., None]) -> None:
    """A caller that tidies up after its time limit has a ledger that does not answer: that is what it is told."""
    on_signal(lambda: _raise(Interrupt()))

    class Lost(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("nobody is there", request=request)

    client = _client(ledger, Lost())
    try:
        signal.raise_signal(signal.SIGUSR1)
    except Interrupt:
        with pytest.raises(VerityConnectionError):
            client.request_lease("payments", {"effectKey": "before"})


def test_a_commit_is_finished_between_two_tries_too(ledger: ServedLedger, on_signal: Callable[..., None]) -> None:
    class Waiting(SyncRuntime):
        def sleep(self, seconds: float) -> None:
            signal.raise_signal(signal.SIGUSR1)

    class LosingOnce(Signalling):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            if self.sent[-1] == "commit" and self.sent.count("commit") == 1:
                raise httpx.ReadError("lost", request=request)
            return response

    on_signal(lambda: _raise(Interrupt()))
    with LosingOnce("nothing") as transport, _client(ledger, transport, _runtime=Waiting()) as client:
        with pytest.raises(Interrupt):
            client.protect("between", act=lambda: 1)
        assert transport.sent == ["lease", "commit", "commit"]
    assert _status(ledger, "between") == "COMMITTED"


@pytest.mark.parametrize("source", ["acted", "observed"])
def test_a_commit_is_finished_however_often_it_is_interrupted(
    ledger: ServedLedger, on_signal: Callable[..., None], source: str
) -> None:
    """The second and third signals come while it is being finished."""
    on_signal(lambda: _raise(Interrupt()))
    observe = (lambda: 1) if source == "observed" else None
    always = EffectPolicy(observe_when="always")
    with Signalling("commit", 3) as transport, _client(ledger, transport) as client, pytest.raises(Interrupt):
        client.protect(f"often-{source}", act=lambda: 1, observe=observe, policy=always)
    assert _status(ledger, f"often-{source}") == "COMMITTED"


def test_a_commit_is_finished_here_where_no_thread_is_to_be_had(
    ledger: ServedLedger, on_signal: Callable[..., None], no_threads: Callable[[], None]
) -> None:
    on_signal(lambda: _raise(Interrupt()))

    def act() -> int:
        no_threads()
        return 1

    with Signalling("commit") as transport, _client(ledger, transport) as client, pytest.raises(Interrupt):
        client.protect("no-thread-commit", act=act)
    assert _status(ledger, "no-thread-commit") == "COMMITTED"


def test_a_commit_that_cannot_be_finished_is_uncertain(ledger: ServedLedger, on_signal: Callable[..., None]) -> None:
    class Losing(Signalling):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            if self.sent[-1] == "commit":
                raise httpx.ReadError("lost", request=request)
            return response

    on_signal(lambda: _raise(Interrupt()))
    with Losing("commit") as transport, _client(ledger, transport) as client:
        with pytest.raises(CommitUncertainError) as caught:
            client.protect("uncertain", act=lambda: 7)
        assert caught.value.result == 7


@pytest.mark.parametrize("error", [Interrupt(), SystemExit(1)])
def test_a_handlers_exception_inside_act_leaves_the_outcome_unknown(
    ledger: ServedLedger, on_signal: Callable[..., None], error: BaseException
) -> None:
    """As a worker's soft time limit: act was stopped in the middle."""
    key = f"inside act {error!r}"
    on_signal(lambda: _raise(error))
    policy = EffectPolicy(definite=(Exception,))
    with Signalling("nothing") as transport, _client(ledger, transport) as client:
        with pytest.raises(type(error)) as caught:
            client.protect(key, act=lambda: signal.raise_signal(signal.SIGUSR1), policy=policy)
        assert caught.value is error
        assert transport.sent == ["lease", "release"]
    assert _status(ledger, key) == "EXPIRED"


def test_an_interrupt_at_the_entry_of_act_records_nothing(ledger: ServedLedger) -> None:
    ran: list[int] = []

    def act() -> None:
        ran.append(1)

    def interrupt(frame: Any, event: str, arg: object) -> None:
        if frame.f_code is act.__code__:
            sys.settrace(None)
            raise Interrupt

    with _client(ledger) as client:
        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            with pytest.raises(Interrupt):
                client.protect("entry", act=act)
        finally:
            sys.settrace(before)
        assert not ran
        assert _status(ledger, "entry") == "EXPIRED", "it is not certain that it did not run"


def test_an_act_that_takes_arguments_is_not_recorded_as_failed(ledger: ServedLedger) -> None:
    def act(given: int, missing: int) -> int:
        return given + missing

    with _client(ledger) as client, pytest.raises(TypeError):
        client.protect("arguments", act=partial(act, 1))
    assert _status(ledger, "arguments") == "EXPIRED"


# --- a call inside a signal's handler ---


def test_a_call_in_a_handler_is_refused_inside_another_one_but_not_inside_act(
    ledger: ServedLedger, on_signal: Callable[..., None]
) -> None:
    outcomes: list[Any] = []

    def call() -> None:
        try:
            outcomes.append(client.protect(f"handler-{len(outcomes)}", act=lambda: 1))
        except VerityError as error:
            outcomes.append(str(error))

    on_signal(call)
    with Signalling("lease") as transport, _client(ledger, transport) as client:
        assert client.protect("around", act=lambda: signal.raise_signal(signal.SIGUSR1)) is None
        assert client.protect("after", act=lambda: 2) == 2
    assert ["inside another call" in str(outcome) for outcome in outcomes] == [True] * (len(outcomes) - 1) + [False]
    assert outcomes[-1] == 1


# --- no thread to be had ---


@pytest.fixture
def no_threads() -> Iterator[Callable[[], None]]:
    """No thread can be started from the call of this on: none gets a stack of this size."""
    before = threading.stack_size()
    yield lambda: (threading.stack_size(1 << 46), None)[1]
    threading.stack_size(before)


def test_without_a_thread_for_renewals_no_lease_is_requested(
    ledger: ServedLedger, no_threads: Callable[[], None]
) -> None:
    with Signalling("nothing") as transport, _client(ledger, transport) as client:
        no_threads()
        with pytest.raises(ActNotStartedError, match="thread") as caught:
            client.protect("no-thread", act=lambda: 1)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert caught.value.effect_key == "no-thread"
        assert not transport.sent


def test_a_lease_without_a_thread_for_its_renewals_is_given_up(
    ledger: ServedLedger, no_threads: Callable[[], None]
) -> None:
    runtime = SyncRuntime()

    def lose_the_thread(_: object) -> None:
        before = threading.active_count()
        runtime.close()
        sync_until(lambda: threading.active_count() < before)
        no_threads()

    with _client(ledger, _runtime=runtime) as client:
        with pytest.raises(ActNotStartedError):
            client.protect("given-up", act=lambda: 1, on_lease=lose_the_thread)
        assert client.request_lease("payments", {"effectKey": "given-up"}).prior_state == "none"
    for _, _, timer in runtime._timers._planned:
        keeper = getattr(timer.fn, "__self__", None)
        assert keeper is None or keeper._is_stopped(), "what is still planned does nothing any more"


# --- at every step ---


@pytest.mark.parametrize(
    ("ledger_kind", "every", "at_once"), [("embedded", 60, 1), ("embedded", 60, 3), ("served", 240, 1)]
)
def test_an_interrupt_at_any_step_leaves_everything_right(ledger_kind: str, every: int, at_once: int) -> None:
    """All steps: `nox -s steps`."""
    steps = ["--ledger", ledger_kind, "--every", str(every), "--at-once", str(at_once), "--storms", "40"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.steps", *steps],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class _AtTheEndOfAct(Injector):
    """Interrupts where Verity's own code goes on after act."""

    def _meet(self, frame: FrameType) -> None:
        if frame.f_code is Inside.__exit__.__code__:
            super()._meet(frame)


def test_an_interrupt_right_after_acts_failure_does_not_hide_it(tmp_path: Path) -> None:
    def decline() -> None:
        raise LookupError("declined")

    with SyncVerityClient(f"sqlite:///{tmp_path}/v.db", namespace="n") as client:
        client.protect("first", act=lambda: 1)
        for at in range(1, 10):
            injector = _AtTheEndOfAct(at)
            before = sys.gettrace()
            sys.settrace(injector.trace)
            try:
                with pytest.raises((steps.Interrupt, LookupError)):
                    client.protect(f"k{at}", act=decline)
            finally:
                sys.settrace(before)
            assert client.effects.get(f"k{at}").status == "FAILED", injector.where
            if injector.where == "nowhere":
                break
        assert at > 1


# --- a line of threads that wait for the same effect ---


def test_a_thread_that_could_not_leave_its_line_holds_up_nobody() -> None:
    flights = SyncSingleFlight()
    first, second = flights.join("k"), flights.join("k")
    assert first.wait_to_lead(30)
    turns: list[bool] = []
    thread = threading.Thread(target=lambda: turns.append(second.wait_to_lead(30)), daemon=True)
    thread.start()
    sync_until(lambda: len(flights.flights["k"]) == 2)
    first.is_gone = True  # all that is certain to be done where a second interrupt follows
    sync_until(lambda: turns == [True])
    second.leave()
    assert not flights.flights


def test_what_is_shared_in_a_line_is_for_those_who_wait() -> None:
    flights = SyncSingleFlight()
    first, late = flights.join("k"), flights.join("k")
    assert first.wait_to_lead(30)
    first.publish("an answer")
    assert late.wait_to_lead(30)
    assert late.published is None
    first.leave()
    late.leave()
    assert not flights.flights


@pytest.mark.parametrize("auto_renew", [True, False])
def test_a_call_while_python_ends_does_not_wait_for_a_thread_that_never_begins(
    tmp_path: Path, *, auto_renew: bool
) -> None:
    """As in a `__del__` of something that lives until the very end."""
    program = f"""
from verity import ActNotStartedError, SyncVerityClient

class Late:
    def __del__(self):
        try:
            print(client.protect("late", act=lambda: "acted"), flush=True)
        except ActNotStartedError:
            print("refused", flush=True)

client = SyncVerityClient("sqlite:///{tmp_path}/v.db", namespace="n", auto_renew={auto_renew})
late = Late()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["refused" if auto_renew else "acted"]
