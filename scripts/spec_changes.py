"""The changes of openapi.yaml since a commit: `python -m scripts.spec_changes [REV]`, HEAD by default.

Each change is BREAKING, compatible, or text. BREAKING: a client or a ledger made from the old document may not work
with the other side made from the new one. The generated modules that change are listed after the changes. The exit code
is 1 if any change is BREAKING, so that the script can guard a merge.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from scripts.generate import ROOT, SPEC, compare, generate

Pointer = tuple[str, ...]

_TEXT = {"description", "summary", "example", "examples", "title", "tags", "info", "servers", "x-known-values"}
_GROWS = {"maximum", "maxLength", "maxItems", "maxProperties", "x-max-bytes"}
_SHRINKS = {"minimum", "minLength", "minItems", "minProperties"}
_METHODS = {"get", "put", "post", "patch", "delete"}
_NOISE = {"paths", "content", "application/json", "schema", "properties"}
_MISSING = object()


class Change(NamedTuple):
    """One difference: its verdict (BREAKING, compatible or text), its place, and the values before and after."""

    verdict: str
    where: Pointer
    before: Any
    after: Any

    def __str__(self) -> str:
        place = " > ".join(part for part in self.where if part not in _NOISE)
        if self.before is _MISSING:
            return f"{self.verdict:11}added    {place}"
        if self.after is _MISSING:
            return f"{self.verdict:11}removed  {place}"
        scalars = not isinstance(self.before, dict) and not isinstance(self.after, dict) and self.verdict != "text"
        return f"{self.verdict:11}changed  {place}" + f": {self.before} -> {self.after}" * scalars


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """The differences between two specs, with references resolved, the worst first. A doubtful change is BREAKING."""
    found = []
    for where, before, after in _differences(_read(old), _read(new), ()):
        verdict = "text" if _is_text(where) else "BREAKING" if _breaks(where, before, after) else "compatible"
        found.append(Change(verdict, where, before, after))
    order = ("BREAKING", "compatible", "text")
    return sorted(found, key=lambda change: (order.index(change.verdict), change.where))


def _read(spec: dict[str, Any]) -> Any:
    """The spec as nested mappings: components are put in where they are used, and lists become mappings."""
    top = {name: value for name, value in spec.items() if name != "components"}
    return _follow({**top, "securitySchemes": spec.get("components", {}).get("securitySchemes", {})}, spec)


def _follow(node: Any, spec: dict[str, Any]) -> Any:
    node = _resolved(node, spec)
    if isinstance(node, list):
        return {_name(item): _follow(item, spec) for item in (_resolved(item, spec) for item in node)}
    if isinstance(node, dict):
        return {str(name): _follow(value, spec) for name, value in node.items()}
    return node


def _resolved(node: Any, spec: dict[str, Any]) -> Any:
    while isinstance(node, dict) and "$ref" in node:
        reference, node = node["$ref"], spec
        for part in reference.removeprefix("#/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def _name(item: Any) -> str:
    return f"{item['in']} {item['name']}" if isinstance(item, dict) and "in" in item else str(item)


def _differences(old: Any, new: Any, where: Pointer) -> Iterator[tuple[Pointer, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict) and not _is_text(where):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name, _MISSING), new.get(name, _MISSING), (*where, name))
    elif old != new:
        yield where, old, new


def _is_text(where: Pointer) -> bool:
    return any(part in _TEXT and above != "properties" for above, part in zip(("", *where), where, strict=False))


def _breaks(where: Pointer, before: Any, after: Any) -> bool:
    return (_breaks_an_answer if "responses" in where else _breaks_a_request)(where, before, after)


def _breaks_an_answer(where: Pointer, before: Any, after: Any) -> bool:  # noqa: ARG001 - as its sibling
    """Clients ignore what they do not know. They break if a part that they read is gone, or has another type."""
    removed = after is _MISSING
    above, name = ("", *where)[-2:]
    if above == "responses":
        return removed and name.startswith("2")
    if above in ("properties", "required", "headers"):
        return removed
    return name not in _GROWS | _SHRINKS


def _breaks_a_request(where: Pointer, before: Any, after: Any) -> bool:
    """A ledger must accept every request that it accepted before."""
    added, removed = before is _MISSING, after is _MISSING
    above, name = ("", *where)[-2:]
    if above == "parameters":
        return removed or bool(after.get("required"))
    if above in ("paths", "properties") or (len(where) == 3 and name in _METHODS):
        return removed
    if above == "required":
        return added
    if name in _GROWS | _SHRINKS:
        return not removed and (added or (after < before if name in _GROWS else after > before))
    return not removed or name not in ("pattern", "enum", "const")


def main() -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rev", nargs="?", default="HEAD", help="the commit to compare with")
    rev = parser.parse_args().rev
    shown = subprocess.run(["git", "show", f"{rev}:{SPEC.name}"], cwd=ROOT, capture_output=True, text=True, check=False)
    if shown.returncode:
        print(f"spec_changes: {shown.stderr.strip()}", file=sys.stderr)
        return 2
    found = changes(yaml.safe_load(shown.stdout), yaml.safe_load(SPEC.read_text(encoding="utf-8")))
    for change in found:
        print(change)
    if found:
        with tempfile.TemporaryDirectory() as scratch:
            old_spec = Path(scratch) / SPEC.name
            old_spec.write_text(shown.stdout, encoding="utf-8")
            generate(Path(scratch) / "old", old_spec)
            generate(Path(scratch) / "new")
            print("\nIn generated/verity_api:")
            print("\n".join(compare(Path(scratch) / "old", Path(scratch) / "new")) or "nothing changes")
    breaking = sum(change.verdict == "BREAKING" for change in found)
    print(f"\n{len(found)} changes since {rev}, {breaking} of them BREAKING." if found else f"No changes since {rev}.")
    return 1 if breaking else 0


if __name__ == "__main__":
    sys.exit(main())
