"""Check that HEAD is a release, and build it: `python -m scripts.release [--check] [--out DIRECTORY]`.

It publishes nothing. It builds only if all of these hold, and prints each one that does not:

- the working tree is clean, and HEAD has the tag `vX.Y.Z` of the version in `verity/_version.py`;
- that version is a final one, above every earlier tag;
- `CHANGELOG.md` begins with `## X.Y.Z (YYYY-MM-DD)`, with at least one entry below it;
- `openapi.yaml` and the shipped `openapi.json` have the same version, which is that of the URL (`/v1`);
- since the last release no migration was edited, the floor of line coverage was not lowered, and the contract has no
  breaking change unless its version rose.

`docs/versioning.md` explains the policy.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scripts.spec_changes import changes
from scripts.test import read_floor

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ("verity/_store/sqlite/schema", "verity/_store/postgres/schema")
_FINAL = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_ENTRY = re.compile(r"## (\S+) \((\d{4}-\d\d-\d\d)\)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def read_version(root: Path) -> str:
    """The version of the package, read without importing it."""
    text = (root / "verity" / "_version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    return found[1] if found else ""


def problems(root: Path) -> list[str]:
    """A line for each reason why HEAD is no release; empty if it is one."""
    version = read_version(root)
    if not _FINAL.fullmatch(version):
        return [f"verity/_version.py has {version!r}, which is no final version such as 1.2.3"]
    return [*_of_git(root, version), *_of_changelog(root, version), *_of_contract(root), *_since_last(root, version)]


def _of_git(root: Path, version: str) -> Iterator[str]:
    if changed := _git(root, "status", "--porcelain"):
        yield f"the working tree is not clean: {', '.join(line[3:] for line in changed)}"
    if f"v{version}" not in _git(root, "tag", "--points-at", "HEAD"):
        yield f"HEAD does not have the tag v{version}"
    if later := [tag for tag in _releases(root) if _key(tag) > _key(version)]:
        yield f"{version} is below what was released: {', '.join(later)}"


def _of_changelog(root: Path, version: str) -> Iterator[str]:
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = next((line for line in text.splitlines() if line.startswith("## ")), "no entry at all")
    entry = _ENTRY.match(heading + text.partition(heading)[2])
    if entry is None or entry[1] != version:
        yield f"CHANGELOG.md begins with {heading!r}, and not with '## {version} (YYYY-MM-DD)'"
    elif not re.search(r"^- ", entry[3], re.MULTILINE):
        yield f"CHANGELOG.md says nothing about {version}"


def _of_contract(root: Path) -> Iterator[str]:
    spec = yaml.safe_load((root / "openapi.yaml").read_text(encoding="utf-8"))
    shipped = json.loads((root / "generated/verity_api/openapi.json").read_text(encoding="utf-8"))
    version = spec["info"]["version"]
    if shipped["info"]["version"] != version:
        yield f"openapi.yaml has version {version}, openapi.json has {shipped['info']['version']}: generate it"
    if wrong := [each["url"] for each in spec["servers"] if not each["url"].endswith(f"/v{version}")]:
        yield f"openapi.yaml has version {version}, and a server at {', '.join(wrong)}"


def _since_last(root: Path, version: str) -> Iterator[str]:
    """Forbidden changes since the last release. There are none before the first one."""
    earlier = [tag for tag in _releases(root) if _key(tag) < _key(version)]
    if not earlier:
        return
    last = earlier[-1]
    edited = _git(root, "diff", "--name-status", "--no-renames", "--diff-filter=DMT", last, "HEAD", "--", *SCHEMAS)
    if edited:
        yield f"migrations of {last} were edited: {', '.join(line.split(maxsplit=1)[1] for line in edited)}"
    floors = [read_floor("\n".join(_git(root, "show", f"{each}:pyproject.toml"))) for each in (last, "HEAD")]
    if floors[1] < floors[0]:
        yield f"the floor of line coverage was lowered from {floors[0]} to {floors[1]}"
    before, now = _spec(root, last), _spec(root, "HEAD")
    broken = [each for each in changes(before, now) if each.verdict == "BREAKING"]
    if broken and before["info"]["version"] == now["info"]["version"]:
        yield f"the contract has {len(broken)} breaking changes since {last}: see python -m scripts.spec_changes {last}"


def _spec(root: Path, revision: str) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load("\n".join(_git(root, "show", f"{revision}:openapi.yaml")))
    return spec


def _releases(root: Path) -> list[str]:
    """The tags of releases, the oldest first."""
    return sorted((tag for tag in _git(root, "tag") if tag[:1] == "v" and _FINAL.fullmatch(tag[1:])), key=_key)


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.removeprefix("v").split("."))


def _git(root: Path, *arguments: str) -> list[str]:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()


def build(root: Path, out: Path) -> list[Path]:
    """Build the sdist and the wheel. Returns the files."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(root)], check=True)
    return sorted(out.glob(f"*-{read_version(root)}*"))


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Check, then build; 1 if HEAD is no release."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="build nothing")
    parser.add_argument("--out", type=Path, default=root / "dist", help="the directory for the files; dist/ by default")
    options = parser.parse_args(arguments)
    found = problems(root)
    for problem in found:
        print(f"release: {problem}", file=sys.stderr)
    if found:
        return 1
    print(f"release: HEAD is version {read_version(root)}")
    if not options.check:
        for file in build(root, options.out):
            print(f"release: built {file}")
        print("release: nothing was published. Try it with `nox -s wheel` first.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
