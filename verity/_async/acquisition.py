"""How a lease is acquired: ask, and where another holder's lease is live, wait for it in line."""

from __future__ import annotations

import copy
import logging

from verity._async.ledger import AsyncLedger, Wire
from verity._concurrency import AsyncLines, AsyncRuntime, Quota, Turn
from verity._core.backoff import MAX_HOLDS, attempt_after, conflict_delay, hold_s, may_be_held, patience_s
from verity._core.replies import GRANTED
from verity.config import ConflictRetryConfig
from verity.errors import LeaseConflictError
from verity.values import LeaseResponse

LINES = AsyncLines()
"""Of all calls of a process that wait for the same effect only one asks the ledger, whatever client they came to."""


class AsyncAcquisition:
    """Acquires leases for one client."""

    def __init__(self, ledger: AsyncLedger, runtime: AsyncRuntime, logger: logging.Logger) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._logger = logger
        self._holds = Quota(MAX_HOLDS)

    async def acquire(
        self, namespace: str, lease_body: Wire, config: ConflictRetryConfig
    ) -> tuple[LeaseResponse, float]:
        """The lease, or the cached outcome, and when it was first requested, on the monotonic clock: a request that was
        taken for lost may have been granted, and the last one have got what was left of that.

        Raises:
            LeaseConflictError: another holder's lease is live, and still is after all that `config` allows.
        """
        idempotency_key = self._runtime.new_id()
        requested_at = self._runtime.monotonic()
        try:
            return await self._ledger.lease(namespace, lease_body, idempotency_key=idempotency_key), requested_at
        except LeaseConflictError as conflict:
            if not config.enabled or config.max_attempts == 1:
                raise
            return await self._wait_in_line(namespace, lease_body, config, idempotency_key, conflict), requested_at

    async def _wait_in_line(
        self,
        namespace: str,
        lease_body: Wire,
        config: ConflictRetryConfig,
        idempotency_key: str,
        conflict: LeaseConflictError,
    ) -> LeaseResponse:
        """What is decided is everybody's answer; a lease is granted to one, and the next one goes on asking.

        Who asks at another pace stands in another line: nobody waits longer than its own settings say.
        """
        began_at = self._runtime.monotonic()
        place = LINES.place((self._ledger.caller, config, namespace, lease_body["effectKey"]))
        try:
            if not await place.turn(patience_s(config)):
                raise conflict
            shared: LeaseResponse | None = place.shared
            if shared is not None:
                return copy.deepcopy(shared)  # what one caller does to its result must not reach the others
            is_holdable = may_be_held(config, has_own_connections=self._ledger.has_own_connections)
            unheld = 0  # requests that an older ledger answered at once: their delay is still to come
            for attempt in range(attempt_after(config, self._runtime.monotonic() - began_at), config.max_attempts):
                delay_s = conflict_delay(config, attempt - unheld, conflict.retry_after_s, self._runtime.random())
                held_s = 0 if unheld or not is_holdable else hold_s(config, delay_s)
                self._logger.debug(
                    "Effect %r is being processed elsewhere; waiting %.1f s for it.", lease_body["effectKey"], delay_s
                )
                hold = Turn()
                try:
                    held_s = held_s if held_s and self._holds.take(hold) else 0
                    if not held_s:
                        await self._runtime.sleep(delay_s)
                    lease = await self._ledger.lease(
                        namespace, lease_body, idempotency_key=idempotency_key, hold_s=held_s
                    )
                except LeaseConflictError as error:
                    conflict = error
                    unheld = unheld or int(held_s > 0 and not error.waited)
                else:
                    if lease.status != GRANTED:
                        place.share(copy.deepcopy(lease))
                    return lease
                finally:
                    self._holds.line.pop(hold, None)
            raise conflict
        finally:
            place.is_gone = True  # an assignment: an interrupt could end a call at its entry
            place.leave()
