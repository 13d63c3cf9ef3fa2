"""API keys: their format, how they are made, and how their form is checked without a store.

A key is `vt_live_` or `vt_test_`, 32 random bytes as 43 base62 digits, and the CRC-32 of all this as 6 more digits.
The checksum tells a mistyped key from an unknown one without the store, and lets a secret scanner skip text that only
looks like a key.
"""

from __future__ import annotations

import binascii
import hashlib
import os
import re
import string
from collections.abc import Callable, Iterable

from verity._ledger.calls import Environment
from verity._store.api_keys import ApiKey, Role
from verity._unique import draw_bits

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_BYTES = 32
_SECRET_DIGITS = 43  # 62**43 > 2**256
_CHECKSUM_DIGITS = 6  # 62**6 > 2**32
_FORM = re.compile(rf"vt_(?:live|test)_[0-9A-Za-z]{{{_SECRET_DIGITS + _CHECKSUM_DIGITS}}}", re.ASCII)


def mint(environment: Environment, random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """Make a new key. The store keeps only its hash."""
    secret = _to_base62(int.from_bytes(random_bytes(_SECRET_BYTES), "big"), _SECRET_DIGITS)
    return _with_checksum(f"vt_{environment}_{secret}")


def issue(
    environment: Environment,
    role: Role,
    *,
    now: int,
    namespaces: Iterable[str] = (),
    name: str | None = None,
    lifetime_ms: int | None = None,
) -> tuple[str, ApiKey]:
    """Make a new key, and the record of it that a store keeps.

    Args:
        environment: the environment whose data the key reaches.
        role: what the key may do.
        now: ms since 1970.
        namespaces: the namespaces that the key is bound to; none means all of the environment.
        name: what the key is for.
        lifetime_ms: how long the key is valid, in milliseconds; None is for ever.
    """
    key = mint(environment)
    record = ApiKey(
        id=f"key_{draw_bits(64):016x}",
        sha256=hash_api_key(key),
        environment=environment,
        role=role,
        namespaces=frozenset(namespaces) or None,
        name=name,
        created_at=now,
        expires_at=None if lifetime_ms is None else now + lifetime_ms,
        revoked_at=None,
    )
    return key, record


def is_well_formed(key: str) -> bool:
    """Whether the form and the checksum of a key are right."""
    return _FORM.fullmatch(key) is not None and _with_checksum(key[:-_CHECKSUM_DIGITS]) == key


def hash_api_key(key: str) -> bytes:
    """The SHA-256 of a key, which the store keeps. A key has 256 random bits, so that a slow hash would add nothing."""
    return hashlib.sha256(key.encode()).digest()


def _with_checksum(text: str) -> str:
    return text + _to_base62(binascii.crc32(text.encode()), _CHECKSUM_DIGITS)


def _to_base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
