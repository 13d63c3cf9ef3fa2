# Made from openapi.yaml by scripts/generate.py. Do not edit.
"""The operations of the API, shared by the clients, the stores and the server."""

from __future__ import annotations

from enum import Enum


class Operation(str, Enum):
    """An operation of the API. Its value is the operationId, to which it also compares equal."""

    LEASE_EFFECT = "lease_effect"
    COMMIT_EFFECT = "commit_effect"
    FAIL_EFFECT = "fail_effect"
    RENEW_EFFECT = "renew_effect"
    RELEASE_EFFECT = "release_effect"
    REPORT_OBSERVE = "report_observe"
    RESET_EFFECT = "reset_effect"
    RESOLVE_EFFECT = "resolve_effect"
    GET_EFFECT = "get_effect"
    LIST_EFFECT_EVENTS = "list_effect_events"
    GET_EFFECT_BY_ID = "get_effect_by_id"
    LIST_EFFECTS = "list_effects"
    LIST_NAMESPACES = "list_namespaces"
    LIST_WORKFLOWS = "list_workflows"
    LIST_CASES = "list_cases"
    LIST_RUNS = "list_runs"
    GET_STATS = "get_stats"

    __hash__ = str.__hash__  # equal to its operationId, so with the same hash
    __str__ = str.__str__

    def __format__(self, spec: str) -> str:
        return str.__format__(self, spec)

    @property
    def method(self) -> str:
        """The HTTP method, in capitals."""
        return _ABOUT[self][0]

    @property
    def path(self) -> str:
        """The path below the base URL, with its parameters in braces."""
        return _ABOUT[self][1]

    @property
    def tag(self) -> str:
        """The group of the operation; `administration` requires the role org_admin."""
        return _ABOUT[self][2]


_ABOUT = {
    Operation.LEASE_EFFECT: ("POST", "/effects/{namespace}/lease", "effects"),
    Operation.COMMIT_EFFECT: ("POST", "/effects/{namespace}/commit", "effects"),
    Operation.FAIL_EFFECT: ("POST", "/effects/{namespace}/fail", "effects"),
    Operation.RENEW_EFFECT: ("POST", "/effects/{namespace}/renew", "effects"),
    Operation.RELEASE_EFFECT: ("POST", "/effects/{namespace}/release", "effects"),
    Operation.REPORT_OBSERVE: ("POST", "/effects/{namespace}/report-observe", "effects"),
    Operation.RESET_EFFECT: ("POST", "/effects/{namespace}/reset", "administration"),
    Operation.RESOLVE_EFFECT: ("POST", "/effects/{namespace}/resolve", "administration"),
    Operation.GET_EFFECT: ("GET", "/effects/{namespace}/effect", "reads"),
    Operation.LIST_EFFECT_EVENTS: ("GET", "/effects/{namespace}/events", "reads"),
    Operation.GET_EFFECT_BY_ID: ("GET", "/effect-ids/{effectId}", "reads"),
    Operation.LIST_EFFECTS: ("GET", "/effects", "reads"),
    Operation.LIST_NAMESPACES: ("GET", "/namespaces", "reads"),
    Operation.LIST_WORKFLOWS: ("GET", "/workflows", "reads"),
    Operation.LIST_CASES: ("GET", "/cases", "reads"),
    Operation.LIST_RUNS: ("GET", "/runs", "reads"),
    Operation.GET_STATS: ("GET", "/stats", "reads"),
}
