"""The heartbeat of the nodes of a PostgreSQL database, and the outages that they notice.

The database has one row with the time at which a node was last able to write, by the database's clock. Every node reads
it twice a second and writes it if it is not recent. So there are about two writes a second, however many nodes there
are. If all nodes were away, or the database was away or frozen, or its clock jumped forward, the first node that finds
the gap records an outage.

A lease request that comes before this first heartbeat finds the gap, too: the slow path reads the row with the effect.
That counts only while this node has a heartbeat. Otherwise a row that the database does not let it write would be an
outage without an end.

A lock that keeps all nodes from writing effects, such as that of CREATE INDEX, keeps them from renewing leases as well.
So a heartbeat needs the same right to write to the table of the effects, without changing any.

A heartbeat waits neither for the disk nor for a standby (`synchronous_commit` is off for it). A crash loses the latest
ones, so the outage begins a little earlier, which does no harm.
"""

from __future__ import annotations

import logging

from verity._ledger.outages import Outage, add, current, from_text, gap_until, to_text
from verity._store.heartbeat import BEAT_EVERY_MS, Outages
from verity._store.postgres.database import Database, StatementRefused, Use
from verity._store.postgres.session import Session, Unanswered

_logger = logging.getLogger("verity.server")

_RECENT_MS = BEAT_EVERY_MS - 100
_TIMEOUT_S = 3.0

_READ = "SELECT :clock, alive_at, outages FROM heartbeat WHERE id = 1"
# The time is the one of the read: if the node or the database freezes in between, the next heartbeat finds the gap.
_WRITE = """
WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
renewable AS (UPDATE effects SET event_count = event_count WHERE false)
UPDATE heartbeat SET alive_at = $1::bigint, outages = $2::text FROM relaxed
WHERE id = 1 AND alive_at IS NOT DISTINCT FROM $3::bigint AND outages = $4::text RETURNING true
"""


class Heartbeat:
    """The heartbeat of one node.

    Args:
        database: the database.
        clock: an SQL expression for the time in ms since 1970.

    Attributes:
        is_beating: whether this node has a heartbeat. It has none while the database refuses it.
        recorded: tells of the outages that this node has recorded.
    """

    def __init__(self, database: Database, clock: str) -> None:
        self.is_beating = False
        self.recorded = Outages()
        self._database = database
        self._read = _READ.replace(":clock", clock)

    async def beat(self) -> None:
        """Prove that the database can be written to. If the database does not answer, the next beat may."""
        try:
            # The connections of renewals: if they are all blocked, no holder can renew.
            async with self._database.connection(Use.RENEWALS) as session:
                await self._beat(session)
            self.is_beating = True
        except StatementRefused as error:
            if error.is_passing:  # as a lock is; another time it is not refused
                return
            if self.is_beating:
                _logger.warning("the database refuses this node's heartbeat, so outages are not noticed: %s", error)
            self.is_beating = False
        except Unanswered as error:
            _logger.debug("a heartbeat was not answered: %s", error)

    def outages(self, now: int, alive_at: int | None, recorded: str) -> tuple[Outage, ...]:
        """The outages that may concern a lease at `now`, from the values of the row that were read at this time."""
        found = current(from_text(recorded), now)
        gap = gap_until(now, alive_at) if self.is_beating else None
        return found if gap is None else add(gap, found)

    async def _beat(self, session: Session) -> None:
        row = (await session.fetch(self._read, timeout=_TIMEOUT_S))[0]
        now, alive_at, text = row
        if alive_at is not None and 0 <= now - alive_at < _RECENT_MS:
            return
        outages, gap = current(from_text(text), now), gap_until(now, alive_at)
        if gap is not None:
            outages = add(gap, outages)
        is_written = await session.fetchval(_WRITE, now, to_text(outages), alive_at, text, timeout=_TIMEOUT_S)
        if is_written and gap is not None:
            self.recorded.tell(gap)
