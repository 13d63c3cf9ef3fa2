# Made from verity/_async/lease_keeper.py by scripts/mirror.py. Do not edit.
"""Keeps a lease alive in the background while the effect is observed, acted and committed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from verity._concurrency import CurrentEffect, SyncRuntime, Timer
from verity._core.patience import CommitTries
from verity._core.renewal import held_s, next_renewal_at, renewal_timeout_s, retry_renewal_after
from verity._core.replies import is_definite_loss, is_finished
from verity._sync.effect import SyncEffect
from verity._sync.ledger import SyncLedger, Wire
from verity.config import ClientSettings
from verity.errors import ActNotStartedError, VerityConnectionError, VerityError
from verity.values import LeaseResponse

if TYPE_CHECKING:
    from verity._spool import Entry

_AFTER_EXPIRY_S = 0.001
"""A check that the lease has expired comes so many seconds after the expiry, so that it finds it passed."""


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

    Inside, the caller's code finds the lease by `current_effect()`. Once the call is over, nothing is renewed, even if
    an interrupt skipped `__exit__`.

    Args:
        lateness: logs renewals that begin too late.
        effect: the call that the lease is for.
        grant: the lease, as the ledger granted it.
        requested_at: when the client requested the lease, on the runtime's monotonic clock.

    Attributes:
        listeners: functions to call when the lease is lost or the call is over.
        cancels_act: whether an act that can be cancelled is cancelled when the lease is lost.
        commit_tries: the tries of the commit; None before the first one has failed.
        spooled: the entry of the result in the spool; None if it is not there.
    """

    def __init__(
        self,
        ledger: SyncLedger,
        runtime: SyncRuntime,
        settings: ClientSettings,
        *,
        lateness: Lateness,
        effect: SyncEffect,
        grant: LeaseResponse,
        requested_at: float,
    ) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._settings = settings
        self._logger: logging.Logger = settings.logger
        self._namespace = effect.namespace
        self._tokens = effect.tokens(grant)
        self._grant = grant
        self._asked_s = effect.duration_ms / 1000
        self._fraction = settings.renew_at_fraction
        self._lateness = lateness
        self._planned_at = requested_at
        self._timer: Timer | None = None
        self._watch: Timer | None = None
        self._inside = effect.inside
        self._stopped = False
        self._lost = False
        self._warned: set[str] = set()
        self._described: CurrentEffect | None = None
        self.commit_tries: CommitTries | None = None
        self.spooled: Entry | None = None
        self.listeners: list[Callable[[], None]] = []
        self.cancels_act = effect.policy.on_lease_lost == "cancel"
        self._hold(requested_at, grant.remaining_s, is_renewal=False)

    def __enter__(self) -> SyncLeaseKeeper:
        if self._settings.auto_renew:
            self._plan(self._due_at)
        self._inside.lease = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Renew no more. Idempotent."""
        self._stopped = True
        if self._timer is not None:
            self._timer.stop()
        if self._watch is not None:
            self._watch.stop()
        self._ring()

    def _hold(self, requested_at: float, told_s: float | None, *, is_renewal: bool) -> None:
        """Count the lease from `requested_at`. Other threads read single attributes, so each has its final value."""
        took_s = self._runtime.monotonic() - requested_at
        duration_s = held_s(self._asked_s, told_s, took_s=took_s, fraction=self._fraction, is_renewal=is_renewal)
        self._requested_at = requested_at
        self._duration_s = duration_s
        self._expires_at = requested_at + duration_s
        self._due_at = next_renewal_at(requested_at, duration_s, self._fraction)

    def confirm(self) -> None:
        """Make sure, right before act, that this call still has the lease, and keeps it for a while.

        If too little of the lease is left, it is renewed now: the grant's answer may have been slow, observe may have
        taken long, or renewals may have failed. A renewal that succeeds proves that the ledger has granted no other
        lease since, so that the outcome of observe still holds.

        Raises:
            VerityError: the lease is lost, or it is unknown whether it is.
        """
        if self.is_due():
            self._renew_now()
        self._lost = False  # if the lease had expired, a renewal has been confirmed since
        if self.cancels_act and self._watch is None:
            self._watch_expiry()

    def _renew_now(self) -> None:
        requested_at = self._runtime.monotonic()
        renewed = self._ledger.renew(self._namespace, self._extension())
        if requested_at >= self._requested_at:  # no later renewal has been confirmed meanwhile
            self._hold(requested_at, renewed.remaining_s, is_renewal=True)
        if self.is_due():
            key = self._tokens["effectKey"]
            raise VerityConnectionError(
                f"The renewal of the lease on effect {key!r} took so long that the lease may have expired again. "
                "act did not run.",
                effect_key=key,
            )

    def is_due(self) -> bool:
        """Return whether so little of the lease is left that act must not begin."""
        return self._runtime.monotonic() >= self._due_at

    @property
    def is_lost(self) -> bool:
        """Whether the ledger said that the lease is lost, or it expired during the call. Once True, it stays so."""
        if not self._lost and not self.is_over and self.remaining_s() <= 0:
            self._lost = True
        return self._lost

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self._is_stopped()

    @property
    def fence_token(self) -> int | None:
        """The number of the grant."""
        return self._grant.fence_token

    @property
    def expires_at(self) -> float:
        """When the lease expires, by its last confirmed renewal, on the runtime's monotonic clock."""
        return self._expires_at

    def remaining_s(self) -> float:
        """The seconds until the lease expires, by its last confirmed renewal. Negative after the expiry."""
        return self._expires_at - self._runtime.monotonic()

    def describe(self) -> CurrentEffect:
        """What the caller's code can know about the effect. Made on first use."""
        if self._described is None:
            self._described = CurrentEffect(
                self,
                self._grant,
                environment=self._settings.environment,
                namespace=self._namespace,
                key=self._tokens["effectKey"],
            )
        return self._described

    def _watch_expiry(self) -> None:
        delay_s = max(self.remaining_s(), 0.0) + _AFTER_EXPIRY_S
        self._watch = self._runtime.call_later(delay_s, self._check_expiry)

    def _check_expiry(self) -> None:
        if self._is_stopped():
            return
        if self.is_lost:
            self._watch = None
            self._ring()
        else:
            self._watch_expiry()

    def _is_stopped(self) -> bool:
        """A method, so that each use reads it anew: it changes while a renewal is under way."""
        return self._stopped or self._inside.is_over

    def _lose(self) -> None:
        self._lost = True
        self._ring()

    def _ring(self) -> None:
        for listener in tuple(self.listeners):
            listener()

    def _extension(self) -> Wire:
        return {**self._tokens, "extensionMs": round(self._asked_s * 1000)}

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
        if self._planned_at < self._expires_at <= requested_at:
            self._lateness.tell(
                self._tokens["effectKey"],
                requested_at - self._planned_at,
                self._runtime.why_late(self._planned_at, requested_at),
            )
        timeout_s = renewal_timeout_s(self._duration_s, self._fraction, self._settings.request_timeout_s)
        try:
            renewed = self._ledger.renew(self._namespace, self._extension(), attempts=1, timeout_s=timeout_s)
        except VerityError as error:
            if self._is_stopped():
                return
            if is_finished(error):  # the commit overtook this renewal, or an admin decided the effect after its expiry
                return
            if is_definite_loss(error):
                self._warn("was lost: another holder may act now; the commit will tell", error)
                self._lose()
                return
            now = self._runtime.monotonic()
            if now >= self._expires_at:
                self._warn("could not be renewed in time and may have expired; still trying", error)
                self._lose()
            is_short = self._duration_s < self._asked_s
            self._plan(now + retry_renewal_after(now, self._requested_at, self._duration_s, is_short=is_short))
        else:
            if not self._is_stopped():
                self._hold(requested_at, renewed.remaining_s, is_renewal=True)
                self._plan(self._due_at)

    def _warn(self, what: str, error: VerityError) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._logger.warning(
                "The lease on effect %r %s (%s).", self._tokens["effectKey"], what, type(error).__name__
            )
