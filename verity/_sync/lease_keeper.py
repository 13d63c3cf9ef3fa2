# Made from verity/_async/lease_keeper.py by scripts/mirror.py. Do not edit.
"""Keeps a lease alive in the background while the effect is observed, acted and committed."""

from __future__ import annotations

import logging

from verity._concurrency import Inside, SyncRuntime, Timer
from verity._core.renewal import next_renewal_at, renewal_timeout_s, retry_renewal_after
from verity._core.replies import is_definite_loss, is_finished
from verity._sync.ledger import SyncLedger, Wire
from verity.errors import ActNotStartedError, VerityConnectionError, VerityError


def prepare_renewals(runtime: SyncRuntime, effect_key: str) -> None:
    """Make sure that the client can renew a lease, before it requests one.

    Raises:
        ActNotStartedError: the process cannot start a thread.
    """
    try:
        runtime.prepare()
    except RuntimeError as error:
        raise _no_thread(effect_key, error) from error


def _no_thread(effect_key: str, error: RuntimeError) -> ActNotStartedError:
    return ActNotStartedError(
        f"act of effect {effect_key!r} did not run, because there was no thread to renew its lease in ({error}). "
        "Nothing was recorded. Allow the process more threads.",
        effect_key=effect_key,
    )


class Lateness:
    """Logs renewals that a client began too late: the first one at WARNING, the others at DEBUG."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._is_told = False

    def tell(self, effect_key: str, late_s: float, why: str) -> None:
        """Log that a renewal began so late that the lease may have expired before."""
        level, self._is_told = logging.DEBUG if self._is_told else logging.WARNING, True
        self._logger.log(
            level,
            "The lease on effect %r may have expired, and another holder may act: its renewal began %.1f s late. %s",
            effect_key,
            late_s,
            why,
        )


class SyncLeaseKeeper:
    """A context manager: it plans the first renewal on entry, and stops renewing on every exit, cancellation included.

    Args:
        tokens: effectKey, fenceToken and leaseToken of the grant.
        requested_at: when the client requested the lease, on the runtime's monotonic clock.
        duration_s: how long the lease lasts from then.
        fraction: the part of the duration after which the lease is renewed.
        renews: whether the lease is renewed in the background at all.
        lateness: logs renewals that begin too late.
        inside: the call that the lease is for. Once the call is over, nothing is renewed, even if an interrupt skipped
            `__exit__`.
    """

    def __init__(
        self,
        ledger: SyncLedger,
        runtime: SyncRuntime,
        logger: logging.Logger,
        *,
        namespace: str,
        tokens: Wire,
        requested_at: float,
        duration_s: float,
        fraction: float,
        renews: bool,
        request_timeout_s: float,
        lateness: Lateness,
        inside: Inside,
    ) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._logger = logger
        self._namespace = namespace
        self._tokens = tokens
        self._requested_at = requested_at
        self._duration_s = duration_s
        self._fraction = fraction
        self._renews = renews
        self._timeout_s = renewal_timeout_s(duration_s, fraction, request_timeout_s)
        self._lateness = lateness
        self._planned_at = requested_at
        self._timer: Timer | None = None
        self._inside = inside
        self._stopped = False
        self._warned: set[str] = set()

    def __enter__(self) -> SyncLeaseKeeper:
        if self._renews:
            self._plan(next_renewal_at(self._requested_at, self._duration_s, self._fraction))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Renew no more. Idempotent."""
        self._stopped = True
        if self._timer is not None:
            self._timer.stop()

    def confirm(self) -> None:
        """Make sure, right before act, that this call still has the lease, and keeps it for a while.

        If too little of the lease is left, it is renewed now: the grant's answer may have been slow, observe may have
        taken long, or renewals may have failed. A renewal that succeeds proves that the ledger has granted no other
        lease since, so that the outcome of observe still holds.

        Raises:
            VerityError: the lease is lost, or it is unknown whether it is.
        """
        if not self.is_due():
            return
        requested_at = self._runtime.monotonic()
        self._ledger.renew(self._namespace, self._extension())
        self._requested_at = max(self._requested_at, requested_at)
        if self.is_due():
            key = self._tokens["effectKey"]
            raise VerityConnectionError(
                f"The renewal of the lease on effect {key!r} took so long that the lease may have expired again. "
                "act did not run.",
                effect_key=key,
            )

    def is_due(self) -> bool:
        """Return whether so little of the lease is left that act must not begin."""
        return self._runtime.monotonic() >= next_renewal_at(self._requested_at, self._duration_s, self._fraction)

    def _extension(self) -> Wire:
        return {**self._tokens, "extensionMs": round(self._duration_s * 1000)}

    def _is_stopped(self) -> bool:
        """A method, so that each use reads it anew: it changes while a renewal is under way."""
        return self._stopped or self._inside.is_over

    def _plan(self, at: float) -> None:
        now = self._runtime.monotonic()
        self._planned_at = max(at, now)
        try:
            self._timer = self._runtime.call_later(self._planned_at - now, self._renew)
        except RuntimeError as error:
            raise _no_thread(self._tokens["effectKey"], error) from error

    def _renew(self) -> None:
        if self._is_stopped():  # the timer's thread may have started before the stop
            return
        requested_at = self._runtime.monotonic()
        if self._planned_at < self._requested_at + self._duration_s <= requested_at:
            self._lateness.tell(
                self._tokens["effectKey"],
                requested_at - self._planned_at,
                self._runtime.why_late(self._planned_at, requested_at),
            )
        try:
            self._ledger.renew(self._namespace, self._extension(), attempts=1, timeout_s=self._timeout_s)
        except VerityError as error:
            if self._is_stopped():
                return
            if is_finished(error):  # the commit overtook this renewal
                return
            if is_definite_loss(error):
                self._warn("was lost: another holder may act now; the commit will tell", error)
                return
            now = self._runtime.monotonic()
            if now >= self._requested_at + self._duration_s:
                self._warn("could not be renewed in time and may have expired; still trying", error)
            self._plan(now + retry_renewal_after(now, self._requested_at, self._duration_s))
        else:
            if not self._is_stopped():
                self._requested_at = requested_at
                self._plan(next_renewal_at(requested_at, self._duration_s, self._fraction))

    def _warn(self, what: str, error: VerityError) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._logger.warning(
                "The lease on effect %r %s (%s).", self._tokens["effectKey"], what, type(error).__name__
            )
