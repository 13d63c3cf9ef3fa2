"""How an effect is protected: lease -> observe -> act -> commit. Read this first: the guarantees are made here.

- `act` runs only under a live lease, and never for an effect that `observe` found.
- `observe` runs if the effect is in doubt: an earlier holder may have acted. Without `observe`, act does not run then.
- An exception of the commit is never the effect's failure. Each meaning has its own `try`.
- What follows an exception of `act` is decided in `failures.py`. An unknown outcome is never recorded as a failure.
- A call that ends without an outcome gives its lease back, and says whether act may have begun.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from verity._async.acquisition import AsyncAcquisition
from verity._async.commit import AsyncCommitter
from verity._async.effect import AsyncEffect
from verity._async.failures import AsyncFailures
from verity._async.lease_keeper import AsyncLeaseKeeper, Lateness, prepare_renewals
from verity._async.ledger import AsyncLedger
from verity._async.unprotected import AsyncUnprotected, may_proceed
from verity._concurrency import AsyncFunction, AsyncRuntime, async_here, async_settled
from verity._core.failure import add_note
from verity._core.interruption import is_interrupt
from verity._core.observation import check_found
from verity._core.outcome import mark_left
from verity._core.replies import CACHED_COMPLETED, CACHED_FAILED, is_away, is_in_doubt
from verity.config import ClientSettings
from verity.errors import (
    EffectPreviouslyFailedError,
    LeaseConflictError,
    NotExecuted,
    ObserveFailedError,
    OutcomeUnknown,
    OutcomeUnknownError,
    VerityError,
)
from verity.values import LeaseResponse

if TYPE_CHECKING:
    from verity._async.spooling import AsyncSpooler
    from verity._spool import Entry, Spool

REPORT_TIMEOUT_S = 2.0
"""How many seconds an effect waits at most for its report to the audit trail."""


class AsyncProtector:
    """Runs effects against one ledger.

    Attributes:
        spooler: the client's spool; None: it has none.
    """

    def __init__(
        self, ledger: AsyncLedger, runtime: AsyncRuntime, settings: ClientSettings, spool: Spool | None
    ) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._settings = settings
        self._logger: logging.Logger = settings.logger
        self._acquisition = AsyncAcquisition(ledger, runtime, settings)
        self.spooler = self._make_spooler(spool)
        self._committer = AsyncCommitter(ledger, runtime, settings, self.spooler)
        self._failures = AsyncFailures(ledger, settings)
        self._lateness = Lateness(settings.logger)
        self._warned_names: set[str | None] = set()

    def _make_spooler(self, spool: Spool | None) -> AsyncSpooler | None:
        if spool is None:
            return None
        from verity._async.spooling import AsyncSpooler  # only clients with a spool load it

        return AsyncSpooler(spool, self._ledger, self._runtime, self._settings)

    async def replay(self) -> None:
        """Commit results that wait in the spool, if there is one."""
        if self.spooler is not None:
            await self.spooler.replay()

    async def protect(self, effect: AsyncEffect) -> Any:
        """Return the effect's result: the cached one, or that of observe or act, once it is committed."""
        async_here.is_inside = True
        try:
            return await self._protect(effect)
        except (NotExecuted, OutcomeUnknown) as error:
            mark_left(error, effect.key)
            raise
        finally:
            try:  # see verity/_mutex.py
                # Plain assignments: an interrupt could end a method call at its entry.
                effect.inside.is_over = True
                async_here.is_inside = False
            finally:
                pass

    async def _protect(self, effect: AsyncEffect) -> Any:
        effect.inside.refuse_itself()
        await effect.cancellation.check(effect.act, effect.observe)
        if self._settings.auto_renew:
            prepare_renewals(self._runtime, effect.key)
        conflicts: list[LeaseConflictError] = []
        is_left = False
        try:
            if self.spooler is not None:
                is_left = await self.spooler.before_lease(effect)
            lease, requested_at = await self._acquisition.acquire(effect, conflicts)
        except VerityError as error:
            if not may_proceed(effect, conflicts, error):
                if is_away(error):
                    add_note(
                        error, f"act of effect {effect.key!r} did not run: this call got no lease. Call again later."
                    )
                raise
            away = error
        else:
            return await self._protect_under(lease, effect, requested_at, is_left=is_left)
        observe = partial(self._observe, effect, None)
        return await AsyncUnprotected(effect, observe, self.spooler, self._settings).run(away)

    async def _protect_under(
        self, lease: LeaseResponse, effect: AsyncEffect, requested_at: float, *, is_left: bool
    ) -> Any:
        """Return the effect's result, after the ledger has answered.

        Args:
            lease: the grant, or the cached outcome.
            effect: the effect.
            requested_at: when the lease was asked for, in seconds of the runtime's clock.
            is_left: whether the spool still has a result of the effect.
        """
        if lease.status == CACHED_COMPLETED:
            effect.span.outcome = "cached"
            return lease.cached_result
        if lease.status == CACHED_FAILED:
            raise EffectPreviouslyFailedError(
                f"Effect {effect.key!r} failed before and stays failed until an admin resets it.",
                effect_key=effect.key,
                request_id=lease.request_id,
                cached_error=lease.cached_error,
            )
        try:
            if effect.on_lease is not None:
                with effect.inside:
                    await async_settled("on_lease", effect.on_lease(lease))
            with self._keep(effect, lease, requested_at) as keeper, effect.cancellation:
                spooled = None if self.spooler is None else await self.spooler.find(effect, lease, is_left=is_left)
                if spooled is not None:
                    commit = partial(self._commit_spooled, effect, lease, keeper, spooled)
                    return await effect.cancellation.finish(commit)
                found = await self._observe(effect, lease)
                if found is not None:
                    commit = partial(self._committer.commit, effect, lease, keeper, "observed", found)
                    return await effect.cancellation.finish(commit)
                fail = partial(self._failures.record, effect, lease, keeper, sys.exc_info()[1])
                act = partial(self._act, effect, keeper, fail)
                commit = partial(self._committer.commit, effect, lease, keeper, "acted")
                return await effect.cancellation.then(act, commit, fail)
        except GeneratorExit:  # pragma: no cover - tests/client has it: nothing can be sent then
            raise
        except BaseException:
            if effect.cancellation.acted is None or effect.cancellation.is_in_child:
                raise
            with effect.cancellation:
                await self._failures.give_back(effect, lease)
                raise

    async def _commit_spooled(
        self, effect: AsyncEffect, lease: LeaseResponse, keeper: AsyncLeaseKeeper, entry: Entry
    ) -> Any:
        """Commit a result that an earlier holder left in the spool, under this call's lease."""
        result = await self._committer.commit(effect, lease, keeper, "observed", entry.value)
        if self.spooler is not None:  # pragma: no branch - without a spool there is no entry
            await self.spooler.forget(entry)
        return result

    async def _act(self, effect: AsyncEffect, keeper: AsyncLeaseKeeper, fail: AsyncFunction[None]) -> Any:
        try:
            result = await effect.cancellation.call(effect.act, keeper)
        except Exception as error:
            if effect.cancellation.is_own(error):
                await fail(error)
                effect.cancellation.forget_raised()
            elif isinstance(error, OutcomeUnknownError):  # pragma: no cover - tests/client has it: a lost lease
                effect.span.outcome = "unknown"
            raise
        return await async_settled("act", result)

    def _keep(self, effect: AsyncEffect, lease: LeaseResponse, requested_at: float) -> AsyncLeaseKeeper:
        return AsyncLeaseKeeper(
            self._ledger,
            self._runtime,
            self._settings,
            lateness=self._lateness,
            effect=effect,
            grant=lease,
            requested_at=requested_at,
        )

    async def _observe(self, effect: AsyncEffect, lease: LeaseResponse | None) -> Any:
        """Return what observe found, or None if act is to run.

        Args:
            effect: the effect.
            lease: the grant; None for an effect that runs unprotected.

        Raises:
            OutcomeUnknownError: the effect is in doubt, and the policy lets nobody act without knowing.
        """
        in_doubt = lease is None or is_in_doubt(lease.prior_state)
        if effect.observe is None:
            if in_doubt and lease is not None:
                self._warn_or_refuse(effect, lease)
            return None
        if not in_doubt and effect.policy.observe_when == "doubt":
            return None
        request_id = None if lease is None else lease.request_id
        started_at = self._runtime.monotonic()
        found: Any = None
        raised: str | None = None
        with effect.cancellation:  # a caller that was interrupted meanwhile neither acts nor commits
            try:
                found = await effect.cancellation.call(effect.observe)
            except Exception as error:
                effect.cancellation.forget_raised()
                if not effect.cancellation.has_begun or is_interrupt(error):  # pragma: no cover - tests/client has both
                    raise
                raised = type(error).__name__
                if effect.policy.on_observe_error != "act":
                    raise ObserveFailedError(
                        f"observe of effect {effect.key!r} raised {raised}, so it is unknown whether the effect "
                        "already happened. act did not run. Fix observe, and call again.",
                        effect_key=effect.key,
                        request_id=request_id,
                        observe_error=error,
                    ) from error
            else:
                found = await async_settled("observe", found)
        if raised is not None:
            self._logger.warning(
                'observe of effect %r raised %s; acting all the same, as on_observe_error="act" asks.',
                effect.key,
                raised,
            )
            return None
        check_found(found, effect.key, request_id)
        if lease is not None:
            await self._report_observe(effect, lease, hit=found is not None, started_at=started_at)
        return found

    async def _report_observe(self, effect: AsyncEffect, lease: LeaseResponse, *, hit: bool, started_at: float) -> None:
        duration_ms = round((self._runtime.monotonic() - started_at) * 1000)
        body = {**effect.tokens(lease), "hit": hit, "durationMs": duration_ms}
        timeout_s = min(REPORT_TIMEOUT_S, self._settings.request_timeout_s)
        try:
            await self._ledger.report_observe(effect.namespace, body, attempts=1, timeout_s=timeout_s)
        except VerityError as error:
            # The report changes no state: without it, only the audit trail lacks an event.
            self._logger.debug("observe of effect %r could not be reported (%s).", effect.key, type(error).__name__)

    def _warn_or_refuse(self, effect: AsyncEffect, lease: LeaseResponse) -> None:
        """Warn that act runs on an effect in doubt; refuse it if the policy does."""
        if effect.policy.on_unknown != "act":
            raise OutcomeUnknownError(
                f"An earlier holder of effect {effect.key!r} may have acted, and this call has no observe: act did not "
                "run. Pass observe=, a function that returns the result if the effect happened, else None; or find out "
                "whether it happened, and resolve the effect, or reset it with mode retry; or, if the target "
                'de-duplicates, pass policy=EffectPolicy(on_unknown="act").',
                effect_key=effect.key,
                request_id=lease.request_id,
                fence_token=lease.fence_token,
            )
        if effect.name not in self._warned_names:
            self._warned_names.add(effect.name)
            self._logger.warning(
                "An earlier holder of effect %r may have acted, and this call has no observe: act runs, perhaps for "
                'the second time, as on_unknown="act" asks. Pass observe=, a function that returns the result if the '
                "effect happened, else None.",
                effect.key,
            )
