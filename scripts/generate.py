"""Make the low-level client and `verity/_operations.py` from openapi.yaml: `python -m scripts.generate [--check]`.

The tools are pinned in requirements-generate.txt, so that the same openapi.yaml gives the same bytes everywhere.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "openapi.yaml"
TARGET = ROOT / "generated" / "verity_api"
OPERATIONS = ROOT / "verity" / "_operations.py"
PINS = ROOT / "requirements-generate.txt"
HEADER = "# Made from openapi.yaml by scripts/generate.py. Do not edit.\n"

_RUFF = ("--isolated", "--quiet", "--line-length=120", "--target-version=py310")


def missing_pins() -> list[str]:
    """The pinned tools that are missing, or installed in another version."""
    wrong = []
    for line in PINS.read_text(encoding="utf-8").splitlines():
        name, pinned, version = line.partition("==")
        if pinned:
            try:
                installed = metadata.version(name)
            except metadata.PackageNotFoundError:
                installed = "none"
            if installed != version:
                wrong.append(f"{name}=={version} (installed: {installed})")
    return wrong


def generate(target: Path, source: Path = SPEC) -> None:
    """Write the package made from `source` to `target`, which is removed first: --overwrite would leave old files."""
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.yaml"
        config.write_text("post_hooks: []\n", encoding="utf-8")
        _run(
            "openapi-python-client",
            "generate",
            "--fail-on-warning",
            *("--path", str(source), "--config", str(config), "--meta", "none", "--output-path", str(target)),
            *("--custom-template-path", str(ROOT / "scripts" / "templates")),
        )
    modules = sorted(target.rglob("*.py"))
    files = [str(module) for module in modules]
    _run("ruff", "check", *_RUFF, "--fix-only", "--select=F401,F811,I,UP,PIE790", "--ignore=UP006,UP046", *files)
    _run("ruff", "format", *_RUFF, *files)
    for module in modules:
        # Models contain payloads and lease tokens, which attrs would show in every repr.
        text = module.read_text(encoding="utf-8").replace("@_attrs_define\n", "@_attrs_define(repr=False)\n")
        module.write_text(HEADER + text, encoding="utf-8")
    spec = yaml.safe_load(source.read_text(encoding="utf-8"))
    (target / "openapi.json").write_text(json.dumps(spec, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (target / "py.typed").touch()


_METHODS = ("get", "put", "post", "delete", "patch")
_OPERATIONS = """\"\"\"The operations of the API, shared by the clients, the stores and the server.\"\"\"

from __future__ import annotations

from enum import Enum


class Operation(str, Enum):
    \"\"\"An operation of the API. Its value is the operationId, to which it also compares equal.\"\"\"

%s

    __hash__ = str.__hash__  # equal to its operationId, so with the same hash
    __str__ = str.__str__

    def __format__(self, spec: str) -> str:
        return str.__format__(self, spec)

    @property
    def method(self) -> str:
        \"\"\"The HTTP method, in capitals.\"\"\"
        return _ABOUT[self][0]

    @property
    def path(self) -> str:
        \"\"\"The path below the base URL, with its parameters in braces.\"\"\"
        return _ABOUT[self][1]

    @property
    def tag(self) -> str:
        \"\"\"The group of the operation; `administration` requires the role org_admin.\"\"\"
        return _ABOUT[self][2]


_ABOUT = {
%s
}
"""


def write_operations(target: Path, source: Path = SPEC) -> None:
    """Write the module with the operations of `source` to `target`."""
    spec = yaml.safe_load(source.read_text(encoding="utf-8"))
    operations = [
        (about["operationId"], method.upper(), path, about["tags"][0])
        for path, item in spec["paths"].items()
        for method, about in item.items()
        if method in _METHODS
    ]
    members = "\n".join(f'    {name.upper()} = "{name}"' for name, *_ in operations)
    about = "\n".join(f"    Operation.{name.upper()}: {(*rest,)!r}," for name, *rest in operations)
    target.write_text(HEADER + _OPERATIONS % (members, about), encoding="utf-8")
    _run("ruff", "format", *_RUFF, str(target))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"generate: {command[0]} failed:\n{done.stdout}{done.stderr}")


def compare(old: Path, new: Path) -> list[str]:
    """The files that are new, gone or different in the second of two packages, compared byte by byte."""
    there, made = _files(old), _files(new)
    found = [f"new: {path}" for path in sorted(made - there)]
    found += [f"gone: {path}" for path in sorted(there - made)]
    found += [
        f"differs: {path}" for path in sorted(there & made) if (old / path).read_bytes() != (new / path).read_bytes()
    ]
    return found


def _files(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def main() -> int:
    """Write the files, or with `--check` compare them with those that openapi.yaml makes now."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on any difference")
    arguments = parser.parse_args()
    wrong = missing_pins()
    if wrong:
        print(f"generate: needs {', '.join(wrong)}: pip install -r {PINS.name}", file=sys.stderr)
        return 2
    if not arguments.check:
        generate(TARGET)
        write_operations(OPERATIONS)
        print(f"generate: {len(_files(TARGET)) + 1} files written")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / TARGET.name
        generate(made)
        found = compare(TARGET, made)
        operations = Path(scratch) / OPERATIONS.name
        write_operations(operations)
        if not OPERATIONS.exists() or OPERATIONS.read_bytes() != operations.read_bytes():
            found.append(f"differs: {OPERATIONS.relative_to(ROOT)}")
    print("\n".join([*found, "generate: run python -m scripts.generate"] if found else ["generate: up to date"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
