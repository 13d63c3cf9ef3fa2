# Made from openapi.yaml by scripts/generate.py. Do not edit.
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.lease_reply import LeaseReply
from ...models.lease_request import LeaseRequest
from ...types import UNSET, Response, Unset


def _get_kwargs(
    namespace: str,
    *,
    body: LeaseRequest,
    idempotency_key: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    traceparent: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(idempotency_key, Unset):
        headers["Idempotency-Key"] = idempotency_key

    if not isinstance(prefer, Unset):
        headers["Prefer"] = prefer

    if not isinstance(traceparent, Unset):
        headers["traceparent"] = traceparent

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/effects/{namespace}/lease".format(
            namespace=quote(str(namespace), safe=""),
        ),
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(response: httpx.Response) -> LeaseReply | None:
    try:
        if response.status_code == 200:
            response_200 = LeaseReply.from_dict(response.json())

            return response_200

    except (ValueError, LookupError, TypeError, AttributeError):
        # Not what the API's description says: a proxy's page, or a ledger of another kind.
        return None
    return None


def _build_response(response: httpx.Response) -> Response[LeaseReply]:
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
    body: LeaseRequest,
    idempotency_key: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    traceparent: str | Unset = UNSET,
) -> httpx.Response:
    """Ask for a lease on an effect: the raw answer, nothing parsed."""
    return client.get_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            body=body,
            idempotency_key=idempotency_key,
            prefer=prefer,
            traceparent=traceparent,
        )
    )


async def asyncio_response(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    body: LeaseRequest,
    idempotency_key: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    traceparent: str | Unset = UNSET,
) -> httpx.Response:
    """Ask for a lease on an effect: the raw answer, nothing parsed."""
    return await client.get_async_httpx_client().request(
        **_get_kwargs(
            namespace=namespace,
            body=body,
            idempotency_key=idempotency_key,
            prefer=prefer,
            traceparent=traceparent,
        )
    )


def sync_detailed(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    body: LeaseRequest,
    idempotency_key: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    traceparent: str | Unset = UNSET,
) -> Response[LeaseReply]:
    """Ask for a lease on an effect

     Grants the lease. If the effect is decided, the answer is its outcome.

    Args:
        namespace (str):
        idempotency_key (str | Unset):
        prefer (str | Unset):
        traceparent (str | Unset):
        body (LeaseRequest):

    Returns:
        Response[LeaseReply]
    """

    return _build_response(
        sync_response(
            namespace=namespace,
            client=client,
            body=body,
            idempotency_key=idempotency_key,
            prefer=prefer,
            traceparent=traceparent,
        )
    )


def sync(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    body: LeaseRequest,
    idempotency_key: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    traceparent: str | Unset = UNSET,
) -> LeaseReply | None:
    """Ask for a lease on an effect

     Grants the lease. If the effect is decided, the answer is its outcome.

    Args:
        namespace (str):
        idempotency_key (str | Unset):
        prefer (str | Unset):
        traceparent (str | Unset):
        body (LeaseRequest):

    Returns:
        LeaseReply
    """

    return sync_detailed(
        namespace=namespace,
        client=client,
        body=body,
        idempotency_key=idempotency_key,
        prefer=prefer,
        traceparent=traceparent,
    ).parsed


async def asyncio_detailed(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    body: LeaseRequest,
    idempotency_key: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    traceparent: str | Unset = UNSET,
) -> Response[LeaseReply]:
    """Ask for a lease on an effect

     Grants the lease. If the effect is decided, the answer is its outcome.

    Args:
        namespace (str):
        idempotency_key (str | Unset):
        prefer (str | Unset):
        traceparent (str | Unset):
        body (LeaseRequest):

    Returns:
        Response[LeaseReply]
    """

    return _build_response(
        await asyncio_response(
            namespace=namespace,
            client=client,
            body=body,
            idempotency_key=idempotency_key,
            prefer=prefer,
            traceparent=traceparent,
        )
    )


async def asyncio(
    namespace: str,
    *,
    client: AuthenticatedClient | Client,
    body: LeaseRequest,
    idempotency_key: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    traceparent: str | Unset = UNSET,
) -> LeaseReply | None:
    """Ask for a lease on an effect

     Grants the lease. If the effect is decided, the answer is its outcome.

    Args:
        namespace (str):
        idempotency_key (str | Unset):
        prefer (str | Unset):
        traceparent (str | Unset):
        body (LeaseRequest):

    Returns:
        LeaseReply
    """

    return (
        await asyncio_detailed(
            namespace=namespace,
            client=client,
            body=body,
            idempotency_key=idempotency_key,
            prefer=prefer,
            traceparent=traceparent,
        )
    ).parsed
