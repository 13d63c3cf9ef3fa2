"""Work that blocks, for event loops: it is done in threads of our own, and awaited on asyncio or trio.

Not in the loop's executor and not in anyio's threads: those belong to user code, which may use all of them up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from verity._ledger.calls import Answer, Request
from verity._ledger.problems import answer_problem
from verity._process import notice_fork
from verity._store.reads import SEARCHES, SEARCHES_AT_ONCE, too_long
from verity._store.sqlite import forks
from verity._store.sqlite.readers import ReadTooLong

T = TypeVar("T")
Deliver = Callable[[Any], None]
"""Takes what came of the work: a value, or the exception to raise. It may be called in any thread."""

_logger = logging.getLogger("verity.ledger")


async def wait_for(submit: Callable[[Deliver], None]) -> Any:
    """Submit work with a way to deliver what comes of it, and wait for that, on whatever loop this is.

    Cancelled, the work may be done or not.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return await _wait_on_trio(submit)
    future: asyncio.Future[Any] = loop.create_future()

    def settle(outcome: Any) -> None:
        if future.done():
            return
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    submit(lambda outcome: _call_in(loop, settle, outcome))
    return await future


async def _wait_on_trio(submit: Callable[[Deliver], None]) -> Any:
    import trio

    token, done, box = trio.lowlevel.current_trio_token(), trio.Event(), []

    def settle(outcome: Any) -> None:
        box.append(outcome)
        done.set()

    def deliver(outcome: Any) -> None:
        try:
            token.run_sync_soon(settle, outcome)
        except trio.RunFinishedError:
            _logger.debug("an event loop ended before its answer came")

    submit(deliver)
    await done.wait()
    outcome = box[0]
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _call_in(loop: asyncio.AbstractEventLoop, settle: Deliver, outcome: Any) -> None:
    try:
        loop.call_soon_threadsafe(settle, outcome)
    except RuntimeError:  # closed
        _logger.debug("an event loop ended before its answer came")


class Job(Generic[T]):
    """One piece of work, and whether somebody still waits for it."""

    __slots__ = ("deliver", "is_wanted", "work")

    def __init__(self, work: Callable[[Callable[[], bool]], T], deliver: Deliver) -> None:
        self.work = work
        self.deliver = deliver
        self.is_wanted = True


class LoopThreads:
    """A few daemon threads that work for event loops. Each starts when all others are busy, and lives until `close()`.

    Args:
        name: what the threads are called.
        most: how many there may be.
    """

    def __init__(self, name: str, most: int = 1) -> None:
        self._name = name
        self._most = most
        self.after_fork_in_child()
        forks.watch(self)

    def before_fork(self) -> None:
        """What works with files waits by itself."""

    def after_fork_in_parent(self) -> None:
        """Nothing was held."""

    def after_fork_in_child(self) -> None:
        """The threads were the parent's, and so were the loops that waited."""
        self._changed = threading.Condition()
        self._waiting: deque[Job[Any]] = deque()
        self._working: set[Job[Any]] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False

    async def run(self, work: Callable[[Callable[[], bool]], T]) -> T:
        """Have the work done and return what it returns, or raise what it raises.

        Args:
            work: it gets a function that tells whether somebody still waits for it.

        Raises:
            ReadTooLong: the threads ended first.
            RuntimeError: the system has no thread for it.
        """
        jobs: list[Job[T]] = []

        def submit(deliver: Deliver) -> None:
            jobs.append(Job(work, deliver))
            self._submit(jobs[0])

        try:
            result: T = await wait_for(submit)
            return result
        finally:
            for job in jobs:
                job.is_wanted = False

    def close(self) -> None:
        """Give up what waits and what is being done, and end the threads. Idempotent; more work starts them anew."""
        with self._changed:
            self._closing = True
            given_up = [*self._waiting, *self._working]
            for job in given_up:
                job.is_wanted = False
            self._waiting.clear()
            threads = list(self._threads)
            self._changed.notify_all()
        for job in given_up:
            job.deliver(ReadTooLong())
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()
        with self._changed:
            self._closing = False

    def _submit(self, job: Job[Any]) -> None:
        notice_fork()
        with self._changed:
            if len(self._threads) < min(self._most, len(self._working) + len(self._waiting) + 1):
                self._start(must=not self._threads)
            self._waiting.append(job)
            self._changed.notify()

    def _start(self, *, must: bool) -> None:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if must:
                raise
            return  # those that there are do it, one after the other
        self._threads.append(thread)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    if threading.current_thread() in self._threads:
                        self._threads.remove(threading.current_thread())
                    return
                job = self._waiting.popleft()
                if not job.is_wanted:
                    continue
                self._working.add(job)
            try:
                outcome: Any = job.work(lambda job=job: job.is_wanted)  # type: ignore[misc] # a lambda's default
            except BaseException as error:  # noqa: BLE001 - the thread must live, and the error belongs to who waits
                outcome = error
            with self._changed:
                self._working.discard(job)
            job.deliver(outcome)
            del job, outcome  # nothing of a caller's is kept until the next one comes


class ReadingStore(Protocol):
    """What the reads of event loops need of a store."""

    def read(self, request: Request, *, is_wanted: Callable[[], bool]) -> Answer:
        """Carry a read out."""
        ...


class LoopReads:
    """The reads of event loops. What looks at many effects delays neither who asks for one, nor the node."""

    def __init__(self, store: ReadingStore) -> None:
        self._store = store
        self._searches = LoopThreads("verity-ledger-search", SEARCHES_AT_ONCE)
        self._lookups = LoopThreads("verity-ledger-read")
        self._own = LoopThreads("verity-ledger-look")

    async def answer(self, request: Request) -> Answer:
        """Carry a read out. Cancelled, it stops."""
        threads = self._searches if request.operation in SEARCHES else self._lookups
        try:
            return await threads.run(lambda is_wanted: self._store.read(request, is_wanted=is_wanted))
        except ReadTooLong:  # the ledger was closed
            return answer_problem(too_long(), request.request_id)

    async def run_for_node(self, work: Callable[[], T]) -> T:
        """Run a short read for the node or the client itself; return what `work` returns, or raise what it raises."""
        return await self._own.run(lambda _is_wanted: work())

    def close(self) -> None:
        """Give up what is under way, and end the threads."""
        for threads in (self._searches, self._lookups, self._own):
            threads.close()
