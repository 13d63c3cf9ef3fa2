"""Text that comes from outside: what nobody can see is found, and told by its name."""

from __future__ import annotations

import pytest

from verity import VerityConfigError
from verity._core.keys import check_namespace
from verity._core.text import find_flaw


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("", None),
        ("payments", None),
        ("a b", None),
        ("नेपाल\u200dी", None),  # a joiner inside a word is a part of it
        ("payments\r", "ends with U+000D (carriage return)"),
        ("payments ", "ends with U+0020 (space)"),
        ("\ufeffpayments", "begins with U+FEFF (zero width no-break space)"),
        ("\u00a0payments", "begins with U+00A0 (no-break space)"),
        ("payments\u200d", "ends with U+200D (zero width joiner)"),
        ("pay\x85ments", "has U+0085 (a control character) at position 4 of 9"),
        ('"payments"', "begins or ends with a quotation mark"),
        ("'payments'", "begins or ends with a quotation mark"),
        ("payments'", None),
        ("a\u3000b", "has U+3000 (ideographic space) at position 2 of 3"),
    ],
)
def test_what_nobody_can_see_is_named(text: str, flaw: str | None) -> None:
    assert find_flaw(text) == flaw


def test_a_namespace_with_it_is_another_one() -> None:
    with pytest.raises(VerityConfigError, match=r"namespace ends with U\+0020 .*: remove it"):
        check_namespace("payments ")
    assert check_namespace("payments") == "payments"
