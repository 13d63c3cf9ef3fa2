"""Purging: dropping what decided effects carried, batch by batch, and keeping what stops them from acting again.

A purged effect keeps its key, its status, its fence and pair, and the hashes of its payloads: its tombstone. The
payloads and the audit trail go. Nothing that is undecided is ever purged.

What there is to purge is found through the events: what is purged has none, so that no tombstone is ever read again,
and no call on an effect pays for an index that only purges need. Effects are looked at in the order of their ids, which
is that of their creation, and no further than to those that are younger than the purge reaches. A batch is read without
a lock; what is written demands the version that was read, so that an effect that changes meanwhile stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from verity._ledger.calls import Environment

PURGED = "input_text = NULL, result_text = NULL, error_text = NULL, purged_at = ?"
"""What an UPDATE sets; its value is the time."""
DUE = "effects.status IN ('COMMITTED', 'FAILED') AND effects.purged_at IS NULL AND effects.updated_at < ?"
"""What is purged; the value is the moment before which it last changed."""
BATCH = 500
BATCH_OF_DRY_RUN = 5_000
_MAX_ID = 2**63 - 1


class Candidate(NamedTuple):
    """An effect that a purge looks at."""

    namespace: str
    """Empty in a store whose events are in the order of ids alone."""
    id: int
    key_hash: bytes
    known_count: int
    """The row's version, as it was read."""
    created_at: int
    is_due: bool


@dataclass(frozen=True, slots=True)
class Purge:
    """A purge under way. It can be taken up again where it was left, or begun anew: what is purged is not seen again.

    Attributes:
        environment: whose effects.
        before: effects that last changed before this moment, in ms since 1970.
        namespace: only there; None is everywhere.
        dry_run: count, and change nothing.
        reached: namespace and id of the last effect that was looked at.
        purged: how many so far.
        done: whether there is nothing left.
    """

    environment: Environment
    before: int
    namespace: str | None = None
    dry_run: bool = False
    reached: tuple[str, int] = ("", -1)
    purged: int = 0
    done: bool = False

    @property
    def batch(self) -> int:
        """How many effects are looked at together."""
        return BATCH_OF_DRY_RUN if self.dry_run else BATCH

    def after(self, looked_at: Sequence[Candidate], purged: int) -> Purge:
        """The purge once it has looked at these, in their order, and purged so many of them."""
        return replace(
            self,
            reached=self._reach(looked_at) if looked_at else self.reached,
            purged=self.purged + purged,
            done=len(looked_at) < self.batch,
        )

    def _reach(self, looked_at: Sequence[Candidate]) -> tuple[str, int]:
        """Where to go on: after the last one, or with the next namespace if what is left in this one is younger."""
        last = looked_at[-1]
        is_through = all(each.created_at >= self.before for each in looked_at if each.namespace == last.namespace)
        return last.namespace, _MAX_ID if is_through else last.id
