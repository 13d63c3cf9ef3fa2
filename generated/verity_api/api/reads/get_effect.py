# Made from openapi.yaml by scripts/generate.py. Do not edit.
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.effect import Effect
from ...types import UNSET, Response


def _get_kwargs(
    namespace: str,
    *,
    effect_key: str,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["effectKey"] = effect_key

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/effects/{namespace}/effect".format(
            namespace=quote(str(namespace), safe=""),
        ),
        "params": params,
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
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
) -> httpx.Response:
    """Get one effect by its key: the raw answer, nothing parsed."""
    return client.get_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            effect_key=effect_key,
        )
    )


async def asyncio_response(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
) -> httpx.Response:
    """Get one effect by its key: the raw answer, nothing parsed."""
    return await client.get_async_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            effect_key=effect_key,
        )
    )


def sync_detailed(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
) -> Response[Effect]:
    """Get one effect by its key

    Args:
        namespace (str):
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.

    Returns:
        Response[Effect]
    """

    return _build_response(
        sync_response(
            namespace=namespace,
            client=client,
            effect_key=effect_key,
        )
    )


def sync(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
) -> Effect | None:
    """Get one effect by its key

    Args:
        namespace (str):
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.

    Returns:
        Effect
    """

    return sync_detailed(
        namespace=namespace,
        client=client,
        effect_key=effect_key,
    ).parsed


async def asyncio_detailed(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
) -> Response[Effect]:
    """Get one effect by its key

    Args:
        namespace (str):
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.

    Returns:
        Response[Effect]
    """

    return _build_response(
        await asyncio_response(
            namespace=namespace,
            client=client,
            effect_key=effect_key,
        )
    )


async def asyncio(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    effect_key: str,
) -> Effect | None:
    """Get one effect by its key

    Args:
        namespace (str):
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.

    Returns:
        Effect
    """

    return (
        await asyncio_detailed(
            namespace=namespace,
            client=client,
            effect_key=effect_key,
        )
    ).parsed
