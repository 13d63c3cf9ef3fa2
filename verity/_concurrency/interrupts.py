"""Protects calls of the client from interrupts (see `verity/_core/interruption.py` for what an interrupt is).

- An interrupt in a request is not taken for a lost answer: `async_interrupt_in`, `sync_interrupt_in`.
- A commit that an interrupt ended is finished: `Rescue`.
- A signal handler that calls the client inside another call is refused, since it could deadlock: `sync_here`.
"""

from __future__ import annotations

import threading
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Generic, TypeVar, cast

from verity._core.interruption import raised_by_handler
from verity.errors import VerityConnectionError, VerityError

T = TypeVar("T")

MAX_INTERRUPTS = 10
"""Work that must be finished is started at most so many times: interrupts that go on longer are meant to end it."""

_CHECK_EVERY_S = 1.0


class SyncHere(threading.local):
    """The state of the current thread. Set it by plain assignments: a call can be interrupted at its entry.

    Attributes:
        is_inside: the thread runs client code, not one of the caller's functions. It may hold locks.
        is_ours: Verity started the thread, for its own work. Nothing interrupts it.
    """

    is_inside = False
    is_ours = False

    def check(self) -> None:
        """Refuse a call from a signal handler inside another call: it could wait for a lock that its own thread holds.

        Raises:
            VerityError: the thread is inside another call.
        """
        if self.is_inside:
            raise VerityError(
                "This call was made inside another call of the same thread, as a signal handler does. It could wait "
                "for itself, so nothing was sent. Let the handler set a flag, or raise, and call Verity afterwards."
            )


class AsyncHere:
    """The twin for event loops: a signal handler can't await a call of the async client, so no call can deadlock."""

    is_inside = False
    is_ours = False

    def check(self) -> None:
        """Nothing to refuse."""


async_here = AsyncHere()
sync_here = SyncHere()


def async_interrupt_in(
    error: Exception,
    own_errors: tuple[type[Exception], ...],  # noqa: ARG001 - for the twin
    outer: BaseException | None,
) -> BaseException | None:
    """The exception of a signal handler, if that ended a request; None: the transport itself failed.

    Args:
        error: the exception that the request raised.
        own_errors: the classes of the transport's own exceptions.
        outer: the exception that was being handled before the request began.
    """
    return raised_by_handler(error, outer)


def sync_interrupt_in(
    error: Exception, own_errors: tuple[type[Exception], ...], outer: BaseException | None
) -> BaseException | None:
    """The twin for threads. Another thread can inject an exception, too: every one but the transport's own counts."""
    found = raised_by_handler(error, outer)
    if found is not None or sync_here.is_ours or isinstance(error, own_errors):
        return found
    return error


class Rescue(Generic[T]):
    """Finishes work that an interrupt ended, in a new thread. No signal handler runs there: all run in the main thread.

    Make it before the work begins. The interrupted code first calls `start()`, or `run_here()` if no thread can be
    started, and then `outcome()`.

    Attributes:
        start: starts the thread. It is one call into C, which no interrupt divides.
    """

    def __init__(self, fn: Callable[[], T]) -> None:
        self._fn = fn
        self._outcome: tuple[T | None, BaseException | None] | None = None
        self._is_over = allocate_lock()
        self._is_over.acquire()
        self.start = partial(start_new_thread, copy_context().run, (self._run,))

    def _run(self) -> None:
        sync_here.is_ours = True
        try:
            self._outcome = self._fn(), None
        except BaseException as error:  # noqa: BLE001 - `outcome` raises it
            self._outcome = None, error
        finally:
            self._is_over.release()

    def run_here(self) -> None:
        """Do the work in the interrupted thread, at most `MAX_INTERRUPTS` times."""
        for _ in range(MAX_INTERRUPTS):
            try:
                self._outcome = self._fn(), None
            except VerityError as error:
                self._outcome = None, error
            except BaseException:  # noqa: BLE001, S112 - a further interrupt; the first one is passed on
                continue
            return
        self._outcome = None, VerityConnectionError("The call was interrupted again and again: its outcome is unknown.")

    def outcome(self) -> T:
        """Wait until the work has ended, in spite of interrupts; return its result or raise its exception.

        The wait ends, because each request has a timeout.
        """
        while self._outcome is None:
            try:
                self._is_over.acquire(timeout=_CHECK_EVERY_S)
            except BaseException:  # noqa: BLE001, S112 - a further interrupt; the first one is passed on
                continue
        result, error = self._outcome
        if error is not None:
            raise error
        return cast("T", result)
