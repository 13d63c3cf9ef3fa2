"""Group commit: what waits at the same moment goes to disk together, and nobody is lost."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from tests.helpers.concurrency import SyncBackground, async_gather, sync_gather, sync_until
from tests.helpers.store_calls import Caller
from verity._ledger.calls import Answer, Request
from verity._operations import Operation
from verity._store.interface import MAX_BATCH
from verity._store.sqlite.group_commit import LoopGroupCommit, ThreadGroupCommit
from verity._store.sqlite.store import SqliteStore
from verity.errors import VerityConfigError, VerityConnectionError


class GatedStore:
    """A store that holds its first batch until the gate is opened, and counts."""

    def __init__(self, fails: type[BaseException] | None = None) -> None:
        self.reached, self.gate = threading.Event(), threading.Event()
        self.batches: list[int] = []
        self._fails = fails

    def answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        self.batches.append(len(requests))
        self.reached.set()
        assert self.gate.wait(30)
        if self._fails:
            raise self._fails
        return [Answer(200, request.body) for request in requests]


class EchoingStore:
    """A store with no lock of its own, so that a signal may interrupt it anywhere."""

    def answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        return [Answer(200, request.body) for request in requests]


def _request(number: int) -> Request:
    return Request(Caller(None).scope, Operation.LEASE_EFFECT, body=str(number).encode())


def _numbers(outcomes: list[Any]) -> list[int]:
    return [int(outcome.body) for outcome in outcomes]


# --- threads ---


def test_one_thread_alone_goes_at_once_in_its_own_thread() -> None:
    store = GatedStore()
    store.gate.set()
    before = threading.active_count()
    group = ThreadGroupCommit(store)
    assert _numbers([group.answer(_request(n)) for n in range(3)]) == [0, 1, 2]
    assert store.batches == [1, 1, 1]
    assert threading.active_count() == before


def _start_opener(store: GatedStore, group: ThreadGroupCommit | LoopGroupCommit, count: int) -> threading.Thread:
    """Open the gate as soon as all `count` operations are in the first batch or wait behind it."""

    def in_line() -> int:
        if isinstance(group, ThreadGroupCommit):
            return len(group._waiting)  # the first batch is in line until it has its outcome
        return store.batches[0] + group._inbox.qsize()

    def run() -> None:
        assert store.reached.wait(30)
        sync_until(lambda: in_line() >= count)
        store.gate.set()

    opener = threading.Thread(target=run, daemon=True)
    opener.start()
    return opener


def test_threads_that_wait_go_together() -> None:
    store = GatedStore()
    group = ThreadGroupCommit(store)
    opener = _start_opener(store, group, 32)
    outcomes = sync_gather([partial(group.answer, _request(n)) for n in range(32)])
    opener.join()
    assert _numbers(outcomes) == list(range(32)), "each gets its own answer"
    assert sum(store.batches) == 32
    assert len(store.batches) <= 2, "what waits goes at once"


def test_a_batch_is_limited() -> None:
    store = GatedStore()
    group = ThreadGroupCommit(store)
    opener = _start_opener(store, group, MAX_BATCH + 41)
    outcomes = sync_gather([partial(group.answer, _request(n)) for n in range(MAX_BATCH + 41)])
    opener.join()
    assert _numbers(outcomes) == list(range(MAX_BATCH + 41))
    assert sum(store.batches) == MAX_BATCH + 41
    assert store.batches[1] == max(store.batches) == MAX_BATCH


def test_an_error_reaches_every_thread_and_the_next_one_leads() -> None:
    store = GatedStore(fails=VerityConfigError)
    group = ThreadGroupCommit(store)
    opener = _start_opener(store, group, 10)
    outcomes = sync_gather([partial(group.answer, _request(n)) for n in range(10)])
    opener.join()
    assert [type(outcome) for outcome in outcomes] == [VerityConfigError] * 10
    assert sum(store.batches) == 10
    assert len(store.batches) <= 2, "nobody asks once more"
    store._fails = None
    assert group.answer(_request(7)).body == b"7"


class Interrupt(Exception):
    """As a worker's soft time limit raises it, in the main thread."""


@pytest.fixture
def interrupt_main() -> Iterator[Callable[[], None]]:
    """Has a signal's handler raise in the main thread, which runs the tests."""

    def raise_it(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, raise_it)
    yield lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.untraced
@pytest.mark.parametrize("behind", [0, 1])
def test_who_is_interrupted_while_it_waits_leaves_nobody_waiting(
    behind: int, interrupt_main: Callable[[], None]
) -> None:
    store = GatedStore()
    group = ThreadGroupCommit(store)
    answers: list[Answer] = []

    def ask() -> threading.Thread:
        thread = threading.Thread(target=lambda: answers.append(group.answer(_request(1))), daemon=True)
        thread.start()
        return thread

    def interrupt_once_it_waits() -> None:
        sync_until(lambda: len(group._waiting) >= 2)
        others.extend(ask() for _ in range(behind))
        sync_until(lambda: len(group._waiting) >= 2 + behind)
        interrupt_main()

    others = [ask()]
    assert store.reached.wait(30)
    threading.Thread(target=interrupt_once_it_waits, daemon=True).start()
    with pytest.raises(Interrupt):
        group.answer(_request(2))
    store.gate.set()
    others.append(ask())
    for thread in others:
        thread.join(10)
    assert len(answers) == 2 + behind, "the lead is with nobody who has left"
    assert sum(store.batches) == 2 + behind, "and nothing is carried out for who has left"


def test_an_interrupt_is_raised_in_the_thread_that_it_met_alone() -> None:
    store = GatedStore(fails=KeyboardInterrupt)
    group = ThreadGroupCommit(store)

    def ask() -> Any:
        try:
            return group.answer(_request(1))
        except KeyboardInterrupt as interrupt:
            return interrupt

    opener = _start_opener(store, group, 10)
    with SyncBackground() as background:
        for _ in range(10):
            background.start(ask)
    kinds = [type(outcome) for outcome in background.outcomes]
    opener.join()
    assert kinds.count(KeyboardInterrupt) == len(store.batches), "those that led"
    assert kinds.count(VerityConnectionError) == 10 - len(store.batches), "those that ask again"
    assert sum(store.batches) == 10, "nothing is carried out twice"


@pytest.mark.untraced
def test_a_storm_of_signals_leaves_nobody_waiting() -> None:
    """Wherever an exception comes up in a thread that asks: the others go on, and so does it."""
    group = ThreadGroupCommit(EchoingStore())
    asked, is_over = [0, 0, 0], threading.Event()

    def ask(number: int) -> None:
        while not is_over.is_set():
            with suppress(VerityConnectionError):
                group.answer(_request(number))
            asked[number] += 1

    others = [threading.Thread(target=ask, args=[number], daemon=True) for number in range(3)]
    for thread in others:
        thread.start()
    met = 0

    def interrupt(*_: object) -> None:
        nonlocal met
        met += 1
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        while met < 1500:
            with suppress(Interrupt, VerityConnectionError):
                signal.setitimer(signal.ITIMER_REAL, (1 + met % 50) * 10e-6)
                while True:
                    group.answer(_request(9))
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, before)
    reached = list(asked)
    sync_until(lambda: all(now > then for now, then in zip(asked, reached, strict=True)))
    is_over.set()
    for thread in others:
        thread.join(30)
    assert not any(thread.is_alive() for thread in others)


def test_many_threads_one_key_one_grant(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "v.db"))
    group, call = ThreadGroupCommit(store), Caller(store)
    answers = sync_gather([lambda: group.answer(call.request("lease_effect", {"effectKey": "k"}))] * 32)
    assert sorted(answer.status for answer in answers) == [200] + [409] * 31
    store.close()


def test_threads_share_transactions(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "v.db"))
    group, call = ThreadGroupCommit(store), Caller(store)

    def work(start: int) -> None:
        for number in range(start, start + 25):
            assert group.answer(call.request("lease_effect", {"effectKey": f"k{number}"})).status == 200

    assert sync_gather([partial(work, n * 25) for n in range(16)]) == [None] * 16
    assert call("get_stats")["byStatus"]["RUNNING"] == 400
    assert store.transactions < 400, "operations were grouped"
    store.close()


# --- event loops ---


async def test_tasks_that_wait_go_together() -> None:
    store = GatedStore()
    group = LoopGroupCommit(store)
    opener = _start_opener(store, group, 32)
    outcomes = await async_gather([partial(group.answer, _request(n)) for n in range(32)])
    assert _numbers(outcomes) == list(range(32))
    assert sum(store.batches) == 32
    assert len(store.batches) <= 2, "what waits goes at once"
    group.close()
    opener.join()


async def test_a_thread_that_is_not_to_be_had_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    store = GatedStore()
    store.gate.set()
    group = LoopGroupCommit(store)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            await group.answer(_request(1))
    with anyio.fail_after(10):
        assert (await group.answer(_request(2))).body == b"2"
    assert store.batches == [1], "what was refused is not carried out"
    group.close()


async def test_a_cancelled_task_does_not_disturb_the_others() -> None:
    store = GatedStore()
    group = LoopGroupCommit(store)
    answers: dict[int, bytes] = {}
    scopes = [anyio.CancelScope() for _ in range(6)]

    async def ask(number: int) -> None:
        with scopes[number]:
            answers[number] = (await group.answer(_request(number))).body

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(ask, number)
        await anyio.to_thread.run_sync(store.reached.wait, 30)
        scopes[0].cancel()
        scopes[3].cancel()
        await anyio.lowlevel.checkpoint()
        store.gate.set()
    assert set(answers) == {1, 2, 4, 5}
    assert all(body == str(number).encode() for number, body in answers.items())
    assert sum(store.batches) == 6
    group.close()


async def test_an_error_reaches_every_task_and_the_writer_lives() -> None:
    store = GatedStore(fails=LookupError)
    store.gate.set()
    group = LoopGroupCommit(store)
    outcomes = await async_gather([partial(group.answer, _request(n)) for n in range(5)])
    assert [type(outcome) for outcome in outcomes] == [LookupError] * 5
    store._fails = None
    assert (await group.answer(_request(7))).body == b"7"
    group.close()


def test_it_serves_one_event_loop_after_the_other() -> None:
    store = GatedStore()
    store.gate.set()
    group = LoopGroupCommit(store)

    async def ask() -> bytes:
        return (await group.answer(_request(3))).body

    assert asyncio.run(ask()) == asyncio.run(ask()) == trio.run(ask) == b"3"
    group.close()


def test_a_loop_that_ended_before_its_answer_came_harms_nobody() -> None:
    store = GatedStore()
    group = LoopGroupCommit(store)

    async def give_up() -> None:
        task = asyncio.ensure_future(group.answer(_request(1)))
        await asyncio.get_running_loop().run_in_executor(None, store.reached.wait, 30)
        task.cancel()

    async def give_up_on_trio() -> None:
        with trio.move_on_after(0):
            await group.answer(_request(2))

    asyncio.run(give_up())
    trio.run(give_up_on_trio)
    store.gate.set()

    async def ask() -> bytes:
        return (await group.answer(_request(3))).body

    assert asyncio.run(ask()) == b"3"
    group.close()


def test_close_ends_the_thread_and_a_later_call_starts_it_again() -> None:
    store = GatedStore()
    store.gate.set()
    group = LoopGroupCommit(store)

    async def ask() -> bytes:
        return (await group.answer(_request(3))).body

    assert asyncio.run(ask()) == b"3"
    thread = group._thread
    assert thread is not None
    assert thread.daemon
    group.close()
    group.close()
    assert not thread.is_alive()
    assert asyncio.run(ask()) == b"3"
    group.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_tasks_share_transactions(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "v.db"))
    group, call = LoopGroupCommit(store), Caller(store)
    outcomes = await async_gather(
        [partial(group.answer, call.request("lease_effect", {"effectKey": f"k{n}"})) for n in range(400)]
    )
    assert {json.loads(outcome.body)["status"] for outcome in outcomes} == {"granted"}
    assert store.transactions < 50
    group.close()
    store.close()
