"""API keys: how they are written, minted and checked without looking anything up.

`vt_live_` or `vt_test_`, 32 random bytes as 43 base62 digits, and the CRC-32 of all that as 6 more. The checksum tells
a mistyped key from an unknown one without storage, and lets a secret scanner skip what only looks like a key.
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
    """Make a new key. It is shown once, and only its hash is kept."""
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
        environment: whose data it reaches.
        role: what it may do.
        now: ms since 1970.
        namespaces: what it is bound to; none of them means all of the environment.
        name: what it is for.
        lifetime_ms: how long it is valid, in milliseconds; None is for ever.
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
    """Whether it can be a key at all: its form and its checksum are right."""
    return _FORM.fullmatch(key) is not None and _with_checksum(key[:-_CHECKSUM_DIGITS]) == key


def hash_api_key(key: str) -> bytes:
    """What is stored of a key: its SHA-256. With 256 random bits there is nothing that a slow hash would add."""
    return hashlib.sha256(key.encode()).digest()


def _with_checksum(text: str) -> str:
    return text + _to_base62(binascii.crc32(text.encode()), _CHECKSUM_DIGITS)


def _to_base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
