# Made from openapi.yaml by scripts/generate.py. Do not edit.
from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.workflow_page import WorkflowPage
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    namespace: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["namespace"] = namespace

    params["cursor"] = cursor

    params["limit"] = limit

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/workflows",
        "params": params,
    }

    return _kwargs


def _parse_response(response: httpx.Response) -> WorkflowPage | None:
    try:
        if response.status_code == 200:
            response_200 = WorkflowPage.from_dict(response.json())

            return response_200

    except (ValueError, LookupError, TypeError, AttributeError):
        # Not what the API's description says: a proxy's page, or a ledger of another kind.
        return None
    return None


def _build_response(response: httpx.Response) -> Response[WorkflowPage]:
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
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> httpx.Response:
    """List the workflows that have effects: the raw answer, nothing parsed."""
    return client.get_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            cursor=cursor,
            limit=limit,
        )
    )


async def asyncio_response(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> httpx.Response:
    """List the workflows that have effects: the raw answer, nothing parsed."""
    return await client.get_async_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            cursor=cursor,
            limit=limit,
        )
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> Response[WorkflowPage]:
    """List the workflows that have effects

    Args:
        namespace (str | Unset):
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        Response[WorkflowPage]
    """

    return _build_response(
        sync_response(
            client=client,
            namespace=namespace,
            cursor=cursor,
            limit=limit,
        )
    )


def sync(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> WorkflowPage | None:
    """List the workflows that have effects

    Args:
        namespace (str | Unset):
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        WorkflowPage
    """

    return sync_detailed(
        client=client,
        namespace=namespace,
        cursor=cursor,
        limit=limit,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> Response[WorkflowPage]:
    """List the workflows that have effects

    Args:
        namespace (str | Unset):
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        Response[WorkflowPage]
    """

    return _build_response(
        await asyncio_response(
            client=client,
            namespace=namespace,
            cursor=cursor,
            limit=limit,
        )
    )


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> WorkflowPage | None:
    """List the workflows that have effects

    Args:
        namespace (str | Unset):
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        WorkflowPage
    """

    return (
        await asyncio_detailed(
            client=client,
            namespace=namespace,
            cursor=cursor,
            limit=limit,
        )
    ).parsed
