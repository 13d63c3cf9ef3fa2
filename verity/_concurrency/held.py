"""The interrupt that is held back while a call finishes what it must not leave half done."""

from __future__ import annotations

from types import TracebackType


class HeldInterrupt:
    """A context manager around calls that hold an interrupt back: on the way out it raises the interrupt.

    The interrupt takes the place of a result, and of an `Exception`. Two exceptions go before it: what interrupts the
    caller itself (a `BaseException` that is no `Exception`), and the error that was named to `goes_first`.
    """

    def __init__(self) -> None:
        self._pending: BaseException | None = None
        self._first: Exception | None = None

    def __enter__(self) -> None:
        """Begin. Blocks may be nested: the inner one raises what was held back so far."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        first, self._first = self._first, None  # kept no longer: its traceback leads here
        if error is None or (isinstance(error, Exception) and error is not first):
            self.release()

    def goes_first(self, error: Exception) -> None:
        """Name an error that the caller must learn of, even where it was interrupted: it is about to be raised."""
        self._first = error

    def release(self) -> None:
        """Raise the interrupt that was held back, if there is one."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            raise pending
