"""Which effects a piece of user code belongs to: what it calls knows by way of its context variables."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Any

from verity._concurrency.interrupts import sync_here
from verity.errors import VerityValidationError

_innermost: ContextVar[Inside | None] = ContextVar("verity_inside", default=None)


class Inside:
    """One effect. Inside `with`, code of its user's runs: act, observe or on_lease. It may be entered again and again.

    Tasks and threads that this code starts inherit its context, and may live on: it counts only while it is active.

    Attributes:
        is_over: whether the call has ended. Set it with a plain assignment: a signal's handler may raise at the entry
            of any method, also of `__exit__`, and nothing must go on for a call that is not there any more.
        effect_key: the key as it travels.
        label: what log lines call the effect.
        thread_loop: the event loop for which the code blocks a worker thread at the moment; None where it blocks none.
        lent_place: what limits the threads of calls that this code makes, where that thread stands for theirs.
    """

    __slots__ = (
        "_identity",
        "_is_active",
        "_outer",
        "_was_inside",
        "effect_key",
        "is_over",
        "label",
        "lent_place",
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
        self.thread_loop: object = None
        self.lent_place: Any = None

    def __enter__(self) -> Inside:
        self._outer = _active(_innermost.get())  # not one that has ended: the chain is as long as what goes on
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
        """Raise where this code would wait for itself.

        Raises:
            VerityValidationError: the calling code is inside the same effect.
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
        """The effect whose code this one's was called from, while that goes on."""
        return _active(self._outer)


def _active(inside: Inside | None) -> Inside | None:
    """The innermost one that has not ended."""
    while inside is not None and (inside.is_over or not inside._is_active):  # noqa: SLF001 - of the same module
        inside = inside._outer  # noqa: SLF001
    return inside
