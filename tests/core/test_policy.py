"""`EffectPolicy`: which values it takes, and which policy of several applies."""

from __future__ import annotations

import copy
import pickle
from enum import Enum
from typing import Any

import pytest

from verity import EffectPolicy, SyncVerityClient, VerityConfigError, VerityError, VerityValidationError
from verity.policy import choose_policy


class Word(str, Enum):
    ACT = "act"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("on_unknown", "ignore"),
        ("observe_when", True),
        ("on_observe_error", None),
        ("on_lease_lost", "stop"),
        ("on_unavailable", 1),
        ("ambiguous", (TimeoutError(),)),
        ("definite", ("ValueError",)),
        ("definite", int),
        ("commit_patience_s", -1),
        ("commit_patience_s", 3_601),
        ("commit_patience_s", float("nan")),
        ("settle_s", "30"),
        ("settle_s", True),
        ("settle_s", 600.5),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(VerityConfigError, match=rf"^policy\.{field} takes ") as caught:
        EffectPolicy(**{field: value})
    assert caught.value.parameter == f"policy.{field}"


def test_a_mistyped_word_is_shown() -> None:
    with pytest.raises(VerityConfigError, match=r'takes "doubt" or "always", not \'allways\'\.$'):
        EffectPolicy(observe_when="allways")  # type: ignore[arg-type]  # the mistake


def test_values_are_made_plain() -> None:
    policy = EffectPolicy(on_unknown=Word.ACT, ambiguous=TimeoutError, definite=[ValueError, KeyError])  # type: ignore[arg-type]  # users write these, too
    word: object = policy.on_unknown
    assert type(word) is str
    assert policy == EffectPolicy(on_unknown="act", ambiguous=(TimeoutError,), definite=(ValueError, KeyError))


def test_it_can_be_pickled_and_copied() -> None:
    policy = EffectPolicy(on_unknown="act", ambiguous=(TimeoutError,))
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert copy.deepcopy(policy) == policy


def test_the_inner_policy_applies_as_a_whole_and_the_shorthand_changes_one_field() -> None:
    outer, inner = EffectPolicy(on_unknown="act", on_observe_error="act"), EffectPolicy(settle_s=5)
    assert choose_policy(outer, None, None) is outer
    assert choose_policy(outer, inner, None) is inner
    assert choose_policy(outer, None, "raise") == EffectPolicy(on_unknown="act")
    assert choose_policy(outer, inner, "act") == EffectPolicy(settle_s=5, on_observe_error="act")


def test_something_else_is_refused_before_anything_is_sent() -> None:
    wrong: Any = {"on_unknown": "act"}
    with pytest.raises(VerityConfigError, match="policy takes an EffectPolicy, not dict"):
        SyncVerityClient("sqlite://", policy=wrong)
    with SyncVerityClient("sqlite://", namespace="payments") as client:
        run = client.workflow("flow").case("1")
        with pytest.raises(VerityError, match="policy takes an EffectPolicy, not dict"):
            run.run(policy=wrong)
        with pytest.raises(VerityValidationError, match="policy must be an EffectPolicy, not dict"):
            client.protect("key", act=lambda: 1, policy=wrong)
        assert list(client.effects.list()) == []
