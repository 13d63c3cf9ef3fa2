"""The limits that clients and ledger share are those of openapi.yaml."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import yaml

from verity import ConflictRetryConfig, VerityClient, _limits
from verity._ledger.commands import Lease

TEXT = (Path(__file__).parents[2] / "openapi.yaml").read_text(encoding="utf-8")
COMPONENTS: dict[str, Any] = yaml.safe_load(TEXT)["components"]
SCHEMAS, PARAMETERS = COMPONENTS["schemas"], COMPONENTS["parameters"]


def test_the_limits_are_those_of_the_contract() -> None:
    assert {name: value for name, value in vars(_limits).items() if name.isupper()} == {
        "MAX_EFFECT_KEY_CHARS": SCHEMAS["EffectKey"]["maxLength"],
        "MAX_NAMESPACE_CHARS": SCHEMAS["NamespaceName"]["maxLength"],
        "MAX_LABEL_CHARS": SCHEMAS["Label"]["maxLength"],
        "MAX_PAGE_SIZE": PARAMETERS["limit"]["schema"]["maximum"],
        "MIN_LEASE_DURATION_MS": SCHEMAS["DurationMs"]["minimum"],
        "MAX_LEASE_DURATION_MS": SCHEMAS["DurationMs"]["maximum"],
        "DEFAULT_LEASE_DURATION_MS": SCHEMAS["DurationMs"]["x-default-ms"],
        "MAX_SETTLE_MS": SCHEMAS["ReleaseRequest"]["properties"]["settleMs"]["maximum"],
        "DEFAULT_SETTLE_MS": SCHEMAS["ReleaseRequest"]["properties"]["settleMs"]["x-default-ms"],
        "MAX_PAYLOAD_BYTES": SCHEMAS["Payload"]["x-max-bytes"],
        "MAX_WAIT_S": PARAMETERS["prefer"]["x-max-wait-s"],
    }


def test_what_the_contract_says_in_words_is_the_same() -> None:
    assert f"{_limits.DEFAULT_LEASE_DURATION_MS:,}" in SCHEMAS["DurationMs"]["description"]
    assert f"at most {_limits.MAX_PAYLOAD_BYTES:,} bytes" in SCHEMAS["Payload"]["description"]
    assert f"({_limits.MAX_WAIT_S}" in PARAMETERS["prefer"]["description"]


def test_defaults_are_within_the_limits() -> None:
    assert Lease().lease_duration_ms == _limits.DEFAULT_LEASE_DURATION_MS
    default = inspect.signature(VerityClient.protect).parameters["lease_duration_ms"].default
    assert default in (None, _limits.DEFAULT_LEASE_DURATION_MS)
    assert ConflictRetryConfig().max_delay_s <= _limits.MAX_WAIT_S
