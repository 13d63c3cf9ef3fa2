# Made from openapi.yaml by scripts/generate.py. Do not edit.
from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.effect_page import EffectPage
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    namespace: str | Unset = UNSET,
    status: str | Unset = UNSET,
    search: str | Unset = UNSET,
    workflow_name: str | Unset = UNSET,
    case_id: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    agent_id: str | Unset = UNSET,
    since: str | Unset = UNSET,
    until: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["namespace"] = namespace

    params["status"] = status

    params["search"] = search

    params["workflowName"] = workflow_name

    params["caseId"] = case_id

    params["runId"] = run_id

    params["agentId"] = agent_id

    params["since"] = since

    params["until"] = until

    params["cursor"] = cursor

    params["limit"] = limit

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/effects",
        "params": params,
    }

    return _kwargs


def _parse_response(response: httpx.Response) -> EffectPage | None:
    try:
        if response.status_code == 200:
            response_200 = EffectPage.from_dict(response.json())

            return response_200

    except (ValueError, LookupError, TypeError, AttributeError):
        # Not what the API's description says: a proxy's page, or a ledger of another kind.
        return None
    return None


def _build_response(response: httpx.Response) -> Response[EffectPage]:
    return Response(
        status_code=response.status_code,
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(response),
    )


def sync_response(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    status: str | Unset = UNSET,
    search: str | Unset = UNSET,
    workflow_name: str | Unset = UNSET,
    case_id: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    agent_id: str | Unset = UNSET,
    since: str | Unset = UNSET,
    until: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> httpx.Response:
    """List effects, newest first: the raw answer, nothing parsed."""
    return client.get_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            status=status,
            search=search,
            workflow_name=workflow_name,
            case_id=case_id,
            run_id=run_id,
            agent_id=agent_id,
            since=since,
            until=until,
            cursor=cursor,
            limit=limit,
        )
    )


async def asyncio_response(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    status: str | Unset = UNSET,
    search: str | Unset = UNSET,
    workflow_name: str | Unset = UNSET,
    case_id: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    agent_id: str | Unset = UNSET,
    since: str | Unset = UNSET,
    until: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> httpx.Response:
    """List effects, newest first: the raw answer, nothing parsed."""
    return await client.get_async_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            status=status,
            search=search,
            workflow_name=workflow_name,
            case_id=case_id,
            run_id=run_id,
            agent_id=agent_id,
            since=since,
            until=until,
            cursor=cursor,
            limit=limit,
        )
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    status: str | Unset = UNSET,
    search: str | Unset = UNSET,
    workflow_name: str | Unset = UNSET,
    case_id: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    agent_id: str | Unset = UNSET,
    since: str | Unset = UNSET,
    until: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> Response[EffectPage]:
    """List effects, newest first

    Args:
        namespace (str | Unset):
        status (str | Unset):
        search (str | Unset):
        workflow_name (str | Unset): Any text without a NUL character.
        case_id (str | Unset): Any text without a NUL character.
        run_id (str | Unset): Any text without a NUL character.
        agent_id (str | Unset): Any text without a NUL character.
        since (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.
        until (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        Response[EffectPage]
    """

    return _build_response(
        sync_response(
            client=client,
            namespace=namespace,
            status=status,
            search=search,
            workflow_name=workflow_name,
            case_id=case_id,
            run_id=run_id,
            agent_id=agent_id,
            since=since,
            until=until,
            cursor=cursor,
            limit=limit,
        )
    )


def sync(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    status: str | Unset = UNSET,
    search: str | Unset = UNSET,
    workflow_name: str | Unset = UNSET,
    case_id: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    agent_id: str | Unset = UNSET,
    since: str | Unset = UNSET,
    until: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> EffectPage | None:
    """List effects, newest first

    Args:
        namespace (str | Unset):
        status (str | Unset):
        search (str | Unset):
        workflow_name (str | Unset): Any text without a NUL character.
        case_id (str | Unset): Any text without a NUL character.
        run_id (str | Unset): Any text without a NUL character.
        agent_id (str | Unset): Any text without a NUL character.
        since (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.
        until (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        EffectPage
    """

    return sync_detailed(
        client=client,
        namespace=namespace,
        status=status,
        search=search,
        workflow_name=workflow_name,
        case_id=case_id,
        run_id=run_id,
        agent_id=agent_id,
        since=since,
        until=until,
        cursor=cursor,
        limit=limit,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    status: str | Unset = UNSET,
    search: str | Unset = UNSET,
    workflow_name: str | Unset = UNSET,
    case_id: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    agent_id: str | Unset = UNSET,
    since: str | Unset = UNSET,
    until: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> Response[EffectPage]:
    """List effects, newest first

    Args:
        namespace (str | Unset):
        status (str | Unset):
        search (str | Unset):
        workflow_name (str | Unset): Any text without a NUL character.
        case_id (str | Unset): Any text without a NUL character.
        run_id (str | Unset): Any text without a NUL character.
        agent_id (str | Unset): Any text without a NUL character.
        since (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.
        until (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        Response[EffectPage]
    """

    return _build_response(
        await asyncio_response(
            client=client,
            namespace=namespace,
            status=status,
            search=search,
            workflow_name=workflow_name,
            case_id=case_id,
            run_id=run_id,
            agent_id=agent_id,
            since=since,
            until=until,
            cursor=cursor,
            limit=limit,
        )
    )


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    status: str | Unset = UNSET,
    search: str | Unset = UNSET,
    workflow_name: str | Unset = UNSET,
    case_id: str | Unset = UNSET,
    run_id: str | Unset = UNSET,
    agent_id: str | Unset = UNSET,
    since: str | Unset = UNSET,
    until: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> EffectPage | None:
    """List effects, newest first

    Args:
        namespace (str | Unset):
        status (str | Unset):
        search (str | Unset):
        workflow_name (str | Unset): Any text without a NUL character.
        case_id (str | Unset): Any text without a NUL character.
        run_id (str | Unset): Any text without a NUL character.
        agent_id (str | Unset): Any text without a NUL character.
        since (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.
        until (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        EffectPage
    """

    return (
        await asyncio_detailed(
            client=client,
            namespace=namespace,
            status=status,
            search=search,
            workflow_name=workflow_name,
            case_id=case_id,
            run_id=run_id,
            agent_id=agent_id,
            since=since,
            until=until,
            cursor=cursor,
            limit=limit,
        )
    ).parsed
