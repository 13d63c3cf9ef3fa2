"""Values that go in and come out: request bodies and the ledger's answers. All of them are frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, Literal, TypeVar

T_co = TypeVar("T_co", covariant=True)
Source = Literal["acted", "observed"]

_SENT_AS_NULL = ("result", "error")
_SECRET_NAMES = frozenset({"leaseToken", "cachedResult", "cachedError", "result", "error", "inputJson"})


@dataclass(frozen=True)
class Found(Generic[T_co]):
    """What `observe` returns where the effect has happened and its result may look like nothing: `Found([])`.

    Any value may be found so, None too. Without it an empty value is refused: it could as well mean that nothing was
    found. The value stays out of the repr.
    """

    value: T_co = field(repr=False)


@dataclass(frozen=True)
class RequestBody:
    """Base of the request bodies of the low-level API. Payloads and tokens stay out of the repr."""

    effect_key: str

    def to_wire(self) -> dict[str, Any]:
        """The camelCase mapping that travels. None means absent, but for `result` and `error`, which may be null."""
        wire: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None or each.name in _SENT_AS_NULL:
                head, *rest = each.name.split("_")
                wire[head + "".join(map(str.capitalize, rest))] = value
        return wire


@dataclass(frozen=True)
class LeaseRequestBody(RequestBody):
    """Asks for a lease on an effect. `lease_duration_ms` is 5,000 to 120,000; the ledger's default is 30,000."""

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
class ReportObserveBody(RequestBody):
    """Tells the audit trail whether `observe` found the effect done (`hit`), and how long it took."""

    fence_token: int
    lease_token: str = field(repr=False)
    hit: bool
    duration_ms: int | None = None


class Record(Mapping[str, Any]):
    """What a ledger said: a read-only mapping with the wire's camelCase names, also those newer than this client, and
    the known ones as attributes. An absent field reads as None through its attribute. Payloads stay out of the repr.
    """

    __slots__ = ("_fields", "request_id")
    _fields: Mapping[str, Any]
    request_id: str | None
    """The ledger's id of the request, to find it in the ledger's log; None where it told none."""

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
        """What happened, in one word; a newer ledger may say words that this client does not know."""
        return str(self._fields.get("status", ""))

    @property
    def effect_id(self) -> str | None:
        """The ledger's id of the effect."""
        return self._fields.get("effectId")

    @property
    def fence_token(self) -> int | None:
        """The number of the grant; it rises with every grant of the effect."""
        return self._fields.get("fenceToken")


class LeaseResponse(Response):
    """`granted` (act, then commit), `cached_completed` or `cached_failed` (it was decided before)."""

    __slots__ = ()

    @property
    def effect_key(self) -> str | None:
        """The key as it travelled."""
        return self._fields.get("effectKey")

    @property
    def lease_token(self) -> str | None:
        """Proves that the grant is ours; None in a cached answer. A secret: keep it out of logs."""
        return self._fields.get("leaseToken")

    @property
    def lease_expires_at(self) -> str | None:
        """When the lease runs out unless renewed: RFC 3339, by the ledger's clock."""
        return self._fields.get("leaseExpiresAt")

    @property
    def prior_state(self) -> str | None:
        """What the grant found: `none`, `expired` (a predecessor may have acted) or `reset`."""
        return self._fields.get("priorState")

    @property
    def cached_result(self) -> Any:
        """The committed result, where status is `cached_completed`."""
        return self._fields.get("cachedResult")

    @property
    def cached_error(self) -> Any:
        """The recorded error, where status is `cached_failed`."""
        return self._fields.get("cachedError")


class CommitResponse(Response):
    """`accepted`, or `already_committed` for a repeated commit of the same lease."""

    __slots__ = ()

    @property
    def message(self) -> str | None:
        """What the ledger said about it."""
        return self._fields.get("message")


class FailResponse(CommitResponse):
    """`recorded`, or `already_failed` for a repeated fail of the same lease."""

    __slots__ = ()


class RenewResponse(Response):
    """`renewed`, with the new expiry."""

    __slots__ = ()

    @property
    def lease_expires_at(self) -> str | None:
        """When the lease runs out unless renewed again: RFC 3339, by the ledger's clock."""
        return self._fields.get("leaseExpiresAt")


class ReportObserveResponse(Response):
    """The audit trail took the report."""

    __slots__ = ()
