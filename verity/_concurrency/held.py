"""A pending interrupt: one that came while a call had to finish its work, and that is raised afterwards."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Literal


class HeldInterrupt:
    """A context manager around calls that may leave an interrupt pending: on exit it raises that interrupt.

    The interrupt replaces a result or an `Exception`. It does not replace a `BaseException` that is no `Exception`,
    which interrupts the caller itself, nor the error that was passed to `goes_first`.

    Attributes:
        acted: what a holder that gives its lease back can say of its act. `"no"` until right before the function is
            called; from then on `"unknown"`, also if it is not certain that it was called. None once the outcome is
            recorded, or is being committed: then the lease is not given back.
    """

    acted: Literal["no", "unknown"] | None

    def __init__(self) -> None:
        self.acted = "no"
        self._process_id = os.getpid()
        self._pending: BaseException | None = None
        self._first: Exception | None = None

    def __enter__(self) -> None:
        """Begin a block. Blocks may be nested: the inner one raises an interrupt that is pending at its end."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        first, self._first = self._first, None  # its traceback refers to this frame: break the cycle
        if error is None or (isinstance(error, Exception) and error is not first):
            self.raise_pending()

    @property
    def is_in_child(self) -> bool:
        """Whether the caller's code forked, and this is the child: the lease and the outcome are the parent's."""
        return os.getpid() != self._process_id

    @property
    def is_interrupted(self) -> bool:
        """Whether an interrupt is pending."""
        return self._pending is not None

    def goes_first(self, error: Exception) -> None:
        """Name an error, about to be raised, that the caller must get in spite of a pending interrupt."""
        self._first = error

    def raise_pending(self) -> None:
        """Raise the pending interrupt, if there is one."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            raise pending
