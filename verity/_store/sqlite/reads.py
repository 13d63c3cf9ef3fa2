"""The reads of the SQLite store: those of callers, and those of the node itself (API keys, lease states, metrics).

Both kinds have connections of their own. So no read waits for the writer, the writer waits for no read, and the node's
reads do not wait for those of callers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import apsw

from verity._ledger.calls import ENVIRONMENTS, Answer, Environment, Request
from verity._ledger.problems import Problem, answer_problem
from verity._store.api_keys import ApiKey
from verity._store.lease_states import NO_LEASE, EffectName, LeaseState, read_lease_state
from verity._store.names import hash_effect_name
from verity._store.reads import READ_WITHIN_S, Rows, begin, too_long
from verity._store.sqlite import api_keys
from verity._store.sqlite.heartbeat import read_outages
from verity._store.sqlite.readers import OneConnection, Readers, ReadTooLong
from verity._store.view import Dialect, Query

_logger = logging.getLogger("verity.ledger")

# The last condition is implied by the one before. Without it SQLite would not use the partial index.
_FIRST_EXPIRY = (
    "SELECT min(lease_expires_at) FROM effects WHERE environment = ? AND status = 'RUNNING' AND status <> 'COMMITTED'"
)
_LOOKED_UP_AT_ONCE = 500
_NODE_READ_WITHIN_S = 2.0
RETRY_AFTER_S = 1
DIALECT = Dialect(
    contains="instr({0}, ?) > 0",
    namespace="namespace",
    namespace_value="{namespace}",
    event_owner={"effect": "id"},
    not_null="+{0} IS NOT NULL",
)


class SqliteReads:
    """The part of the store that reads.

    Args:
        reads: the connections for callers' reads.
        node_reads: the connections for the node's reads.
        clock: ms since 1970.

    Attributes:
        read_within_s: the time limit of a caller's read, in seconds.
    """

    def __init__(
        self, reads: Readers | OneConnection, node_reads: Readers | OneConnection, clock: Callable[[], int]
    ) -> None:
        self._reads = reads
        self._node_reads = node_reads
        self.read_within_s = READ_WITHIN_S
        self._now = clock

    def read(self, request: Request, *, is_wanted: Callable[[], bool] = lambda: True) -> Answer:
        """Carry out a read of what is committed, while others may write.

        Args:
            request: a read.
            is_wanted: called now and then, in this thread; False stops the read, which then answers 503.

        Raises:
            VerityConfigError: as `answer_batch` does.
        """
        try:
            return self._reads.run(
                lambda connection: self._read(connection, request),
                within_s=self.read_within_s,
                is_wanted=is_wanted,
            )
        except Problem as refused:
            return answer_problem(refused, request.request_id)
        except ReadTooLong:
            return answer_problem(too_long(), request.request_id)
        except apsw.Error as error:
            _logger.error(
                "a read failed: %s: %s", type(error).__name__, error, extra={"requestIds": [request.request_id]}
            )
            return answer_problem(read_failed(), request.request_id)

    def find_key(self, sha256: bytes) -> ApiKey | None:
        """The API key with this hash, even if it is revoked or has expired; None: there is none."""
        return self._node_reads.run(lambda connection: api_keys.find(connection, sha256), within_s=_NODE_READ_WITHIN_S)

    def list_keys(self) -> list[ApiKey]:
        """All API keys, oldest first."""
        return self._reads.run(api_keys.list_all)

    def now_ms(self) -> int:
        """The ledger's clock, in ms since 1970."""
        return self._now()

    def lease_states(self, names: Sequence[EffectName]) -> list[LeaseState]:
        """The lease states of effects that requests wait for, in the order of the names."""
        hashes = [hash_effect_name(*name) for name in names]

        def find(connection: apsw.Connection) -> dict[object, LeaseState]:
            found: dict[object, LeaseState] = {}
            now = self._now()
            outages = read_outages(connection, now)
            for start in range(0, len(hashes), _LOOKED_UP_AT_ONCE):
                some = hashes[start : start + _LOOKED_UP_AT_ONCE]
                rows: Rows = connection.execute(
                    "SELECT key_hash, status, lease_expires_at, settles_at, updated_at FROM effects"
                    f" WHERE key_hash IN ({', '.join('?' * len(some))})",
                    some,
                ).fetchall()
                found.update(
                    (key_hash, read_lease_state(status, expires_at, settles_at, updated_at, now, outages))
                    for key_hash, status, expires_at, settles_at, updated_at in rows
                )
            return found

        found = self._node_reads.run(find, within_s=_NODE_READ_WITHIN_S)
        return [found.get(each, NO_LEASE) for each in hashes]

    def expired_for_ms(self) -> dict[Environment, int]:
        """By environment, how many ms ago the oldest lease expired that was not taken over."""

        def find(connection: apsw.Connection) -> dict[Environment, int | None]:
            return {each: connection.execute(_FIRST_EXPIRY, (each,)).get for each in ENVIRONMENTS}

        first, now = self._node_reads.run(find, within_s=_NODE_READ_WITHIN_S), self._now()
        return {each: now - at for each, at in first.items() if at is not None and at <= now}

    def _read(self, connection: apsw.Connection, request: Request) -> Answer:
        reading = begin(request, self._now(), DIALECT)
        rows: Rows | None = None
        while True:
            try:
                query: Query = next(reading) if rows is None else reading.send(rows)
            except StopIteration as done:
                answer: Answer = done.value
                return answer
            rows = connection.execute(query.sql, tuple(query.values)).fetchall()


def read_failed() -> Problem:
    """503: the storage failed. A read changes nothing, so nothing is unknown."""
    return Problem(
        503,
        "unavailable",
        "The ledger's storage did not answer the read; nothing was changed. Send it again.",
        retry_after_s=RETRY_AFTER_S,
    )
