"""The tests: `python -m scripts.test [--elsewhere] [pytest arguments]`.

On the main Python with branch coverage of what decides (the core, the table, protect()), which must be complete;
`--elsewhere`, for the other Pythons, leaves out what does not depend on the Python (the contract's tools, the demo).
"""

from __future__ import annotations

import subprocess
import sys

COVERED = ("verity/_core/*", "verity/_ledger/*", "verity/_async/protect.py")
ELSEWHERE = ["--ignore=tests/contract", "--ignore=tests/demo", "--ignore=tests/docs"]
ELSEWHERE += ["--ignore=tests/fuzz", "--ignore=tests/packaging"]


def main(arguments: list[str]) -> int:
    """Run pytest, and look at the coverage where nothing was left out."""
    if "--elsewhere" in arguments:
        arguments.remove("--elsewhere")
        return subprocess.call([sys.executable, "-m", "pytest", *ELSEWHERE, *arguments])
    if arguments:
        return subprocess.call([sys.executable, "-m", "pytest", *arguments])
    failed = subprocess.call([sys.executable, "-m", "coverage", "run", "-m", "pytest"])
    report = [sys.executable, "-m", "coverage", "report", "--show-missing", f"--include={','.join(COVERED)}"]
    return failed or subprocess.call([*report, "--fail-under=100"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
