"""An API call without its transport: `Request` and `Answer`.

The HTTP server and the embedded ledger both make a `Request` and return the `Answer`. So both give the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from verity._operations import Operation

if TYPE_CHECKING:
    from verity._ledger.raw_json import Members

Environment = Literal["live", "test"]
ENVIRONMENTS: tuple[Environment, ...] = ("live", "test")


@dataclass(frozen=True, slots=True)
class Scope:
    """The effects that a caller may read and write. A store never leaves the scope of a request."""

    environment: Environment
    namespaces: frozenset[str] | None = None
    """The namespaces that the API key is bound to; None: all of the environment."""
    actor: str | None = None
    """The caller's name for the audit trail: the id of the API key, never the key itself."""


@dataclass(slots=True)
class Request:
    """A call. Never change it; the class is not `frozen` because that would cost more than the rest of it.

    The body is the JSON object as bytes, within the size limit of bodies.
    """

    scope: Scope
    operation: Operation
    namespace: str | None = None
    body: bytes = b""
    members: Members | None = None
    """The body's members, if they were read already."""
    query: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    request_id: str = ""
    trace_parent: str | None = None
    """The W3C trace context of a lease request. It is stored with the effect."""

    def __repr__(self) -> str:
        return f"<Request {self.operation} {self.request_id}>"


@dataclass(slots=True)
class Answer:
    """An answer: an HTTP status, the JSON body as bytes, and extra headers with lower-case names. Never change it."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    outcome: tuple[str, str] = ("", "")
    """For metrics: the reply's word or the error code of an effect call, and a detail (a grant's prior state or a
    result's source)."""

    def __repr__(self) -> str:
        return f"<Answer {self.status}>"
