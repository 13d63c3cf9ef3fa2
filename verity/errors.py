"""Every error that leaves this library, in one tree.

```
VerityError                        base class: `except VerityError` catches all of them
├── VerityConfigError              a setting is missing or wrong; nothing was sent
├── VerityValidationError          an argument or a payload is wrong or too large
├── VerityConnectionError          the ledger gave no answer: the outcome is unknown
├── VerityApiError                 the ledger answered with something other than success
│   └── LeaseConflictError         409: another holder's lease is live
├── ActNotStartedError             no thread could be started; act did not run, nothing was recorded
├── EffectPreviouslyFailedError    the effect failed before; an admin can reset it
├── ObserveFailedError             observe() raised: unknown whether the effect happened; act did not run
├── OutcomeUnknownError            the effect may have happened: the call does not act without knowing
├── NotExecuted                    for act to raise: the effect has not happened
├── OutcomeUnknown                 for act to raise: the effect may have happened
└── CommitUncertainError           CRITICAL: act or observe has a result, and its commit is not confirmed
```

The only other exceptions that leave a call are those that the user's `act` or `on_lease` raises, cancellations, and
exceptions of signal handlers or other threads (interrupts). docs/outcomes.md says which of them mean a failure.
All errors can be pickled, copied and deep-copied with their attributes. No message contains an API key,
a lease token or a payload; payloads are attributes only.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any, TypeVar

_E = TypeVar("_E", bound="VerityError")


class VerityError(Exception):
    """Base class of all errors of this library. Raised itself if a signal handler makes a call inside another call.

    Attributes:
        effect_key: the key of the effect, as it was sent; None if the error is about no effect.
        request_id: the ledger's id of the request, to find it in the ledger's log; None if there is none.
    """

    # A user's subclass of NotExecuted or OutcomeUnknown may have an `__init__` that does not call this one.
    effect_key: str | None = None
    request_id: str | None = None

    def __init__(self, message: str = "", *, effect_key: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.effect_key = effect_key
        self.request_id = request_id


class VerityConfigError(VerityError):
    """A setting is missing or outside its range. Raised at construction or by a call, before anything is sent.

    Attributes:
        parameter: the name of the setting, such as `renew_at_fraction`.
    """

    def __init__(self, message: str = "", *, parameter: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.parameter = parameter


class VerityValidationError(VerityError):
    """Input data is invalid or too large.

    Attributes:
        parameter: the name of the argument or payload, with the place inside it: `result.items[3]`.
    """

    def __init__(self, message: str = "", *, parameter: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.parameter = parameter


class VerityConnectionError(VerityError):
    """The ledger could not be reached, or did not answer in time. It may have carried the request out.

    The transport's own exception is `__cause__`.
    """


class VerityApiError(VerityError):
    """The ledger (or a proxy before it) answered with something other than success.

    Attributes:
        status_code: the HTTP status, which can be an unusual one such as 499 or 520.
        code: the ledger's error code, such as `stale_fence`; None if the body had none.
        message: the ledger's explanation, cut to 300 characters.
        details: the problem's `details` as the ledger sent them (a list or an object), or None.
        retry_after_s: the `Retry-After` header in seconds, or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status_code: int = 0,
        code: str | None = None,
        details: Any = None,
        retry_after_s: float | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.message = message
        self.status_code = status_code
        self.code = code
        self.details = details
        self.retry_after_s = retry_after_s


class LeaseConflictError(VerityApiError):
    """409: another holder has the effect, and still has it after all retries.

    Its lease is live; or it expired while the ledger was away, and can still be renewed (`details` has `grace: true`);
    or it was given back a short time ago by a holder that may have acted.

    Attributes:
        lease_expires_at: until when nobody else is granted the effect, unless the lease is renewed (RFC 3339, by the
            ledger's clock), or None.
        waited: whether the ledger waited before this answer, as the request asked it to.
    """

    def __init__(
        self, message: str = "", *, lease_expires_at: str | None = None, waited: bool = False, **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.lease_expires_at = lease_expires_at
        self.waited = waited


class ActNotStartedError(VerityError):
    """`act` did not run, because no thread could be started. Nothing was recorded.

    A lease that was granted is given back. The system's own exception is `__cause__`.
    """


class EffectPreviouslyFailedError(VerityError):
    """The effect failed before. It stays failed until an admin resets or resolves it.

    After a reset with mode `verify`, the default, a call needs `observe`; after mode `retry` it acts.

    Attributes:
        cached_error: the error that was recorded, as JSON: usually `{"name", "message", "stack"}`.
    """

    def __init__(self, message: str = "", *, cached_error: Any = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.cached_error = cached_error


class ObserveFailedError(VerityError):
    """`observe()` raised or returned an empty value: it is unknown whether the effect happened. `act` did not run.

    The lease is given back as it was granted, and the next caller observes again. The exception is also `__cause__`.

    Attributes:
        observe_error: the exception that `observe` raised; a `VerityValidationError` if it returned an empty value.
    """

    def __init__(self, message: str = "", *, observe_error: BaseException | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.observe_error = observe_error

    def __reduce__(self) -> Any:
        return _portable_reduce(self)

    def __copy__(self) -> ObserveFailedError:
        return _copy_as_it_is(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> ObserveFailedError:
        return _deepcopy_what_can_be(self, memo)


class OutcomeUnknownError(VerityError):
    """The effect may have happened: by an earlier holder that did not finish, or by an act whose lease was lost.

    After an earlier holder, act did not run. Pass `observe`, resolve the effect once you know its result, or use
    `EffectPolicy(on_unknown="act")` if the target de-duplicates.

    Attributes:
        fence_token: the fence of the call's grant; None if there was none.

    .. versionadded:: 0.2
    """

    def __init__(self, message: str = "", *, fence_token: int | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.fence_token = fence_token


class NotExecuted(VerityError):
    """For `act` to raise: nothing happened. No failure is recorded, the error leaves `protect()`, a later call acts.

    Raise it only where it is certain, for example because a check before the request failed. It is about the effect
    whose act raises it. If an outer act lets it through, the outer effect may have happened.

    .. versionadded:: 0.2
    """


class OutcomeUnknown(VerityError):
    """For `act` to raise: the effect may have happened. The error leaves `protect()`; the next call observes or blocks.

    Time-outs and broken connections count as such without it: see docs/outcomes.md.

    .. versionadded:: 0.2
    """


class CommitUncertainError(VerityError):
    """CRITICAL: the effect has happened, and the ledger has not confirmed the commit.

    Do not retry blindly: look the effect up (Explorer, or `observe`) and reconcile it.

    Attributes:
        result: the result of `act` or `observe`. Never shown in the message or the repr.
        commit_error: the `VerityError` that tells why the commit is not confirmed.
        spooled: True: the result is in the client's spool, which commits it as soon as the ledger accepts it. False:
            there is no spool, it can't be written, or the ledger refused the result for good, such as after
            `effect_finished` (then the spool keeps it for people).

    .. versionadded:: 0.2 ``spooled``
    """

    def __init__(
        self,
        message: str = "",
        *,
        result: Any = None,
        commit_error: BaseException | None = None,
        spooled: bool = False,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.result = result
        self.commit_error = commit_error
        self.spooled = spooled

    def __reduce__(self) -> Any:
        return _portable_reduce(self)

    def __copy__(self) -> CommitUncertainError:
        return _copy_as_it_is(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> CommitUncertainError:
        return _deepcopy_what_can_be(self, memo)


def _portable_reduce(error: VerityError) -> tuple[Any, ...]:
    """Make the error picklable. A value of the user's that cannot be pickled is replaced by its type's name."""
    state = {name: _picklable(value) for name, value in vars(error).items()}
    return type(error), error.args, state


def _picklable(value: Any) -> Any:
    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes, made on this line
    except Exception:  # noqa: BLE001 - a user's object may raise anything while it is pickled
        return f"<{type(value).__qualname__}, which cannot be pickled>"
    return value


def _copy_as_it_is(error: _E) -> _E:
    """Copy without pickling, so that a copy keeps a result that cannot be pickled."""
    twin = type(error)(*error.args)
    vars(twin).update(vars(error))
    return twin


def _deepcopy_what_can_be(error: _E, memo: dict[int, Any]) -> _E:
    """Deep-copy the attributes, and share those that cannot be copied: the copy keeps the real result."""
    twin = type(error)(*error.args)
    for name, value in vars(error).items():
        try:
            vars(twin)[name] = copy.deepcopy(value, memo)
        except Exception:  # noqa: BLE001 - a user's object may raise anything while it is copied
            vars(twin)[name] = value
    return twin
