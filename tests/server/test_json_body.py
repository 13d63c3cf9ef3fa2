from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verity.server.json_body import MAX_DEPTH, BadBody, read_object

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.booleans())
def test_any_json_object_is_read_as_it_is(value: dict[str, Any], ascii_only: bool) -> None:
    members = read_object(json.dumps(value, ensure_ascii=ascii_only).encode())
    assert members.values == value
    assert {name: json.loads(members.text_of(name)) for name in value} == value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "required"),
        (b"nul", "must be JSON"),
        (b'{"a":1', "must be JSON"),
        (b'{"a":1} x', "must be JSON"),
        (b"\xef\xbb\xbf{}", "must be JSON"),
        (b'{"a":"\xff"}', "UTF-8"),
        ('{"a":"\ud800"}'.encode("utf-8", "surrogatepass"), "UTF-8"),
        ('{"a":1}'.encode("utf-16"), "UTF-8"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"\\udfff":1}', "surrogate"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":[-Infinity]}', "NaN"),
        (b"null", "a JSON object"),
        (b"[1]", "a JSON object"),
        (b'"text"', "a JSON object"),
        (b'{"a":1,"a":1}', "twice"),
        (b'{"x":[{"a":1,"\\u0061":2}]}', "twice"),
        (b'{"a":' + b"1" * 5000 + b"}", "must be JSON"),
        (b'{"a":' + b"[" * 200_000, "deeper"),
        (b'{"a":' * 100_000, "deeper"),
    ],
)
def test_what_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(BadBody) as caught:
        read_object(body)
    assert why in str(caught.value)


def test_an_escaped_pair_of_surrogates_is_text() -> None:
    assert read_object(b'{"a":"\\ud83d\\ude00"}').values["a"] == "\U0001f600"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"x":', "}")])
def test_depth_is_limited(opening: str, closing: str) -> None:
    def nested(depth: int) -> bytes:
        return ('{"a":' + opening * (depth - 1) + "1" + closing * (depth - 1) + "}").encode()

    read_object(nested(MAX_DEPTH))
    with pytest.raises(BadBody, match="deeper"):
        read_object(nested(MAX_DEPTH + 1))


def test_many_flat_containers_are_not_deep() -> None:
    read_object(b'{"a":[' + b"[]," * 1000 + b"{}]}")
