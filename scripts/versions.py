"""The versions for the sessions `lowest` and `newest`: `python -m scripts.versions lowest|newest FILE`.

`lowest` writes a constraint for each package that pyproject.toml declares: the lowest allowed version. `newest` writes
no constraint: pip takes the newest version in the declared ranges. Both leave out the pins in requirements-test.txt for
packages that pyproject.toml declares, since such a pin would replace the version to test.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import tomllib  # type: ignore[import-not-found]  # mypy checks for 3.10; the scripts need 3.11

ROOT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"[^A-Za-z0-9._-]")
_LOWEST = re.compile(r">=\s*([0-9][0-9A-Za-z.]*)")


def declared() -> list[str]:
    """All requirements of the package and of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]


def name_of(requirement: str) -> str:
    """The package's name, normalised as on PyPI."""
    return re.sub(r"[-_.]+", "-", _NAME.split(requirement, maxsplit=1)[0]).lower()


def lowest() -> list[str]:
    """Constraints for the lowest declared version of each package.

    Raises:
        ValueError: a requirement has no lower bound.
    """
    constraints = []
    for requirement in declared():
        bound = _LOWEST.search(requirement)
        if bound is None:
            raise ValueError(f"{requirement!r} in pyproject.toml has no lower bound")
        constraints.append(f"{name_of(requirement)}=={bound[1]}")
    return constraints


def test_requirements() -> list[str]:
    """The lines of requirements-test.txt, without those for declared packages."""
    tried = {name_of(each) for each in declared()}
    lines = (ROOT / "requirements-test.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    # OpenTelemetry's SDK needs exactly its own version of the API.
    return [
        "opentelemetry-sdk" if name_of(pin) == "opentelemetry-sdk" else pin for pin in pins if name_of(pin) not in tried
    ]


def main(arguments: list[str]) -> int:
    """Write two files: the constraints to FILE, the requirements of the tests to FILE.tests."""
    which, target = arguments
    constraints = lowest() if which == "lowest" else []
    Path(target).write_text("\n".join(constraints) + "\n", encoding="utf-8")
    Path(f"{target}.tests").write_text("\n".join(test_requirements()) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
