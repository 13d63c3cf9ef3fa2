# Made from verity/_async/commit.py by scripts/mirror.py. Do not edit.
"""How a result is committed. Any error means that the commit is not confirmed."""

from __future__ import annotations

from typing import Any

from verity._concurrency import SyncRuntime
from verity._core.observation import result_of
from verity._core.payload import round_trip
from verity._sync.effect import SyncEffect
from verity._sync.lease_keeper import SyncLeaseKeeper
from verity._sync.ledger import SyncLedger
from verity.config import ClientSettings
from verity.errors import CommitUncertainError, VerityError
from verity.values import LeaseResponse, Source


class SyncCommitter:
    """Commits results for one client."""

    def __init__(self, ledger: SyncLedger, runtime: SyncRuntime, settings: ClientSettings) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._settings = settings

    def commit(
        self,
        effect: SyncEffect,
        lease: LeaseResponse,
        keeper: SyncLeaseKeeper,  # noqa: ARG002 - the patience of a commit depends on the lease that it keeps
        source: Source,
        result: Any,
    ) -> Any:
        """Commit, and return the result as every later call will.

        Raises:
            CommitUncertainError: the commit is not confirmed.
        """
        try:
            result = round_trip(result_of(result), "result")
            body = {**effect.tokens(lease), "result": result, "source": source, **effect.run}
            self._ledger.commit(effect.namespace, body)
        except VerityError as error:
            done = "act succeeded" if source == "acted" else "observe found the effect done"
            uncertain = CommitUncertainError(
                f"Effect {effect.key!r}: {done}, but the commit is not confirmed ({error}). "
                "Do not run it again blindly: look it up in the ledger and reconcile it.",
                effect_key=effect.key,
                request_id=error.request_id or lease.request_id,
                result=result,
                commit_error=error,
            )
            effect.cancellation.goes_first(uncertain)
            raise uncertain from error
        effect.span.outcome = source
        return result
