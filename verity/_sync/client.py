# Made from verity/_async/client.py by scripts/mirror.py. Do not edit.
"""`SyncVerityClient`: the settings, `protect()`, and the low-level calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import httpx

from verity._concurrency import (
    SyncAct,
    SyncRuntime,
    check_threads,
    notice_fork,
    sync_here,
)
from verity._core.bodies import to_wire
from verity._core.keys import check_label, check_namespace
from verity._sync.ledger import SyncLedger
from verity._sync.options import Observe, ProtectOptions, make_effect
from verity._sync.protect import SyncProtector
from verity._sync.sender import make_sender
from verity._sync.workflow import SyncWorkflow
from verity.config import ClientSettings, ConflictRetryConfig, OnConflict, SpoolWhen, read_settings
from verity.errors import VerityConfigError
from verity.policy import EffectPolicy, OnObserveError
from verity.values import (
    CommitRequestBody,
    CommitResponse,
    FailRequestBody,
    FailResponse,
    LeaseRequestBody,
    LeaseResponse,
    ReleaseRequestBody,
    ReleaseResponse,
    RenewRequestBody,
    RenewResponse,
    ReportObserveBody,
    ReportObserveResponse,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from verity._spool import Spool
    from verity._sync.effects import SyncEffects

T = TypeVar("T")


class SyncVerityClient:
    """Makes effects happen exactly once. Create one client, use it everywhere, close it with `with` or `close()`.

    One client can be used from many threads, and in the children of a fork: it opens new connections there.

    Args:
        base_url: the ledger's URL: `https://…/v1`, or for a ledger embedded in this process `sqlite:///verity.db` or
            `sqlite://` (in memory). The default is `VERITY_BASE_URL`.
        api_key: `vt_live_…` or `vt_test_…`. The default is `VERITY_API_KEY`. An embedded ledger needs no key.
        namespace: the default namespace of `protect()` and `effects`.
        agent_id: the agent or worker that acts, for the audit trail.
        auto_renew: renew leases in the background while observe, act and commit run.
        renew_at_fraction: the part of a lease's duration after which it is renewed, 0.3 to 0.9.
        request_timeout_s: seconds that connecting, sending or waiting for an answer may each take.
        conflict_retry: how to wait for another holder.
        logger: where to log; `logging.getLogger("verity")` by default.
        on_observe_error: the policy's field of this name, for short.
        policy: what to do where an outcome is unknown; `EffectPolicy()` by default.
            .. versionadded:: 0.2
        spool: a file that keeps results whose commit is not confirmed, until the ledger accepts them; the default is
            `VERITY_SPOOL`, or none. False: none in any case. The file has payloads and lease tokens.
            .. versionadded:: 0.2
        spool_when: `"trouble"` (default) writes a result once a try to commit it fails. `"always"` writes each result
            before the first try, so that it outlives a crash. That costs some milliseconds of disk time.
            .. versionadded:: 0.2
        transport: an httpx transport to send through. The caller closes it.
        http_client: an httpx client to send through. The caller closes it.

    Raises:
        VerityConfigError: a setting is missing or wrong.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        namespace: str | None = None,
        agent_id: str | None = None,
        auto_renew: bool = True,
        renew_at_fraction: float = 0.65,
        request_timeout_s: float = 20.0,
        conflict_retry: ConflictRetryConfig | None = None,
        logger: logging.Logger | None = None,
        *,
        on_observe_error: OnObserveError | None = None,
        policy: EffectPolicy | None = None,
        spool: str | os.PathLike[str] | Literal[False] | None = None,
        spool_when: SpoolWhen = "trouble",
        transport: httpx.BaseTransport | None = None,
        http_client: httpx.Client | None = None,
        _runtime: SyncRuntime | None = None,
    ) -> None:
        self._settings = read_settings(
            base_url=base_url,
            api_key=api_key,
            namespace=namespace,
            agent_id=agent_id,
            auto_renew=auto_renew,
            renew_at_fraction=renew_at_fraction,
            request_timeout_s=request_timeout_s,
            conflict_retry=conflict_retry,
            logger=logger,
            on_observe_error=on_observe_error,
            policy=policy,
            spool=spool,
            spool_when=spool_when,
        )
        self._runtime = _runtime or SyncRuntime()
        opened = _open_spool(self._settings)  # first: if it fails, nothing is left open
        self._ledger = SyncLedger(
            make_sender(self._settings, transport, http_client),
            self._runtime,
            base_url=self._settings.base_url,
            max_delay_s=self._settings.conflict_retry.max_delay_s,
            timeout_s=self._settings.request_timeout_s,
        )
        self._protector = SyncProtector(self._ledger, self._runtime, self._settings, opened)
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._settings.base_url} namespace={self._settings.namespace!r}>"

    def __enter__(self) -> SyncVerityClient:
        self._check_open()
        self._protector.replay()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the client's connections. Idempotent. Calls under way go on; a transport of your own stays open."""
        notice_fork()
        if not self._closed:
            self._closed = True
            self._runtime.close()
            self._ledger.close()

    def protect(
        self,
        effect_key: str,
        *,
        act: SyncAct[T],
        observe: Observe | None = None,
        namespace: str | None = None,
        effect_name: str | None = None,
        agent_id: str | None = None,
        lease_duration_ms: int | None = None,
        input_json: Any = None,
        on_conflict: OnConflict = "retry",
        on_lease: Callable[[LeaseResponse], object] | None = None,
        key_suffix: str | None = None,
        on_observe_error: OnObserveError | None = None,
        policy: EffectPolicy | None = None,
    ) -> T:
        """Make an effect happen exactly once and return its result.

        The call takes a lease on the effect. If an earlier holder may have acted, the call asks `observe` whether the
        effect happened; without `observe` it raises `OutcomeUnknownError`. If the effect has not happened, it runs
        `act`. Then it commits the result. Every later call with the same key returns this result without acting.

        Args:
            effect_key: identifies this one effect for ever, such as `refund:order_48392`.
            observe: looks the effect up in the outside world. Returns None if it has not happened, else its result;
                an empty result (`[]`, `""`, `0`, `False`) as `Found(result)`.
            act: makes the effect happen, and returns a JSON value of at most 64 KB. It runs in the
                calling thread.
            namespace: overrides the client's.
            effect_name: a human-readable name, such as `stripe.refund`.
            agent_id: overrides the client's.
            lease_duration_ms: 5,000 to 120,000 milliseconds; the ledger's default is 30,000.
            input_json: the effect's input, for people who read the ledger; a JSON value of at most 64 KB.
            on_conflict: `"retry"` (default) waits while another holder's lease is live; `"throw"` raises
                `LeaseConflictError` at once.
            on_lease: called with the lease once it is granted.
            key_suffix: appended to the key as `key:suffix`.
            on_observe_error: the policy's field of this name, for short.
            policy: replaces the policy of the run or the client as a whole.
                .. versionadded:: 0.2

        Returns:
            The result of act (or observe) after a JSON round trip, in the first call too: a tuple comes back as a list.
            An object that is no JSON value but has a method `to_dict` counts as what that method returns.

        Raises:
            VerityConfigError, VerityValidationError: an argument is wrong, or the key is protected inside its own act;
                nothing was sent.
            LeaseConflictError: another holder's lease is live, and is still live after all retries.
            ActNotStartedError: no thread could be started for act or observe; nothing was recorded.
            EffectPreviouslyFailedError: the effect failed before.
            ObserveFailedError: observe raised, or returned an empty value; act did not run.
            OutcomeUnknownError: an earlier holder may have acted, and there is no observe; act did not run. Or the
                lease was lost, and the policy had act cancelled for it.
            CommitUncertainError: CRITICAL: the effect happened, and the ledger has not confirmed the commit.
            VerityConnectionError, VerityApiError: the ledger granted no lease, or did not confirm it right before act;
                act did not run.
            Exception: the exception that act raised, after it was recorded as the effect's failure. If it says that
                nothing happened (`NotExecuted`), or leaves the outcome unknown, no failure is recorded: see
                docs/outcomes.md.
        """
        return self._protect(  # type: ignore[no-any-return]  # T is what act gives
            effect_key,
            act=act,
            observe=observe,
            namespace=namespace,
            effect_name=effect_name,
            agent_id=agent_id,
            lease_duration_ms=lease_duration_ms,
            input_json=input_json,
            on_conflict=on_conflict,
            on_lease=on_lease,
            key_suffix=key_suffix,
            on_observe_error=on_observe_error,
            policy=policy,
        )

    @cached_property
    def effects(self) -> SyncEffects:
        """Reads and administers the ledger's effects: `list`, `get`, `events`, `reset`, `resolve`, …"""
        from verity._sync.effects import SyncEffects  # loaded on first use: most programs only protect

        return SyncEffects(self._ledger, self._settings.namespace, self._check_open)

    def workflow(self, name: str) -> SyncWorkflow:
        """Begin `workflow(name).case(id).run()`. The effects of a run have the workflow, case and run as labels."""
        return SyncWorkflow(self._protect, check_label("workflow name", name), agent_id=self._settings.agent_id)

    def request_lease(self, namespace: str, body: LeaseRequestBody | Mapping[str, Any]) -> LeaseResponse:
        """Request a lease. If the answer is lost, the client resends the request with the same idempotency key.

        Raises:
            LeaseConflictError: another holder's lease is live. Unlike `protect()`, this call does not wait for it.
        """
        where, wire = self._checked(namespace, body, LeaseRequestBody)
        if self._settings.agent_id is not None:
            wire.setdefault("agentId", self._settings.agent_id)
        return self._ledger.lease(where, wire, idempotency_key=self._runtime.new_id())

    def commit(self, namespace: str, body: CommitRequestBody | Mapping[str, Any]) -> CommitResponse:
        """Record an effect's result. Idempotent for the same lease.

        Raises:
            VerityApiError: `stale_fence` if a newer lease was granted, `effect_finished` if the effect failed.
        """
        return self._ledger.commit(*self._checked(namespace, body, CommitRequestBody))

    def fail(self, namespace: str, body: FailRequestBody | Mapping[str, Any]) -> FailResponse:
        """Record that an effect failed. Idempotent for the same lease.

        Raises:
            VerityApiError: `stale_fence` if a newer lease was granted, `effect_finished` if the effect is committed.
        """
        return self._ledger.fail(*self._checked(namespace, body, FailRequestBody))

    def renew(self, namespace: str, body: RenewRequestBody | Mapping[str, Any]) -> RenewResponse:
        """Extend a lease.

        Raises:
            VerityApiError: `stale_fence` if a newer lease was granted, or the lease was released.
        """
        return self._ledger.renew(*self._checked(namespace, body, RenewRequestBody))

    def release(self, namespace: str, body: ReleaseRequestBody | Mapping[str, Any]) -> ReleaseResponse:
        """Give a lease back without an outcome. Idempotent for the same lease: the first release counts.

        Raises:
            VerityApiError: `stale_fence` if a newer lease was granted, `effect_finished` if the effect has an outcome;
                404 or 405 from a ledger that is older than this call: the lease then expires by itself.

        .. versionadded:: 0.2
        """
        return self._ledger.release(*self._checked(namespace, body, ReleaseRequestBody))

    def report_observe(self, namespace: str, body: ReportObserveBody | Mapping[str, Any]) -> ReportObserveResponse:
        """Report to the audit trail whether observe found the effect. Changes no state."""
        return self._ledger.report_observe(*self._checked(namespace, body, ReportObserveBody))

    def _protect(
        self,
        effect_key: str,
        *,
        act: SyncAct[Any],
        wire_context: Mapping[str, str] | None = None,
        **options: Unpack[ProtectOptions],
    ) -> Any:
        """`protect()` with the fields that a workflow's run adds to the lease request."""
        self._check_open()
        effect = make_effect(
            effect_key,
            act,
            options,
            wire_context=wire_context,
            settings=self._settings,
            caller=self._ledger.caller,
            clock=self._runtime.monotonic,
        )
        with effect.span:
            return self._protector.protect(effect)

    def _checked(self, namespace: str, body: Any, kind: Any) -> tuple[str, dict[str, Any]]:
        self._check_open()
        return check_namespace(namespace), to_wire(body, kind)

    def _check_open(self) -> None:
        notice_fork()
        check_threads()
        if self._closed:
            raise VerityConfigError("This client is closed; create a new one.", parameter="client")
        sync_here.check()


def _open_spool(settings: ClientSettings) -> Spool | None:
    if settings.spool is None:
        return None
    from verity._spool import Spool  # only clients with a spool load it

    return Spool(settings.spool)
