# Made from openapi.yaml by scripts/generate.py. Do not edit.
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.report_observe_reply import ReportObserveReply
from ...models.report_observe_request import ReportObserveRequest
from ...types import Response


def _get_kwargs(
    namespace: str,
    *,
    body: ReportObserveRequest,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/effects/{namespace}/report-observe".format(
            namespace=quote(str(namespace), safe=""),
        ),
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(response: httpx.Response) -> ReportObserveReply | None:
    try:
        if response.status_code == 200:
            response_200 = ReportObserveReply.from_dict(response.json())

            return response_200

    except (ValueError, LookupError, TypeError, AttributeError):
        # Not what the API's description says: a proxy's page, or a ledger of another kind.
        return None
    return None


def _build_response(response: httpx.Response) -> Response[ReportObserveReply]:
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
    body: ReportObserveRequest,
) -> httpx.Response:
    """Record in the audit trail what an observation found: the raw answer, nothing parsed."""
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
    body: ReportObserveRequest,
) -> httpx.Response:
    """Record in the audit trail what an observation found: the raw answer, nothing parsed."""
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
    body: ReportObserveRequest,
) -> Response[ReportObserveReply]:
    """Record in the audit trail what an observation found

     Does not change the effect's state.

    Args:
        namespace (str):
        body (ReportObserveRequest):

    Returns:
        Response[ReportObserveReply]
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
    body: ReportObserveRequest,
) -> ReportObserveReply | None:
    """Record in the audit trail what an observation found

     Does not change the effect's state.

    Args:
        namespace (str):
        body (ReportObserveRequest):

    Returns:
        ReportObserveReply
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
    body: ReportObserveRequest,
) -> Response[ReportObserveReply]:
    """Record in the audit trail what an observation found

     Does not change the effect's state.

    Args:
        namespace (str):
        body (ReportObserveRequest):

    Returns:
        Response[ReportObserveReply]
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
    body: ReportObserveRequest,
) -> ReportObserveReply | None:
    """Record in the audit trail what an observation found

     Does not change the effect's state.

    Args:
        namespace (str):
        body (ReportObserveRequest):

    Returns:
        ReportObserveReply
    """

    return (
        await asyncio_detailed(
            namespace=namespace,
            client=client,
            body=body,
        )
    ).parsed
