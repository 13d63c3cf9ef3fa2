"""Calls act and observe for the async client, and finishes a commit in spite of cancellations and interrupts.

A cancellation or an interrupt that comes meanwhile becomes pending (see `verity/_concurrency/held.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from contextlib import closing, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from verity._concurrency.callables import AsyncAct, AsyncFunction, AsyncThunk, SyncThunk, is_async_callable
from verity._concurrency.held import HeldInterrupt
from verity._concurrency.interrupts import MAX_INTERRUPTS
from verity._concurrency.loops import asyncio_loop
from verity._concurrency.nesting import Inside
from verity._concurrency.steps import Timed
from verity._concurrency.threads import Job, Lease, LoopThreads, ThreadPermit, loop_threads
from verity._core.interruption import has_stepped, is_from_handler, is_interrupt
from verity.errors import ActNotStartedError, NotExecuted, OutcomeUnknownError, VerityError

if TYPE_CHECKING:
    import asyncio

    import anyio

T = TypeVar("T")

_CHECK_EVERY_S = 0.05
"""An interrupt can prevent a wake-up, so the task that waits for a thread also checks for itself."""


class ActLease(Lease, Protocol):
    """The lease of an act. If `cancels_act`, its loss cancels the act; each of the `listeners` is called then."""

    cancels_act: bool
    listeners: list[Callable[[], None]]

    @property
    def fence_token(self) -> int | None: ...


class AsyncCancellation(HeldInterrupt):
    """Calls the functions of one effect, and defers cancellations while a commit or a failure must be finished.

    `anyio.CancelScope(shield=True)` defers cancellations of trio and anyio. It does not defer `asyncio.Task.cancel()`,
    which `asyncio.timeout`, `wait_for` and Ctrl-C use. So on asyncio the work runs in a task of its own. A closing
    event loop cancels that task, too, so the work is started again if its task was cancelled.

    A signal handler can raise an exception of any class between any two steps of this code.

    Attributes:
        has_begun: whether the exception that `call` raised is the function's own. False if the function did not run,
            had already returned, or was cancelled because the lease was lost.
    """

    def __init__(self, inside: Inside, clock: Callable[[], float]) -> None:
        super().__init__()
        self._inside = inside
        self._clock = clock
        self._loop_ends = False
        self._returned: list[Any] = []
        self._raised: list[tuple[Exception, TracebackType | None]] = []
        self._has_run: Callable[[TracebackType | None], bool] = _always
        self._shield: anyio.CancelScope  # `finish` sets it
        self._pausing: anyio.CancelScope | None = None
        self.has_begun = False

    async def check(self, *functions: AsyncAct[Any] | None) -> None:
        """Check, before anything is sent, that a thread can be started if one of the functions needs a thread.

        Raises:
            ActNotStartedError: no thread can be started.
        """
        if any(fn is not None and not is_async_callable(fn) for fn in functions):
            try:
                await loop_threads().check()
            except Exception as error:
                if is_from_handler(error):
                    raise
                raise self._not_started(error, "Nothing was sent.") from error

    async def call(self, fn: AsyncAct[T], lease: ActLease | None = None) -> T:
        """Run the user's function: a coroutine function here, any other in a worker thread with its context variables.

        A thread can't be cancelled. So a cancellation waits until the function has ended, and its result is kept.

        Args:
            fn: act or observe.
            lease: the lease under which the function begins; None for observe. A lease that is close to its expiry is
                confirmed first.

        Raises:
            ActNotStartedError: no thread can be started.
            VerityError: the lease is lost, or it is unknown whether it is. The function was not called.
        """
        self.has_begun, self._returned, self._raised = False, [], []
        with self._inside:
            if is_async_callable(fn):
                await self._begin(lease)
                return cast("T", await self._call_here(cast("AsyncThunk[Any]", fn), lease))
            value: Any = await self._call_in_thread(cast("SyncThunk[Any]", fn), lease)
            if not inspect.isawaitable(value):
                return cast("T", value)
            self._returned.clear()
            if not inspect.iscoroutine(value):
                return cast("T", await self._call_here(lambda: value, lease))
            with closing(value):  # so that Python does not warn where it may not begin
                await self._begin(lease)
                return cast("T", await self._call_here(lambda: value, lease))

    async def _begin(self, lease: ActLease | None) -> None:
        self.raise_pending()
        if lease is not None:
            await lease.confirm()
            self.acted = "unknown"

    async def _call_here(self, fn: AsyncThunk[Any], lease: ActLease | None) -> Any:
        """The function's result. It is cancelled if it loses a lease whose loss cancels it."""
        if lease is None or not lease.cancels_act:
            return await self._run_here(fn)
        import anyio

        cause: Exception | None = None
        with anyio.CancelScope() as scope:
            lease.listeners.append(scope.cancel)
            try:
                return await self._run_here(fn)
            except NotExecuted:
                raise
            except Exception as error:
                if not (scope.cancel_called and self.has_begun) or is_interrupt(error):
                    raise
                cause = error  # how the function ended after the cancellation tells nothing about the effect
            finally:
                lease.listeners.remove(scope.cancel)
        self._raised, self.has_begun = [], False  # no failure: `acted` says that the outcome is unknown
        key = self._inside.effect_key
        raise OutcomeUnknownError(
            f"The lease on effect {key!r} was lost while act ran, so act was cancelled, as "
            'on_lease_lost="cancel" asks. Whether the effect has happened is unknown. Another holder may act.',
            effect_key=key,
            fence_token=lease.fence_token,
        ) from cause

    async def _run_here(self, fn: AsyncThunk[Any]) -> Any:
        """The function's result. An awaitable result is awaited again: an act may return another act's coroutine."""
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
            self._raised = [(error, error.__traceback__)]  # before any call: an interrupt comes up in a call
            self.has_begun = not self._returned and self._has_run(error.__traceback__)
            raise
        return value

    async def _call_in_thread(self, fn: SyncThunk[Any], lease: ActLease | None) -> Any:
        self._has_run = _always
        while True:
            if lease is not None:
                # Before the permit is acquired: other calls may use the thread meanwhile.
                await lease.confirm()
            job = Job(fn, lease, self._returned, self._raised)
            async with ThreadPermit(self._inside) as threads:
                if lease is not None:
                    self.acted = "unknown"  # until `_run` has found that the thread will never call it
                await self._run(job, threads)
            if not job.is_late:
                self.has_begun = job.error is not None
                return job.outcome()

    async def _run(self, job: Job, threads: LoopThreads) -> None:
        """Return once the job is over or late. Raise if the function did not begin; it will not begin later."""
        import anyio

        loop = asyncio_loop()
        refused: BaseException | None = None
        with anyio.CancelScope(shield=True):
            try:
                await (threads.run(job) if loop is None else self._run_in_task(loop, job, threads))
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - no thread, or an interrupt; the job keeps the function's
                refused = error
            for _ in range(MAX_INTERRUPTS):
                try:
                    job.withdraw()
                    while job.has_begun and not job.is_over:  # noqa: ASYNC110 - an interrupt can lose an event
                        await anyio.sleep(_CHECK_EVERY_S)
                    break
                except GeneratorExit:
                    raise
                except BaseException as interrupt:  # noqa: BLE001 - `raise_pending` raises it
                    self._pending = self._pending or interrupt
        if self.acted == "unknown" and not job.may_have_begun:
            self.acted = "no"
        if refused is not None and (job.has_begun or is_interrupt(refused)):
            self._pending, refused = self._pending or refused, None
        if job.has_begun:
            self._release_over_outcome(job, threads)
        else:
            self.raise_pending()
            if refused is not None:
                threads.was_refused = True
                raise self._not_started(refused, "Nothing was recorded.") from refused

    async def _run_in_task(self, loop: asyncio.AbstractEventLoop, job: Job, threads: LoopThreads) -> None:
        task = loop.create_task(threads.run(job))
        await self._wait_for(task, job.withdraw)
        job.withdraw()
        if job.has_begun:  # a closing loop may have cancelled the task, while the thread goes on
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

    def _release_over_outcome(self, job: Job, threads: LoopThreads) -> None:
        """Raise the pending cancellation where it counts more than the function's own exception.

        - The function raised CancelledError: a call that it made in the event loop was cancelled. The outcome is
          unknown, so no failure may be recorded.
        - The function raised SystemExit or KeyboardInterrupt while the event loop ends: a second one would stop the
          loop half-way.
        """
        if isinstance(job.error, CancelledError) and self._pending is not None:
            self.forget_raised()
            self.raise_pending()
        if not isinstance(job.error, (SystemExit, KeyboardInterrupt)):
            return
        if self._pending is not None and (self._loop_ends or threads.is_told_to_exit):
            self.raise_pending()
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
        """Run `commit(act())`. Once the user's function has returned, the commit runs to its end.

        `act` calls that function by `call`, which keeps its result even if an interrupt follows.
        If the user's function raised, and an interrupt came before `act` had recorded the failure, `fail` records it.
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
        """Run `fn` to its end, in spite of cancellations and interrupts; `HeldInterrupt` raises them afterwards.

        If `fn` itself was interrupted, it is started again: a closing event loop cancels its task, and trio raises
        Ctrl-C in the main task, which waits for `fn`.
        """
        import anyio

        loop = asyncio_loop()
        with anyio.CancelScope(shield=True) as self._shield:
            for _ in range(MAX_INTERRUPTS):
                try:
                    return await (fn() if loop is None else self._finish_in_task(loop, fn))
                except BaseException as interrupt:
                    if not is_interrupt(interrupt):
                        raise
                    self._pending = self._pending or interrupt
                    self._shield.shield = True  # it may have ended a pause at any step
            self.raise_pending()
        raise AssertionError("unreachable: it returns, raises or is interrupted, and a shielded scope swallows nothing")

    async def _finish_in_task(self, loop: asyncio.AbstractEventLoop, fn: AsyncThunk[T]) -> T:
        task = loop.create_task(_outcome_of(fn))
        await self._wait_for(task, self._end_pause)
        value, error = task.result()
        if error is not None:
            raise error
        return cast("T", value)

    async def pause(self, sleep: AsyncFunction[None], seconds: float) -> None:
        """Sleep inside `finish`. A cancellation or an interrupt becomes pending, and ends the sleep.

        Meanwhile nothing shields the task that called `finish`: on trio, that task sleeps; on asyncio, it waits.
        """
        import anyio

        if self._pending is not None:
            await sleep(seconds)
            return
        try:
            self._shield.shield = False
            with anyio.CancelScope() as self._pausing:
                await sleep(seconds)
        except BaseException as interrupt:
            if asyncio_loop() is not None or not is_interrupt(interrupt):
                raise
            self._pending = self._pending or interrupt
        finally:
            self._end_pause()

    def _end_pause(self) -> None:
        """Shield the task again. On asyncio, the task that waits calls this when it is cancelled."""
        self._shield.shield = True
        pausing, self._pausing = self._pausing, None
        if pausing is not None:
            pausing.cancel()

    def is_own(self, error: Exception) -> bool:
        """Whether the function that `call` ran raised this exception. An interrupt may have come after its own."""
        return self.has_begun and bool(self._raised) and self._raised[0][0] is error

    def forget_raised(self) -> None:
        """Forget the function's exception, once it is recorded or need not be. This breaks a reference cycle."""
        self._raised = []


async def _outcome_of(fn: AsyncThunk[T]) -> tuple[T | None, BaseException | None]:
    """The result and the exception of `fn`. A task that raised an interrupt would stop the event loop."""
    try:
        return await fn(), None
    except BaseException as error:  # noqa: BLE001 - raised by the code that waits for the task
        return None, error


def _always(_trace: TracebackType | None) -> bool:
    return True


def _call_in(loop: asyncio.AbstractEventLoop, fn: Callable[[Any], None], value: Any) -> None:
    with suppress(RuntimeError):  # the loop is closed, so no task waits
        loop.call_soon_threadsafe(fn, value)
