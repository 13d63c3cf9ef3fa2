"""Checks that the private names of other packages, which Verity uses, still exist.

A few guarantees need parts of a package that are not public. For each such package, one module of Verity uses its
private names, pyproject.toml has a range of versions, and CONTRIBUTING.md has a line in its table. If a name is
missing, the guarantee is lost, so Verity does not start.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from verity.errors import VerityConfigError


def check_names(requirement: str, owner: object, *names: str) -> None:
    """Check that an object of an installed package has the names that Verity uses.

    Args:
        requirement: the package and the versions that are known to work, as in pyproject.toml.
        owner: an object or a class of that package.
        names: the attributes that it must have.

    Raises:
        VerityConfigError: a name is missing.
    """
    missing = [name for name in names if not hasattr(owner, name)]
    if missing:
        kind = owner if isinstance(owner, type) else type(owner)
        raise is_gone(requirement, *(f"{kind.__qualname__}.{name}" for name in missing))


def is_gone(requirement: str, *names: str) -> VerityConfigError:
    """The error for missing names. It names them, and the versions of the package that have them."""
    package = requirement.partition(">=")[0]
    try:
        installed = f"{package} {version(package)}"
    except PackageNotFoundError:
        installed = f"this copy of {package}"
    return VerityConfigError(
        f"{installed} has no {', '.join(names)}, on which Verity's guarantees rely. Nothing was started or sent. "
        f"Install {requirement!r}.",
        parameter=package,
    )
