"""The attempt key: an idempotency key for the outside world, the same for every attempt at an effect.

The ledger makes it and sends it with each grant. A client of a ledger without attempt keys makes the same one itself.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256


def make_attempt_key(environment: str, namespace: str, effect_key: str, retries: int = 0) -> str:
    """The attempt key: 43 URL-safe characters.

    Never change how it is made: a provider would take the next attempt for another action.

    Args:
        environment: `live` or `test`.
        namespace: the effect's namespace.
        effect_key: the effect key, with its suffix.
        retries: how many resets with mode `retry` the effect has had. Each one changes the key, because a provider
            would answer the old key with the failure that the reset has declared void.
    """
    # Each part has its length in front, so that no two lists of parts give the same text.
    place = f"{len(environment)}:{environment}{len(namespace)}:{namespace}"
    text = f"{place}{len(effect_key)}:{effect_key}{len(str(retries))}:{retries}"
    digest = sha256(text.encode("utf-8", "surrogatepass")).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
