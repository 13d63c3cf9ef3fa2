"""Finds the operations at a path, in a tree of path segments that is made from the contract's paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from verity._operations import Operation


class _Node:
    __slots__ = ("literals", "operations", "parameter")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.operations: dict[str, Operation] = {}


class Match(NamedTuple):
    """The operations at a path."""

    operations: Mapping[str, Operation]
    """By HTTP method."""
    values: list[str]
    """The values of the path's parameters in their order, still percent-encoded."""


def _build() -> _Node:
    root = _Node()
    for operation in Operation:
        node = root
        for segment in operation.path.split("/")[1:]:
            if segment.startswith("{"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        node.operations[operation.method] = operation
    return root


_ROOT = _build()


def match(path: str) -> Match | None:
    """The operations at a path; None: there are none.

    Args:
        path: the path below the base URL. It begins with a slash and is still percent-encoded, so that an encoded
            slash stays inside its segment.
    """
    node = _ROOT
    values: list[str] = []
    for segment in path.split("/")[1:]:
        literal = node.literals.get(segment)
        if literal is not None:
            node = literal
        elif node.parameter is not None:
            node = node.parameter
            values.append(segment)
        else:
            return None
    return Match(node.operations, values) if node.operations else None
