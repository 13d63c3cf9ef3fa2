"""All checks that run nothing of ours: `python -m scripts.check`. Every check runs, also after one has failed."""

from __future__ import annotations

import subprocess
import sys
import time

CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "contract": ["openapi-spec-validator", "openapi.yaml"],
    "generated": [sys.executable, "-m", "scripts.generate", "--check"],
    "mirror": [sys.executable, "-m", "scripts.mirror", "--check"],
    "bugs": [sys.executable, "-m", "scripts.mutate", "--check"],
    "imports": ["lint-imports", "--no-cache"],
    "mypy": ["mypy", "-p", "verity", "-p", "scripts", "-p", "tests", "-p", "benchmarks", "-p", "examples"],
    "pyright": ["pyright"],
}


def main() -> int:
    """Run them all; 1 if any failed."""
    failed = []
    for name, command in CHECKS.items():
        started_at = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        verdict = "ok" if done.returncode == 0 else "FAILED"
        print(f"{verdict:7}{name:10}{time.monotonic() - started_at:6.1f} s", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout + done.stderr, flush=True)
    print(f"{len(CHECKS) - len(failed)} of {len(CHECKS)} checks passed. {'Failed: ' * bool(failed)}{', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
