# Made from verity/_async/ledger.py by scripts/mirror.py. Do not edit.
"""The port to the ledger: one method for each call of the API. Foreign errors are mapped here, and nowhere else.

The modules above know neither httpx nor the generated client. The modules below do not know what an effect is.
"""

from __future__ import annotations

import sys
from functools import lru_cache, partial
from typing import Any, TypeVar

import httpx
from verity_api import AuthenticatedClient
from verity_api.api.effects import (
    commit_effect,
    fail_effect,
    lease_effect,
    release_effect,
    renew_effect,
    report_observe,
)
from verity_api.models import (
    CommitRequest,
    FailRequest,
    LeaseRequest,
    ReleaseRequest,
    RenewRequest,
    ReportObserveRequest,
)
from verity_api.types import UNSET

from verity._concurrency import SyncRuntime, SyncThunk, sync_here, sync_interrupt_in
from verity._core.backoff import SEND_ATTEMPTS, resend_delay
from verity._core.renewal import told_remainder_s
from verity._core.replies import Asked, is_transient, read_reply, read_request_id, why_no_answer
from verity._operations import Operation
from verity._sync.pool import spoil
from verity._sync.sender import SyncSender
from verity.errors import VerityApiError, VerityConnectionError, VerityError
from verity.values import (
    CommitResponse,
    FailResponse,
    LeaseAnswer,
    LeaseResponse,
    Record,
    ReleaseResponse,
    RenewResponse,
    ReportObserveResponse,
)

R = TypeVar("R", bound=Record)
Wire = dict[str, Any]
Send = SyncThunk[httpx.Response]

_KEPT_APIS = 16


class SyncLedger:
    """Makes the calls on effects. Bodies are camelCase mappings that `_core/bodies.py` has checked.

    Every method resends its request if the answer was lost or is transient, `SEND_ATTEMPTS` times in all: these calls
    are idempotent. Then it raises `VerityApiError` (`LeaseConflictError` for a lease) or `VerityConnectionError`.
    """

    def __init__(
        self, sender: SyncSender, runtime: SyncRuntime, *, base_url: str, max_delay_s: float, timeout_s: float
    ) -> None:
        self._sender = sender
        self._runtime = runtime
        self._base_url = base_url
        self._max_delay_s = max_delay_s
        self._timeout_s = timeout_s
        self.api = _api_over(sender, base_url)
        # Reports and renewals have timeouts of their own, of which there are few.
        self._api_within = lru_cache(maxsize=_KEPT_APIS)(partial(_api_within, sender, base_url))

    @property
    def has_own_connections(self) -> bool:
        """Whether the client made its own connections, and so knows how many requests they can carry."""
        return self._sender.has_own_connections

    @property
    def caller(self) -> object:
        """The client's identity at the ledger: equal for two clients of a process that get the same answers."""
        return self._sender.caller

    def lease(
        self,
        namespace: str,
        body: Wire,
        *,
        idempotency_key: str,
        wait_s: int = 0,
        attempts: int = SEND_ATTEMPTS,
        timeout_s: float | None = None,
    ) -> LeaseResponse:
        """Request a lease. With the same idempotency key, a resent request gets the same grant.

        Args:
            namespace: the effect's namespace.
            body: the request.
            idempotency_key: one for each logical request.
            wait_s: the seconds that the ledger may wait for another holder before it answers.
            attempts: how often the request is sent at most.
            timeout_s: the timeout in seconds; None: the client's, and `wait_s`.
        """
        request = LeaseRequest.from_dict(body)
        api = self._api_with(self._timeout_s + wait_s if wait_s else timeout_s)
        prefer = f"wait={wait_s}" if wait_s else UNSET
        return self.call(
            LeaseResponse,
            Operation.LEASE_EFFECT,
            _asked(namespace, body),
            lambda: lease_effect.sync_response(
                namespace, client=api, body=request, idempotency_key=idempotency_key, prefer=prefer
            ),
            attempts,
        )

    def commit(
        self, namespace: str, body: Wire, *, attempts: int = SEND_ATTEMPTS, timeout_s: float | None = None
    ) -> CommitResponse:
        """Record a result."""
        request = CommitRequest.from_dict(body)
        api = self._api_with(timeout_s)
        return self.call(
            CommitResponse,
            Operation.COMMIT_EFFECT,
            _asked(namespace, body),
            lambda: commit_effect.sync_response(namespace, client=api, body=request),
            attempts,
        )

    def fail(self, namespace: str, body: Wire) -> FailResponse:
        """Record a failure."""
        request = FailRequest.from_dict(body)
        return self.call(
            FailResponse,
            Operation.FAIL_EFFECT,
            _asked(namespace, body),
            lambda: fail_effect.sync_response(namespace, client=self.api, body=request),
        )

    def renew(
        self, namespace: str, body: Wire, *, attempts: int = SEND_ATTEMPTS, timeout_s: float | None = None
    ) -> RenewResponse:
        """Extend a lease."""
        request = RenewRequest.from_dict(body)
        api = self._api_with(timeout_s)
        return self.call(
            RenewResponse,
            Operation.RENEW_EFFECT,
            _asked(namespace, body),
            lambda: renew_effect.sync_response(namespace, client=api, body=request),
            attempts,
        )

    def release(
        self, namespace: str, body: Wire, *, attempts: int = SEND_ATTEMPTS, timeout_s: float | None = None
    ) -> ReleaseResponse:
        """Give a lease back without an outcome. An older ledger answers 404 or 405."""
        request = ReleaseRequest.from_dict(body)
        api = self._api_with(timeout_s)
        return self.call(
            ReleaseResponse,
            Operation.RELEASE_EFFECT,
            _asked(namespace, body),
            lambda: release_effect.sync_response(namespace, client=api, body=request),
            attempts,
        )

    def report_observe(
        self, namespace: str, body: Wire, *, attempts: int = SEND_ATTEMPTS, timeout_s: float | None = None
    ) -> ReportObserveResponse:
        """Report to the audit trail whether `observe` found the effect. Changes no state."""
        request = ReportObserveRequest.from_dict(body)
        api = self._api_with(timeout_s)
        return self.call(
            ReportObserveResponse,
            Operation.REPORT_OBSERVE,
            _asked(namespace, body),
            lambda: report_observe.sync_response(namespace, client=api, body=request),
            attempts,
        )

    def close(self) -> None:
        """Close the sender's connections."""
        self._sender.close()

    def call(self, kind: type[R], operation: Operation, asked: Asked, send: Send, attempts: int = SEND_ATTEMPTS) -> R:
        """Send until the answer is definite, at most `attempts` times. An answer to another request counts as lost."""
        was_inside = sync_here.is_inside
        sync_here.is_inside = True
        try:
            for attempt in range(1, attempts + 1):
                try:
                    return self._send(kind, operation, asked, send)
                except VerityError as error:
                    if attempt == attempts or not is_transient(error):
                        raise
                    retry_after_s = error.retry_after_s if isinstance(error, VerityApiError) else None
                    delay_s = resend_delay(attempt, retry_after_s, self._max_delay_s, self._runtime.random())
                self._runtime.sleep(delay_s)
        finally:
            try:  # see verity/_mutex.py
                sync_here.is_inside = was_inside
            finally:
                pass
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _send(self, kind: type[R], operation: Operation, asked: Asked, send: Send) -> R:
        effect_key: str | None = asked.get("effectKey")
        outer = sys.exc_info()[1]
        try:
            response = send()
        except VerityError:
            raise
        except Exception as error:
            # The one border for foreign errors: a transport, a proxy or a caller's own httpx client may raise
            # anything here. Whatever it is, the outcome of the request is unknown.
            interrupt = sync_interrupt_in(error, self._sender.own_errors, outer)
            if interrupt is None:
                about = f" of effect {effect_key!r}" if effect_key else ""
                raise VerityConnectionError(
                    f"{operation}{about} got no answer from {self._base_url} ({why_no_answer(error)}): "
                    "whether the ledger carried it out is unknown.",
                    effect_key=effect_key,
                ) from error
        else:
            return self._read(kind, operation, asked, response)
        raise interrupt  # from a signal handler or another thread: it belongs to the caller, and no answer was lost

    def _read(self, kind: type[R], operation: Operation, asked: Asked, response: httpx.Response) -> R:
        try:
            fields = read_reply(operation, response.status_code, response.headers, response.content, asked)
        except VerityConnectionError:  # another request's answer: later ones on this connection would be wrong, too
            spoil(response)
            raise
        answer = kind(fields, read_request_id(response.headers))
        if isinstance(answer, LeaseAnswer) and self._sender.is_remote:
            date = response.headers.get("date")
            remaining_s = told_remainder_s(answer.lease_expires_at, date, self._runtime.wall_clock_ns())
            object.__setattr__(answer, "_remaining_s", remaining_s)  # answers are read-only for everybody else
        return answer

    def _api_with(self, timeout_s: float | None) -> AuthenticatedClient:
        return self.api if timeout_s is None else self._api_within(timeout_s)


def _asked(namespace: str, body: Wire) -> Asked:
    asked = {"namespace": namespace, "effectKey": body["effectKey"]}
    return {**asked, "fenceToken": body["fenceToken"]} if "fenceToken" in body else asked


def _api_within(sender: SyncSender, base_url: str, timeout_s: float) -> AuthenticatedClient:
    """Return a generated client with a timeout of its own."""
    return _api_over(sender.with_timeout(timeout_s), base_url)


def _api_over(sender: SyncSender, base_url: str) -> AuthenticatedClient:
    """Return a generated client that sends through `sender`, which knows the base URL and the API key."""
    return AuthenticatedClient(base_url=base_url, token="").set_httpx_client(sender)
