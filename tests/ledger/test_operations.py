from __future__ import annotations

import re

from verity._ledger.paths import match
from verity._operations import Operation


def test_every_operation_is_found_at_its_path_and_hides_no_other() -> None:
    for operation in Operation:
        found = match(re.sub(r"\{\w+\}", "x%2Fy", operation.path))
        assert found is not None
        assert found.operations[operation.method] is operation
        assert found.values == ["x%2Fy"] * operation.path.count("{")


def test_there_is_nothing_at_other_paths() -> None:
    for path in ("", "/", "effects", "/effects/", "/effects/a", "/effects/a/lease/", "/effects/a/lease/b", "//"):
        assert match(path) is None


def test_an_operation_is_the_text_of_its_id() -> None:
    assert {Operation.LEASE_EFFECT: 1}["lease_effect"] == 1  # type: ignore[index]  # as a plain text, on purpose
    assert f"{Operation.LEASE_EFFECT:>13} {Operation.LEASE_EFFECT!s}" == " lease_effect lease_effect"
    assert (Operation.RESET_EFFECT.method, Operation.RESET_EFFECT.tag) == ("POST", "administration")
