"""Bring the tree in order: `python -m scripts.fix` makes what is made, fixes what lint can fix, and formats."""

from __future__ import annotations

import subprocess
import sys

STEPS = (
    ["ruff", "check", "--fix-only", "."],
    ["ruff", "format", "."],
    [sys.executable, "-m", "scripts.generate"],
    [sys.executable, "-m", "scripts.mirror"],
)


def main() -> int:
    """Run the steps in their order, up to the first that fails."""
    return next((code for step in STEPS if (code := subprocess.call(step))), 0)


if __name__ == "__main__":
    sys.exit(main())
