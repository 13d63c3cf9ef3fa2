"""Build the wheel and the sdist, and test the wheel in fresh environments: `python -m scripts.wheel`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRIALS = ROOT / "tests" / "packaging"


def main() -> int:
    """Build, install, test. Raises if a step fails."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        _run(sys.executable, "-m", "build", "--outdir", str(work / "dist"), str(ROOT), cwd=work)
        wheel = next((work / "dist").glob("*.whl"))
        python = _environment(work / "bare", str(wheel))
        _run(str(python), "-W", "error", str(TRIALS / "try_bare_wheel.py"), cwd=work)
        python = _environment(work / "served", f"{wheel}[server]")
        _run(str(python), "-W", "error", str(TRIALS / "try_server_wheel.py"), cwd=work)
    print("wheel: it works without and with the extra")
    return 0


def _environment(directory: Path, requirement: str) -> Path:
    """Make a virtual environment with this requirement installed. Returns the path of its Python."""
    venv.create(directory, with_pip=True)
    python = directory / "bin" / "python"
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement, cwd=directory)
    return python


def _run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True)


if __name__ == "__main__":
    sys.exit(main())
