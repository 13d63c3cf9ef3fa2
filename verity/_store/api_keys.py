"""API keys as a store keeps them: a hash, what it opens, and until when. The key itself is nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from verity._ledger.calls import Environment

Role = Literal["agent", "org_admin"]

COLUMNS = "id, sha256, environment, role, namespaces, name, created_at, expires_at, revoked_at"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key. Times are ms since 1970."""

    id: str
    sha256: bytes
    environment: Environment
    role: Role
    namespaces: frozenset[str] | None
    """What it is bound to; None is all of the environment."""
    name: str | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None

    def __repr__(self) -> str:
        return f"<ApiKey {self.id} {self.environment} {self.role}>"


def to_row(key: ApiKey) -> tuple[Any, ...]:
    """A key as the columns of its row."""
    # A namespace has no control characters, so a line end between them is safe.
    namespaces = None if key.namespaces is None else "\n".join(sorted(key.namespaces))
    return (
        key.id,
        key.sha256,
        key.environment,
        key.role,
        namespaces,
        key.name,
        key.created_at,
        key.expires_at,
        key.revoked_at,
    )


def from_row(row: tuple[Any, ...]) -> ApiKey:
    """The key that a row holds."""
    namespaces = None if row[4] is None else frozenset(row[4].split("\n"))
    return ApiKey(row[0], row[1], row[2], row[3], namespaces, *row[5:])
