"""A mutex that no interrupt leaves locked.

A signal handler can raise between any two steps of Python code, and a second one right after it. Python 3.10 also
checks for signals before the first instruction of a `finally` block, of an `except` block and of the exit of `with`. A
second signal then skips the whole block, and `with lock:` leaves the lock locked. There is one exception: Python does
not check for signals if the first instruction of the block begins a `try`.

So code that must run is the first call in a `finally` block that begins with `try`, and that call goes into C. When an
interrupt comes out of `acquire`, the lock may be acquired or not. Only a lock that knows its owner (`RLock`) tells.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from verity.errors import VerityError

T = TypeVar("T")


def holding(lock: Any, fn: Callable[[], T]) -> T:
    """As `with lock: return fn()`, but an interrupt never leaves the lock locked.

    Args:
        lock: a `threading.RLock`.
        fn: called while the lock is held. It may be interrupted.
    """
    try:
        lock.acquire()
        return fn()
    finally:
        try:  # noqa: SIM105 - an interrupt in a call of `suppress` would skip the release
            lock.release()
        except RuntimeError:  # an interrupt came before the lock was acquired
            pass


class Mutex:
    """Mutual exclusion of threads. Not reentrant: a signal handler that enters it again is refused, not deadlocked."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()

    def run(self, fn: Callable[[], T]) -> T:
        """Call `fn` while no other thread holds the mutex.

        Raises:
            VerityError: this thread holds it already.
        """
        self._refuse_reentry()
        return holding(self._lock, fn)

    def run_if_free(self, fn: Callable[[], object], within_s: float = 0.0) -> bool:
        """As `run`; False, without calling `fn`, if another thread holds the mutex for more than `within_s` seconds."""
        self._refuse_reentry()
        try:
            if not self._lock.acquire(timeout=within_s):
                return False
            fn()
            return True
        finally:
            try:  # noqa: SIM105 - as above
                self._lock.release()
            except RuntimeError:  # the lock was not acquired
                pass

    def locked(self) -> bool:
        """Whether a thread holds the mutex."""
        return self._lock._is_owned() or not self.run_if_free(bool)  # noqa: SLF001 - as `threading.Condition` asks it

    def acquire(self) -> None:
        """Acquire the mutex until `release()`. Only for hooks that run around a fork."""
        self._lock.acquire()

    def release(self) -> None:
        """Release the mutex."""
        self._lock.release()

    def _refuse_reentry(self) -> None:
        if self._lock._is_owned():  # noqa: SLF001 - as `threading.Condition` asks it
            raise VerityError(
                "This call was made inside another call of the same thread, as a signal handler does. It would wait "
                "for itself. Let the handler set a flag, or raise, and call Verity afterwards."
            )
