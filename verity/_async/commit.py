"""How a result is committed. Any error means that the commit is not confirmed.

If the ledger is away, the client goes on trying while the lease is renewed beside it: see `_core/patience.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from verity._async.effect import AsyncEffect
from verity._async.lease_keeper import AsyncLeaseKeeper
from verity._async.ledger import AsyncLedger, Wire
from verity._concurrency import AsyncRuntime
from verity._core.observation import result_of
from verity._core.patience import RETRY_TIMEOUT_S, CommitTries
from verity._core.payload import round_trip
from verity.config import ClientSettings
from verity.errors import CommitUncertainError, VerityError
from verity.values import LeaseResponse, Source

if TYPE_CHECKING:
    from verity._async.spooling import AsyncSpooler


class AsyncCommitter:
    """Commits results for one client."""

    def __init__(
        self, ledger: AsyncLedger, runtime: AsyncRuntime, settings: ClientSettings, spooler: AsyncSpooler | None
    ) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._settings = settings
        self._spooler = spooler

    async def commit(
        self,
        effect: AsyncEffect,
        lease: LeaseResponse,
        keeper: AsyncLeaseKeeper,
        source: Source,
        result: Any,
    ) -> Any:
        """Commit, and return the result as every later call will.

        Raises:
            CommitUncertainError: the commit is not confirmed.
        """
        effect.cancellation.acted = None  # the lease is not given back: the commit may arrive
        body: Wire | None = None
        try:
            result = round_trip(result_of(result), "result")
            body = {**effect.tokens(lease), "result": result, "source": source, **effect.run}
            if self._spooler is not None and self._spooler.writes_first:
                keeper.spooled = await self._spooler.keep(effect, body)
            await self._send(effect, keeper, body)
        except VerityError as error:
            is_spooled = False
            if self._spooler is not None and body is not None:
                is_spooled = await self._spooler.keep_refused(effect, body, keeper.spooled, error)
            elif self._spooler is not None:
                await self._spooler.keep_oversized(effect, source, result, effect.tokens(lease))
            done = "act succeeded" if source == "acted" else "observe found the effect done"
            advice = (
                "The result is in the spool, and is committed as soon as the ledger accepts it. Should another result "
                "be recorded first, a warning in the log says so."
                if is_spooled
                else "Do not run it again blindly: look it up in the ledger and reconcile it (`verity effects`)."
            )
            uncertain = CommitUncertainError(
                f"Effect {effect.key!r}: {done}, but the commit is not confirmed ({error}). {advice}",
                effect_key=effect.key,
                request_id=error.request_id or lease.request_id,
                result=result,
                commit_error=error,
                spooled=is_spooled,
            )
            effect.cancellation.goes_first(uncertain)
            raise uncertain from error
        if self._spooler is not None and keeper.spooled is not None:
            await self._spooler.forget(keeper.spooled)
        effect.span.outcome = source
        return result

    async def _send(self, effect: AsyncEffect, keeper: AsyncLeaseKeeper, body: Wire) -> None:
        """Send the commit until the answer is definite, or the patience ends. An interrupt may start it again."""
        began_at = self._runtime.monotonic()
        tries = keeper.commit_tries
        if tries is not None and tries.is_pausing:  # pragma: no cover - tests/client/test_patience_interrupted.py
            tries.is_last = True  # an interrupt ended the pause: one more try is left
        while True:
            # The first try has the client's timeout.
            timeout_s = None if tries is None else min(RETRY_TIMEOUT_S, self._settings.request_timeout_s)
            try:
                await self._ledger.commit(effect.namespace, body, attempts=1, timeout_s=timeout_s)
            except VerityError as error:
                if tries is None:
                    tries = keeper.commit_tries = CommitTries(
                        began_at,
                        patience_s=effect.policy.commit_patience_s,
                        lease_s=effect.duration_ms / 1000,
                        max_delay_s=self._settings.conflict_retry.max_delay_s,
                    )
                delay_s = tries.delay_after(
                    error,
                    now=self._runtime.monotonic(),
                    expires_at=keeper.expires_at,
                    is_interrupted=effect.cancellation.is_interrupted,
                    random=self._runtime.random(),
                )
                if delay_s is None:
                    raise
            else:
                return
            if self._spooler is not None and keeper.spooled is None:  # this process may be killed meanwhile
                keeper.spooled = await self._spooler.keep(effect, body)
            tries.is_pausing = True
            await effect.cancellation.pause(self._runtime.sleep, delay_s)
            tries.is_last = tries.is_last or effect.cancellation.is_interrupted
            tries.is_pausing = False
