"""Every Python snippet of the README and the docs runs as it is printed; every example, too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.new_ledger_notice import without_new_ledger_notice

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"^```python( notest)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _snippets() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for number, (notest, text) in enumerate(SNIPPET.findall(page.read_text(encoding="utf-8"))):
            if not notest and "import" in text:  # a single line that only shows a call is not a program
                found.append((f"{page.name}-{number}", text))
    return found


@pytest.mark.parametrize(("name", "text"), _snippets(), ids=lambda value: value if "\n" not in value else "")
def test_a_snippet_runs_as_printed(name: str, text: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{name}:\n{done.stderr}"
    assert not without_new_ledger_notice(done.stderr), f"{name}:\n{done.stderr}"


def test_there_are_snippets() -> None:
    assert len(_snippets()) >= 3


@pytest.mark.parametrize("example", ["refund_async.py", "workflow_sync.py"])
def test_an_example_runs_twice_with_the_same_outcome(example: str, tmp_path: Path) -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-W", "error", str(ROOT / "examples" / example)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert "re_1" in runs[0]


def test_the_flask_example_refunds_once(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from flask_app import app, verity\n"
        "client = app.test_client()\n"
        "answers = [client.post('/orders/7/refund').get_json() for _ in range(3)]\n"
        "assert answers == [{'refund_id': 're_7'}] * 3, answers\n"
        "verity.close()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(ROOT / "examples")], cwd=tmp_path, check=True)
