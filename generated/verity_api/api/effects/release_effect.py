# Made from openapi.yaml by scripts/generate.py. Do not edit.
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.release_reply import ReleaseReply
from ...models.release_request import ReleaseRequest
from ...types import Response


def _get_kwargs(
    namespace: str,
    *,
    body: ReleaseRequest,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/effects/{namespace}/release".format(
            namespace=quote(str(namespace), safe=""),
        ),
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(response: httpx.Response) -> ReleaseReply | None:
    try:
        if response.status_code == 200:
            response_200 = ReleaseReply.from_dict(response.json())

            return response_200

    except (ValueError, LookupError, TypeError, AttributeError):
        # Not what the API's description says: a proxy's page, or a ledger of another kind.
        return None
    return None


def _build_response(response: httpx.Response) -> Response[ReleaseReply]:
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
    body: ReleaseRequest,
) -> httpx.Response:
    """Give a lease back before it expires: the raw answer, nothing parsed."""
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
    body: ReleaseRequest,
) -> httpx.Response:
    """Give a lease back before it expires: the raw answer, nothing parsed."""
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
    body: ReleaseRequest,
) -> Response[ReleaseReply]:
    """Give a lease back before it expires

     The holder gives its lease back, without an outcome. `acted` tells what the next holder must know.

    `no`: the holder has not acted. The effect is as it was before this grant, and can be granted at
    once. The next
    grant has the `priorState` of this one.

    `unknown`: the holder may have acted, and what it sent may still take effect. Nobody is granted
    before
    `settleMs` has passed (`lease_conflict`, with this time as `leaseExpiresAt`). The next grant then
    has
    `priorState` `expired`. Until then the holder may still commit or fail, with the same lease. The
    effect is
    EXPIRED at once, so that a person may reset or resolve it.

    Idempotent for the same lease: the first release counts. A renewal after a release is refused
    (`stale_fence`).
    A ledger without this call answers 404 or 405; the lease then expires.

    Args:
        namespace (str):
        body (ReleaseRequest):

    Returns:
        Response[ReleaseReply]
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
    body: ReleaseRequest,
) -> ReleaseReply | None:
    """Give a lease back before it expires

     The holder gives its lease back, without an outcome. `acted` tells what the next holder must know.

    `no`: the holder has not acted. The effect is as it was before this grant, and can be granted at
    once. The next
    grant has the `priorState` of this one.

    `unknown`: the holder may have acted, and what it sent may still take effect. Nobody is granted
    before
    `settleMs` has passed (`lease_conflict`, with this time as `leaseExpiresAt`). The next grant then
    has
    `priorState` `expired`. Until then the holder may still commit or fail, with the same lease. The
    effect is
    EXPIRED at once, so that a person may reset or resolve it.

    Idempotent for the same lease: the first release counts. A renewal after a release is refused
    (`stale_fence`).
    A ledger without this call answers 404 or 405; the lease then expires.

    Args:
        namespace (str):
        body (ReleaseRequest):

    Returns:
        ReleaseReply
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
    body: ReleaseRequest,
) -> Response[ReleaseReply]:
    """Give a lease back before it expires

     The holder gives its lease back, without an outcome. `acted` tells what the next holder must know.

    `no`: the holder has not acted. The effect is as it was before this grant, and can be granted at
    once. The next
    grant has the `priorState` of this one.

    `unknown`: the holder may have acted, and what it sent may still take effect. Nobody is granted
    before
    `settleMs` has passed (`lease_conflict`, with this time as `leaseExpiresAt`). The next grant then
    has
    `priorState` `expired`. Until then the holder may still commit or fail, with the same lease. The
    effect is
    EXPIRED at once, so that a person may reset or resolve it.

    Idempotent for the same lease: the first release counts. A renewal after a release is refused
    (`stale_fence`).
    A ledger without this call answers 404 or 405; the lease then expires.

    Args:
        namespace (str):
        body (ReleaseRequest):

    Returns:
        Response[ReleaseReply]
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
    body: ReleaseRequest,
) -> ReleaseReply | None:
    """Give a lease back before it expires

     The holder gives its lease back, without an outcome. `acted` tells what the next holder must know.

    `no`: the holder has not acted. The effect is as it was before this grant, and can be granted at
    once. The next
    grant has the `priorState` of this one.

    `unknown`: the holder may have acted, and what it sent may still take effect. Nobody is granted
    before
    `settleMs` has passed (`lease_conflict`, with this time as `leaseExpiresAt`). The next grant then
    has
    `priorState` `expired`. Until then the holder may still commit or fail, with the same lease. The
    effect is
    EXPIRED at once, so that a person may reset or resolve it.

    Idempotent for the same lease: the first release counts. A renewal after a release is refused
    (`stale_fence`).
    A ledger without this call answers 404 or 405; the lease then expires.

    Args:
        namespace (str):
        body (ReleaseRequest):

    Returns:
        ReleaseReply
    """

    return (
        await asyncio_detailed(
            namespace=namespace,
            client=client,
            body=body,
        )
    ).parsed
