"""What the server uses of uvicorn and is not documented: a copy is renamed, and then no server is made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.renamed_packages import rename, run
from verity.server import uvicorn_names

SERVER = """
from verity.errors import VerityConfigError
try:
    from tests.server.test_app import FailingStore
    from verity.server.app import create_app
    from verity.server.serving import LedgerServer
    from verity.server.settings import ServerSettings
    LedgerServer(create_app(FailingStore()), ServerSettings())
except VerityConfigError as error:
    print(error.parameter, error)
"""
EACH = """
import importlib, importlib.abc, importlib.machinery, re, sys
from verity.errors import VerityConfigError

class Renamed(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname):
        text = self.get_source(fullname)
        return self.source_to_code(re.sub(r"\\b(self[.]|def )" + name + r"\\b", r"\\g<0>_renamed", text), self.path)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and fullname == module:
            spec.loader = Renamed(fullname, spec.origin)
        return spec

async def app(scope, receive, send):
    pass

def try_it():
    for each in [each for each in sys.modules if each == ours or each.partition(".")[0] == "uvicorn"]:
        del sys.modules[each]
    import uvicorn
    config = uvicorn.Config(app, http="httptools", interface="asgi3", lifespan="off", log_config=None, ws="none")
    importlib.import_module(ours).check_uvicorn(uvicorn.Server(config))

ours = "verity.server.uvicorn_names"
sys.meta_path.insert(0, Finder())
name = module = "none"
try_it()
WHERE = {
    "Server": "uvicorn.server",
    "ServerState": "uvicorn.server",
    "HttpToolsProtocol": "uvicorn.protocols.http.httptools_impl",
    "RequestResponseCycle": "uvicorn.protocols.http.httptools_impl",
    "FlowControl": "uvicorn.protocols.http.flow_control",
}
for kind, names in sys.modules[ours].NAMES.items():
    for name in names:
        module = WHERE[kind]
        try:
            try_it()
        except VerityConfigError as error:
            if name in str(error):
                continue
            print(kind, name, error)
        else:
            print(kind, name, "is not missed")
print("done")
"""


@pytest.mark.parametrize("name", ["cycle", "_unsupported_upgrade_warning", "STATUS_LINE"])
def test_no_server_is_made_with_a_uvicorn_that_has_renamed_what_it_uses(name: str, tmp_path: Path) -> None:
    rename("uvicorn", "protocols/http/httptools_impl.py", name, tmp_path)
    said = run(SERVER, tmp_path)
    assert said.startswith("uvicorn uvicorn ")
    assert name in said
    assert "Install 'uvicorn>=" in said


def test_each_name_is_missed() -> None:
    assert run(EACH) == "done\n"


def test_with_the_installed_one_it_is() -> None:
    assert run(SERVER) == ""


def test_every_name_that_uvicorn_must_have_is_used() -> None:
    folder = Path(uvicorn_names.__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py") if path.name != "uvicorn_names.py")
    names = {name for group in uvicorn_names.NAMES.values() for name in group}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)] == []
