# Made from openapi.yaml by scripts/generate.py. Do not edit.
"""The clients that calls are made with."""

from __future__ import annotations

import ssl
from typing import Any, TypeVar

import httpx
from attrs import define, field

from .types import AsyncSender, SyncSender

C = TypeVar("C", bound="Client")

DEFAULT_TIMEOUT_S = 20.0


@define
class Client:
    """Where calls go, without authentication.

    Attributes:
        base_url: every path is relative to it.
        headers: sent with every request.
        timeout: how long connecting, sending and receiving may each take.
        verify_ssl: as in httpx; never False in production.
        httpx_args: more arguments for the httpx clients that are made here.
    """

    _base_url: str = field(alias="base_url")
    _headers: dict[str, str] = field(factory=dict, kw_only=True, alias="headers", repr=False)
    _timeout: httpx.Timeout = field(factory=lambda: httpx.Timeout(DEFAULT_TIMEOUT_S), kw_only=True, alias="timeout")
    _verify_ssl: str | bool | ssl.SSLContext = field(default=True, kw_only=True, alias="verify_ssl")
    _httpx_args: dict[str, Any] = field(factory=dict, kw_only=True, alias="httpx_args", repr=False)
    _client: SyncSender | None = field(default=None, init=False, repr=False)
    _async_client: AsyncSender | None = field(default=None, init=False, repr=False)

    def set_httpx_client(self: C, client: SyncSender) -> C:
        """Send sync calls through this; it must know the base URL, the authentication and the timeout itself."""
        self._client = client
        return self

    def get_httpx_client(self) -> SyncSender:
        """What sync calls are sent through; made on the first call."""
        if self._client is None:
            self._client = httpx.Client(**self._httpx_settings())
        return self._client

    def set_async_httpx_client(self: C, async_client: AsyncSender) -> C:
        """Send async calls through this; it must know the base URL, the authentication and the timeout itself."""
        self._async_client = async_client
        return self

    def get_async_httpx_client(self) -> AsyncSender:
        """What async calls are sent through; made on the first call."""
        if self._async_client is None:
            self._async_client = httpx.AsyncClient(**self._httpx_settings())
        return self._async_client

    def _httpx_settings(self) -> dict[str, Any]:
        return {
            "base_url": self._base_url,
            "headers": self._all_headers(),
            "timeout": self._timeout,
            "verify": self._verify_ssl,
            **self._httpx_args,
        }

    def _all_headers(self) -> dict[str, str]:
        return self._headers

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if isinstance(self._client, httpx.Client):
            self._client.close()

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if isinstance(self._async_client, httpx.AsyncClient):
            await self._async_client.aclose()


@define
class AuthenticatedClient(Client):
    """Where calls go, with an API key.

    Attributes:
        token: the API key.
    """

    token: str = field(repr=False)

    def _all_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", **self._headers}
