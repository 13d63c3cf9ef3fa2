"""Plant bugs, one at a time, in a copy of the tree; the tests must find each: `python -m scripts.mutate [WORD ...]`.

With words, it plants only bugs whose name or file contains one of them. `--check` runs no test, and lists the bugs
whose place in the code is gone. The bugs are in mutations.toml. A test that hangs has not found its bug: it does not
report it, and it blocks the suite.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
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
    "CHANGELOG.md",
)
_TIME_LIMIT_S = 120
_TESTS_FAILED = 1


def read_bugs(words: list[str]) -> list[dict[str, Any]]:
    """The bugs to plant."""
    bugs: list[dict[str, Any]] = tomllib.loads(BUGS.read_text(encoding="utf-8"))["mutation"]
    return [bug for bug in bugs if not words or any(word in bug["name"] + bug["file"] for word in words)]


def misplaced(bugs: list[dict[str, Any]]) -> list[str]:
    """A line for each bug that can't be planted, because its old text does not occur exactly once."""
    found = ((bug, (ROOT / bug["file"]).read_text(encoding="utf-8").count(bug["old"])) for bug in bugs)
    return [f"{bug['name']!r}: {bug['old']!r} occurs {n} times in {bug['file']}" for bug, n in found if n != 1]


def plant(bug: dict[str, Any], tree: Path) -> str:
    """Change the file. Returns its old text."""
    file = tree / bug["file"]
    text: str = file.read_text(encoding="utf-8")
    file.write_text(text.replace(bug["old"], bug["new"]), encoding="utf-8")
    return text


def _run_tests(tests: str, tree: Path, time_limit_s: float | None = _TIME_LIMIT_S) -> int | None:
    """Pytest's exit code; None if it did not end in time. Processes that the tests start import the copy, too."""
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), str(tree / "generated")])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as pytest:
        try:
            return pytest.wait(time_limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(pytest.pid, signal.SIGKILL)


def main(words: list[str]) -> int:
    """Report each bug as found or not."""
    is_check = "--check" in words
    bugs = read_bugs([word for word in words if word != "--check"])
    lost = misplaced(bugs)
    if lost or is_check:
        print("\n".join(lost) or f"{len(bugs)} bugs can be planted.")
        return 2 if lost else 0
    missed = []
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        for name in _COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            copy(ROOT / name, tree / name)
        whole = " ".join(sorted({path for bug in bugs for path in bug["tests"].split() if path.startswith("tests/")}))
        if _run_tests(whole, tree, time_limit_s=None):
            print(f"mutate: before any bug is planted, these fail: {whole}", file=sys.stderr)
            return 2
        for bug in bugs:
            text = plant(bug, tree)
            code = _run_tests(bug["tests"], tree)
            (tree / bug["file"]).write_text(text, encoding="utf-8")
            what = {_TESTS_FAILED: "found", None: "HANGS"}.get(code, f"MISSED (exit code {code})")
            print(f"{what:8}{bug['file']}: {bug['name']}", flush=True)
            if code != _TESTS_FAILED:
                missed.append(bug["name"])
    print(f"{len(bugs) - len(missed)} of {len(bugs)} planted bugs were found.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
