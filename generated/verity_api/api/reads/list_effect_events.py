# Made from openapi.yaml by scripts/generate.py. Do not edit.
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.event_page import EventPage
from ...types import UNSET, Response, Unset


def _get_kwargs(
    namespace: str,
    *,
    effect_key: str,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["effectKey"] = effect_key

    params["cursor"] = cursor

    params["limit"] = limit

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/effects/{namespace}/events".format(
            namespace=quote(str(namespace), safe=""),
        ),
        "params": params,
    }

    return _kwargs


def _parse_response(response: httpx.Response) -> EventPage | None:
    try:
        if response.status_code == 200:
            response_200 = EventPage.from_dict(response.json())

            return response_200

    except (ValueError, LookupError, TypeError, AttributeError):
        # Not what the API's description says: a proxy's page, or a ledger of another kind.
        return None
    return None


def _build_response(response: httpx.Response) -> Response[EventPage]:
    return Response(
        status_code=response.status_code,
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(response),
    )


def sync_response(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> httpx.Response:
    """List an effect's audit trail, oldest event first: the raw answer, nothing parsed."""
    return client.get_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            effect_key=effect_key,
            cursor=cursor,
            limit=limit,
        )
    )


async def asyncio_response(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> httpx.Response:
    """List an effect's audit trail, oldest event first: the raw answer, nothing parsed."""
    return await client.get_async_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            effect_key=effect_key,
            cursor=cursor,
            limit=limit,
        )
    )


def sync_detailed(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> Response[EventPage]:
    """List an effect's audit trail, oldest event first

    Args:
        namespace (str):
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        Response[EventPage]
    """

    return _build_response(
        sync_response(
            namespace=namespace,
            client=client,
            effect_key=effect_key,
            cursor=cursor,
            limit=limit,
        )
    )


def sync(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> EventPage | None:
    """List an effect's audit trail, oldest event first

    Args:
        namespace (str):
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        EventPage
    """

    return sync_detailed(
        namespace=namespace,
        client=client,
        effect_key=effect_key,
        cursor=cursor,
        limit=limit,
    ).parsed


async def asyncio_detailed(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> Response[EventPage]:
    """List an effect's audit trail, oldest event first

    Args:
        namespace (str):
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        Response[EventPage]
    """

    return _build_response(
        await asyncio_response(
            namespace=namespace,
            client=client,
            effect_key=effect_key,
            cursor=cursor,
            limit=limit,
        )
    )


async def asyncio(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
) -> EventPage | None:
    """List an effect's audit trail, oldest event first

    Args:
        namespace (str):
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.
        cursor (str | Unset):
        limit (int | Unset):

    Returns:
        EventPage
    """

    return (
        await asyncio_detailed(
            namespace=namespace,
            client=client,
            effect_key=effect_key,
            cursor=cursor,
            limit=limit,
        )
    ).parsed
