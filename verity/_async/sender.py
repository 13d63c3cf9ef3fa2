"""Senders carry the generated client's calls: their protocol, and the sender for HTTP.

A sender takes the place of the `httpx.AsyncClient` that the generated client expects. The sender for HTTP uses an httpx
*transport* directly. For small JSON posts, httpx's client layer (cookies, redirects, auth flows, URL merging) costs
more than everything below it, and does nothing that this API needs.
"""

from __future__ import annotations

import copy
import hashlib
import ssl
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Protocol
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx
from verity_api.types import AsyncSender as AsyncApiSender

from verity._async.connection import AsyncOneConnectionTransport, AsyncProxyTransport, check_libraries
from verity._async.pool import AsyncTransportPool
from verity._core.payload import encode_json
from verity._tracing import trace_headers
from verity._version import __version__
from verity.config import ClientSettings
from verity.errors import VerityConfigError

_OWN_ERRORS = (
    httpx.HTTPError,
    httpx.StreamError,
    httpx.InvalidURL,
    httpcore.ConnectionNotAvailable,
    OSError,
    UnicodeError,
)
"""The errors of our own transport: httpx's, httpcore's, the system's, TLS's, and that of an invalid host name."""


class AsyncSender(AsyncApiSender, Protocol):
    """Carries the port's calls: over HTTP, or into a store in this process.

    `request`, which the generated client calls, may raise anything: `AsyncLedger` maps it.
    """

    @property
    def has_own_connections(self) -> bool:
        """Whether this client alone uses the connections, so that many requests may wait at once."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether the ledger is another program: it has a clock of its own, and may grant less than is asked."""
        ...

    @property
    def own_errors(self) -> tuple[type[Exception], ...]:
        """The errors that `request` raises by itself, as opposed to those that an interrupt raises in it."""
        ...

    @property
    def caller(self) -> object:
        """The sender's identity at the ledger: equal for two senders of a process that get the same answers."""
        ...

    def with_timeout(self, timeout_s: float) -> AsyncSender:
        """Return the same sender with another timeout in seconds, if it has a timeout."""
        ...

    async def aclose(self) -> None:
        """Close the connections or the store that this sender opened. Idempotent."""
        ...


class AsyncHttpSender:
    """Sends requests through a transport, or through a caller's own `httpx.AsyncClient`.

    Raises:
        VerityConfigError: the installed httpx or httpcore lacks a private name that our own transport uses.
    """

    is_remote: bool = True

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        self._base_url = base_url
        self._http_client = http_client
        self._owns_transport = transport is None
        self.has_own_connections = transport is None and http_client is None
        # A caller's own part may raise anything.
        self.own_errors: tuple[type[Exception], ...] = _OWN_ERRORS if self.has_own_connections else (Exception,)
        # A caller's own part may lead to any ledger: it has its own identity. The key is kept in one place only.
        key_hash = hashlib.sha256(api_key.encode()).digest()
        self.caller: object = (base_url, key_hash) if self.has_own_connections else object()
        proxy = _proxy_for(httpx.URL(base_url))
        if self.has_own_connections:
            check_libraries(proxy=proxy is not None)
        self._transport = transport or AsyncTransportPool(partial(_make_transport, _ssl_context(base_url), proxy))
        self._headers = {
            "Host": httpx.URL(base_url).netloc.decode(),
            "Accept": "application/json",
            "Authorization": f"Bearer {api_key}",
            "User-Agent": f"verity-python/{__version__}",
        }
        self._timeout = httpx.Timeout(timeout_s)
        self._extensions = {"timeout": self._timeout.as_dict()}
        self._url = lru_cache(maxsize=256)(httpx.URL)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._base_url}>"

    def with_timeout(self, timeout_s: float) -> AsyncHttpSender:
        """Return a sender with the same connections and another timeout in seconds."""
        twin = copy.copy(self)
        twin._timeout = httpx.Timeout(timeout_s)  # noqa: SLF001 - our own twin
        twin._extensions = {"timeout": twin._timeout.as_dict()}  # noqa: SLF001
        return twin

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Send one request to a path below the base URL, and read the whole answer.

        Raises any error of the transport; `AsyncLedger` maps it.
        """
        content = b"" if json is None else encode_json(json)
        if self._http_client is not None:
            response = await self._http_client.request(
                method,
                self._base_url + url,
                headers={**self._headers, **trace_headers(), **(headers or {})},
                content=content,
                params=params,
                timeout=self._timeout,
            )
            # A redirect turned the POST into a GET, so the ledger never read it: the answer is the redirect itself.
            return response if response.request.method == method.upper() else response.history[0]
        # With a stream of our own, httpx does not inspect the body of each request.
        request = httpx.Request(
            method,
            self._url(self._base_url + url).copy_merge_params(params) if params else self._url(self._base_url + url),
            headers={**self._headers, **trace_headers(), **(headers or {}), "Content-Length": str(len(content))},
            stream=httpx.ByteStream(content),
            extensions=self._extensions,
        )
        request.read()  # a caller's own transport may use `request.content`
        response = await self._transport.handle_async_request(request)
        await response.aread()
        return response

    async def aclose(self) -> None:
        """Close the connections that this sender opened. The caller's own transport or client stays open."""
        if self._owns_transport:
            await self._transport.aclose()


def make_sender(
    settings: ClientSettings, transport: httpx.AsyncBaseTransport | None, http_client: httpx.AsyncClient | None
) -> AsyncSender:
    """Make the sender for a client: over HTTP, or into the ledger in this process.

    Raises:
        VerityConfigError: `transport` or `http_client` has the wrong type, both are given, or the ledger is embedded.
    """
    if transport is not None and not isinstance(transport, httpx.AsyncBaseTransport):
        raise _wrong_part("transport", httpx.AsyncBaseTransport, transport)
    if http_client is not None and not isinstance(http_client, httpx.AsyncClient):
        raise _wrong_part("http_client", httpx.AsyncClient, http_client)
    if transport is not None and http_client is not None:
        raise VerityConfigError("Pass transport= or http_client=, not both.", parameter="transport")
    if settings.is_embedded:
        if transport is not None or http_client is not None:
            raise VerityConfigError(
                "An embedded ledger (sqlite://) sends no HTTP: leave out transport= and http_client=.",
                parameter="transport",
            )
        from verity._embedded import AsyncEmbeddedSender  # the database driver loads only where it is used

        return AsyncEmbeddedSender(settings.base_url, settings.environment)
    return AsyncHttpSender(
        base_url=settings.base_url,
        api_key=settings.api_key or "",
        timeout_s=settings.request_timeout_s,
        transport=transport,
        http_client=http_client,
    )


def _wrong_part(parameter: str, takes: type, value: object) -> VerityConfigError:
    return VerityConfigError(
        f"{parameter} must be an httpx.{takes.__name__}, not {type(value).__name__}.", parameter=parameter
    )


def _ssl_context(base_url: str) -> ssl.SSLContext | bool:
    """Make one context for all connections: loading the certificates takes longer than many requests."""
    return httpx.create_ssl_context() if base_url.startswith("https:") else False


def _make_transport(
    ssl_context: ssl.SSLContext | bool, proxy: str | None
) -> AsyncOneConnectionTransport | AsyncProxyTransport:
    return AsyncOneConnectionTransport(ssl_context) if proxy is None else AsyncProxyTransport(ssl_context, proxy)


def _proxy_for(url: httpx.URL) -> str | None:
    """Return the proxy for a URL, from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."""
    if proxy_bypass(url.host):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
