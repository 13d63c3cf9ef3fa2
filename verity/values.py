"""The request bodies of the low-level API, and the ledger's answers. All values are frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, Literal, TypeVar

T_co = TypeVar("T_co", covariant=True)
Source = Literal["acted", "observed"]
Acted = Literal["no", "unknown"]

_SENT_AS_NULL = ("result", "error")
_SECRET_NAMES = frozenset({"leaseToken", "cachedResult", "cachedError", "result", "error", "inputJson"})


@dataclass(frozen=True)
class Found(Generic[T_co]):
    """Returned by `observe` if the effect has happened and its result may be empty: `Found([])`.

    It takes any value, None included. An empty value without `Found` is refused: it could also mean that nothing was
    found. The value stays out of the repr.
    """

    value: T_co = field(repr=False)


@dataclass(frozen=True)
class RequestBody:
    """Base of the request bodies of the low-level API. Payloads and tokens stay out of the repr."""

    effect_key: str

    def to_wire(self) -> dict[str, Any]:
        """Return the camelCase mapping that is sent. None means absent, except for `result` and `error`."""
        wire: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None or each.name in _SENT_AS_NULL:
                head, *rest = each.name.split("_")
                wire[head + "".join(map(str.capitalize, rest))] = value
        return wire


@dataclass(frozen=True)
class LeaseRequestBody(RequestBody):
    """Requests a lease on an effect. `lease_duration_ms` is 5,000 to 120,000; the ledger's default is 30,000."""

    effect_name: str | None = None
    agent_id: str | None = None
    lease_duration_ms: int | None = None
    input_json: Any = field(default=None, repr=False)
    workflow_name: str | None = None
    case_id: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class CommitRequestBody(RequestBody):
    """Records an effect's result: any JSON value of at most 64 KB, None included."""

    fence_token: int
    lease_token: str = field(repr=False)
    result: Any = field(repr=False)
    source: Source | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class FailRequestBody(RequestBody):
    """Records that an effect failed: any JSON value of at most 64 KB."""

    fence_token: int
    lease_token: str = field(repr=False)
    error: Any = field(repr=False)
    source: Source | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class RenewRequestBody(RequestBody):
    """Extends a lease to `extension_ms` (5,000 to 120,000) from now; None means the lease's own duration."""

    fence_token: int
    lease_token: str = field(repr=False)
    extension_ms: int | None = None


@dataclass(frozen=True)
class ReleaseRequestBody(RequestBody):
    """Gives a lease back before it expires, without an outcome.

    `acted` is `"no"` if the holder has certainly not acted: the effect can be granted at once. It is `"unknown"` if the
    holder may have acted: nobody is granted before `settle_ms` has passed (0 to 600,000; the ledger's default is
    30,000), because what was sent may still take effect. The next holder is then told `expired`.

    .. versionadded:: 0.2
    """

    fence_token: int
    lease_token: str = field(repr=False)
    acted: Acted
    settle_ms: int | None = None


@dataclass(frozen=True)
class ReportObserveBody(RequestBody):
    """Reports to the audit trail whether `observe` found the effect (`hit`), and how many milliseconds it took."""

    fence_token: int
    lease_token: str = field(repr=False)
    hit: bool
    duration_ms: int | None = None


class Record(Mapping[str, Any]):
    """An answer of the ledger, as a read-only mapping with the camelCase names of the API.

    It has every field, also those that are newer than this client. The known fields are attributes, too; an absent one
    reads as None. Payloads and lease tokens stay out of the repr.
    """

    __slots__ = ("_fields", "request_id")
    _fields: Mapping[str, Any]
    request_id: str | None
    """The ledger's id of the request, to find it in the ledger's log; None if the answer had none."""

    def __init__(self, fields: Mapping[str, Any], request_id: str | None = None) -> None:
        object.__setattr__(self, "_fields", dict(fields))
        object.__setattr__(self, "request_id", request_id)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is read-only: {name} cannot be set")

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in self._fields.items() if name not in _SECRET_NAMES)
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> Any:
        return type(self), (dict(self._fields), self.request_id)


class Response(Record):
    """The answer to a call on an effect."""

    __slots__ = ()

    @property
    def status(self) -> str:
        """What happened, in one word. A newer ledger may use words that this client does not know."""
        return str(self._fields.get("status", ""))

    @property
    def effect_id(self) -> str | None:
        """The ledger's id of the effect."""
        return self._fields.get("effectId")

    @property
    def fence_token(self) -> int | None:
        """The number of the grant. It rises with every grant of the effect."""
        return self._fields.get("fenceToken")


class LeaseAnswer(Response):
    """Base of the answers that tell until when a lease lasts."""

    __slots__ = ("_remaining_s",)

    @property
    def remaining_s(self) -> float | None:
        """The seconds that were left of the lease when the ledger answered, at most one too many.

        They are the expiry minus the answer's `Date`, or minus this machine's clock if there was no `Date`. None if the
        answer tells no expiry, and for an embedded ledger.

        .. versionadded:: 0.2
        """
        return getattr(self, "_remaining_s", None)

    @property
    def lease_expires_at(self) -> str | None:
        """When the lease expires unless it is renewed: RFC 3339, by the ledger's clock."""
        return self._fields.get("leaseExpiresAt")


class LeaseResponse(LeaseAnswer):
    """`granted` (act, then commit), or the cached outcome: `cached_completed` or `cached_failed`."""

    __slots__ = ()

    @property
    def effect_key(self) -> str | None:
        """The effect key."""
        return self._fields.get("effectKey")

    @property
    def lease_token(self) -> str | None:
        """Proves who holds the lease; None in a cached answer. It is a secret: keep it out of logs."""
        return self._fields.get("leaseToken")

    @property
    def prior_state(self) -> str | None:
        """The effect before the grant: `none`, `expired` (an earlier holder may have acted) or `reset`."""
        return self._fields.get("priorState")

    @property
    def attempt_key(self) -> str | None:
        """An idempotency key for the outside world: the same for every grant, until a reset with mode `retry`.

        It has at most 64 URL-safe characters. None if the ledger is older than attempt keys.

        .. versionadded:: 0.2
        """
        return self._fields.get("attemptKey")

    @property
    def attempt(self) -> int | None:
        """The number of this grant among the grants of the effect, from 1.

        .. versionadded:: 0.2
        """
        return self._fields.get("attempt")

    @property
    def cached_result(self) -> Any:
        """The committed result, if status is `cached_completed`."""
        return self._fields.get("cachedResult")

    @property
    def cached_error(self) -> Any:
        """The recorded error, if status is `cached_failed`."""
        return self._fields.get("cachedError")


class CommitResponse(Response):
    """`accepted`, or `already_committed` for a repeated commit of the same lease."""

    __slots__ = ()

    @property
    def message(self) -> str | None:
        """An explanation for people."""
        return self._fields.get("message")


class FailResponse(CommitResponse):
    """`recorded`, or `already_failed` for a repeated failure of the same lease."""

    __slots__ = ()


class RenewResponse(LeaseAnswer):
    """`renewed`, with the new expiry."""

    __slots__ = ()


class ReleaseResponse(Response):
    """`released`, or `already_released` for a repeated release of the same lease.

    .. versionadded:: 0.2
    """

    __slots__ = ()

    @property
    def settles_at(self) -> str | None:
        """Nobody is granted before this time (RFC 3339, by the ledger's clock). None: the effect can be granted now."""
        return self._fields.get("settlesAt")


class ReportObserveResponse(Response):
    """Confirms a report to the audit trail."""

    __slots__ = ()
