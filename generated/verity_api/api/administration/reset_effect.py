# Made from openapi.yaml by scripts/generate.py. Do not edit.
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.reset_reply import ResetReply
from ...models.reset_request import ResetRequest
from ...types import Response


def _get_kwargs(
    namespace: str,
    *,
    body: ResetRequest,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/effects/{namespace}/reset".format(
            namespace=quote(str(namespace), safe=""),
        ),
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(response: httpx.Response) -> ResetReply | None:
    try:
        if response.status_code == 200:
            response_200 = ResetReply.from_dict(response.json())

            return response_200

    except (ValueError, LookupError, TypeError, AttributeError):
        # Not what the API's description says: a proxy's page, or a ledger of another kind.
        return None
    return None


def _build_response(response: httpx.Response) -> Response[ResetReply]:
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
    body: ResetRequest,
) -> httpx.Response:
    """Allow a failed or expired effect to be tried again: the raw answer, nothing parsed."""
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
    body: ResetRequest,
) -> httpx.Response:
    """Allow a failed or expired effect to be tried again: the raw answer, nothing parsed."""
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
    body: ResetRequest,
) -> Response[ResetReply]:
    """Allow a failed or expired effect to be tried again

     A FAILED or EXPIRED effect becomes IDLE. With mode `verify` the next grant has `priorState`
    `expired`, so that
    its holder observes before it acts; with `retry` it has `reset`. An effect with a live lease is
    refused
    (`lease_conflict`) unless `force` is true. If a holder may still be acting (EXPIRED, or forced), the
    fence
    rises, so that this holder can't commit any more. Idempotent.

    Args:
        namespace (str):
        body (ResetRequest):

    Returns:
        Response[ResetReply]
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
    body: ResetRequest,
) -> ResetReply | None:
    """Allow a failed or expired effect to be tried again

     A FAILED or EXPIRED effect becomes IDLE. With mode `verify` the next grant has `priorState`
    `expired`, so that
    its holder observes before it acts; with `retry` it has `reset`. An effect with a live lease is
    refused
    (`lease_conflict`) unless `force` is true. If a holder may still be acting (EXPIRED, or forced), the
    fence
    rises, so that this holder can't commit any more. Idempotent.

    Args:
        namespace (str):
        body (ResetRequest):

    Returns:
        ResetReply
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
    body: ResetRequest,
) -> Response[ResetReply]:
    """Allow a failed or expired effect to be tried again

     A FAILED or EXPIRED effect becomes IDLE. With mode `verify` the next grant has `priorState`
    `expired`, so that
    its holder observes before it acts; with `retry` it has `reset`. An effect with a live lease is
    refused
    (`lease_conflict`) unless `force` is true. If a holder may still be acting (EXPIRED, or forced), the
    fence
    rises, so that this holder can't commit any more. Idempotent.

    Args:
        namespace (str):
        body (ResetRequest):

    Returns:
        Response[ResetReply]
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
    body: ResetRequest,
) -> ResetReply | None:
    """Allow a failed or expired effect to be tried again

     A FAILED or EXPIRED effect becomes IDLE. With mode `verify` the next grant has `priorState`
    `expired`, so that
    its holder observes before it acts; with `retry` it has `reset`. An effect with a live lease is
    refused
    (`lease_conflict`) unless `force` is true. If a holder may still be acting (EXPIRED, or forced), the
    fence
    rises, so that this holder can't commit any more. Idempotent.

    Args:
        namespace (str):
        body (ResetRequest):

    Returns:
        ResetReply
    """

    return (
        await asyncio_detailed(
            namespace=namespace,
            client=client,
            body=body,
        )
    ).parsed
