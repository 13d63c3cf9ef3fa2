"""API keys in PostgreSQL. `_store/api_keys.py` defines what they are."""

from __future__ import annotations

from verity._store.api_keys import COLUMNS, ApiKey, from_row, to_row
from verity._store.postgres.session import Session

_INSERT = f"INSERT INTO api_keys ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"


async def insert(connection: Session, key: ApiKey) -> None:
    """Add a key."""
    await connection.execute(_INSERT, *to_row(key))


async def find(connection: Session, sha256: bytes) -> ApiKey | None:
    """The key with this hash, even if it is revoked or has expired; None: there is none."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM api_keys WHERE sha256 = $1", sha256)
    return None if row is None else from_row(tuple(row))


async def list_all(connection: Session) -> list[ApiKey]:
    """All keys, oldest first."""
    rows = await connection.fetch(f"SELECT {COLUMNS} FROM api_keys ORDER BY created_at, id")
    return [from_row(tuple(row)) for row in rows]


async def revoke(connection: Session, key_id: str, now: int) -> bool:
    """Revoke a key; False: there is none with this id. The time of an earlier revocation stays."""
    await connection.execute("UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL", now, key_id)
    is_there = bool(await connection.fetchval("SELECT count(*) FROM api_keys WHERE id = $1", key_id))
    await connection.confirm()  # an earlier revocation may have got no further than to the primary
    return is_there
