from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verity.server.api_keys import hash_api_key, is_well_formed, issue, mint

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
KEY = mint("test", lambda size: bytes(range(size)))


def test_a_key_has_the_documented_form() -> None:
    prefix, environment, rest = mint("live").split("_")
    assert (prefix, environment) == ("vt", "live")
    assert len(rest) == 43 + 6
    assert set(rest) <= set(BASE62)


def test_the_form_never_changes() -> None:
    """Keys in users' hands must stay valid: this one was made by the first release."""
    assert KEY == "vt_test_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf3k3eSE"
    assert is_well_formed(KEY)


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_every_secret_has_the_same_length(secret: bytes) -> None:
    key = mint("test", lambda _size: secret)
    assert len(key) == len(KEY)
    assert is_well_formed(key)


@given(st.integers(8, len(KEY) - 1), st.sampled_from(BASE62))
def test_one_wrong_character_is_noticed(place: int, char: str) -> None:
    wrong = KEY[:place] + char + KEY[place + 1 :]
    assert is_well_formed(wrong) is (wrong == KEY)


@pytest.mark.parametrize(
    "text", ["", "vt_test_", KEY[:-1], KEY + "0", KEY + "\n", KEY.replace("_test_", "_live_"), KEY.replace("vt", "VT")]
)
def test_what_is_no_key(text: str) -> None:
    assert not is_well_formed(text)


def test_a_record_holds_the_hash_and_not_the_key() -> None:
    key, record = issue("test", "agent", now=5, namespaces=["a"], name="worker", lifetime_ms=10)
    assert record.sha256 == hash_api_key(key)
    assert (record.created_at, record.expires_at, record.revoked_at) == (5, 15, None)
    assert key not in str([getattr(record, name) for name in record.__slots__])
    assert repr(record) == f"<ApiKey {record.id} test agent>"


def test_two_keys_differ() -> None:
    assert mint("test") != mint("test")
