"""The limits of the API, written once for the clients and the ledger.

`tests/contract/test_limits.py` compares each of them with openapi.yaml.
"""

from __future__ import annotations

MAX_EFFECT_KEY_CHARS = 1024
MAX_NAMESPACE_CHARS = 128
MAX_LABEL_CHARS = 256
MAX_PAGE_SIZE = 500
MIN_LEASE_DURATION_MS = 5_000
MAX_LEASE_DURATION_MS = 120_000
DEFAULT_LEASE_DURATION_MS = 30_000
"""The duration of a lease whose request names none."""
MAX_SETTLE_MS = 600_000
DEFAULT_SETTLE_MS = 30_000
"""How long nobody is granted after a release with unknown outcome that names no time."""
MAX_PAYLOAD_BYTES = 65_536
"""The size limit of one payload, as compact UTF-8 JSON."""
MAX_WAIT_S = 25
"""How long a lease request may wait at the ledger for another holder (`Prefer: wait=N`)."""
