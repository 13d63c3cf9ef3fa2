"""API keys in PostgreSQL; see `_store/api_keys.py` for what they are."""

from __future__ import annotations

from typing import Any

from verity._store.api_keys import COLUMNS, ApiKey, from_row, to_row

_INSERT = f"INSERT INTO api_keys ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"


async def insert(connection: Any, key: ApiKey) -> None:
    """Add a key."""
    await connection.execute(_INSERT, *to_row(key))


async def find(connection: Any, sha256: bytes) -> ApiKey | None:
    """The key with this hash, also if it is revoked or has expired."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM api_keys WHERE sha256 = $1", sha256)
    return None if row is None else from_row(tuple(row))


async def list_all(connection: Any) -> list[ApiKey]:
    """All keys, oldest first."""
    rows = await connection.fetch(f"SELECT {COLUMNS} FROM api_keys ORDER BY created_at, id")
    return [from_row(tuple(row)) for row in rows]


async def revoke(connection: Any, key_id: str, now: int) -> bool:
    """Revoke a key; one that was revoked before stays as it was. False: there is none with this id."""
    await connection.execute("UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL", now, key_id)
    return bool(await connection.fetchval("SELECT count(*) FROM api_keys WHERE id = $1", key_id))
