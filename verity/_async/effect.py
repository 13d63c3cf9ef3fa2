"""One call of `protect()`, with checked arguments and all defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from verity._async.ledger import Wire
from verity._concurrency import AsyncAct, AsyncCancellation, Inside
from verity._tracing import EffectSpan
from verity.config import ConflictRetryConfig
from verity.policy import EffectPolicy
from verity.values import LeaseResponse


@dataclass(frozen=True)
class AsyncEffect:
    """One call of `protect()`."""

    namespace: str
    lease_body: Wire
    duration_ms: int
    act: AsyncAct[Any]
    observe: AsyncAct[Any] | None
    on_lease: Callable[[LeaseResponse], object] | None
    conflict_retry: ConflictRetryConfig
    policy: EffectPolicy
    span: EffectSpan
    inside: Inside
    cancellation: AsyncCancellation

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
