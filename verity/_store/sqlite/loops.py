"""Blocking work for event loops: it runs in threads of our own, and is awaited on asyncio or trio.

It does not use the event loop's executor or anyio's threads. User code may keep all of those busy.
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
"""Takes the outcome of the work: a value, or the exception to raise. It may be called in any thread."""

_logger = logging.getLogger("verity.ledger")


async def wait_for(submit: Callable[[Deliver], None]) -> Any:
    """Call `submit` with a function that delivers the outcome, and wait for the outcome, on asyncio or trio.

    If this is cancelled, the work may be done or not.
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
    """A piece of work, and whether its caller still waits."""

    __slots__ = ("deliver", "is_wanted", "work")

    def __init__(self, work: Callable[[Callable[[], bool]], T], deliver: Deliver) -> None:
        self.work = work
        self.deliver = deliver
        self.is_wanted = True


class LoopThreads:
    """A few daemon threads for event loops. A thread starts when all others are busy, and lives until `close()`.

    Args:
        name: what the threads are called.
        most: the most threads.
    """

    def __init__(self, name: str, most: int = 1) -> None:
        self._name = name
        self._most = most
        self.after_fork_in_child()
        forks.watch(self)

    def before_fork(self) -> None:
        """Nothing to do: the store itself waits for work on its file."""

    def after_fork_in_parent(self) -> None:
        """Nothing was held."""

    def after_fork_in_child(self) -> None:
        """Begin without threads and without work: those that there were are the parent's."""
        self._changed = threading.Condition()
        self._waiting: deque[Job[Any]] = deque()
        self._working: set[Job[Any]] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False

    async def run(self, work: Callable[[Callable[[], bool]], T]) -> T:
        """Run `work` in a thread; return what it returns, or raise what it raises.

        Args:
            work: its argument is a function that tells whether the caller still waits.

        Raises:
            ReadTooLong: `close()` was called first.
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
        """Give up all work, and end the threads. Idempotent. Later work starts new threads."""
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
            return  # the other threads do the work
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
            except BaseException as error:  # noqa: BLE001 - the thread must live, and the error is raised at the caller
                outcome = error
            with self._changed:
                self._working.discard(job)
            job.deliver(outcome)
            del job, outcome  # keep no reference to a caller's objects while waiting for the next job


class ReadingStore(Protocol):
    """What `LoopReads` needs of a store."""

    def read(self, request: Request, *, is_wanted: Callable[[], bool]) -> Answer:
        """Carry out a read."""
        ...


class LoopReads:
    """Reads for event loops, in three groups of threads: searches, lookups, and the node's own reads.

    So a search, which may read many effects, delays neither a lookup of one effect nor the node.
    """

    def __init__(self, store: ReadingStore) -> None:
        self._store = store
        self._searches = LoopThreads("verity-ledger-search", SEARCHES_AT_ONCE)
        self._lookups = LoopThreads("verity-ledger-read")
        self._node = LoopThreads("verity-ledger-node")

    async def answer(self, request: Request) -> Answer:
        """Carry out a read. If this is cancelled, the read stops."""
        threads = self._searches if request.operation in SEARCHES else self._lookups
        try:
            return await threads.run(lambda is_wanted: self._store.read(request, is_wanted=is_wanted))
        except ReadTooLong:  # the ledger was closed
            return answer_problem(too_long(), request.request_id)

    async def run_for_node(self, work: Callable[[], T]) -> T:
        """Run a short read for the node or the client itself; return what `work` returns, or raise what it raises."""
        return await self._node.run(lambda _is_wanted: work())

    def close(self) -> None:
        """Give up all reads, and end the threads."""
        for threads in (self._searches, self._lookups, self._node):
            threads.close()
