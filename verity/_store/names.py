"""How effects are named in the tables."""

from __future__ import annotations

import hashlib

from verity._ledger.effect import ROW
from verity._unique import draw_bits

COLUMNS = ", ".join("effect_key" if name == "key" else name for name in ROW)
"""The columns of an effect's row, in the order of `ROW`."""

_ID_RANDOM_BITS = 21


def next_id(latest: int, now_ms: int) -> int:
    """An id above the latest one, in order of time. Chance keeps apart what two nodes make at once."""
    return max(latest + 1, now_ms << _ID_RANDOM_BITS | draw_bits(_ID_RANDOM_BITS))


def hash_effect_name(environment: str, namespace: str, key: str) -> bytes:
    """What the unique index holds of an effect's full name. 128 bits: no two keys meet by chance."""
    return hashlib.blake2b(
        f"{environment}\0{namespace}\0{key}".encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()
