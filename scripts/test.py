"""The tests: `python -m scripts.test [--elsewhere] [pytest arguments]`.

All of them run in a few processes, which take a module at a time. On the main Python with branch coverage of what
decides (the core, the table, protect()): the tests that are about it must cover it completely. The others are not
traced, which would take half of their time again. `--elsewhere`, for the other Pythons, leaves out what does not depend
on the Python (the contract's tools, the demo).
"""

from __future__ import annotations

import os
import subprocess
import sys

PROCESSES = ["-n", str(min(os.cpu_count() or 1, 4)), "--dist=loadscope", "--no-loadscope-reorder"]
COVERAGE = ["--cov", "--cov-report=term-missing", "--cov-fail-under=100"]
COVERING = ["tests/_async", "tests/core", "tests/ledger"]
ELSEWHERE = ["--ignore=tests/contract", "--ignore=tests/demo", "--ignore=tests/docs"]
ELSEWHERE += ["--ignore=tests/fuzz", "--ignore=tests/packaging"]


def main(arguments: list[str]) -> int:
    """Run pytest, and look at the coverage where nothing was left out."""
    if "--elsewhere" in arguments:
        arguments.remove("--elsewhere")
        return _run_pytest(*PROCESSES, *ELSEWHERE, *arguments)
    if arguments:
        return _run_pytest(*arguments)
    failed = _run_pytest(*PROCESSES, *COVERAGE, *COVERING)
    return _run_pytest(*PROCESSES, *(f"--ignore={each}" for each in COVERING)) or failed


def _run_pytest(*arguments: str) -> int:
    return subprocess.call([sys.executable, "-m", "pytest", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
