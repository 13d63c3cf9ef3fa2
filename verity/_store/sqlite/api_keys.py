"""The table of API keys in SQLite; see `_store/api_keys.py` for what a key is."""

from __future__ import annotations

import apsw

from verity._store.api_keys import COLUMNS, ApiKey, from_row, to_row


def insert(connection: apsw.Connection, key: ApiKey) -> None:
    """Add a key."""
    connection.execute(f"INSERT INTO api_keys ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", to_row(key))


def find(connection: apsw.Connection, sha256: bytes) -> ApiKey | None:
    """The key with this hash, even if it is revoked or has expired; None: there is none."""
    row = connection.execute(f"SELECT {COLUMNS} FROM api_keys WHERE sha256 = ?", (sha256,)).fetchone()
    return None if row is None else from_row(row)


def list_all(connection: apsw.Connection) -> list[ApiKey]:
    """All keys, oldest first."""
    rows = connection.execute(f"SELECT {COLUMNS} FROM api_keys ORDER BY created_at, id")
    return [from_row(row) for row in rows]


def revoke(connection: apsw.Connection, key_id: str, now: int) -> bool:
    """Revoke a key. A key that was revoked before keeps its time of revocation. False: there is none with this id."""
    connection.execute("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id))
    return bool(connection.execute("SELECT count(*) FROM api_keys WHERE id = ?", (key_id,)).get)
