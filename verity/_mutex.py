"""A lock that no interrupt leaves locked.

A signal's handler may raise between any two steps of Python's code, and another one right after it. Python 3.10 looks
for signals before the first instruction of a handler, too: of `finally`, of `except` and of the exit of `with`. A
second signal then skips all of it, and `with lock:` leaves the lock locked. There is one exception: where the first
instruction begins a `try`, Python does not look.

So what must happen stands in a `finally` that begins with `try`, as the first call there, and that is a function in C.
A lock that was taken as a part of a call may be taken or not when an interrupt comes out of that call: only a lock that
knows its owner tells these two apart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from verity.errors import VerityError

T = TypeVar("T")


def holding(lock: Any, fn: Callable[[], T]) -> T:
    """As `with lock: return fn()`.

    Args:
        lock: a `threading.RLock`.
        fn: what to do. It may be interrupted.
    """
    try:
        lock.acquire()
        return fn()
    finally:
        try:  # noqa: SIM105 - what comes up in a call of `suppress` would skip the release
            lock.release()
        except RuntimeError:  # an interrupt came before it was acquired
            pass


class Mutex:
    """Mutual exclusion of threads, not reentrant: a signal's handler that comes back in here is refused."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()

    def run(self, fn: Callable[[], T]) -> T:
        """Call `fn` while no other thread is in here.

        Raises:
            VerityError: this thread is in here.
        """
        self._refuse_reentry()
        return holding(self._lock, fn)

    def run_if_free(self, fn: Callable[[], object], within_s: float = 0.0) -> bool:
        """As `run`; False, without a call, where another thread stays in here for longer than `within_s` seconds."""
        self._refuse_reentry()
        try:
            if not self._lock.acquire(timeout=within_s):
                return False
            fn()
            return True
        finally:
            try:  # noqa: SIM105 - as above
                self._lock.release()
            except RuntimeError:  # it was not acquired
                pass

    def locked(self) -> bool:
        """Whether a thread is in here."""
        return self._lock._is_owned() or not self.run_if_free(bool)  # noqa: SLF001 - as `threading.Condition` asks it

    def acquire(self) -> None:
        """Keep others out until `release()`, for hooks that run around a fork."""
        self._lock.acquire()

    def release(self) -> None:
        """Let others in."""
        self._lock.release()

    def _refuse_reentry(self) -> None:
        if self._lock._is_owned():  # noqa: SLF001 - as `threading.Condition` asks it
            raise VerityError(
                "This call came up inside another call of the same thread, as from a signal's handler. It would wait "
                "for itself. Have the handler set a flag, or raise, and call Verity afterwards."
            )
