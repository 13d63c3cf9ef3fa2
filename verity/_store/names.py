"""Ids and names of effects in the tables of both stores."""

from __future__ import annotations

import hashlib

from verity._ledger.effect import ROW
from verity._unique import draw_bits

COLUMNS = ", ".join("effect_key" if name == "key" else name for name in ROW)
"""The columns of an effect's row, in the order of `ROW`."""

_ID_RANDOM_BITS = 21


def next_id(latest: int, now_ms: int) -> int:
    """An id above the latest one, ordered by time. Random bits keep the ids of two nodes apart."""
    return max(latest + 1, now_ms << _ID_RANDOM_BITS | draw_bits(_ID_RANDOM_BITS))


def hash_effect_name(environment: str, namespace: str, key: str) -> bytes:
    """The hash of an effect's full name, for the unique index. It has 128 bits, so no two names collide by chance."""
    return hashlib.blake2b(
        f"{environment}\0{namespace}\0{key}".encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()
