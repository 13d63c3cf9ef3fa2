"""How the async client calls act and observe, and finishes a commit that a cancellation or an interrupt meets."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from contextlib import closing, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from verity._concurrency.callables import AsyncAct, AsyncFunction, AsyncThunk, SyncThunk, is_async_callable
from verity._concurrency.held import HeldInterrupt
from verity._concurrency.interrupts import MAX_INTERRUPTS
from verity._concurrency.loops import asyncio_loop
from verity._concurrency.nesting import Inside
from verity._concurrency.steps import Timed
from verity._concurrency.threads import Job, Lease, LoopThreads, ThreadPlace, loop_threads
from verity._core.interruption import has_stepped, is_from_handler, is_interrupt
from verity.errors import ActNotStartedError, VerityError

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

_CHECK_EVERY_S = 0.05


class AsyncCancellation(HeldInterrupt):
    """How one effect's functions are called, and what a cancellation must not leave half done is finished first.

    `anyio.CancelScope(shield=True)` holds back trio's and anyio's cancellations, but not `asyncio.Task.cancel()`,
    which also comes from `asyncio.timeout`, `wait_for` and Ctrl-C. So on asyncio the work runs in a task of its own,
    and since a closing event loop cancels all tasks, nothing depends on that one.

    What a signal's handler raises may come up between any two steps of this code, too, and be of any class.

    Attributes:
        has_begun: whether what `call` raised is its function's: not where the function did not run, or has returned.
    """

    def __init__(self, inside: Inside, clock: Callable[[], float]) -> None:
        super().__init__()
        self._inside = inside
        self._clock = clock
        self._loop_ends = False
        self._returned: list[Any] = []
        self._raised: list[tuple[Exception, TracebackType | None]] = []
        self._has_run: Callable[[TracebackType | None], bool] = _always
        self.has_begun = False

    async def check(self, *functions: AsyncAct[Any] | None) -> None:
        """Make sure, as far as it can be known, that there is something to run them in.

        Raises:
            ActNotStartedError: no thread can be had.
        """
        if any(fn is not None and not is_async_callable(fn) for fn in functions):
            try:
                await loop_threads().check()
            except Exception as error:
                if is_from_handler(error):
                    raise
                raise self._not_started(error, "Nothing was sent.") from error

    async def call(self, fn: AsyncAct[T], lease: Lease | None = None) -> T:
        """Run the user's function: a coroutine here, anything else in a worker thread with its context variables.

        A thread can't be cancelled, so a cancellation waits until it is done, and its result is kept.

        Args:
            fn: act or observe.
            lease: what it begins on: confirmed anew where so little is left of it that the function may not begin.

        Raises:
            ActNotStartedError: no thread can be had.
            VerityError: the lease is lost, or it is unknown whether it is. The function was not called.
        """
        self.has_begun, self._returned, self._raised = False, [], []
        with self._inside:
            if is_async_callable(fn):
                await self._begin(lease)
                return cast("T", await self._call_here(cast("AsyncThunk[Any]", fn)))
            value: Any = await self._call_in_thread(cast("SyncThunk[Any]", fn), lease)
            if not inspect.isawaitable(value):
                return cast("T", value)
            self._returned.clear()
            if not inspect.iscoroutine(value):
                return cast("T", await self._call_here(lambda: value))
            with closing(value):  # it never runs where it may not begin
                await self._begin(lease)
                return cast("T", await self._call_here(lambda: value))

    async def _begin(self, lease: Lease | None) -> None:
        self.release()
        if lease is not None:
            await lease.confirm()

    async def _call_here(self, fn: AsyncThunk[Any]) -> Any:
        """What it returns, awaited until there is nothing more to await: an act may return another one's coroutine."""
        value: Any = fn()
        self._has_run = partial(has_stepped, value)
        try:
            while inspect.isawaitable(value):
                self._returned.clear()
                if inspect.iscoroutine(value):
                    value = await Timed(value, self._inside.label, self._clock, self._returned)
                else:
                    self._returned.append(await value)
                    value = self._returned[0]
        except Exception as error:
            self._raised = [(error, error.__traceback__)]  # first of all: an interrupt comes up where a call is made
            self.has_begun = not self._returned and self._has_run(error.__traceback__)
            raise
        return value

    async def _call_in_thread(self, fn: SyncThunk[Any], lease: Lease | None) -> Any:
        self._has_run = _always
        while True:
            if lease is not None:
                # Without a thread: others may have it meanwhile.
                await lease.confirm()
            job = Job(fn, lease, self._returned, self._raised)
            async with ThreadPlace(self._inside) as threads:
                await self._run(job, threads)
            if not job.is_late:
                self.has_begun = job.error is not None
                return job.outcome()

    async def _run(self, job: Job, threads: LoopThreads) -> None:
        """Return once the job is over, or late; raise where it did not begin, nor will."""
        import anyio

        loop = asyncio_loop()
        refused: BaseException | None = None
        with anyio.CancelScope(shield=True):
            try:
                await (threads.run(job) if loop is None else self._run_in_task(loop, job, threads))
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - the threads', or an interrupt: the job keeps its function's
                refused = error
            for _ in range(MAX_INTERRUPTS):
                try:
                    job.withdraw()
                    while job.has_begun and not job.is_over:  # noqa: ASYNC110 - after an interrupt, which may eat an event
                        await anyio.sleep(_CHECK_EVERY_S)
                    break
                except GeneratorExit:
                    raise
                except BaseException as interrupt:  # noqa: BLE001 - `release` raises it
                    self._pending = self._pending or interrupt
        if refused is not None and (job.has_begun or is_interrupt(refused)):
            self._pending, refused = self._pending or refused, None
        if job.has_begun:
            self._let_go(job, threads)
        else:
            self.release()
            if refused is not None:
                threads.was_refused = True
                raise self._not_started(refused, "Nothing was recorded; the lease runs out by itself.") from refused

    async def _run_in_task(self, loop: asyncio.AbstractEventLoop, job: Job, threads: LoopThreads) -> None:
        task = loop.create_task(threads.run(job))
        await self._wait_for(task, job.withdraw)
        job.withdraw()
        if job.has_begun:  # the task may be gone, as all are that a closing loop cancels, and the thread goes on
            self._loop_ends = task.cancelled()
            if not job.is_over:
                over = loop.create_future()
                job.tell_when_over(partial(_call_in, loop, over.set_result, None))
                await self._wait_for(over, job.withdraw)
        elif not task.cancelled():
            task.result()

    async def _wait_for(self, awaited: asyncio.Future[Any], on_cancel: Callable[[], None]) -> None:
        import asyncio

        while not awaited.done():
            try:
                await asyncio.wait((awaited,))
            except BaseException as interrupt:
                if not is_interrupt(interrupt):
                    raise
                self._pending = self._pending or interrupt
                on_cancel()

    def _let_go(self, job: Job, threads: LoopThreads) -> None:
        """Pass the cancellation on where it is what ended the function, or more than what did.

        What it called in the event loop was cancelled, too: an unknown outcome. And an event loop that ends, as it was
        told to or otherwise, is not told to exit again: it would stop half-way.
        """
        if isinstance(job.error, CancelledError) and self._pending is not None:
            self.forget_raised()
            self.release()
        if not isinstance(job.error, (SystemExit, KeyboardInterrupt)):
            return
        if self._pending is not None and (self._loop_ends or threads.is_told_to_exit):
            self.release()
        threads.is_told_to_exit = True

    def _not_started(self, error: BaseException, then: str) -> ActNotStartedError:
        key = self._inside.effect_key
        return ActNotStartedError(
            f"act of effect {key!r} did not run, because there was no thread ({type(error).__name__}: {error}). {then}",
            effect_key=key,
        )

    async def then(
        self,
        act: AsyncThunk[T],
        commit: Callable[[T], Awaitable[Any]],
        fail: Callable[[Exception], Awaitable[Any]],
    ) -> Any:
        """`commit(act())`; once what `act` calls with `call` has returned, the commit is finished, as by `finish`.

        Where it has raised, and an interrupt came before `act` had recorded that, `fail` gets what it raised.
        """
        self._returned, self._raised = [], []
        try:
            result = await act()
            return await self.finish(lambda: commit(result))
        except (VerityError, GeneratorExit):
            raise
        except BaseException as interrupt:
            if not self._returned and not self._raised:
                raise
            self._pending = self._pending or interrupt
        return await self.finish(lambda: self._conclude(commit, fail))

    async def _conclude(self, commit: AsyncFunction[Any], fail: AsyncFunction[Any]) -> Any:
        if self._returned:
            return await commit(self._returned[0])
        error, trace = self._raised[0]
        return await fail(error) if self._has_run(trace) else None

    async def finish(self, fn: AsyncThunk[T]) -> T:
        """Run `fn` to its end whatever is cancelled or interrupts it meanwhile; `release` passes that on.

        It is started anew where it was interrupted itself: by a closing event loop, or by Ctrl-C, which trio raises in
        whatever the main task waits for.
        """
        import anyio

        loop = asyncio_loop()
        with anyio.CancelScope(shield=True):
            for _ in range(MAX_INTERRUPTS):
                try:
                    return await (fn() if loop is None else self._finish_in_task(loop, fn))
                except BaseException as interrupt:
                    if not is_interrupt(interrupt):
                        raise
                    self._pending = self._pending or interrupt
            self.release()
        raise AssertionError("unreachable: it returns, raises or is interrupted, and a shielded scope swallows nothing")

    async def _finish_in_task(self, loop: asyncio.AbstractEventLoop, fn: AsyncThunk[T]) -> T:
        task = loop.create_task(_outcome_of(fn))
        await self._wait_for(task, _go_on)
        value, error = task.result()
        if error is not None:
            raise error
        return cast("T", value)

    def forget_raised(self) -> None:
        """What the function raised has been recorded, or need not be. Its traceback leads here, too."""
        self._raised = []


async def _outcome_of(fn: AsyncThunk[T]) -> tuple[T | None, BaseException | None]:
    """An interrupt that a task raised would stop the event loop before anything is finished."""
    try:
        return await fn(), None
    except BaseException as error:  # noqa: BLE001 - it is raised where the task is waited for
        return None, error


def _always(_trace: TracebackType | None) -> bool:
    return True


def _go_on() -> None:
    """On a cancellation that is held back."""


def _call_in(loop: asyncio.AbstractEventLoop, fn: Callable[[Any], None], value: Any) -> None:
    with suppress(RuntimeError):  # closed: nobody waits any more
        loop.call_soon_threadsafe(fn, value)
