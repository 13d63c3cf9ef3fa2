"""Record all cassettes from a served ledger: `python -m scripts.record_cassettes`. See tests/helpers/cassettes.py."""

from __future__ import annotations

import os
import subprocess
import sys


def main() -> int:
    """Record the scenarios once, on asyncio, against a ledger. Then replay them in all tests that use them."""
    recorded = subprocess.call(
        [sys.executable, "-m", "pytest", "-q", "tests/_async/test_cassettes.py", "-k", "asyncio"],
        env={**os.environ, "VERITY_RECORD_CASSETTES": "1"},
    )
    replayed = ["tests/_async/test_cassettes.py", "tests/_sync/test_cassettes.py", "tests/contract/test_cassettes.py"]
    return recorded or subprocess.call([sys.executable, "-m", "pytest", "-q", *replayed])


if __name__ == "__main__":
    sys.exit(main())
