"""The attempt key: what a provider sees as one action."""

from __future__ import annotations

import itertools
import re

from verity._attempt_key import make_attempt_key


def test_it_never_changes() -> None:
    """A provider has seen these. Whoever changes how they are made has every action under way done twice."""
    assert make_attempt_key("test", "payments", "refund:order_48392") == "lmOlEu8zExWlhujj-YzTK6aaTov6js7QVBpYuhXSywo"
    assert make_attempt_key("live", "päyments", "k\ud800", 2) == "HEoxXgMWC79JVI7D179_kDEOk-EaB0dYBN40-odLSqQ"


def test_each_effect_and_each_retry_has_its_own() -> None:
    texts = ["", "a", "b", "ab", "1:a", "0", "a1:b"]
    names = [(*name, retries) for name in itertools.product(["live", "test"], texts, texts) for retries in (0, 1, 10)]
    keys = {make_attempt_key(*name) for name in names}
    assert len(keys) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", key) for key in keys)
