"""One batch of a purge in SQLite; see `_store/purging.py` for what a purge is."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from verity._store.purging import DUE, PURGED, Candidate, Purge
from verity._store.reads import Rows

_CANDIDATES = f"""
SELECT '', effects.id, effects.key_hash, effects.event_count, effects.created_at,
    {DUE} AND effects.environment = ? AND (? IS NULL OR effects.namespace = ?)
FROM events CROSS JOIN effects ON effects.id = events.effect
WHERE events.effect > ? AND events.sequence = 1
ORDER BY events.effect LIMIT ?
"""
_PURGE = f"UPDATE effects SET {PURGED} WHERE id = ? AND event_count = ? AND purged_at IS NULL"


def find_candidates(connection: apsw.Connection, purge: Purge) -> list[Candidate]:
    """The next effects of a purge, in the order of their ids."""
    scope = (purge.environment, purge.namespace, purge.namespace)
    rows: Rows = connection.execute(_CANDIDATES, (purge.before, *scope, purge.reached[1], purge.batch)).fetchall()
    return [Candidate._make(row) for row in rows]


def purge_effects(connection: apsw.Connection, due: Sequence[Candidate], now: int) -> int:
    """Purge the effects that did not change since they were read; returns how many.

    Args:
        connection: in a transaction that has SQLite's write lock.
        due: the effects, as they were read.
        now: ms since 1970.
    """
    purged = 0
    for each in due:
        connection.execute(_PURGE, (now, each.id, each.known_count))
        if connection.changes():
            connection.execute("DELETE FROM events WHERE effect = ?", (each.id,))
            purged += 1
    return purged
