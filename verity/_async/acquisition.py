"""How a lease is acquired: ask for it; if another holder's lease is live, wait and ask again."""

from __future__ import annotations

import copy
import logging

from verity._async.ledger import AsyncLedger, Wire
from verity._concurrency import AsyncRuntime, AsyncSingleFlight, NonBlockingLimiter, Permit
from verity._core.backoff import MAX_WAITS, attempt_after, conflict_delay, ledger_wait_s, may_wait_at_ledger, patience_s
from verity._core.replies import GRANTED
from verity.config import ConflictRetryConfig
from verity.errors import LeaseConflictError
from verity.values import LeaseResponse

SINGLE_FLIGHT = AsyncSingleFlight()
"""One flight for each effect in a process, across its clients: only the leader asks the ledger."""


class AsyncAcquisition:
    """Acquires leases for one client."""

    def __init__(self, ledger: AsyncLedger, runtime: AsyncRuntime, logger: logging.Logger) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._logger = logger
        self._waits = NonBlockingLimiter(MAX_WAITS)

    async def acquire(
        self, namespace: str, lease_body: Wire, config: ConflictRetryConfig, conflicts: list[LeaseConflictError]
    ) -> tuple[LeaseResponse, float]:
        """Return the lease or the cached outcome, and the monotonic time of the first request for it.

        The lease's duration is counted from the first request, even if a later one was answered: the ledger may have
        granted the lease at the first request, and that answer was lost. The later answer is then about the same lease.

        Args:
            namespace: the effect's namespace.
            lease_body: the request.
            config: how to wait for another holder.
            conflicts: if another holder's lease was live, the ledger's answer is appended, whatever follows.

        Raises:
            LeaseConflictError: another holder's lease is live, still after all retries that `config` allows.
        """
        idempotency_key = self._runtime.new_id()
        requested_at = self._runtime.monotonic()
        try:
            return await self._ledger.lease(namespace, lease_body, idempotency_key=idempotency_key), requested_at
        except LeaseConflictError as conflict:
            conflicts.append(conflict)
            if not config.enabled or config.max_attempts == 1:
                raise
            return await self._wait_for_holder(namespace, lease_body, config, idempotency_key, conflict), requested_at

    async def _wait_for_holder(
        self,
        namespace: str,
        lease_body: Wire,
        config: ConflictRetryConfig,
        idempotency_key: str,
        conflict: LeaseConflictError,
    ) -> LeaseResponse:
        """Wait for the other holder, in single-flight: the leader asks the ledger, the other callers wait.

        The leader publishes an outcome to all callers that wait. A lease belongs to the leader alone, and the next
        caller leads. Callers with different settings form different flights, so that no caller waits longer than its
        own settings say.
        """
        began_at = self._runtime.monotonic()
        caller = SINGLE_FLIGHT.join((self._ledger.caller, config, namespace, lease_body["effectKey"]))
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
                    "Effect %r is being processed elsewhere; waiting %.1f s for it.", lease_body["effectKey"], delay_s
                )
                permit = Permit()
                try:
                    wait_s = wait_s if wait_s and self._waits.acquire(permit) else 0
                    if not wait_s:
                        await self._runtime.sleep(delay_s)
                    lease = await self._ledger.lease(
                        namespace, lease_body, idempotency_key=idempotency_key, wait_s=wait_s
                    )
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
