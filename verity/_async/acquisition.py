"""How a lease is acquired: ask for it; if another holder's lease is live, wait and ask again."""

from __future__ import annotations

import copy
import logging

from verity._async.effect import AsyncEffect
from verity._async.ledger import AsyncLedger
from verity._concurrency import AsyncRuntime, AsyncSingleFlight, NonBlockingLimiter, Permit
from verity._core.backoff import (
    MAX_WAITS,
    RELEASE_TIMEOUT_S,
    attempt_after,
    conflict_delay,
    ledger_wait_s,
    may_wait_at_ledger,
    patience_s,
)
from verity._core.replies import GRANTED
from verity.config import ClientSettings
from verity.errors import LeaseConflictError, VerityError
from verity.values import LeaseResponse

SINGLE_FLIGHT = AsyncSingleFlight()
"""One flight for each effect in a process, across its clients: only the leader asks the ledger."""


class AsyncAcquisition:
    """Acquires leases for one client."""

    def __init__(self, ledger: AsyncLedger, runtime: AsyncRuntime, settings: ClientSettings) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._logger: logging.Logger = settings.logger
        self._release_timeout_s = min(RELEASE_TIMEOUT_S, settings.request_timeout_s)
        self._waits = NonBlockingLimiter(MAX_WAITS)

    async def acquire(self, effect: AsyncEffect, conflicts: list[LeaseConflictError]) -> tuple[LeaseResponse, float]:
        """Return the lease or the cached outcome, and the monotonic time of the first request for it.

        The lease's duration is counted from the first request, even if a later one was answered: the ledger may have
        granted the lease at the first request, and that answer was lost. The later answer is then about the same lease.

        Args:
            effect: the call.
            conflicts: if another holder's lease was live, the ledger's answer is appended, whatever follows.

        Raises:
            LeaseConflictError: another holder's lease is live, still after all retries that the effect allows.
        """
        config = effect.conflict_retry
        idempotency_key = self._runtime.new_id()
        requested_at = self._runtime.monotonic()
        try:
            return await self._ask(effect, idempotency_key), requested_at
        except LeaseConflictError as conflict:
            conflicts.append(conflict)
            if not config.enabled or config.max_attempts == 1:
                raise
            return await self._wait_for_holder(effect, idempotency_key, conflict), requested_at

    async def _ask(self, effect: AsyncEffect, idempotency_key: str, wait_s: int = 0) -> LeaseResponse:
        """Request the lease. If the call is cancelled meanwhile, a lease that was granted is given back."""
        try:
            return await self._ledger.lease(
                effect.namespace, effect.lease_body, idempotency_key=idempotency_key, wait_s=wait_s
            )
        except (VerityError, GeneratorExit):
            raise
        except BaseException:
            with effect.cancellation:
                await self._give_up(effect, idempotency_key)
                raise

    async def _give_up(self, effect: AsyncEffect, idempotency_key: str) -> None:
        """Give back the lease that the ledger may have granted before the request was cancelled. Best effort, once.

        A resent request gets the same grant. If the first one never arrived, the lease is granted now.
        """

        async def release() -> None:
            lease = await self._ledger.lease(
                effect.namespace,
                effect.lease_body,
                idempotency_key=idempotency_key,
                attempts=1,
                timeout_s=self._release_timeout_s,
            )
            if lease.status == GRANTED:
                body = {**effect.tokens(lease), "acted": "no"}
                await self._ledger.release(effect.namespace, body, attempts=1, timeout_s=self._release_timeout_s)

        try:
            await effect.cancellation.finish(release)
        except VerityError as error:
            self._logger.debug("A lease on effect %r may not be given back (%s).", effect.key, type(error).__name__)

    async def _wait_for_holder(
        self, effect: AsyncEffect, idempotency_key: str, conflict: LeaseConflictError
    ) -> LeaseResponse:
        """Wait for the other holder, in single-flight: the leader asks the ledger, the other callers wait.

        The leader publishes an outcome to all callers that wait. A lease belongs to the leader alone, and the next
        caller leads. Callers with different settings form different flights, so that no caller waits longer than its
        own settings say.
        """
        config = effect.conflict_retry
        began_at = self._runtime.monotonic()
        caller = SINGLE_FLIGHT.join((self._ledger.caller, config, effect.namespace, effect.key))
        try:
            if not await caller.wait_to_lead(patience_s(config)):
                raise conflict
            published: LeaseResponse | None = caller.published
            if published is not None:
                return copy.deepcopy(published)  # a caller may change its result; the other callers must not see that
            may_wait = may_wait_at_ledger(config, has_own_connections=self._ledger.has_own_connections)
            answered_at_once = 0  # requests that an older ledger did not let wait: the client itself has to wait
            for attempt in range(attempt_after(config, self._runtime.monotonic() - began_at), config.max_attempts):
                delay_s = conflict_delay(
                    config, attempt - answered_at_once, conflict.retry_after_s, self._runtime.random()
                )
                wait_s = 0 if answered_at_once or not may_wait else ledger_wait_s(config, delay_s)
                self._logger.debug(
                    "Effect %r is being processed elsewhere; waiting %.1f s for it.", effect.key, delay_s
                )
                permit = Permit()
                try:
                    wait_s = wait_s if wait_s and self._waits.acquire(permit) else 0
                    if not wait_s:
                        await self._runtime.sleep(delay_s)
                    lease = await self._ask(effect, idempotency_key, wait_s)
                except LeaseConflictError as error:
                    conflict = error
                    answered_at_once = answered_at_once or int(wait_s > 0 and not error.waited)
                else:
                    if lease.status != GRANTED:
                        caller.publish(copy.deepcopy(lease))
                    return lease
                finally:
                    try:  # see verity/_mutex.py
                        self._waits.permits.pop(permit, None)
                    finally:
                        pass
            raise conflict
        finally:
            try:  # see verity/_mutex.py
                caller.is_gone = True  # an assignment: an interrupt could end a call at its entry
            finally:
                caller.leave()
