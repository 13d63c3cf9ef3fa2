"""Purging: dropping what decided effects carried, batch by batch, and keeping what stops them from acting again.

A purged effect keeps its key, its status, its fence and pair, and the hashes of its payloads: its tombstone. The
payloads and the audit trail go. Nothing that is undecided is ever purged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from verity._ledger.calls import Environment

PURGED = "input_text = NULL, result_text = NULL, error_text = NULL, purged_at = ?"
"""What an UPDATE sets; its value is the time."""
BATCH = 500


@dataclass(frozen=True, slots=True)
class Purge:
    """A purge under way. It can be taken up again where it was left, or begun anew: what is purged is not seen again.

    Attributes:
        environment: whose effects.
        before: effects that last changed before this moment, in ms since 1970.
        namespace: only there; None is everywhere.
        reached: the id of the last effect that was looked at.
        purged: how many so far.
        done: whether there is nothing left.
    """

    environment: Environment
    before: int
    namespace: str | None = None
    reached: int = -1
    purged: int = 0
    done: bool = False

    def select(self, columns: str) -> tuple[str, tuple[Any, ...]]:
        """The columns of the next batch's effects, in the order of their ids, and the values of the `?`s."""
        namespaces = [] if self.namespace is None else [self.namespace]
        return (
            f"SELECT {columns} FROM effects WHERE environment = ?{' AND namespace = ?' * len(namespaces)} AND id > ?"
            " AND status IN ('COMMITTED', 'FAILED') AND purged_at IS NULL AND updated_at < ?"
            f" ORDER BY id LIMIT {BATCH}",
            (self.environment, *namespaces, self.reached, self.before),
        )

    def after(self, ids: list[int]) -> Purge:
        """The purge once these are purged."""
        return replace(
            self,
            reached=max(ids, default=self.reached),
            purged=self.purged + len(ids),
            done=len(ids) < BATCH,
        )
