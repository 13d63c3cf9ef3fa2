"""Long outages, of every kind: `python -m tests.outages [ROUNDS]`. Two minutes a round."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

from tests.outages.scenario import EFFECTS, play

_CASES = (
    ("node restarted", 7.0, 5_000),
    ("node restarted", 25.0, 5_000),
    ("nodes restarted in turn", 12.0, 5_000),
    ("network cut", 25.0, 30_000),
    ("PostgreSQL failed over", 20.0, 5_000),
)


def main() -> int:
    """The number of outages that cost anything."""
    logging.getLogger("verity").setLevel(logging.ERROR)
    failures = 0
    for scenario, seconds, lease_ms in _CASES * (int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        with tempfile.TemporaryDirectory(prefix="verity-outages-") as directory:
            outcome = play(Path(directory), scenario, seconds, lease_ms)
        failures += not outcome.is_right
        again = outcome.acts.total() - EFFECTS
        sys.stdout.write(
            f"{scenario}, {seconds:g} s, leases of {lease_ms / 1000:g} s: {EFFECTS} effects, {again} acts again, "
            f"{len(outcome.uncertain)} commits uncertain {outcome.uncertain[:1]}\n"
        )
        sys.stdout.flush()
    return failures


if __name__ == "__main__":
    sys.exit(main())
