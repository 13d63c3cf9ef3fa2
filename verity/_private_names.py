"""Private names of other packages: the check that they are still there.

A few guarantees need what a package does not offer in public. Each such package has one module here that uses its
private names, a range of versions in pyproject.toml, and a line in the table of CONTRIBUTING.md. Where a name is gone,
the guarantee is gone, so that nothing may start.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from verity.errors import VerityConfigError


def check_names(requirement: str, owner: object, *names: str) -> None:
    """Refuse to go on where the installed package has renamed what Verity uses.

    Args:
        requirement: the package and the versions that are known to work, as in pyproject.toml.
        owner: an object or a class of that package.
        names: what it must have.

    Raises:
        VerityConfigError: a name is missing.
    """
    missing = [name for name in names if not hasattr(owner, name)]
    if missing:
        kind = owner if isinstance(owner, type) else type(owner)
        raise is_gone(requirement, *(f"{kind.__qualname__}.{name}" for name in missing))


def is_gone(requirement: str, *names: str) -> VerityConfigError:
    """The error that says which names are missing, and which versions of the package have them."""
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
