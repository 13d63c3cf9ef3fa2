"""What is made is what its sources make: a copy of the tree is changed, and the checks must say so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from scripts.mirror import MirrorError, mirror_text

ROOT = Path(__file__).parents[2]
SOURCES = (
    "openapi.yaml",
    "pyproject.toml",
    "requirements-generate.txt",
    "scripts",
    "generated",
    "verity",
    "tests/_async",
    "tests/helpers/_async",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the tools read and write, under git."""
    for name in (*SOURCES, "tests/_sync", "tests/helpers/_sync"):
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (["init", "-q"], ["add", "openapi.yaml"], ["commit", "-qm", "before"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


def run(tree: Path, *arguments: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=tree, capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_the_checks_agree_with_a_clean_tree(tree: Path) -> None:
    assert run(tree, "scripts.generate", "--check") == (0, ["generate: up to date"])
    code, lines = run(tree, "scripts.mirror", "--check")
    assert (code, len(lines)) == (0, 1)
    assert run(tree, "scripts.spec_changes") == (0, ["No changes since HEAD."])


def test_the_generated_client_edited_by_hand(tree: Path) -> None:
    package = tree / "generated" / "verity_api"
    (package / "types.py").write_bytes((package / "types.py").read_bytes() + b"\n")
    (package / "models" / "commit_reply.py").unlink()
    (package / "stray.py").touch()
    code, lines = run(tree, "scripts.generate", "--check")
    assert code == 1
    assert lines == [
        "new: models/commit_reply.py",
        "gone: stray.py",
        "differs: types.py",
        "generate: run python -m scripts.generate",
    ]
    assert run(tree, "scripts.generate")[0] == 0
    assert run(tree, "scripts.generate", "--check") == (0, ["generate: up to date"])


def test_the_mirror_edited_by_hand(tree: Path) -> None:
    mirror = tree / "verity" / "_sync"
    (mirror / "pool.py").write_bytes((mirror / "pool.py").read_bytes() + b"\n")
    (mirror / "sender.py").unlink()
    (mirror / "orphan.py").touch()
    code, lines = run(tree, "scripts.mirror", "--check")
    assert code == 1
    assert lines == [
        "orphan, has no source: verity/_sync/orphan.py",
        "missing: verity/_sync/sender.py",
        "differs from its source: verity/_sync/pool.py",
    ]
    assert run(tree, "scripts.mirror")[0] == 0
    assert run(tree, "scripts.mirror", "--check")[0] == 0
    assert not (mirror / "orphan.py").exists()


def test_a_rule_that_matches_nothing(tree: Path) -> None:
    script = tree / "scripts" / "mirror.py"
    text = script.read_text(encoding="utf-8")
    script.write_text(
        text.replace('    "aread": "read",\n', '    "aread": "read",\n    "abracadabra": "x",\n'), "utf-8"
    )
    code, lines = run(tree, "scripts.mirror", "--check")
    assert (code, lines) == (1, ["mirror: these rules match nothing; drop them: 'abracadabra'"])


@pytest.mark.parametrize(
    "left_over",
    [
        "import anyio\n",
        "x = f'{anyio.y} {await z}'\n",
        '"""Waits asynchronously."""\n',
        "# a task\n# of asyncio\n",
        "x = 'an AsyncX'\n",
    ],
)
def test_async_left_over_in_the_mirror(left_over: str, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"verity/_async/module\.py, near line [12]: async left over"):
        mirror_text(left_over, Path("verity/_async/module.py"), tmp_path, Counter())


def test_the_api_changed(tree: Path) -> None:
    """What CONTRIBUTING.md tells: edit, look, regenerate."""
    spec = tree / "openapi.yaml"
    text = spec.read_text(encoding="utf-8")
    before = "        cachedError: {}\n"
    assert text.count(before) == 1
    spec.write_text(text.replace(before, before + "        retryAfterMs: {type: integer}\n"), "utf-8")
    code, lines = run(tree, "scripts.spec_changes", "HEAD")
    assert code == 0
    assert lines == [
        "compatible added    /effects/{namespace}/lease > post > responses > 200 > retryAfterMs",
        "",
        "In generated/verity_api:",
        "differs: models/lease_reply.py",
        "differs: openapi.json",
        "",
        "1 changes since HEAD, 0 of them BREAKING.",
    ]
    code, lines = run(tree, "scripts.generate", "--check")
    assert (code, lines[0]) == (1, "differs: models/lease_reply.py")
    assert run(tree, "scripts.generate")[0] == 0
    assert "retry_after_ms: int | Unset" in (tree / "generated/verity_api/models/lease_reply.py").read_text("utf-8")
