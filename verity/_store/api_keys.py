"""API keys as a store keeps them: a hash of the key and its rights. The key itself is not stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from verity._ledger.calls import Environment

Role = Literal["agent", "org_admin"]

COLUMNS = "id, sha256, environment, role, namespaces, name, created_at, expires_at, revoked_at"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One API key. Times are ms since 1970."""

    id: str
    sha256: bytes
    environment: Environment
    role: Role
    namespaces: frozenset[str] | None
    """The namespaces that the key is bound to; None: all of the environment."""
    name: str | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None

    def __repr__(self) -> str:
        return f"<ApiKey {self.id} {self.environment} {self.role}>"


def to_row(key: ApiKey) -> tuple[Any, ...]:
    """The row of a key, in the order of `COLUMNS`."""
    # A namespace has no control characters, so line ends can separate them.
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
    """The key of a row, which has the order of `COLUMNS`."""
    namespaces = None if row[4] is None else frozenset(row[4].split("\n"))
    return ApiKey(row[0], row[1], row[2], row[3], namespaces, *row[5:])
