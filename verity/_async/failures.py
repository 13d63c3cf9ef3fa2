"""What follows if no result can be committed: the failure is recorded, or the lease is given back.

A lease is given back with `acted="no"` only if act certainly did not run, or raised `NotExecuted`. An unknown outcome
is never recorded as a failure: the lease is given back with `acted="unknown"`, and the next holder is in doubt.
"""

from __future__ import annotations

import logging

from verity._async.effect import AsyncEffect
from verity._async.lease_keeper import AsyncLeaseKeeper
from verity._async.ledger import AsyncLedger, Wire
from verity._core.backoff import RELEASE_TIMEOUT_S
from verity._core.failure import add_note, describe_failure
from verity._core.interruption import raised_by_handler
from verity._core.outcome import Outcome, classify
from verity.config import ClientSettings
from verity.errors import VerityError
from verity.values import LeaseResponse

_NEXT_CALLS = (
    'a call with observe observes, and one without raises OutcomeUnknownError, unless its policy has on_unknown="act".'
)


class AsyncFailures:
    """Records failures and gives leases back, for one client."""

    def __init__(self, ledger: AsyncLedger, settings: ClientSettings) -> None:
        self._ledger = ledger
        self._timeout_s = min(RELEASE_TIMEOUT_S, settings.request_timeout_s)
        self._logger: logging.Logger = settings.logger

    async def record(
        self,
        effect: AsyncEffect,
        lease: LeaseResponse,
        keeper: AsyncLeaseKeeper,
        outer: BaseException | None,
        error: Exception,
    ) -> None:
        """Tell the ledger what the exception of act says.

        Nothing is told of an exception of a signal handler that hit the act: `give_back` follows. Nothing is told by a
        child that act forked, either: the parent's act goes on.

        Args:
            effect: the call.
            lease: its lease.
            keeper: renews the lease.
            outer: the exception that was being handled before the call began.
            error: the exception of act. It gets a note where a later call behaves otherwise than after a failure.
        """
        if effect.cancellation.is_in_child:  # pragma: no cover - tests/apps/test_forks.py has it
            return
        if raised_by_handler(error, outer) is not None:  # pragma: no cover - tests/client has it
            return
        outcome = classify(error, effect.key, effect.policy.ambiguous, effect.policy.definite, outer)
        effect.span.outcome = outcome.value
        try:
            if outcome is Outcome.FAILED:
                failure = {
                    **effect.tokens(lease),
                    "error": describe_failure(error),
                    "source": "acted",
                    **effect.run,
                }
                await effect.cancellation.finish(lambda: self._ledger.fail(effect.namespace, failure))
            else:
                keeper.stop()  # a renewal would find the lease lost
                effect.cancellation.acted = "no" if outcome is Outcome.NOT_EXECUTED else "unknown"
                body = _release_of(effect, lease)
                await effect.cancellation.finish(lambda: self._ledger.release(effect.namespace, body))
        except VerityError as untold:
            told = "record this failure" if outcome is Outcome.FAILED else "give the lease back"
            add_note(
                error,
                f"Verity could not {told}, effect {effect.key!r} ({untold}). The lease expires by itself. "
                f"Then {_NEXT_CALLS}",
            )
        else:
            if outcome is Outcome.UNKNOWN:
                add_note(
                    error,
                    f"Effect {effect.key!r} may have happened, so Verity recorded no failure. After "
                    f"{effect.policy.settle_s:g} s (settle_s), {_NEXT_CALLS}",
                )
        effect.cancellation.acted = None

    async def give_back(self, effect: AsyncEffect, lease: LeaseResponse) -> None:
        """Give the lease back at the end of a call that neither committed nor recorded anything. Best effort, once."""
        body = _release_of(effect, lease)
        effect.cancellation.acted = None
        try:
            await effect.cancellation.finish(
                lambda: self._ledger.release(effect.namespace, body, attempts=1, timeout_s=self._timeout_s)
            )
        except VerityError as error:
            # The lease expires by itself. A ledger older than this operation answers 404 or 405.
            self._logger.debug("The lease on effect %r was not given back (%s).", effect.key, type(error).__name__)


def _release_of(effect: AsyncEffect, lease: LeaseResponse) -> Wire:
    body = {**effect.tokens(lease), "acted": effect.cancellation.acted}
    if effect.cancellation.acted == "unknown":
        body["settleMs"] = round(effect.policy.settle_s * 1000)
    return body
