"""What an interrupt must not do to a call: pass for a lost answer, leave a commit half done, wait for its own thread.

What an interrupt is: `verity/_core/interruption.py`.
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
"""So often is what must be finished started anew; who interrupts the new one each time does not mean it to end."""

_CHECK_EVERY_S = 1.0


class SyncHere(threading.local):
    """What the current thread is doing. Set it by plain assignments: a call can be interrupted at its entry.

    Attributes:
        is_inside: it is in a call of the client, and not in a function of the caller's: it may hold locks.
        is_ours: Verity started it, for its own work; nothing interrupts it.
    """

    is_inside = False
    is_ours = False

    def check(self) -> None:
        """Refuse a call that interrupts another one: it could wait for a lock that its own thread holds.

        Raises:
            VerityError: the thread is inside another call.
        """
        if self.is_inside:
            raise VerityError(
                "This call came up inside another call of the same thread, as from a signal's handler. It could wait "
                "for itself, so nothing was sent. Have the handler set a flag, or raise, and call Verity afterwards."
            )


class AsyncHere:
    """The twin for event loops: nothing that can wait for its own thread can be called from a handler there."""

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
    """What a signal's handler raised, if that is what ended a request; None: the transport itself failed.

    Args:
        error: what came out of the request.
        own_errors: what the transport raises by itself.
        outer: the exception that was being handled before the request began.
    """
    return raised_by_handler(error, outer)


def sync_interrupt_in(
    error: Exception, own_errors: tuple[type[Exception], ...], outer: BaseException | None
) -> BaseException | None:
    """The twin for threads, where another thread can raise, too: whatever is not the transport's own."""
    found = raised_by_handler(error, outer)
    if found is not None or sync_here.is_ours or isinstance(error, own_errors):
        return found
    return error


class Rescue(Generic[T]):
    """Finishes what an interrupt has ended, in a thread that nothing interrupts: signals' handlers run in the main one.

    It is made before there is anything to rescue. Whoever is interrupted calls `start()` first of all, or `run_here()`
    where no thread is to be had, and then `outcome()`.

    Attributes:
        start: starts the thread. It is one call of a function in C, with no step of Python's before it or in it.
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
        except BaseException as error:  # noqa: BLE001 - it is raised where the outcome is waited for
            self._outcome = None, error
        finally:
            self._is_over.release()

    def run_here(self) -> None:
        """Do it in the interrupted thread."""
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
        """Wait until it is done, whatever interrupts that: it ends by itself, as each request does."""
        while self._outcome is None:
            try:
                self._is_over.acquire(timeout=_CHECK_EVERY_S)
            except BaseException:  # noqa: BLE001, S112 - a further interrupt; the first one is passed on
                continue
        result, error = self._outcome
        if error is not None:
            raise error
        return cast("T", result)
