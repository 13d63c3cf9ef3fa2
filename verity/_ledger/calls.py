"""One API call as the ledger sees it, free of any transport.

The HTTP server and the embedded ledger both build a `Request` and send the `Answer` back, so that
both give the same answers.
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
    """What a caller may touch. A store reads and writes inside one scope and never outside it."""

    environment: Environment
    namespaces: frozenset[str] | None = None
    """The namespaces that the key is bound to; None means all of the environment."""
    actor: str | None = None
    """Who acts, for the audit trail: the id of the API key (never the key itself)."""


@dataclass(slots=True)
class Request:
    """One call, never changed (`frozen` would cost more than all else about it). The body is the raw JSON object,
    already inside its size limit.
    """

    scope: Scope
    operation: Operation
    namespace: str | None = None
    body: bytes = b""
    members: Members | None = None
    """The body's members, where somebody has read them already."""
    query: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    request_id: str = ""
    trace_parent: str | None = None
    """The W3C trace context of a lease request, kept with the effect."""

    def __repr__(self) -> str:
        return f"<Request {self.operation} {self.request_id}>"


@dataclass(slots=True)
class Answer:
    """What goes back, never changed: an HTTP status, the JSON body as bytes, and extra headers (lower-case names)."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    outcome: tuple[str, str] = ("", "")
    """What an effect call came to, for whoever counts: the reply's word or error code, and what is specific to it (a
    grant's prior state, a result's source)."""

    def __repr__(self) -> str:
        return f"<Answer {self.status}>"
