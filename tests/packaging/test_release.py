"""What keeps a commit from being a release: small repositories, each with one thing wrong."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from scripts.release import ROOT, SCHEMAS, main, problems, read_version

SPEC = """\
openapi: 3.1.0
info: {title: Ledger, version: "1"}
servers: [{url: http://127.0.0.1:8420/v1}]
paths:
  /effects:
    get:
      parameters: [{name: limit, in: query, schema: {type: integer, maximum: 500}}]
      responses: {}
"""
FLOOR = "[tool.verity]\nline-coverage-floor = {}\n"
CHANGES = "# Changes\n\n## 0.3.0 (2026-12-01)\n\n- Faster.\n\n## 0.2.0 (2026-11-01)\n\n- First.\n"
FIRST = SCHEMAS[0] + "/1.sql"


def git(tree: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "tag.gpgSign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=tree, check=True, capture_output=True)


def write(tree: Path, **files: str) -> None:
    for name, text in files.items():
        file = tree / NAMES.get(name, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


NAMES = {
    "version": "verity/_version.py",
    "changelog": "CHANGELOG.md",
    "spec": "openapi.yaml",
    "shipped": "generated/verity_api/openapi.json",
    "first": FIRST,
    "pyproject": "pyproject.toml",
    "second": SCHEMAS[0] + "/2.sql",
}


def commit(tree: Path, *tags: str) -> None:
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "change", "--allow-empty")
    for tag in tags:
        git(tree, "tag", tag)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """0.2.0 is released, and the next commit is to be 0.3.0."""
    git(tmp_path, "init", "-q")
    shipped = '{"info": {"version": "1"}}'
    write(tmp_path, version='__version__ = "0.2.0"\n', changelog="# Changes\n", spec=SPEC, shipped=shipped)
    write(tmp_path, first="a", pyproject=FLOOR.format(90.5))
    commit(tmp_path, "v0.2.0", "not-a-release", "v9-draft")
    write(tmp_path, version='"""It."""\n\n__version__ = "0.3.0"\n', changelog=CHANGES, second="b")
    return tmp_path


def test_a_release(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(tree, "v0.3.0")
    assert problems(tree) == []
    assert main(["--check"], tree) == 0
    assert capsys.readouterr().out == "release: HEAD is version 0.3.0\n"
    assert not (tree / "dist").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": '__version__ = "0.3.0.dev0"\n'}, "has '0.3.0.dev0', which is no final version"),
        (
            {"version": '__version__ = "0.1.9"\n', "changelog": CHANGES.replace("0.3.0", "0.1.9")},
            "released: v0.2.0",
        ),
        ({"changelog": CHANGES.replace("2026-12-01", "unreleased")}, "begins with '## 0.3.0 (unreleased)'"),
        ({"changelog": CHANGES.replace("0.3.0", "0.4.0")}, "begins with '## 0.4.0 (2026-12-01)'"),
        ({"changelog": "# Changes\n"}, "begins with 'no entry at all'"),
        ({"changelog": CHANGES.replace("- Faster.\n", "")}, "says nothing about 0.3.0"),
        ({"shipped": '{"info": {"version": "2"}}'}, "openapi.json has 2: generate it"),
        ({"spec": SPEC.replace("/v1", "/v2")}, "a server at http://127.0.0.1:8420/v2"),
        ({"spec": SPEC.replace("500", "100")}, "1 breaking changes since v0.2.0"),
        ({"pyproject": FLOOR.format(90)}, "line coverage was lowered from 90.5 to 90.0"),
        ({"first": "edited"}, f"migrations of v0.2.0 were edited: {FIRST}"),
    ],
)
def test_one_thing_is_wrong(
    tree: Path, change: dict[str, str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tree, **change)
    commit(tree, f"v{read_version(tree)}")
    assert main([], tree) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line
    assert not (tree / "dist").exists(), "nothing is built"


def test_head_is_not_what_was_tagged(tree: Path) -> None:
    commit(tree)
    assert problems(tree) == ["HEAD does not have the tag v0.3.0"]
    git(tree, "tag", "v0.3.0")
    assert problems(tree) == []
    write(tree, stray="x")
    assert problems(tree) == ["the working tree is not clean: stray"]
    commit(tree)
    assert problems(tree) == ["HEAD does not have the tag v0.3.0"]


def test_a_breaking_change_with_a_new_version_of_the_contract(tree: Path) -> None:
    spec = SPEC.replace("500", "100").replace('version: "1"', 'version: "2"').replace("/v1", "/v2")
    write(tree, spec=spec, shipped='{"info": {"version": "2"}}')
    commit(tree, "v0.3.0")
    assert problems(tree) == []


def test_this_tree_has_what_the_checks_read() -> None:
    """The changelog's first section is about the version in work."""
    assert all(list((ROOT / schema).glob("*.sql")) for schema in SCHEMAS)
    version = read_version(ROOT).partition(".dev")[0]
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").startswith(f"# Changes\n\n## {version} (")


def test_no_edit_of_the_changelog_was_merged_twice() -> None:
    """Where two branches edit one line, `merge=union` keeps both texts, one below the other."""
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    assert [line for line, next_line in pairwise(lines) if len(line) > 20 and line[:20] == next_line[:20]] == []
