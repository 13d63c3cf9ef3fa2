"""One connection while it is in use. A statement whose answer came with a server's warning counts as unanswered.

If standbys are configured, a commit waits until they have it. A DBA may cut this wait off (`pg_cancel_backend`). Then
PostgreSQL reports success together with a WARNING: the primary has the transaction, but a standby that takes over may
not have it. The text of the warning is translated, so it can't be recognized. Therefore every warning counts, except
those that functions of the database's owner raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verity._store.interface import StorageError

_RAISED_BY_A_FUNCTION = "pl_exec.c"

CONFIRM = "SELECT pg_logical_emit_message(true, 'verity', '')"
"""A transaction that changes no data, but writes to the log. Its commit waits for the standbys like any other. When
they have it, they have everything that was committed before it."""


class Unanswered(StorageError):
    """The database did not answer: whether a statement was carried out is unknown."""


class Session:
    """Sends statements on a connection.

    Every method raises Unanswered if the server sent a warning on this connection, for this or an earlier statement.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._was_warned = False
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
        """Run a statement and ignore its rows; or several statements without values."""
        await self._connection.execute(sql, *values, timeout=timeout)
        self.check()

    def transaction(self) -> Any:
        """A transaction, as a context manager. Its commit is checked when the connection is given back."""
        return self._connection.transaction()

    async def confirm(self) -> None:
        """Return once the standbys have everything that this session can have read; at once if there are none.

        Raises:
            Unanswered: whether they have it is unknown.
        """
        if await self._connection.fetchval("SELECT current_setting('synchronous_standby_names', true)"):
            await self.fetch(CONFIRM)

    def check(self) -> None:
        """Raise Unanswered if the server sent a warning."""
        if self._was_warned:
            raise Unanswered("a standby may not have what was written")

    def leave(self) -> None:
        """Stop listening to the connection."""
        self._connection.remove_log_listener(self._note)

    def _note(self, _connection: Any, message: Any) -> None:
        severity = message.severity_en or message.severity
        if severity == "WARNING" and message.server_source_filename != _RAISED_BY_A_FUNCTION:
            self._was_warned = True
