"""JSON without loss: exact text in, exact text out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verity._ledger.raw_json import NotJson, Raw, dump_fields, read_members, to_payload

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "text",
    [
        "1.10",
        "1e400",
        "-0",
        "1E+2",
        "123456789012345678901234567890",
        '"\\u00e9\\/"',
        '"é\U0001f4b6"',
        "[ 1 ,\t2 ]",
        "{}",
        "null",
        "true",
    ],
)
@pytest.mark.parametrize("around", ["", " ", "\r\n\t "])
def test_the_text_of_a_value_survives(text: str, around: str) -> None:
    body = f'{around}{{{around}"a"{around}:{around}{text}{around},{around}"b":1{around}}}{around}'
    members = read_members(body.encode())
    assert members.text_of("a") == text
    assert (members.values["b"], members.text_of("b")) == (1, "1")
    payload = to_payload(members.text_of("a"), members.values["a"])
    assert payload is not None
    assert dump_fields({"x": 1, "cached": Raw(payload.text)}) == b'{"x":1,"cached":' + text.encode() + b"}"


@given(st.dictionaries(st.text(), JSON, max_size=5), st.sampled_from([None, 1]))
def test_members_are_those_of_the_object(value: dict[str, Any], indent: int | None) -> None:
    if _clean(value):
        members = read_members(json.dumps(value, indent=indent, ensure_ascii=False).encode())
        assert members.values == value
        assert {name: json.loads(members.text_of(name)) for name in value} == value


def test_nothing_has_no_members() -> None:
    assert read_members(b" {\n} ").values == {}
    with pytest.raises(KeyError):
        read_members(b"{}").text_of("a")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"x":{"a":1},"a": 2 }', "2"),
        ('{"a":2,"x":{"a":1}}', "2"),
        ('{"x":["a"],"a":2}', "2"),
        ('{"x":"a","a":2}', "2"),
        ('{"\\u0061":2,"x":"a"}', "2"),
        ('{"\\u0061":2,"x":{"a":1}}', "2"),
        ('{"x":"\\"a\\":1","a":2}', "2"),
        ('{"a":1,"a":2}', "2"),
        ('{"a":"a"}', '"a"'),
        ('{"x":"' + "y" * 5000 + '","a":2}', "2"),
    ],
)
def test_the_text_is_that_of_the_member_and_of_nothing_that_looks_like_it(body: str, text: str) -> None:
    members = read_members(body.encode())
    assert members.text_of("a") == text
    with pytest.raises(KeyError):
        members.text_of("b")
    assert "a" not in repr(members).replace("Members", "")


def _clean(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ 0tnu\n', max_size=40).map(str.encode))
def test_anything_else_is_not_json_and_nothing_worse(body: bytes) -> None:
    try:
        members = read_members(body)
    except NotJson:
        with pytest.raises((ValueError, AssertionError)):
            assert isinstance(json.loads(body.decode()), dict)
    else:
        assert members.values == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b'{"a":1',
        b'{"a":1}x',
        b'{"a":1,}',
        b"{a:1}",
        b'{"a" 1}',
        b'{"a":}',
        b"\xff{}",
        b'{"a":' + b"[" * 100_000,
    ],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(NotJson):
        read_members(body)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('"' + "x" * 65_534 + '"', True),
        ('"' + "x" * 65_535 + '"', False),
        ('"' + "日" * 21_844 + '"', True),
        ('"' + "日" * 21_845 + '"', False),
        ("[" + " " * 70_000 + "1]", True),
        ('"' + "\\u0041" * 20_000 + '"', True),
    ],
)
def test_the_limit_counts_bytes_of_compact_json(text: str, fits: bool) -> None:
    payload = to_payload(text, json.loads(text))
    assert (payload is not None) is fits
    if payload is not None:
        assert payload.text == text


def test_nested_raw_text_goes_in_as_it_is() -> None:
    assert (
        dump_fields({"items": [{"a": Raw("1.0"), "b": {"c": 2}}], "d": None})
        == b'{"items":[{"a":1.0,"b":{"c":2}}],"d":null}'
    )
