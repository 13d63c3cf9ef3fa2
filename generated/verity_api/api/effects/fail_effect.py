# Made from openapi.yaml by scripts/generate.py. Do not edit.
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.fail_reply import FailReply
from ...models.fail_request import FailRequest
from ...types import Response


def _get_kwargs(
    namespace: str,
    *,
    body: FailRequest,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/effects/{namespace}/fail".format(
            namespace=quote(str(namespace), safe=""),
        ),
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(response: httpx.Response) -> FailReply | None:
    try:
        if response.status_code == 200:
            response_200 = FailReply.from_dict(response.json())

            return response_200

    except (ValueError, LookupError, TypeError, AttributeError):
        # Not what the API's description says: a proxy's page, or a ledger of another kind.
        return None
    return None


def _build_response(response: httpx.Response) -> Response[FailReply]:
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
    body: FailRequest,
) -> httpx.Response:
    """Record that an effect failed: the raw answer, nothing parsed."""
    return client.get_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            body=body,
        )
    )


async def asyncio_response(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    body: FailRequest,
) -> httpx.Response:
    """Record that an effect failed: the raw answer, nothing parsed."""
    return await client.get_async_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            body=body,
        )
    )


def sync_detailed(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    body: FailRequest,
) -> Response[FailReply]:
    """Record that an effect failed

     Idempotent for the same lease.

    Args:
        namespace (str):
        body (FailRequest):

    Returns:
        Response[FailReply]
    """

    return _build_response(
        sync_response(
            namespace=namespace,
            client=client,
            body=body,
        )
    )


def sync(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    body: FailRequest,
) -> FailReply | None:
    """Record that an effect failed

     Idempotent for the same lease.

    Args:
        namespace (str):
        body (FailRequest):

    Returns:
        FailReply
    """

    return sync_detailed(
        namespace=namespace,
        client=client,
        body=body,
    ).parsed


async def asyncio_detailed(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    body: FailRequest,
) -> Response[FailReply]:
    """Record that an effect failed

     Idempotent for the same lease.

    Args:
        namespace (str):
        body (FailRequest):

    Returns:
        Response[FailReply]
    """

    return _build_response(
        await asyncio_response(
            namespace=namespace,
            client=client,
            body=body,
        )
    )


async def asyncio(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    body: FailRequest,
) -> FailReply | None:
    """Record that an effect failed

     Idempotent for the same lease.

    Args:
        namespace (str):
        body (FailRequest):

    Returns:
        FailReply
    """

    return (
        await asyncio_detailed(
            namespace=namespace,
            client=client,
            body=body,
        )
    ).parsed
