"""An effect's audit trail, read as a story: one thing follows from another, and the row says the same at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_RAISES_FENCE = ("LEASE_GRANTED", "RESOLVED")


class _Story:
    """What is so after the events that were told."""

    def __init__(self) -> None:
        self.fence = 0
        self.expires_at = 0
        """As the row has it."""
        self.free_at = 0
        """When somebody may be granted: the lease has expired, and what was released as unknown has settled."""
        self.outcome: Any = None
        self.problems: list[str] = []

    def tell(self, event: Any) -> None:
        kind, fence, at, detail = event["type"], event["fence"], event["at"], json.loads(event["detail"])
        self._tell_fence(kind, fence)
        if self.outcome is not None and not kind.startswith("OBSERVE"):
            self.problems.append(f"{kind} after the commit")
        if kind == "LEASE_GRANTED" and at < self.free_at:
            self.problems.append(f"fence {fence} was granted {self.free_at - at} ms before its time")
        if kind in ("COMMITTED", "RESOLVED"):
            self.outcome = detail
        self.expires_at = detail.get("leaseExpiresAt", self.expires_at)
        if kind in ("LEASE_GRANTED", "LEASE_RENEWED"):
            self.free_at = self.expires_at
        elif kind == "RESET":
            self.free_at = 0 if detail["mode"] == "retry" or detail.get("forced") else self.free_at
        elif kind == "LEASE_RELEASED":
            self.free_at = detail.get("settlesAt") or 0

    def _tell_fence(self, kind: str, fence: int) -> None:
        expected = [self.fence + 1] if kind in _RAISES_FENCE else [self.fence]
        if kind == "RESET":
            expected.append(self.fence + 1)
        if fence not in expected:
            self.problems.append(f"{kind} under fence {fence}, while {self.fence} was current")
        self.fence = fence


def wrong_story(row: Any, events: Sequence[Any]) -> list[str]:
    """What does not fit: nothing is granted while a lease lives, fences have no gaps, and the commit is the last."""
    story = _Story()
    for event in events:
        story.tell(event)
    if story.outcome is None:
        return [*story.problems, "no event tells of the commit"]
    told = (story.fence, story.expires_at, story.outcome["resultSha256"], story.outcome["source"])
    if told != (row["fence"], row["lease_expires_at"], row["result_sha256"], row["source"]):
        story.problems.append("the row says something else than its events")
    return story.problems
