"""All checks that do not run our own code: `python -m scripts.check`. Every check runs, also after one has failed.

Two run at a time. The longest one takes half of the whole time, so it begins first.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

CHECKS = {
    "mypy": ["mypy", "-p", "verity", "-p", "scripts", "-p", "tests", "-p", "benchmarks", "-p", "examples"],
    "pyright": ["pyright"],
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "contract": ["openapi-spec-validator", "openapi.yaml"],
    "generated": [sys.executable, "-m", "scripts.generate", "--check"],
    "mirror": [sys.executable, "-m", "scripts.mirror", "--check"],
    "bugs": [sys.executable, "-m", "scripts.mutate", "--check"],
    "imports": ["lint-imports", "--no-cache"],
}


def run(name: str) -> bool:
    """Run one check and print its verdict. True: it passed."""
    started_at = time.monotonic()
    done = subprocess.run(CHECKS[name], capture_output=True, text=True, check=False)
    verdict = "ok" if done.returncode == 0 else "FAILED"
    said = f"\n{done.stdout}{done.stderr}" if done.returncode else ""
    print(f"{verdict:7}{name:10}{time.monotonic() - started_at:6.1f} s{said}", flush=True)
    return done.returncode == 0


def main() -> int:
    """Run all checks; 1 if any failed."""
    with ThreadPoolExecutor(2) as pool:
        passed = dict(zip(CHECKS, pool.map(run, CHECKS), strict=True))
    failed = [name for name in CHECKS if not passed[name]]
    print(f"{len(CHECKS) - len(failed)} of {len(CHECKS)} checks passed. {'Failed: ' * bool(failed)}{', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
