"""Ids and tokens that no two processes share, and that no seed, patch or fork makes repeat.

Test tools pin `uuid.uuid4`, seed `random` and patch `secrets`, and a fork copies whatever state a generator has. An id
that repeats is somebody else's: two calls with one idempotency key are one call for a ledger. So all of them come from
the operating system, by way of a function that is looked up once.
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
    """A secret of 192 bits, as 32 characters that are safe in a URL."""
    return urlsafe_b64encode(_urandom(24)).decode()


class _Pool:
    """Random bytes in store: to ask the system for each of a node's requests costs a call and gives up the lock."""

    def __init__(self) -> None:
        self._process = -1
        self._draws: list[bytes] = []

    def draw(self) -> bytes:
        """Bytes that nobody else was given. Threads need no lock for it: taking one from a list is one step."""
        process = os.getpid()
        if process != self._process:  # a fork has copied what is in store; hooks for that don't run everywhere
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
    """A random number below 2 ** `count`, at most 128 bits; no secret should come from it."""
    return int.from_bytes(_pool.draw(), "big") >> 8 * _DRAWN_BYTES - count
