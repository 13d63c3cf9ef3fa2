# Made from openapi.yaml by scripts/generate.py. Do not edit.
from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.stats import Stats
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    namespace: str | Unset = UNSET,
    since: str | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["namespace"] = namespace

    params["since"] = since

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/stats",
        "params": params,
    }

    return _kwargs


def _parse_response(response: httpx.Response) -> Stats | None:
    try:
        if response.status_code == 200:
            response_200 = Stats.from_dict(response.json())

            return response_200

    except (ValueError, LookupError, TypeError, AttributeError):
        # Not what the API's description says: a proxy's page, or a ledger of another kind.
        return None
    return None


def _build_response(response: httpx.Response) -> Response[Stats]:
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
    since: str | Unset = UNSET,
) -> httpx.Response:
    """Count effects by status, and recent events by type: the raw answer, nothing parsed."""
    return client.get_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            since=since,
        )
    )


async def asyncio_response(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    since: str | Unset = UNSET,
) -> httpx.Response:
    """Count effects by status, and recent events by type: the raw answer, nothing parsed."""
    return await client.get_async_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            since=since,
        )
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    since: str | Unset = UNSET,
) -> Response[Stats]:
    """Count effects by status, and recent events by type

    Args:
        namespace (str | Unset):
        since (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.

    Returns:
        Response[Stats]
    """

    return _build_response(
        sync_response(
            client=client,
            namespace=namespace,
            since=since,
        )
    )


def sync(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    since: str | Unset = UNSET,
) -> Stats | None:
    """Count effects by status, and recent events by type

    Args:
        namespace (str | Unset):
        since (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.

    Returns:
        Stats
    """

    return sync_detailed(
        client=client,
        namespace=namespace,
        since=since,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    since: str | Unset = UNSET,
) -> Response[Stats]:
    """Count effects by status, and recent events by type

    Args:
        namespace (str | Unset):
        since (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.

    Returns:
        Response[Stats]
    """

    return _build_response(
        await asyncio_response(
            client=client,
            namespace=namespace,
            since=since,
        )
    )


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    namespace: str | Unset = UNSET,
    since: str | Unset = UNSET,
) -> Stats | None:
    """Count effects by status, and recent events by type

    Args:
        namespace (str | Unset):
        since (str | Unset): A time in RFC 3339, such as `2026-01-31T12:00:00Z`.

    Returns:
        Stats
    """

    return (
        await asyncio_detailed(
            client=client,
            namespace=namespace,
            since=since,
        )
    ).parsed
