"""How a result is committed. Any error means that the commit is not confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from verity._async.effect import AsyncEffect
from verity._async.lease_keeper import AsyncLeaseKeeper
from verity._async.ledger import AsyncLedger
from verity._concurrency import AsyncRuntime
from verity._core.observation import result_of
from verity._core.payload import round_trip
from verity.config import ClientSettings
from verity.errors import CommitUncertainError, VerityError
from verity.values import LeaseResponse, Source

if TYPE_CHECKING:
    from verity._async.ledger import Wire
    from verity._async.spooling import AsyncSpooler
    from verity._spool import Entry


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
        keeper: AsyncLeaseKeeper,  # noqa: ARG002 - the patience of a commit depends on the lease that it keeps
        source: Source,
        result: Any,
    ) -> Any:
        """Commit, and return the result as every later call will.

        Raises:
            CommitUncertainError: the commit is not confirmed.
        """
        effect.cancellation.acted = None  # the lease is not given back: the commit may arrive
        body: Wire | None = None
        entry: Entry | None = None
        try:
            result = round_trip(result_of(result), "result")
            body = {**effect.tokens(lease), "result": result, "source": source, **effect.run}
            if self._spooler is not None and self._spooler.writes_first:
                entry = await self._spooler.keep(effect, body)
            await self._ledger.commit(effect.namespace, body)
        except VerityError as error:
            is_spooled = False
            if self._spooler is not None and body is not None:
                is_spooled = await self._spooler.keep_refused(effect, body, entry, error)
            done = "act succeeded" if source == "acted" else "observe found the effect done"
            advice = (
                "The result is in the spool, and is committed as soon as the ledger accepts it."
                if is_spooled
                else "Do not run it again blindly: look it up in the ledger and reconcile it."
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
        if self._spooler is not None and entry is not None:
            await self._spooler.forget(entry)
        effect.span.outcome = source
        return result
