"""Tidy the tree: `python -m scripts.fix` applies lint fixes, formats, and makes the generated files and the mirror."""

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
    """Run the steps in order, and stop at the first that fails."""
    return next((code for step in STEPS if (code := subprocess.call(step))), 0)


if __name__ == "__main__":
    sys.exit(main())
