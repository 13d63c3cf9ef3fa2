# Made from verity/_async/effect.py by scripts/mirror.py. Do not edit.
"""One call of `protect()`, with checked arguments and all defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from verity._concurrency import Inside, SyncAct, SyncCancellation
from verity._sync.ledger import Wire
from verity._tracing import EffectSpan
from verity.config import ConflictRetryConfig
from verity.policy import EffectPolicy
from verity.values import LeaseResponse


@dataclass(frozen=True)
class SyncEffect:
    """One call of `protect()`."""

    namespace: str
    lease_body: Wire
    duration_ms: int
    act: SyncAct[Any]
    observe: SyncAct[Any] | None
    on_lease: Callable[[LeaseResponse], object] | None
    conflict_retry: ConflictRetryConfig
    policy: EffectPolicy
    span: EffectSpan
    inside: Inside
    cancellation: SyncCancellation

    @property
    def key(self) -> str:
        """The effect key with its suffix, as the client sends it."""
        return str(self.lease_body["effectKey"])

    @property
    def name(self) -> str | None:
        """The human-readable name, or None."""
        return self.lease_body.get("effectName")

    def tokens(self, lease: LeaseResponse) -> Wire:
        """The fields that every call under a lease has."""
        return {"effectKey": self.key, "fenceToken": lease.fence_token, "leaseToken": lease.lease_token}

    @property
    def run(self) -> Wire:
        """The run's id as a field of a request; empty without a run."""
        run_id = self.lease_body.get("runId")
        return {} if run_id is None else {"runId": run_id}
