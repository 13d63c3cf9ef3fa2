"""The pins serve twice: as requirements, and as pip's constraints where only the tests are installed."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith(("#", "-"))]


def test_every_pin_can_be_a_constraint() -> None:
    """pip refuses a constraint with extras, and with it the tests on every other Python: name what the extra brings."""
    for pin in _lines("requirements-dev.txt") + _lines("requirements-generate.txt"):
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", pin), pin


def test_what_the_tests_need_is_pinned() -> None:
    pinned = {pin.partition("==")[0] for pin in _lines("requirements-dev.txt")}
    assert set(_lines("requirements-test.txt")) <= pinned
