# Made from verity/_async/unprotected.py by scripts/mirror.py. Do not edit.
"""How an effect runs without a lease, where the ledger is away and `on_unavailable="proceed"` asks for it.

Nothing keeps another caller from acting, too. A spool keeps the result for the ledger, and for the next calls.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from verity._concurrency import NoLease, sync_settled
from verity._core.observation import result_of
from verity._core.payload import round_trip
from verity._core.replies import is_away
from verity._sync.effect import SyncEffect
from verity.config import ClientSettings
from verity.errors import CommitUncertainError, LeaseConflictError, VerityError
from verity.values import Source

if TYPE_CHECKING:
    from verity._concurrency import SyncThunk
    from verity._sync.spooling import SyncSpooler


def may_proceed(effect: SyncEffect, conflicts: list[LeaseConflictError], error: VerityError) -> bool:
    """Whether the effect may run without a lease after this error of its lease request.

    It may not if the call has met another holder's live lease: that holder is probably acting.
    """
    return effect.policy.on_unavailable == "proceed" and not conflicts and is_away(error)


class SyncUnprotected:
    """One effect that runs without a lease.

    Args:
        effect: the effect.
        observe: calls its observe; returns what that found, or None.
        spooler: the client's spool; None: it has none.
        settings: the client's settings.
    """

    def __init__(
        self, effect: SyncEffect, observe: SyncThunk[Any], spooler: SyncSpooler | None, settings: ClientSettings
    ) -> None:
        self._effect = effect
        self._observe = observe
        self._spooler = spooler
        self._settings = settings
        self._logger: logging.Logger = settings.logger

    def run(self, away: VerityError) -> Any:
        """Return the effect's result: the one in the spool, or that of observe or act.

        Args:
            away: why there is no lease.

        Raises:
            CommitUncertainError: the effect happened, and its result is not JSON.
            Exception: the exception that act raised. Nothing is recorded.
        """
        effect = self._effect
        spooled = [] if self._spooler is None else self._spooler.read(effect)
        if spooled:
            self._logger.warning("The ledger is away (%s): effect %r gets its result from the spool.", away, effect.key)
            effect.span.outcome = "unprotected"
            return spooled[0].value
        self._logger.warning(
            'Effect %r runs unprotected, as on_unavailable="proceed" asks: there is no lease (%s). Other callers may '
            "act, too.",
            effect.key,
            away,
        )
        effect.inside.lease = NoLease(effect.inside, environment=self._settings.environment, namespace=effect.namespace)
        with effect.cancellation:
            found = self._observe()
            if found is not None:
                return effect.cancellation.finish(partial(self._keep, "observed", found))
            return effect.cancellation.then(self._act, partial(self._keep, "acted"), self._ignore)

    def _act(self) -> Any:
        try:
            result = self._effect.cancellation.call(self._effect.act)
        except Exception:
            self._effect.span.outcome = "failed" if self._effect.cancellation.has_begun else None
            self._effect.cancellation.forget_raised()
            raise
        return sync_settled("act", result)

    def _ignore(self, error: Exception) -> None:
        """Nothing records a failure: there is no lease."""

    def _keep(self, source: Source, result: Any) -> Any:
        effect = self._effect
        try:
            result = round_trip(result_of(result), "result")
        except VerityError as error:
            if self._spooler is not None:
                self._spooler.keep_oversized(effect, source, result)
            uncertain = CommitUncertainError(
                f"Effect {effect.key!r} happened without a lease, and its result can't be kept ({error}).",
                effect_key=effect.key,
                result=result,
                commit_error=error,
            )
            effect.cancellation.goes_first(uncertain)
            raise uncertain from error
        if self._spooler is not None:
            self._spooler.keep_unprotected(effect, source, result)
        effect.span.outcome = "unprotected"
        return result
