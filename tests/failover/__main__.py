"""Fail over in every way: `python -m tests.failover [ROUNDS]`. A minute or two a round."""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

from tests.failover.scenario import BLOWS, play

_ASKED_FOR_S = 4.0
"""Longer than the node waits for a statement."""


def main() -> int:
    """The number of fail-overs that lost a result or acted twice; the control has to."""
    failures = 0
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    cases = [(blow, has_observe, True) for blow, has_observe in itertools.product(BLOWS, (True, False))]
    for case in (*cases, ("timeout", False, False)) * rounds:
        blow, has_observe, is_synchronous = case
        with tempfile.TemporaryDirectory(prefix="verity-failover-") as directory:
            played = play(
                Path(directory), blow, has_observe=has_observe, is_synchronous=is_synchronous, asked_for_s=_ASKED_FOR_S
            )
        outcome = played[blow]
        is_right = not outcome.is_lost and outcome.acts == 1
        failures += is_right is not is_synchronous
        words = ("as it should be" if is_right is is_synchronous else "FAILED", str(outcome))
        sys.stdout.write(" ".join((f"{blow}, observe={has_observe}, synchronous={is_synchronous}:", *words)) + "\n")
        sys.stdout.flush()
    return failures


if __name__ == "__main__":
    sys.exit(main())
