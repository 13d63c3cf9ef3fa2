"""Plant bugs, one at a time, in a copy of the tree; the tests must find each: `python -m scripts.mutate [WORD ...]`.

With words, only the bugs whose names or files have one of them. The bugs are in mutations.toml.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tomllib  # type: ignore[import-not-found]  # mypy checks for 3.10; the scripts need 3.11

ROOT = Path(__file__).resolve().parent.parent
BUGS = ROOT / "scripts" / "mutations.toml"
_COPIED = (
    "verity",
    "generated",
    "tests",
    "scripts",
    "docs",
    "deploy",
    "examples",
    "openapi.yaml",
    "pyproject.toml",
    "README.md",
)
_TIME_LIMIT_S = 120
_TESTS_FAILED = 1


def read_bugs(words: list[str]) -> list[dict[str, Any]]:
    """The bugs to plant."""
    bugs: list[dict[str, Any]] = tomllib.loads(BUGS.read_text(encoding="utf-8"))["mutation"]
    return [bug for bug in bugs if not words or any(word in bug["name"] + bug["file"] for word in words)]


def plant(bug: dict[str, Any], tree: Path) -> str:
    """Change the file; returns its text as it was.

    Raises:
        ValueError: the place is not there, or not the only one.
    """
    file = tree / bug["file"]
    text: str = file.read_text(encoding="utf-8")
    if text.count(bug["old"]) != 1:
        raise ValueError(f"{bug['name']!r}: {bug['old']!r} occurs {text.count(bug['old'])} times in {bug['file']}")
    file.write_text(text.replace(bug["old"], bug["new"]), encoding="utf-8")
    return text


def _run_tests(tests: str, tree: Path, time_limit_s: float | None = _TIME_LIMIT_S) -> int:
    """Pytest's exit code; a run that hangs has failed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()]
    try:
        done = subprocess.run(command, cwd=tree, capture_output=True, check=False, timeout=time_limit_s)
    except subprocess.TimeoutExpired:
        return _TESTS_FAILED
    return done.returncode


def main(words: list[str]) -> int:
    """Report each bug as found or not."""
    bugs = read_bugs(words)
    missed = []
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        for name in _COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            copy(ROOT / name, tree / name)
        whole = " ".join(sorted({path for bug in bugs for path in bug["tests"].split() if path.startswith("tests/")}))
        if _run_tests(whole, tree, time_limit_s=None):
            print("mutate: the tests fail before any bug is planted", file=sys.stderr)
            return 2
        for bug in bugs:
            text = plant(bug, tree)
            code = _run_tests(bug["tests"], tree)
            (tree / bug["file"]).write_text(text, encoding="utf-8")
            found = code == _TESTS_FAILED
            print(f"{'found' if found else f'MISSED (exit code {code})':8}{bug['file']}: {bug['name']}", flush=True)
            if not found:
                missed.append(bug["name"])
    print(f"{len(bugs) - len(missed)} of {len(bugs)} planted bugs were found.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
