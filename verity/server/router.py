"""Where a request goes: one walk down a tree of path segments, made from the contract's paths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from verity.server.contract import Operation
from verity.server.problems import Details, invalid_request, method_not_allowed, not_found

_LONGEST_REMEMBERED = 512
_MOST_REMEMBERED = 1_000


class _Node:
    __slots__ = ("literals", "operations", "parameter")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.operations: dict[str, Operation] = {}


class Route(NamedTuple):
    """What a request is about."""

    operation: Operation
    in_path: dict[str, str]
    """The path's parameters by name."""
    details: Details
    """What is wrong with them."""


class Router:
    """Finds the operation of a method and a path of the API. Paths that were asked for lately are remembered."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._remembered: dict[tuple[str, str], Route] = {}
        self._root = _Node()
        for operation in operations:
            node = self._root
            for segment in operation.path.split("/")[1:]:
                if segment.startswith("{"):
                    node.parameter = node.parameter or _Node()
                    node = node.parameter
                else:
                    node = node.literals.setdefault(segment, _Node())
            node.operations[operation.method] = operation

    def find(self, method: str, raw_path: str) -> Route:
        """The operation, and its path parameters.

        Args:
            method: in capitals.
            raw_path: from `/v1` on, as it came, still percent-encoded, so that an encoded slash stays inside its
                segment.

        Raises:
            Problem: 404, 405; 400 where a segment is not UTF-8.
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
        node = self._root
        found: list[str] = []
        for segment in raw_path.split("/")[2:]:
            literal = node.literals.get(segment)
            if literal is not None:
                node = literal
            elif node.parameter is not None:
                node = node.parameter
                found.append(segment)
            else:
                raise not_found()
        operation = node.operations.get(method)
        if operation is None:
            raise method_not_allowed(sorted(node.operations)) if node.operations else not_found()
        names = [parameter.name for parameter in operation.path_parameters]
        in_path = {name: _decode(name, segment) for name, segment in zip(names, found, strict=True)}
        return Route(operation, in_path, operation.check_path(in_path))


def _decode(name: str, segment: str) -> str:
    if "%" not in segment:
        return segment
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise invalid_request([{"path": f"path/{name}", "message": "the value must be text in UTF-8"}]) from None
