"""Finds a request's endpoint and its path parameters. Results for recent paths are cached."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from verity._ledger.paths import match
from verity.server.contract import Endpoint
from verity.server.problems import Details, invalid_request, method_not_allowed, not_found

_LONGEST_REMEMBERED = 512
_MOST_REMEMBERED = 1_000
_PREFIX = "/v1"


class Route(NamedTuple):
    """An endpoint and the values of its path parameters."""

    endpoint: Endpoint
    in_path: dict[str, str]
    """The path's parameters by name."""
    details: Details
    """What is wrong with the path's parameters."""


class Router:
    """Finds the endpoint of a method and a path of the API."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._remembered: dict[tuple[str, str], Route] = {}
        self._endpoints = {endpoint.operation: endpoint for endpoint in endpoints}

    def find(self, method: str, raw_path: str) -> Route:
        """The endpoint, and its path parameters.

        Args:
            method: in capitals.
            raw_path: the path from `/v1` on, still percent-encoded, so that an encoded slash stays inside its segment.

        Raises:
            Problem: 404, there is no such path; 405, it has no such method; 400, a segment is not UTF-8.
        """
        route = self._remembered.get((method, raw_path))
        if route is None:
            route = self._find(method, raw_path)
            if not route.details and len(raw_path) <= _LONGEST_REMEMBERED:
                if len(self._remembered) >= _MOST_REMEMBERED:
                    self._remembered.clear()
                self._remembered[method, raw_path] = route
        return route

    def _find(self, method: str, raw_path: str) -> Route:
        found = match(raw_path.removeprefix(_PREFIX))
        if found is None:
            raise not_found()
        operation = found.operations.get(method)
        if operation is None:
            raise method_not_allowed(sorted(found.operations))
        endpoint = self._endpoints[operation]
        names = [parameter.name for parameter in endpoint.path_parameters]
        in_path = {name: _decode(name, value) for name, value in zip(names, found.values, strict=True)}
        return Route(endpoint, in_path, endpoint.check_path(in_path))


def _decode(name: str, segment: str) -> str:
    if "%" not in segment:
        return segment
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise invalid_request([{"path": f"path/{name}", "message": "the value must be text in UTF-8"}]) from None
