"""The tests: `python -m scripts.test [--elsewhere] [pytest arguments]`.

All tests run in a few processes, a module at a time, with coverage of all of `verity`. Two things are then required.
The modules of `DECIDING` must be covered completely, branches included, by the tests that are about them. The lines of
the whole package must reach the floor in `pyproject.toml`, `[tool.verity]`.

Programs that the tests start are not measured: they are killed, fork, and have tracers of their own. `--elsewhere`, for
the other Pythons, measures nothing and leaves out what does not depend on the Python (the contract's tools, the demo).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = ["-n", str(min(os.cpu_count() or 1, 4)), "--dist=loadscope", "--no-loadscope-reorder"]
# A hung test ends its process (faulthandler_timeout). Were another started in its place, xdist would wait for ever.
PROCESSES += ["--max-worker-restart=0"]
DECIDING = "verity/_core/*,verity/_ledger/*,verity/_rfc3339.py,verity/_async/protect.py,verity/_async/failures.py"
DECIDING += ",verity/_async/commit.py,verity/_async/spooling.py,verity/_async/unprotected.py"
COVERING = ["tests/_async", "tests/core", "tests/ledger"]
ELSEWHERE = ["--ignore=tests/contract", "--ignore=tests/demo", "--ignore=tests/docs"]
ELSEWHERE += ["--ignore=tests/fuzz", "--ignore=tests/packaging"]


def main(arguments: list[str]) -> int:
    """Run pytest, and look at the coverage where nothing was left out."""
    if "--elsewhere" in arguments:
        arguments.remove("--elsewhere")
        return _run("pytest", *PROCESSES, *ELSEWHERE, *arguments)
    if arguments:
        return _run("pytest", *arguments)
    steps = [
        _run("pytest", *PROCESSES, "--cov", "--cov-report=", *COVERING),
        _run("coverage", "report", "--show-missing", f"--include={DECIDING}", "--fail-under=100"),
        _run(
            "pytest", *PROCESSES, "--cov", "--cov-append", "--cov-report=", *(f"--ignore={each}" for each in COVERING)
        ),
        check_floor(),
    ]
    return max(steps)


def check_floor() -> int:
    """Compare the measured lines of the whole package with the floor; 1 if there are fewer."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "coverage.json"
        if failed := _run("coverage", "json", "-q", "-o", str(file)):
            return failed
        floor = read_floor((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        verdict = judge(json.loads(file.read_text(encoding="utf-8")), floor)
    print(verdict)
    return 1 if verdict.startswith("FAILED") else 0


def read_floor(pyproject: str) -> float:
    """Percent of all lines that the tests must run, from the text of a pyproject.toml."""
    import tomllib  # type: ignore[import-not-found]  # not in Python 3.10, where --elsewhere measures nothing

    settings: dict[str, Any] = tomllib.loads(pyproject)
    return float(settings["tool"]["verity"]["line-coverage-floor"])


def judge(report: dict[str, Any], floor: float) -> str:
    """One line about a report of `coverage json`: it begins with FAILED if the floor is not reached."""
    totals = report["totals"]
    percent = 100 * totals["covered_lines"] / totals["num_statements"]
    least = sorted(report["files"], key=lambda name: -len(report["files"][name]["missing_lines"]))[:5]
    missing = ", ".join(f"{name} ({len(report['files'][name]['missing_lines'])})" for name in least)
    if percent < floor:
        return f"FAILED: {percent:.2f} % of all lines ran, below the floor of {floor} %. Most are missing in {missing}"
    raise_it = " Raise it in pyproject.toml." if percent > floor + 1 else ""
    return f"{percent:.2f} % of all lines ran; the floor is {floor} %.{raise_it} Most are missing in {missing}"


def _run(module: str, *arguments: str) -> int:
    return subprocess.call([sys.executable, "-m", module, *arguments], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
