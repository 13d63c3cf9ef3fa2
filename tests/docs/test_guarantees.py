"""docs/guarantees.md: each numbered sentence names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
TEXT, PROOFS = PAGE.split("## Which test shows what")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def sentences() -> list[int]:
    """The numbers of the promises, and of what each choice gives up."""
    return [int(number or choice) for number, choice in re.findall(r"^(\d+)\. |\*\*\((\d+)\)\*\*", TEXT, re.MULTILINE)]


def proofs() -> dict[int, list[tuple[str, str]]]:
    """The tests of each sentence: (file, function)."""
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", PROOFS, re.MULTILINE)
    return {int(number): _TEST.findall(tests) for number, tests in rows}


def test_every_sentence_has_a_test() -> None:
    assert list(proofs()) == list(range(1, max(proofs()) + 1)) == sentences()
    assert [number for number, tests in proofs().items() if not tests] == []


def test_every_test_that_is_named_is_there() -> None:
    missing = [
        f"{file}::{name}" for tests in proofs().values() for file, name in tests if name not in functions(ROOT / file)
    ]
    assert missing == []


def functions(file: Path) -> set[str]:
    """The names of a module's functions."""
    if not file.exists():
        return set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_nothing_but_tests_stands_in_the_table() -> None:
    for _, tests in re.findall(r"^\| (\d+) \| (.*) \|$", PROOFS, re.MULTILINE):
        assert _TEST.sub("", tests).replace(",", "").strip() == ""
