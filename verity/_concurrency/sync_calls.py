"""Calls act and observe for the sync client, and finishes a commit in spite of interrupts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

from verity._concurrency.callables import SyncAct, SyncThunk
from verity._concurrency.held import HeldInterrupt
from verity._concurrency.interrupts import Rescue
from verity._concurrency.nesting import Inside
from verity._core.interruption import has_run
from verity.errors import VerityError

T = TypeVar("T")


class SyncLease(Protocol):
    """The part of a lease that a call uses.

    `confirm()` renews a lease that is close to its expiry, and raises VerityError if the lease may be lost.
    """

    def confirm(self) -> None: ...


class SyncCancellation(HeldInterrupt):
    """The twin for threads, where an interrupt takes the place of a cancellation.

    A signal handler or another thread can raise an exception between any two steps. So the work begins inside a `try`.
    After an interrupt, the first step is one call into C. It starts a thread that nothing interrupts, and that thread
    finishes the work.

    Attributes:
        has_begun: whether the exception that `call` raised is the function's own. False if the function did not run,
            or had already returned.
    """

    def __init__(self, inside: Inside, clock: Callable[[], float]) -> None:  # noqa: ARG002 - the twin times steps
        super().__init__()
        self._inside = inside
        self._returned: list[Any] = []
        self._raised: list[tuple[Exception, TracebackType | None]] = []
        self._has_run: Callable[[TracebackType | None], bool]  # `call` sets it before it calls the function
        self.has_begun = False

    def check(self, *functions: SyncAct[Any] | None) -> None:
        """Nothing to check: the calling thread runs the functions."""

    def call(self, fn: SyncAct[T], lease: SyncLease | None = None) -> T:
        """Run the user's function in the calling thread.

        Args:
            fn: act or observe.
            lease: the lease under which the function begins; None for observe. A lease that is close to its expiry is
                confirmed first.

        Raises:
            VerityError: the lease is lost, or it is unknown whether it is. The function was not called.
        """
        self.has_begun = False
        self._has_run = partial(has_run, fn)
        with self._inside:
            if lease is not None:
                lease.confirm()
                self.acted = "unknown"
            try:
                self._returned = [fn()]
            except Exception as error:
                self._raised = [(error, error.__traceback__)]  # before any call: an interrupt comes up in a call
                self.has_begun = self._has_run(error.__traceback__)
                raise
            return cast("T", self._returned[0])

    def then(self, act: SyncThunk[T], commit: Callable[[T], Any], fail: Callable[[Exception], Any]) -> Any:
        """Run `commit(act())`. Once the user's function has returned, the commit runs to its end.

        `act` calls that function by `call`, which keeps its result even if an interrupt follows.
        If the user's function raised, and an interrupt came before `act` had recorded the failure, `fail` records it.
        """
        self._returned, self._raised = [], []
        rescue = Rescue(lambda: self._conclude(commit, fail))
        try:
            return commit(act())
        except VerityError:
            raise
        except BaseException as interrupt:
            if not self._returned and not self._raised:
                raise
            self._pending = interrupt
            try:
                rescue.start()  # C's: a further interrupt comes before it, as a part of this one, or after it
            except RuntimeError:
                rescue.run_here()
        return rescue.outcome()

    def _conclude(self, commit: Callable[[Any], Any], fail: Callable[[Exception], Any]) -> Any:
        if self._returned:
            return commit(self._returned[0])
        error, trace = self._raised[0]
        return fail(error) if self._has_run(trace) else None

    def finish(self, fn: SyncThunk[T]) -> T:
        """Run `fn` to its end in spite of interrupts; `HeldInterrupt` raises them afterwards.

        If `fn` itself was interrupted, it is started again.
        """
        rescue = Rescue(fn)
        try:
            return fn()
        except VerityError:
            raise
        except BaseException as interrupt:  # noqa: BLE001 - `raise_pending` raises it
            self._pending = interrupt
            try:
                rescue.start()  # C's: a further interrupt comes before it, as a part of this one, or after it
            except RuntimeError:
                rescue.run_here()
        return rescue.outcome()

    def pause(self, sleep: Callable[[float], None], seconds: float) -> None:
        """Sleep inside `finish`. In the caller's thread an interrupt ends the sleep, and the work is started again."""
        sleep(seconds)

    def is_own(self, error: Exception) -> bool:
        """Whether the function that `call` ran raised this exception. An interrupt may have come after its own."""
        return self.has_begun and bool(self._raised) and self._raised[0][0] is error

    def forget_raised(self) -> None:
        """Forget the function's exception, once it is recorded or need not be. This breaks a reference cycle."""
        self._raised = []
