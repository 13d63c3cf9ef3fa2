"""How the sync client calls act and observe, and finishes a commit that an interrupt meets."""

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
    """What a call has to know of the lease that it begins on."""

    def confirm(self) -> None: ...


class SyncCancellation(HeldInterrupt):
    """The twin for threads: what a signal's handler or another thread raises is what a cancellation is here.

    It may come up between any two steps. So what must be finished begins inside a `try`, and what follows an interrupt
    there is one call of a function in C, which starts a thread that nothing interrupts.

    Attributes:
        has_begun: whether what `call` raised is its function's: not where the function was not called, or has returned.
    """

    def __init__(self, inside: Inside, clock: Callable[[], float]) -> None:  # noqa: ARG002 - the twin times steps
        super().__init__()
        self._inside = inside
        self._returned: list[Any] = []
        self._raised: list[tuple[Exception, TracebackType | None]] = []
        self._has_run: Callable[[TracebackType | None], bool]  # `call` sets it before it calls the function
        self.has_begun = False

    def check(self, *functions: SyncAct[Any] | None) -> None:
        """This thread runs them."""

    def call(self, fn: SyncAct[T], lease: SyncLease | None = None) -> T:
        """Run the user's function here and now, on a confirmed lease."""
        self.has_begun = False
        self._has_run = partial(has_run, fn)
        with self._inside:
            if lease is not None:
                lease.confirm()
            try:
                self._returned = [fn()]
            except Exception as error:
                self._raised = [
                    (error, error.__traceback__)
                ]  # first of all: an interrupt comes up where a call is made
                self.has_begun = self._has_run(error.__traceback__)
                raise
            return cast("T", self._returned[0])

    def then(self, act: SyncThunk[T], commit: Callable[[T], Any], fail: Callable[[Exception], Any]) -> Any:
        """`commit(act())`; once what `act` calls with `call` has returned, the commit is finished, as by `finish`.

        Where it has raised, and an interrupt came before `act` had recorded that, `fail` gets what it raised.
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
        """Run `fn` to its end whatever interrupts it; `release` passes that on. Interrupted, it is started anew."""
        rescue = Rescue(fn)
        try:
            return fn()
        except VerityError:
            raise
        except BaseException as interrupt:  # noqa: BLE001 - `release` raises it
            self._pending = interrupt
            try:
                rescue.start()  # C's: a further interrupt comes before it, as a part of this one, or after it
            except RuntimeError:
                rescue.run_here()
        return rescue.outcome()

    def forget_raised(self) -> None:
        """What the function raised has been recorded, or need not be. Its traceback leads here, too."""
        self._raised = []
