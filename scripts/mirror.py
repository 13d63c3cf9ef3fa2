"""Make the sync client (and its tests) from the async one: `python -m scripts.mirror [--check]`.

unasync replaces the tokens. This script also drops the blocks between `# async only` and `# end async only`, rewrites
phrases in docstrings and comments, adds the header, and formats. It refuses unused rules and leftover async words.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import tokenize_rt
import unasync

ROOT = Path(__file__).resolve().parent.parent
TREES = (Path("verity/_async"), Path("tests/_async"), Path("tests/helpers/_async"))

NAMES = {
    "AnyIOBackend": "SyncBackend",
    "AsyncBaseTransport": "BaseTransport",
    "AsyncClient": "Client",
    "AsyncHTTP11Connection": "HTTP11Connection",
    "AsyncHTTPConnection": "HTTPConnection",
    "AsyncHTTPTransport": "HTTPTransport",
    "AsyncNetworkBackend": "NetworkBackend",
    "AsyncNetworkStream": "NetworkStream",
    "VerityClient": "SyncVerityClient",
    "_async": "_sync",
    "aclose": "close",
    "aread": "read",
    "async_addresses": "sync_addresses",
    "async_blocking": "sync_blocking",
    "async_check_callable": "sync_check_callable",
    "async_connect": "sync_connect",
    "async_gather": "sync_gather",
    "async_here": "sync_here",
    "async_interrupt_in": "sync_interrupt_in",
    "async_settled": "sync_settled",
    "async_until": "sync_until",
    "asyncio_response": "sync_response",
    "_AsyncOneConnection": "_SyncOneConnection",
    "handle_async_request": "handle_request",
    "set_async_httpx_client": "set_httpx_client",
}
"""Names beyond unasync's own (`__aenter__`, `AsyncX` -> `SyncX`, …)."""

WORDS = {
    "The client's logic, written once in async Python; `verity/_sync` is made from it by scripts/mirror.py.": (
        "The mirror of `verity/_async` for threads."
    ),
    "`VerityClient`: the settings": "`SyncVerityClient`: the settings",
    "close it with `async with` or `close()`": "close it with `with` or `close()`",
    "It works on asyncio and trio. One client can be used in several event loops, one after the other, and in the\n"
    "    children of a fork: it opens new connections there.": (
        "One client can be used from many threads, and in the children of a fork: it opens new connections there."
    ),
    "A sync function runs in a worker\n"
    "                thread, at most 40 at once; a thread can't be interrupted, so a cancellation waits for it.": (
        "It runs in the\n                calling thread."
    ),
    "`httpx.AsyncClient`": "`httpx.Client`",
    "`AsyncLedger`": "`SyncLedger`",
    "written once; `tests/_sync` is made from it.": "as in `tests/_async`, for threads.",
    "written once; `tests/helpers/_sync` is made from it.": "as in `tests/helpers/_async`, for threads.",
}
"""Phrases of docstrings and comments."""

_ASYNC_ONLY = re.compile(r"^ *# async only\n.*?^ *# end async only\n\n?", re.MULTILINE | re.DOTALL)
_LEFTOVER_NAMES = {"async", "await", "anyio", "trio", "asyncio"}
_LEFTOVER_WORDS = re.compile(r"\b(async|await|asyncio|anyio|trio|asynchronous(ly)?|Async[A-Z]\w*)\b")


class MirrorError(Exception):
    """The mirror would be wrong: async words are left, or a rule is unused."""


def make(source_root: Path, target_root: Path) -> list[Path]:
    """Write the mirror of every tree below `target_root`. Returns the written paths, relative to it."""
    used: Counter[str] = Counter()
    written = []
    with tempfile.TemporaryDirectory() as scratch:
        for tree in TREES:
            for source in sorted((source_root / tree).rglob("*.py")):
                relative = source.relative_to(source_root)
                text = mirror_text(source.read_text(encoding="utf-8"), relative, Path(scratch), used)
                target = Path(*("_sync" if part == "_async" else part for part in relative.parts))
                (target_root / target).parent.mkdir(parents=True, exist_ok=True)
                (target_root / target).write_text(text, encoding="utf-8")
                written.append(target)
    unused = [rule for rule in (*NAMES, *WORDS) if not used[rule]]
    if unused:
        raise MirrorError("these rules match nothing; drop them: " + ", ".join(map(repr, unused)))
    _format([target_root / path for path in written])
    return written


def mirror_text(text: str, relative: Path, scratch: Path, used: Counter[str]) -> str:
    """The sync version of one module's text, not yet formatted."""
    draft = scratch / relative
    draft.parent.mkdir(parents=True, exist_ok=True)
    text = _ASYNC_ONLY.sub("", text)
    used.update(token.src for token in tokenize_rt.src_to_tokens(text) if token.name == "NAME")
    draft.write_text(text, encoding="utf-8")
    rule = unasync.Rule(fromdir="/_async/", todir="/_sync/", additional_replacements=NAMES)
    unasync.unasync_files([str(draft)], [rule])
    made = Path(str(draft).replace("/_async/", "/_sync/")).read_text(encoding="utf-8")
    tokens = [_reword(token, used) for token in tokenize_rt.src_to_tokens(made)]
    _refuse_leftovers(tokens, relative)
    header = f"# Made from {relative.as_posix()} by scripts/mirror.py. Do not edit.\n"
    return header + str(tokenize_rt.tokens_to_src(tokens))


def _reword(token: tokenize_rt.Token, used: Counter[str]) -> tokenize_rt.Token:
    if token.name not in ("STRING", "COMMENT", "FSTRING_MIDDLE"):
        return token
    src = token.src
    for phrase, replacement in WORDS.items():
        if phrase in src:
            used[phrase] += 1
            src = src.replace(phrase, replacement)
    return token._replace(src=src)


def _refuse_leftovers(tokens: list[tokenize_rt.Token], relative: Path) -> None:
    for token in tokens:
        is_name = token.name == "NAME" and (token.src in _LEFTOVER_NAMES or token.src.startswith("Async"))
        is_word = token.name in ("STRING", "COMMENT", "FSTRING_MIDDLE") and _LEFTOVER_WORDS.search(token.src)
        if is_name or is_word:
            raise MirrorError(f"{relative}, near line {token.line}: async left over in {token.src.strip()[:200]!r}")


def _format(paths: list[Path]) -> None:
    files = [str(path) for path in paths]
    config = ["--config", str(ROOT / "pyproject.toml"), "--quiet"]
    subprocess.run(["ruff", "check", *config, "--fix-only", "--select", "F401,I", *files], check=True)
    subprocess.run(["ruff", "format", *config, *files], check=True)


def differences(made_root: Path) -> list[str]:
    """The differences between the mirror in the tree and the one below `made_root`, with missing and extra files."""
    found = []
    for tree in TREES:
        mirror = Path(*("_sync" if part == "_async" else part for part in tree.parts))
        there = {path.relative_to(ROOT) for path in (ROOT / mirror).rglob("*.py")}
        made = {path.relative_to(made_root) for path in (made_root / mirror).rglob("*.py")}
        found += [f"orphan, has no source: {path}" for path in sorted(there - made)]
        found += [f"missing: {path}" for path in sorted(made - there)]
        found += [
            f"differs from its source: {path}"
            for path in sorted(made & there)
            if (ROOT / path).read_bytes() != (made_root / path).read_bytes()
        ]
    return found


def main() -> int:
    """Write the mirror, or with `--check` compare it with the one that the sources make now."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on any difference")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made_root = Path(scratch)
        try:
            written = make(ROOT, made_root)
        except MirrorError as error:
            print(f"mirror: {error}", file=sys.stderr)
            return 1
        found = differences(made_root)
        if arguments.check:
            print("\n".join(found) or f"mirror: {len(written)} files are up to date")
            return 1 if found else 0
        for line in found:
            if line.startswith("orphan"):
                (ROOT / line.rpartition(": ")[2]).unlink()
        for path in written:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made_root / path, ROOT / path)
        print(f"mirror: {len(written)} files written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
