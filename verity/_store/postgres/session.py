"""One connection while it is in use: an answer counts only if the server raised no doubt about it.

Where standbys are configured, a commit waits until they have it. A DBA may cut that wait off (`pg_cancel_backend`).
Then PostgreSQL answers with success and a WARNING: the primary has the transaction, but a standby that takes over may
not. The text of that warning is translated, so it is not looked at. Any warning raises the doubt, but for those that a
function of the database's owner raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verity._store.interface import StorageError

_RAISED_BY_A_FUNCTION = "pl_exec.c"

CONFIRM = "SELECT pg_logical_emit_message(true, 'verity', '')"
"""A transaction that changes nothing but has a place in the log. Its commit waits for the standbys, as any other's.
Once they have it, they have all that was committed before it."""


class Unanswered(StorageError):
    """The database did not answer, or broke off: whether a statement was carried out is unknown."""


class Session:
    """Sends statements on a connection, and remembers the server's warnings."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._is_in_doubt = False
        connection.add_log_listener(self._note)

    async def fetch(self, sql: str, *values: object, timeout: float | None = None) -> Any:
        """The rows of a statement."""
        rows: Sequence[Any] = await self._connection.fetch(sql, *values, timeout=timeout)
        self.check()
        return rows

    async def fetchrow(self, sql: str, *values: object) -> Any:
        """The first row, or None."""
        row = await self._connection.fetchrow(sql, *values)
        self.check()
        return row

    async def fetchval(self, sql: str, *values: object, timeout: float | None = None) -> Any:
        """The first column of the first row, or None."""
        value = await self._connection.fetchval(sql, *values, timeout=timeout)
        self.check()
        return value

    async def execute(self, sql: str, *values: object, timeout: float | None = None) -> None:
        """A statement without rows, or several without values."""
        await self._connection.execute(sql, *values, timeout=timeout)
        self.check()

    def transaction(self) -> Any:
        """A transaction, as a context manager. Whoever gives the connection back looks for a doubt about its end."""
        return self._connection.transaction()

    async def confirm(self) -> None:
        """Return once the standbys have everything that this session may have read; at once where there are none.

        Raises:
            Unanswered: that is not known.
        """
        if await self._connection.fetchval("SELECT current_setting('synchronous_standby_names', true)"):
            await self.fetch(CONFIRM)

    def check(self) -> None:
        """Raise Unanswered if the server raised a doubt."""
        if self._is_in_doubt:
            raise Unanswered("a standby may not have what was written")

    def leave(self) -> None:
        """Let go of the connection."""
        self._connection.remove_log_listener(self._note)

    def _note(self, _connection: Any, message: Any) -> None:
        severity = message.severity_en or message.severity
        if severity == "WARNING" and message.server_source_filename != _RAISED_BY_A_FUNCTION:
            self._is_in_doubt = True
