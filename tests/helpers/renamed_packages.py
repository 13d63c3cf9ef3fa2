"""Copies of installed packages in which a private name is renamed, and a Python that finds these copies first."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rename(package: str, file: str, name: str, target: Path) -> None:
    """Copy an installed package to `target`, with another name in one of its files for each colour."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    shutil.copytree(Path(spec.origin).parent, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in {target / package / file.format(colour=colour) for colour in ("async", "sync")}:
        text = path.read_text(encoding="utf-8")
        renamed = re.sub(rf"\b{name}\b", f"{name}_renamed", text)
        assert renamed != text
        path.write_text(renamed, encoding="utf-8")


def run_and_log(code: str, *paths: Path) -> tuple[str, str]:
    """What the code prints, and logs, with these folders before the installed packages."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n{code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def run(code: str, *paths: Path) -> str:
    """What the code prints with these folders before the installed packages."""
    return run_and_log(code, *paths)[0]
