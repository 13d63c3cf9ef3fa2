# Made from openapi.yaml by scripts/generate.py. Do not edit.
"""Shared types."""

from collections.abc import Mapping
from typing import Any, Generic, Literal, Protocol, TypeVar

import httpx
from attrs import define, field


class Unset:
    """The type of `UNSET`, the value of a field that is absent."""

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "UNSET"

    def __reduce__(self) -> str:
        return "UNSET"


UNSET: Unset = Unset()

T = TypeVar("T")


class AsyncSender(Protocol):
    """What async calls need: `httpx.AsyncClient` has it, and so may anything leaner."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Send a request to a path below the base URL."""
        ...


class SyncSender(Protocol):
    """What sync calls need: `httpx.Client` has it, and so may anything leaner."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Send a request to a path below the base URL."""
        ...


@define
class Response(Generic[T]):
    """An answer. `parsed` is None for anything but a success that follows the API's description."""

    status_code: int
    content: bytes = field(repr=False)  # payloads and lease tokens
    headers: Mapping[str, str] = field(repr=False)
    parsed: T | None


__all__ = ["UNSET", "AsyncSender", "Response", "SyncSender", "Unset"]
