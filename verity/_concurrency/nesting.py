"""Records, in a context variable, the effects whose act, observe or on_lease is running.

So a nested call finds its outer effects. It is refused if it is for the same effect, since it would wait for itself.
`current_effect()` finds the lease under which the caller's code runs.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from verity._concurrency.interrupts import sync_here
from verity.errors import VerityValidationError

if TYPE_CHECKING:
    from verity._concurrency.current import CurrentEffect

_innermost: ContextVar[Inside | None] = ContextVar("verity_inside", default=None)


class DescribedLease(Protocol):
    """A lease under which act and observe run."""

    def describe(self) -> CurrentEffect: ...


class Inside:
    """One call of `protect()`. The caller's code (act, observe or on_lease) runs inside `with`, several times.

    Tasks and threads that this code starts inherit its context and may outlive the call, so only an active one counts.

    Attributes:
        is_over: whether the call has ended. Set it by a plain assignment: a signal handler can raise at the entry of
            any method, also of `__exit__`, and an ended call must not be renewed.
        effect_key: the key as it is sent.
        label: the name of the effect in log lines.
        lease: the lease under which act and observe run; None before it is granted.
        thread_loop: the event loop whose worker thread runs the code at the moment; None if none does.
        lent_limiter: the limiter of nested calls that use the permit of this worker thread; None until one does.
    """

    __slots__ = (
        "_identity",
        "_is_active",
        "_outer",
        "_was_inside",
        "effect_key",
        "is_over",
        "label",
        "lease",
        "lent_limiter",
        "thread_loop",
    )

    def __init__(self, caller: object, namespace: str, effect_key: str, name: str | None) -> None:
        self._identity = (caller, namespace, effect_key)
        self._is_active = False
        self._outer: Inside | None = None
        self._was_inside = False
        self.is_over = False
        self.effect_key = effect_key
        self.label = repr(effect_key) if name is None else f"{effect_key!r} ({name})"
        self.lease: DescribedLease | None = None
        self.thread_loop: object = None
        self.lent_limiter: Any = None

    def __enter__(self) -> Inside:
        self._outer = _active(_innermost.get())  # calls that have ended are left out, so the chain stays short
        self._is_active = True
        _innermost.set(self)
        self._was_inside = sync_here.is_inside
        sync_here.is_inside = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sync_here.is_inside = self._was_inside
        self._is_active = False
        _innermost.set(self._outer)

    def refuse_itself(self) -> None:
        """Refuse a call for an effect inside the same effect: it would wait for itself.

        Raises:
            VerityValidationError: the caller's code runs inside the same effect.
        """
        around = _active(_innermost.get())
        while around is not None:
            if around._identity == self._identity:  # noqa: SLF001 - of the same class
                raise VerityValidationError(
                    f"Effect {self.effect_key!r} is protected inside its own act, observe or on_lease: it would wait "
                    "for itself. Call what act does directly, or give the inner effect a key of its own.",
                    effect_key=self.effect_key,
                    parameter="effect_key",
                )
            around = around.outer

    @property
    def outer(self) -> Inside | None:
        """The call inside whose code this one was made; None if there is none, or it has ended."""
        return _active(self._outer)


def innermost_lease() -> DescribedLease | None:
    """The lease under which the running code of a caller was called. on_lease runs under none of its own."""
    inside = _active(_innermost.get())
    while inside is not None and inside.lease is None:
        inside = inside.outer
    return None if inside is None else inside.lease


def _active(inside: Inside | None) -> Inside | None:
    """This call, or the innermost one around it, whose code is running; None if there is none."""
    while inside is not None and (inside.is_over or not inside._is_active):  # noqa: SLF001 - of the same module
        inside = inside._outer  # noqa: SLF001
    return inside
