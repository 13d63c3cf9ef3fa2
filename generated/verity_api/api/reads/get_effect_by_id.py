# Made from openapi.yaml by scripts/generate.py. Do not edit.
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.effect import Effect
from ...types import Response


def _get_kwargs(
    effect_id: str,
) -> dict[str, Any]:

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/effect-ids/{effect_id}".format(
            effect_id=quote(str(effect_id), safe=""),
        ),
    }

    return _kwargs


def _parse_response(response: httpx.Response) -> Effect | None:
    try:
        if response.status_code == 200:
            response_200 = Effect.from_dict(response.json())

            return response_200

    except (ValueError, LookupError, TypeError, AttributeError):
        # Not what the API's description says: a proxy's page, or a ledger of another kind.
        return None
    return None


def _build_response(response: httpx.Response) -> Response[Effect]:
    return Response(
        status_code=response.status_code,
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(response),
    )


def sync_response(
    effect_id: str,
    *,
    client: AuthenticatedClient | Client,
) -> httpx.Response:
    """Get one effect by its id: the raw answer, nothing parsed."""
    return client.get_httpx_client().request(
        **_get_kwargs(
            effect_id=effect_id,
        )
    )


async def asyncio_response(
    effect_id: str,
    *,
    client: AuthenticatedClient | Client,
) -> httpx.Response:
    """Get one effect by its id: the raw answer, nothing parsed."""
    return await client.get_async_httpx_client().request(
        **_get_kwargs(
            effect_id=effect_id,
        )
    )


def sync_detailed(
    effect_id: str,
    *,
    client: AuthenticatedClient | Client,
) -> Response[Effect]:
    """Get one effect by its id

    Args:
        effect_id (str):

    Returns:
        Response[Effect]
    """

    return _build_response(
        sync_response(
            effect_id=effect_id,
            client=client,
        )
    )


def sync(
    effect_id: str,
    *,
    client: AuthenticatedClient | Client,
) -> Effect | None:
    """Get one effect by its id

    Args:
        effect_id (str):

    Returns:
        Effect
    """

    return sync_detailed(
        effect_id=effect_id,
        client=client,
    ).parsed


async def asyncio_detailed(
    effect_id: str,
    *,
    client: AuthenticatedClient | Client,
) -> Response[Effect]:
    """Get one effect by its id

    Args:
        effect_id (str):

    Returns:
        Response[Effect]
    """

    return _build_response(
        await asyncio_response(
            effect_id=effect_id,
            client=client,
        )
    )


async def asyncio(
    effect_id: str,
    *,
    client: AuthenticatedClient | Client,
) -> Effect | None:
    """Get one effect by its id

    Args:
        effect_id (str):

    Returns:
        Effect
    """

    return (
        await asyncio_detailed(
            effect_id=effect_id,
            client=client,
        )
    ).parsed
