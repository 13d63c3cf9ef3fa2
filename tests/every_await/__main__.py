"""A fault at every step, and a second one soon after: `python -m tests.every_await`. It takes minutes."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.every_await.faults import FAULTS, STARTS
from tests.every_await.runs import SHAPES, check_run, open_ledger

AGAIN_AFTER = (0, 1, 2, 3, 5, 8, 13)


def main() -> None:
    """The first one that does not hold ends it with its traceback."""
    for kind in ("embedded", "served"):
        with tempfile.TemporaryDirectory() as directory, open_ledger(kind, Path(directory)) as ledger:
            for fault in FAULTS:
                runs = 0
                for shape in SHAPES:
                    for again_after in AGAIN_AFTER[:1] if fault in STARTS else AGAIN_AFTER:
                        at = 1
                        while check_run(ledger, fault, shape, at, again_after):
                            at += 1
                        runs += at
                sys.stdout.write(f"{kind}, {fault}: {runs} runs\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
