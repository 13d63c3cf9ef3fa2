"""Purging: deleting the payloads and audit trails of old effects that are COMMITTED or FAILED, in batches.

A purged effect keeps a tombstone: its key, status, fence and lease token, and the hashes of its payloads. So its key is
never acted on again. Effects with another status are never purged.

A purge finds its effects through their events. A purged effect has no events, so its tombstone is not read again. So
the purge needs no index of its own, which every call would have to keep up to date. Effects are read in the order of
their ids, which is that of their creation. The purge stops where effects are younger than its limit. A batch is read
without a lock. Each write requires the version that was read, so an effect that changed meanwhile is not purged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from verity._ledger.calls import Environment

PURGED = "input_text = NULL, result_text = NULL, error_text = NULL, purged_at = ?"
"""What an UPDATE sets; the value is the time of the purge."""
DUE = "effects.status IN ('COMMITTED', 'FAILED') AND effects.purged_at IS NULL AND effects.updated_at < ?"
"""The condition for a purge; the value is the time before which the effect last changed."""
BATCH = 500
BATCH_OF_DRY_RUN = 5_000
_MAX_ID = 2**63 - 1


class Candidate(NamedTuple):
    """An effect that a purge has read."""

    namespace: str
    """Empty in a store whose events are ordered by ids alone."""
    id: int
    key_hash: bytes
    known_count: int
    """The row's version at the read."""
    created_at: int
    is_due: bool


@dataclass(frozen=True, slots=True)
class Purge:
    """A purge with its progress. It can be continued from here, or started again: purged effects are not read again.

    Attributes:
        environment: the effects of this environment.
        before: only effects that last changed before this time, in ms since 1970.
        namespace: only effects of this namespace; None: of all.
        dry_run: whether to count only, and change nothing.
        reached: namespace and id of the last effect that was read.
        purged: how many effects were purged so far.
        done: whether no effect is left.
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
        """How many effects are read at once."""
        return BATCH_OF_DRY_RUN if self.dry_run else BATCH

    def after(self, candidates: Sequence[Candidate], purged: int) -> Purge:
        """The purge after a batch: the candidates in their order, and how many of them were purged."""
        return replace(
            self,
            reached=self._reach(candidates) if candidates else self.reached,
            purged=self.purged + purged,
            done=len(candidates) < self.batch,
        )

    def _reach(self, candidates: Sequence[Candidate]) -> tuple[str, int]:
        """Where to continue: after the last candidate, or in the next namespace if the rest of this one is young."""
        last = candidates[-1]
        is_through = all(each.created_at >= self.before for each in candidates if each.namespace == last.namespace)
        return last.namespace, _MAX_ID if is_through else last.id
