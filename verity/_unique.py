"""Unique ids and tokens, which no seed, patch or fork makes repeat.

Test tools replace `uuid.uuid4`, seed `random` and patch `secrets`, and a fork copies the state of a generator. A
repeated id is dangerous: the ledger takes two calls with the same idempotency key for one call. So all random bytes
come from the operating system, through a function that is looked up once, at import.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from os import urandom as _urandom

_DRAWN_BYTES = 16
_DRAWS = 256


def new_id() -> str:
    """An id in the form of a random UUID (version 4)."""
    digits = (int.from_bytes(_urandom(16), "big") & ~(0xF << 76) & ~(0b11 << 62)) | 0x4 << 76 | 0b10 << 62
    text = f"{digits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_token() -> str:
    """A secret of 192 bits, as 32 URL-safe characters."""
    return urlsafe_b64encode(_urandom(24)).decode()


class _Pool:
    """Random bytes in reserve. To ask the system for every request costs a system call and releases the GIL."""

    def __init__(self) -> None:
        self._process = -1
        self._draws: list[bytes] = []

    def draw(self) -> bytes:
        """16 random bytes, each handed out once. Threads need no lock: `list.pop` is one step."""
        process = os.getpid()
        if process != self._process:  # a fork has copied the bytes; at-fork hooks do not run for every fork
            self._draws, self._process = [], process
        try:
            return self._draws.pop()
        except IndexError:
            drawn = _urandom(_DRAWN_BYTES * _DRAWS)
            draws = [drawn[start : start + _DRAWN_BYTES] for start in range(0, len(drawn), _DRAWN_BYTES)]
            draw = draws.pop()
            self._draws = draws
            return draw


_pool = _Pool()


def draw_bits(count: int) -> int:
    """A random number below 2 ** `count`; `count` is at most 128. Not for secrets."""
    return int.from_bytes(_pool.draw(), "big") >> 8 * _DRAWN_BYTES - count
