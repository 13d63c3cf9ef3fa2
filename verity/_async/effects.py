"""`verity.effects`: lists and lookups of effects, their audit trails and counts, and reset and resolve."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import httpx
from verity_api.api.administration import reset_effect, resolve_effect
from verity_api.api.reads import (
    get_effect,
    get_effect_by_id,
    get_stats,
    list_cases,
    list_effect_events,
    list_effects,
    list_namespaces,
    list_runs,
    list_workflows,
)
from verity_api.models import ResetRequest, ResolveRequest

from verity._async.ledger import AsyncLedger
from verity._async.pages import AsyncPages
from verity._concurrency import AsyncFunction
from verity._core import filters, payload
from verity._core.backoff import SEND_ATTEMPTS
from verity._core.keys import check_effect_key, check_label, check_stored_namespace
from verity._core.replies import NOTHING_IN_PARTICULAR, Asked
from verity._operations import Operation
from verity.errors import VerityConfigError, VerityValidationError
from verity.records import (
    EffectEvent,
    EffectGroup,
    EffectRecord,
    EffectStatus,
    LedgerStats,
    Page,
    ResetMode,
    ResetResponse,
    ResolveResponse,
)
from verity.values import Record

T = TypeVar("T", bound=Record)
PAGE_SIZE = 100


class AsyncEffects:
    """Reads and administers the effects of a ledger.

    Lists fetch their pages as they are iterated. `page_size` (1 to 500) is the number of items in a page. A call
    without a namespace uses the client's. A list then covers all namespaces if the client has none either.

    Every call raises VerityConfigError or VerityValidationError if an argument is wrong (nothing was sent),
    VerityConnectionError if the ledger gave no answer, and VerityApiError if it answered with an error.
    """

    def __init__(self, ledger: AsyncLedger, namespace: str | None, check_open: Callable[[], None]) -> None:
        self._ledger = ledger
        self._namespace = namespace
        self._check_open = check_open

    def list(
        self,
        *,
        namespace: str | None = None,
        all_namespaces: bool = False,
        status: EffectStatus | None = None,
        search: str | None = None,
        workflow_name: str | None = None,
        case_id: str | None = None,
        run_id: str | None = None,
        agent_id: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        cursor: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncPages[EffectRecord]:
        """List effects, newest first.

        Args:
            namespace: only effects in this namespace. The default is the client's, unless a workflow, case or run is
                given: those have namespaces of their own.
            all_namespaces: search all namespaces, also if the client has one.
            status: IDLE (reset or given back), RUNNING, EXPIRED (its lease expired, or was released by a holder that
                may have acted), COMMITTED or FAILED.
            search: a part of the effect key.
            workflow_name: only effects of this workflow.
            case_id: only effects of this case.
            run_id: only effects of this run.
            agent_id: only effects whose latest lease was granted to this agent.
            since: created at this time or later: a datetime with a time zone, or an RFC 3339 string.
            until: created before this time.
            cursor: begin at this page: the `next_cursor` of the page before.
            page_size: the number of effects in a page, 1 to 500.
        """
        chosen = filters.read_filters(
            status=status,
            search=search,
            workflow_name=workflow_name,
            case_id=case_id,
            run_id=run_id,
            agent_id=agent_id,
            since=since,
            until=until,
        )
        in_workflow = workflow_name is not None or case_id is not None or run_id is not None
        where = self._where(namespace, all_namespaces=all_namespaces, default=None if in_workflow else self._namespace)
        send = partial(list_effects.asyncio_response, client=self._ledger.api, **where, **chosen)
        return self._pages(Operation.LIST_EFFECTS, EffectRecord, send, cursor, page_size)

    async def get(self, effect_key: str, *, namespace: str | None = None) -> EffectRecord:
        """Look up one effect by its key, with its payloads.

        Raises:
            VerityApiError: `effect_not_found`.
        """
        key, send = self._about(get_effect.asyncio_response, effect_key, namespace)
        return await self._ledger.call(EffectRecord, Operation.GET_EFFECT, self._asked(key, namespace), send)

    async def get_by_id(self, effect_id: str) -> EffectRecord:
        """Look up one effect by the id that the ledger gave it, in any namespace.

        Raises:
            VerityApiError: `effect_not_found`.
        """
        self._check_open()
        checked = filters.check_effect_id(effect_id)
        send = partial(get_effect_by_id.asyncio_response, checked, client=self._ledger.api)
        return await self._ledger.call(EffectRecord, Operation.GET_EFFECT_BY_ID, {"effectId": checked}, send)

    def events(
        self, effect_key: str, *, namespace: str | None = None, cursor: str | None = None, page_size: int = PAGE_SIZE
    ) -> AsyncPages[EffectEvent]:
        """List an effect's audit trail, oldest event first. A purge deletes the trail."""
        key, send = self._about(list_effect_events.asyncio_response, effect_key, namespace)
        return self._pages(
            Operation.LIST_EFFECT_EVENTS, EffectEvent, send, cursor, page_size, self._asked(key, namespace)
        )

    async def reset(
        self,
        effect_key: str,
        *,
        namespace: str | None = None,
        mode: ResetMode = "verify",
        force: bool = False,
        reason: str | None = None,
        expected_fence: int | None = None,
    ) -> ResetResponse:
        """Let a failed or expired effect be tried again. Needs an API key with the role org_admin.

        Args:
            effect_key: the effect.
            namespace: overrides the client's.
            mode: `"verify"`: the ledger tells the next holder that an earlier one may have acted. `protect()` then
                needs an `observe`. `"retry"`: it is certain that no holder acted, and `protect()` acts.
            force: reset the effect although a holder has a live lease. That holder may still act; the ledger refuses
                its commit. If the answer is lost, the client does not resend a forced reset: it could hit the next
                holder.
            reason: why, for the audit trail.
            expected_fence: the `fence_token` of the effect that you looked at. If the effect has another one by now,
                nothing changes.
                .. versionadded:: 0.2

        Raises:
            LeaseConflictError: a lease is live, and `force` is False.
            VerityApiError: `effect_not_found`, `effect_finished` (it is committed), `effect_purged`, `forbidden`,
                `stale_fence` (it was granted, reset or resolved since `expected_fence`).
        """
        fields = filters.read_reset(effect_key, mode, force, reason, expected_fence)
        send = self._change(reset_effect.asyncio_response, namespace, ResetRequest.from_dict(fields))
        attempts = 1 if force else SEND_ATTEMPTS  # also with a fence, which an older ledger would ignore
        asked = self._asked(fields["effectKey"], namespace)
        return await self._ledger.call(ResetResponse, Operation.RESET_EFFECT, asked, send, attempts)

    async def resolve(
        self,
        effect_key: str,
        result: Any,
        *,
        namespace: str | None = None,
        reason: str | None = None,
        expected_fence: int | None = None,
    ) -> ResolveResponse:
        """Commit the result of an expired or failed effect that has happened. Every later caller gets this result.

        It is final: the ledger refuses later commits of former holders. Needs an API key with the role org_admin.

        Args:
            effect_key: the effect.
            result: the result that `act` would have returned: a JSON value of at most 64 KB.
            namespace: overrides the client's.
            reason: how you know, for the audit trail.
            expected_fence: the `fence_token` of the effect that you looked at. If the effect has another one by now,
                nothing changes.
                .. versionadded:: 0.2

        Raises:
            LeaseConflictError: a lease is live.
            VerityApiError: `effect_not_found`, `effect_finished` (committed with another result), `not_failed`,
                `effect_purged`, `forbidden`, `stale_fence` (it was granted, reset or resolved since `expected_fence`).
        """
        fields = {"effectKey": check_effect_key(effect_key), "result": payload.round_trip(result, "result")}
        more = {"reason": filters.check_reason(reason), "expectedFence": filters.check_fence(expected_fence)}
        body = ResolveRequest.from_dict(filters.without_none(more) | fields)
        send = self._change(resolve_effect.asyncio_response, namespace, body)
        return await self._ledger.call(
            ResolveResponse, Operation.RESOLVE_EFFECT, self._asked(fields["effectKey"], namespace), send
        )

    def namespaces(self, *, cursor: str | None = None, page_size: int = PAGE_SIZE) -> AsyncPages[EffectGroup]:
        """List the namespaces that have effects, by name."""
        send = partial(list_namespaces.asyncio_response, client=self._ledger.api)
        return self._pages(Operation.LIST_NAMESPACES, EffectGroup, send, cursor, page_size)

    def workflows(
        self, *, namespace: str | None = None, cursor: str | None = None, page_size: int = PAGE_SIZE
    ) -> AsyncPages[EffectGroup]:
        """List the workflows that have effects, by name; in all namespaces unless one is given."""
        send = partial(list_workflows.asyncio_response, client=self._ledger.api, **self._where(namespace))
        return self._pages(Operation.LIST_WORKFLOWS, EffectGroup, send, cursor, page_size)

    def cases(
        self,
        workflow_name: str,
        *,
        namespace: str | None = None,
        cursor: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncPages[EffectGroup]:
        """List the cases of a workflow; in all namespaces unless one is given."""
        workflow: Any = {"workflow_name": check_label("workflow_name", workflow_name)}
        send = partial(list_cases.asyncio_response, client=self._ledger.api, **workflow, **self._where(namespace))
        return self._pages(Operation.LIST_CASES, EffectGroup, send, cursor, page_size)

    def runs(
        self,
        workflow_name: str,
        case_id: str,
        *,
        namespace: str | None = None,
        cursor: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncPages[EffectGroup]:
        """List the runs of a case; in all namespaces unless one is given."""
        case: Any = {
            "workflow_name": check_label("workflow_name", workflow_name),
            "case_id": check_label("case_id", case_id),
        }
        send = partial(list_runs.asyncio_response, client=self._ledger.api, **case, **self._where(namespace))
        return self._pages(Operation.LIST_RUNS, EffectGroup, send, cursor, page_size)

    async def stats(
        self,
        *,
        namespace: str | None = None,
        all_namespaces: bool = False,
        since: datetime | str | None = None,
    ) -> LedgerStats:
        """Count effects by status, and events since a time (default: an hour ago).

        The answer also tells when the oldest expired lease expired that no holder has taken over.
        """
        self._check_open()
        where = self._where(namespace, all_namespaces=all_namespaces, default=self._namespace)
        where |= filters.without_none({"since": filters.read_time("since", since)})
        send = partial(get_stats.asyncio_response, client=self._ledger.api, **where)
        return await self._ledger.call(LedgerStats, Operation.GET_STATS, NOTHING_IN_PARTICULAR, send)

    def _where(
        self, namespace: str | None, *, all_namespaces: bool = False, default: str | None = None
    ) -> dict[str, Any]:
        if not isinstance(all_namespaces, bool) or (all_namespaces and namespace is not None):
            raise VerityValidationError(
                "all_namespaces must be True or False, and excludes namespace=.", parameter="all_namespaces"
            )
        if namespace is not None:
            return {"namespace": check_stored_namespace(namespace)}
        return {} if all_namespaces or default is None else {"namespace": default}

    def _about(
        self, send: AsyncFunction[httpx.Response], effect_key: str, namespace: str | None
    ) -> tuple[str, AsyncFunction[httpx.Response]]:
        self._check_open()
        key = check_effect_key(effect_key)
        return key, partial(send, self._one_namespace(namespace), client=self._ledger.api, effect_key=key)

    def _change(
        self, send: AsyncFunction[httpx.Response], namespace: str | None, body: ResetRequest | ResolveRequest
    ) -> AsyncFunction[httpx.Response]:
        self._check_open()
        return partial(send, self._one_namespace(namespace), client=self._ledger.api, body=body)

    def _asked(self, effect_key: str, namespace: str | None) -> Asked:
        return {"namespace": self._one_namespace(namespace), "effectKey": effect_key}

    def _one_namespace(self, namespace: str | None) -> str:
        if namespace is not None:
            return check_stored_namespace(namespace)
        if self._namespace is None:
            raise VerityConfigError(
                "namespace is missing: pass namespace= to the client or to this call.", parameter="namespace"
            )
        return self._namespace

    def _pages(
        self,
        operation: Operation,
        kind: type[T],
        send: AsyncFunction[httpx.Response],
        cursor: str | None,
        page_size: int,
        asked: Asked = NOTHING_IN_PARTICULAR,
    ) -> AsyncPages[T]:
        self._check_open()
        limit = filters.check_page_size(page_size)

        async def fetch(cursor: str | None) -> Page[T]:
            self._check_open()
            at = filters.without_none({"cursor": cursor, "limit": limit})
            reply = await self._ledger.call(Record, operation, asked, lambda: send(**at))
            items = tuple(kind(item, reply.request_id) for item in reply["items"])
            return Page(items, reply.get("nextCursor") or None, reply.request_id)

        return AsyncPages(fetch, filters.check_cursor(cursor))
