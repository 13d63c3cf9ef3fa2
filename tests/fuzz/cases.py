"""Requests made from openapi.yaml by schemathesis, right and wrong ones, and whether the answers keep the contract.

What the document can't know is put in here: valid API keys, effects that are there, and the tokens, ids and cursors
that earlier answers gave.
"""

from __future__ import annotations

import random
import re
from collections import Counter, deque
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import AcceptedNegativeData, FailureGroup
from schemathesis.openapi.checks import RejectedPositiveData
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fuzz.ledger import Target
from tests.helpers.openapi import SPEC

CHUNK = 250
NAMESPACES = ("payments", "mail")
EFFECT_KEYS = ("refund:order_48392", "a", "b", "c")
Case = schemathesis.Case[Any]
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_CHECKS_OF_WHAT_WAS_MADE = [negative_data_rejection, positive_data_acceptance]
_NO_DAY = "takes a time in RFC 3339"
"""A pattern can't know that a month has 30 days."""
_NAMESPACE = SPEC["components"]["schemas"]["NamespaceName"]["pattern"]
_TOKENS = ("effectKey", "fenceToken", "leaseToken")


class Cases:
    """Sends cases to a ledger.

    Attributes:
        statuses: how often each was answered.
        failures: what broke the contract, each once.
    """

    def __init__(self, target: Target) -> None:
        self.statuses: Counter[int] = Counter()
        self.failures: dict[str, str] = {}
        self._target = target
        self._session = requests.Session()
        self._session.trust_env = False
        self._leases: deque[dict[str, Any]] = deque(maxlen=50)
        self._ids: deque[str] = deque(["eff_0000000000000000"], maxlen=50)
        self._cursors: deque[str] = deque(["1"], maxlen=50)
        schema = schemathesis.openapi.from_dict(SPEC)
        modes: list[Any] = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
        self._strategy = st.one_of([schema.as_strategy(generation_mode=mode) for mode in modes])

    def run_chunk(self, number: int, size: int = CHUNK) -> None:
        """Send one chunk; the same number makes the same cases, but for what earlier answers gave."""

        @seed(number)
        @settings(
            max_examples=size,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(self._strategy, st.integers(0, 2**32))
        def send(case: Case, choice: int) -> None:
            self._send(case, random.Random(choice))

        send()
        self._target.check_health()

    def _send(self, case: Case, rng: random.Random) -> None:
        checks = [*_CHECKS]
        if rng.random() < 0.7:
            self._put_in_what_is_known(case, rng)
        else:
            checks += _CHECKS_OF_WHAT_WAS_MADE
        key = rng.choices(
            [self._target.admin, self._target.agent, self._target.bound, self._target.live], [80, 8, 8, 4]
        )[0]
        headers = {"Authorization": f"Bearer {key}"}
        response = case.call(base_url=self._target.base_url, session=self._session, headers=headers, timeout=30)
        self.statuses[response.status_code] += 1
        try:
            case.validate_response(response, checks=checks, headers=headers)
        except FailureGroup as group:
            for failure in group.exceptions:
                if isinstance(failure, RejectedPositiveData) and _NO_DAY in response.text:
                    continue
                if isinstance(failure, RejectedPositiveData) and not _has_sane_namespace(response):
                    continue
                if isinstance(failure, AcceptedNegativeData) and not _was_all_sent(case, response):
                    continue
                name = f"{case.method} {case.path}: {type(failure).__name__}: {response.status_code}"
                self.failures.setdefault(name, f"{failure}\n{case.as_curl_command()}\n{response.text[:500]}")
        if response.status_code == 200:
            self._learn(response.json())

    def _put_in_what_is_known(self, case: Case, rng: random.Random) -> None:
        """Aim at what is there; what can't be put in place of something else is left alone."""
        if "namespace" in case.path_parameters:
            case.path_parameters["namespace"] = rng.choice(NAMESPACES)
        if "effectId" in case.path_parameters:
            case.path_parameters["effectId"] = rng.choice(self._ids)
        if isinstance(case.query.get("effectKey"), str):
            case.query["effectKey"] = rng.choice(EFFECT_KEYS)
        if isinstance(case.query.get("cursor"), str):
            case.query["cursor"] = rng.choice(self._cursors)
        if isinstance(case.body, dict) and isinstance(case.body.get("effectKey"), str):
            case.body = {**case.body}  # it may be an example of the contract, which others read, too
            case.body["effectKey"] = rng.choice(EFFECT_KEYS)
            if self._leases and {"fenceToken", "leaseToken"} <= case.body.keys() and rng.random() < 0.8:
                case.body |= rng.choice(self._leases)

    def _learn(self, said: dict[str, Any]) -> None:
        if said.get("leaseToken"):
            self._leases.append({name: said[name] for name in _TOKENS})
        if "effectId" in said:
            self._ids.append(said["effectId"])
        if "nextCursor" in said:
            self._cursors.append(said["nextCursor"])


def _has_sane_namespace(response: Any) -> bool:
    """Whether the path that was sent keeps the contract's pattern; once in 50,000 cases what was made to keep it has a
    control character.
    """
    segments = urlsplit(response.request.url).path.split("/")
    return segments[2] != "effects" or len(segments) < 5 or bool(re.search(_NAMESPACE, unquote(segments[3])))


def _was_all_sent(case: Case, response: Any) -> bool:
    """Whether all of the query is in the URL: an empty list, perhaps what is wrong about a case, leaves no trace."""
    sent = parse_qs(urlsplit(response.request.url).query, keep_blank_values=True)
    return case.query.keys() <= sent.keys()
