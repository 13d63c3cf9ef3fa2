"""`EffectPolicy`: what `protect()` does where the outcome of an effect is unknown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from verity._core.text import is_number, read_choice
from verity.errors import VerityConfigError

OnUnknown = Literal["block", "act"]
ObserveWhen = Literal["doubt", "always"]
OnObserveError = Literal["raise", "act"]
OnLeaseLost = Literal["continue", "cancel"]
OnUnavailable = Literal["block", "proceed"]
ON_OBSERVE_ERROR: tuple[OnObserveError, ...] = get_args(OnObserveError)

MAX_PATIENCE_S = 3_600
MAX_SETTLE_S = 600

_CHOICES: dict[str, tuple[str, ...]] = {
    "on_unknown": get_args(OnUnknown),
    "observe_when": get_args(ObserveWhen),
    "on_observe_error": ON_OBSERVE_ERROR,
    "on_lease_lost": get_args(OnLeaseLost),
    "on_unavailable": get_args(OnUnavailable),
}
_SECONDS = {"commit_patience_s": MAX_PATIENCE_S, "settle_s": MAX_SETTLE_S}


@dataclass(frozen=True, slots=True)
class EffectPolicy:
    """The choices for outcomes that are unknown, and for a ledger that is away. Each field says what it gives up.

    A policy is given to a client, to a workflow's run, or to a call. The innermost one applies, as a whole.
    The defaults never act twice, as far as the outside world allows: see docs/guarantees.md.

    Attributes:
        on_unknown: for an effect in doubt (an earlier holder may have acted) and a call without `observe`.
            `"block"`: act does not run, and `OutcomeUnknownError` is raised. `"act"`: act runs, with a warning. This
            gives up exactly-once, unless the target de-duplicates by a key, such as
            `current_effect().idempotency_key`.
        observe_when: `"doubt"`: observe runs only where an earlier holder may have acted. `"always"`: also for an
            effect that the ledger has never granted. This costs a call to the outside world for each effect. It is for
            effects that happened before Verity was introduced, and for a ledger that was restored from a backup.
        on_observe_error: `"raise"`: if observe raises, so does the call. `"act"`: act runs all the same. This gives up
            exactly-once.
        ambiguous: exception classes that, raised by act, say that the effect may have happened.
        definite: exception classes that, raised by act, say that the effect has not happened. A wrong class here can
            let an effect happen twice. In both fields, subclasses count; the closest class decides, and `ambiguous`
            wins over `definite`.
        on_lease_lost: what happens to an act under way whose lease is lost. `"continue"`: it goes on, and finds
            `current_effect().lease_lost` set. `"cancel"`: an async act is cancelled too, and its outcome is unknown. A
            sync act can't be cancelled.
        on_unavailable: what happens if no lease can be had because the ledger is away. `"block"`: the call raises.
            `"proceed"`: act runs unprotected, with a warning. This gives up exactly-once.
        commit_patience_s: for at least how many seconds the client goes on trying to commit while the ledger is away,
            0 to 3,600. A small value makes `CommitUncertainError` more frequent.
        settle_s: for how many seconds nobody may act after an act ended with an unknown outcome, 0 to 600: what timed
            out may still happen so much later. A small value lets the next holder observe too early.

    Raises:
        VerityConfigError: a value is of the wrong type or outside its range.

    .. versionadded:: 0.2
    """

    on_unknown: OnUnknown = "block"
    observe_when: ObserveWhen = "doubt"
    on_observe_error: OnObserveError = "raise"
    ambiguous: tuple[type[BaseException], ...] = ()
    definite: tuple[type[BaseException], ...] = ()
    on_lease_lost: OnLeaseLost = "continue"
    on_unavailable: OnUnavailable = "block"
    commit_patience_s: float = 30.0
    settle_s: float = 30.0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            choice = read_choice(value, choices)
            if choice is None:
                takes = " or ".join(f'"{each}"' for each in choices)
                raise _wrong(name, takes, value)
            object.__setattr__(self, name, choice)
        for name, limit in _SECONDS.items():
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value <= limit:
                raise _wrong(name, f"a number of seconds from 0 to {limit:,}", value)
        for name in ("ambiguous", "definite"):
            object.__setattr__(self, name, _read_classes(name, getattr(self, name)))


def choose_policy(
    outer: EffectPolicy, policy: EffectPolicy | None, on_observe_error: OnObserveError | None
) -> EffectPolicy:
    """The policy of a client, run or call, from its own arguments and the policy of the level around it."""
    chosen = outer if policy is None else policy
    if on_observe_error is None or on_observe_error == chosen.on_observe_error:
        return chosen
    return replace(chosen, on_observe_error=on_observe_error)


def _read_classes(name: str, value: Any) -> tuple[type[BaseException], ...]:
    classes = value if isinstance(value, (tuple, list, set, frozenset)) else (value,)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise _wrong(name, "a tuple of exception classes, such as (MyTimeout,)", each)
    return tuple(classes)


def _wrong(name: str, takes: str, value: Any) -> VerityConfigError:
    return wrong_setting(f"policy.{name}", takes, value, is_word=name in _CHOICES)


def wrong_setting(name: str, takes: str, value: Any, *, is_word: bool = False) -> VerityConfigError:
    """The error for a setting with a wrong value.

    Args:
        name: the setting.
        takes: what it takes.
        value: what it was given. A number is shown, and of anything else its type.
        is_word: whether a string is shown, too: it is a mistyped word, and nothing secret.
    """
    is_shown = isinstance(value, (int, float, bool, type(None))) or (is_word and type(value) is str)
    shown = f"{value!r:.40}" if is_shown else type(value).__name__
    return VerityConfigError(f"{name} takes {takes}, not {shown}.", parameter=name)
