"""Calling the user's code, and finishing what a cancellation must not leave half done."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from verity._concurrency.loops import asyncio_loop
from verity.errors import VerityValidationError

if TYPE_CHECKING:
    import asyncio

    import anyio

T = TypeVar("T")

AsyncFunction = Callable[..., Awaitable[T]]
AsyncThunk = Callable[[], Awaitable[T]]
AsyncAct = Callable[[], Awaitable[T]] | Callable[[], T]
SyncFunction = Callable[..., T]
SyncThunk = Callable[[], T]
SyncAct = Callable[[], T]


def is_async_callable(fn: object) -> bool:
    """Whether calling it gives a coroutine, as far as its definition tells."""
    fn = _unwrapped(fn)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004 - the method itself is wanted


def _unwrapped(fn: object) -> object:
    while isinstance(fn, partial):
        fn = fn.func
    return fn


def async_check_callable(name: str, fn: object) -> None:
    """Refuse a coroutine object, another non-callable or a generator function before anything is sent."""
    if not callable(fn):
        raise _not_callable(name, fn, "an async or a sync function without arguments")
    _refuse_generator(name, fn)


def sync_check_callable(name: str, fn: object) -> None:
    """Refuse a coroutine function, too: nobody would await it."""
    if is_async_callable(fn):
        raise VerityValidationError(
            f"{name} is an async function, but this is the sync client: pass a plain function, or use VerityClient.",
            parameter=name,
        )
    if not callable(fn):
        raise _not_callable(name, fn, "a function without arguments")
    _refuse_generator(name, fn)


def _not_callable(name: str, value: object, takes: str) -> VerityValidationError:
    if inspect.iscoroutine(value):
        value.close()  # it never ran and never will; this also keeps Python from warning about it
        problem = f"{name} is a coroutine object: pass the function itself ({name}=fn, not {name}=fn())."
    else:
        problem = f"{name} must be {takes}, not {type(value).__name__}."
    return VerityValidationError(problem, parameter=name)


def _refuse_generator(name: str, fn: object) -> None:
    """Calling it would run none of it, and look like success."""
    fn = _unwrapped(fn)
    functions = (fn, getattr(type(fn), "__call__", None))  # noqa: B004 - the method itself is wanted
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in functions):
        raise VerityValidationError(
            f"{name} is a generator function: return its result, without yield.", parameter=name
        )


async def async_settled(name: str, value: Any) -> Any:  # noqa: ARG001 - the twin needs the name
    """The value, awaited where it is an awaitable."""
    return await value if inspect.isawaitable(value) else value


def sync_settled(name: str, value: Any) -> Any:
    """The value, refused where it is an awaitable: nobody here would await it."""
    if not inspect.isawaitable(value):
        return value
    if inspect.iscoroutine(value):
        value.close()
    raise VerityValidationError(
        f"{name} returned an awaitable, but this is the sync client: pass a plain function, or use VerityClient. "
        "Nothing was recorded; the lease runs out by itself and the next call observes.",
        parameter=name,
    )


class _Lease(Protocol):
    def is_due(self) -> bool: ...
    async def confirm(self) -> None: ...


class _AsyncThread(AbstractAsyncContextManager[None]):
    """One of the event loop's limited number of worker threads, kept for one call that begins on a confirmed lease."""

    def __init__(self, lease: _Lease) -> None:
        self._lease = lease
        self._limiter: anyio.CapacityLimiter | None = None

    async def __aenter__(self) -> None:
        await self._take()
        while self._lease.is_due():
            # Without the thread: trio looks up the ledger's name in one of them, and all may be waiting here for that.
            self.give_back()
            await self._lease.confirm()
            await self._take()

    async def _take(self) -> None:
        import anyio.to_thread

        limiter = anyio.to_thread.current_default_thread_limiter()
        await limiter.acquire_on_behalf_of(self)
        self._limiter = limiter

    def give_back(self) -> None:
        """Others may have it. Idempotent."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.release_on_behalf_of(self)

    async def __aexit__(self, *exc_info: object) -> None:
        self.give_back()


class AsyncCancellation:
    """Holds a cancellation back while something that must not be left half done finishes.

    `anyio.CancelScope(shield=True)` holds back trio's and anyio's cancellations, but not `asyncio.Task.cancel()`,
    which also comes from `asyncio.timeout`, `wait_for` and Ctrl-C. So on asyncio the work runs in a task of its own.
    """

    def __init__(self) -> None:
        self._pending: BaseException | None = None
        self._thread: _AsyncThread | None = None

    def thread_for(self, fn: AsyncAct[Any], lease: _Lease) -> AbstractAsyncContextManager[None]:
        """Waits for the worker thread in which `call` is to run `fn`, once; a coroutine function needs none.

        An event loop has a limited number of them: one may be longer in coming than the lease lasts, which is then
        confirmed anew.
        """
        if is_async_callable(fn):
            return nullcontext()
        self._thread = _AsyncThread(lease)
        return self._thread

    async def call(self, fn: AsyncAct[T]) -> T:
        """Run the user's function: a coroutine here, anything else in a worker thread with its context variables.

        A thread can't be cancelled, so a cancellation waits until it is done, and its result is kept.
        """
        if is_async_callable(fn):
            return await cast("AsyncThunk[T]", fn)()
        import anyio.to_thread

        # In a tuple: trio refuses a function that returns a coroutine, as `lambda: refund(order)` does.
        limiter = None if self._thread is None else anyio.CapacityLimiter(1)
        boxed = partial(anyio.to_thread.run_sync, lambda: (fn(),), limiter=limiter)
        try:
            (value,) = await self.finish(boxed, restart=False)
        finally:
            if self._thread is not None:
                self._thread.give_back()
        if not inspect.isawaitable(value):
            return value
        if self._pending is not None and inspect.iscoroutine(value):
            value.close()
            self.release()
        return cast("T", await value)

    async def finish(self, fn: AsyncThunk[T], *, restart: bool = True) -> T:
        """Run `fn` to its end whatever is cancelled meanwhile; `release` passes the cancellation on.

        Args:
            restart: `fn` may be started a second time where the closing event loop cancels the first one.
        """
        import anyio

        loop = asyncio_loop()
        with anyio.CancelScope(shield=True):
            return await (fn() if loop is None else self._finish_in_task(loop, fn, restart=restart))
        raise AssertionError("unreachable: a shielded scope swallows nothing")  # its type says that it might

    async def _finish_in_task(self, loop: asyncio.AbstractEventLoop, fn: AsyncThunk[T], *, restart: bool) -> T:
        import asyncio

        task = loop.create_task(_as_coroutine(fn))
        while True:
            while not task.done():
                try:
                    await asyncio.wait((task,))
                except asyncio.CancelledError as cancelled:
                    self._pending = cancelled
            if not (task.cancelled() and restart):
                return task.result()
            restart = False
            self._pending = asyncio.CancelledError()
            task = loop.create_task(_as_coroutine(fn))

    def release(self) -> None:
        """Let the cancellation that was held back go on."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            raise pending


class SyncCancellation:
    """The twin for threads: KeyboardInterrupt and the like are what a cancellation is here."""

    def __init__(self) -> None:
        self._pending: BaseException | None = None

    def thread_for(self, fn: SyncAct[Any], lease: object) -> AbstractContextManager[None]:  # noqa: ARG002 - for the twin
        """This thread runs it."""
        return nullcontext()

    def call(self, fn: SyncAct[T]) -> T:
        """Run the user's function here and now."""
        return fn()

    def finish(self, fn: SyncThunk[T], *, restart: bool = True) -> T:
        """Run `fn` to its end; interrupted once, it is started again."""
        try:
            return fn()
        except Exception:
            raise
        except BaseException as interrupt:
            if not restart:
                raise
            self._pending = interrupt
            return fn()

    def release(self) -> None:
        """Let the interrupt that was held back go on."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            raise pending


async def _as_coroutine(fn: AsyncThunk[T]) -> T:
    return await fn()
