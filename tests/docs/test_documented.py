"""Everything public is documented: names, errors, error codes, settings, commands and their options."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import click
import pytest
import yaml

import verity
from scripts import versions
from verity import records
from verity._async import connection
from verity._concurrency import threads
from verity._sync.effects import SyncEffects
from verity.cli.effects import effects
from verity.cli.group import cli
from verity.cli.purge import purge
from verity.cli.recover import recover
from verity.server import uvicorn_names

ROOT = Path(__file__).resolve().parents[2]
DOCS = {page.name: page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
ALL = "\n".join(DOCS.values())
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tests" / "README.md"])


def test_no_page_has_the_marks_of_a_merge() -> None:
    for page in PAGES:
        assert not re.search(r"^(<<<<<<<|>>>>>>>)", page.read_text(encoding="utf-8"), re.MULTILINE), page


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


def test_every_error_is_explained() -> None:
    public = {name: getattr(verity, name) for name in verity.__all__}
    errors = [name for name, each in public.items() if isinstance(each, type) and issubclass(each, Exception)]
    assert len(errors) == 13
    for name in errors:
        assert f"| `{name}` |" in DOCS["errors.md"], name


def test_every_error_code_of_the_contract_is_explained() -> None:
    spec = yaml.safe_load((ROOT / "openapi.yaml").read_text(encoding="utf-8"))
    codes = spec["components"]["schemas"]["ProblemError"]["properties"]["code"]["x-known-values"]
    documented = re.findall(r"^\| \d{3} \| `(\w+)` \|", DOCS["errors.md"], re.MULTILINE)
    assert sorted(documented) == sorted(codes)


def test_every_setting_of_the_client_is_explained() -> None:
    for client in (verity.VerityClient, verity.SyncVerityClient):
        for name in inspect.signature(client).parameters:
            if not name.startswith("_"):
                assert f"| `{name}` |" in DOCS["settings.md"], name


def test_every_field_of_the_policy_is_explained() -> None:
    for each in dataclasses.fields(verity.EffectPolicy):
        assert f"| `{each.name}` |" in DOCS["settings.md"], each.name


def test_all_that_act_knows_is_explained() -> None:
    page = DOCS["current-effect.md"]
    for each in (verity.CurrentEffect, verity.LeaseLost):
        for name in dir(each):
            assert name.startswith("_") or re.search(rf"`[^`]*\b{name}\b", page), name


def test_every_parameter_of_protect_is_explained() -> None:
    for name in inspect.signature(verity.SyncVerityClient.protect).parameters:
        if name not in ("self", "effect_key"):
            assert re.search(rf"\b{name}\b", DOCS["settings.md"]), name


def test_every_call_of_effects_and_its_parameters_are_explained() -> None:
    page = DOCS["administration.md"]
    for name, method in inspect.getmembers(SyncEffects, inspect.isfunction):
        if not name.startswith("_"):
            assert f"| `{name}(" in page, name
            for parameter in inspect.signature(method).parameters:
                assert parameter == "self" or re.search(rf"\b{parameter}\b", page), f"{name}: {parameter}"


def test_every_value_of_the_reads_is_explained() -> None:
    for name in records.__dict__:
        if name in verity.__all__:
            assert f"`{name}`" in DOCS["administration.md"], name


def test_every_public_name_has_a_docstring_or_is_the_version() -> None:
    for name in verity.__all__:
        if name != "__version__":
            assert inspect.getdoc(getattr(verity, name)), name


def test_every_command_and_server_option_is_explained() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        leaves = [f"{name} {sub}" for sub in command.commands] if isinstance(command, click.Group) else [name]
        for leaf in leaves:
            assert f"`verity {leaf}" in ALL, leaf
    serve = cli.get_command(context, "serve")
    assert serve is not None
    for parameter in serve.params:
        if isinstance(parameter, click.Option) and "--help" not in parameter.opts:
            assert f"| `{parameter.opts[0]}` | `{parameter.envvar}` |" in DOCS["settings.md"], parameter.opts


def test_every_option_of_purge_is_explained() -> None:
    for parameter in purge.params:
        for option in parameter.opts if isinstance(parameter, click.Option) else []:
            assert option == "--database" or f"| `{option}" in DOCS["operations.md"], option


def test_every_option_of_recover_is_explained() -> None:
    page = DOCS["operations.md"].partition("## After a `CommitUncertainError`")[2]
    for parameter in recover.params:
        for option in parameter.opts if isinstance(parameter, click.Option) else []:
            assert f"| `{option}" in page, option


def test_every_option_of_effects_and_every_exit_code_are_explained() -> None:
    page = DOCS["administration.md"]
    for command in effects.commands.values():
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else []:
                assert f"`{option}" in page, f"{command.name}: {option}"
    codes = re.findall(r"^  (\d)  (.*)$", str(cli.epilog), re.MULTILINE)
    assert codes
    for code, meaning in codes:
        assert f"| {code} | {meaning} |" in page, code


def test_every_private_name_of_a_library_is_in_the_table_of_contributing() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Private names")[2]
    source = (ROOT / "verity" / "_async" / "connection.py").read_text(encoding="utf-8")
    calls = re.findall(r"check_names\((HTTPX|HTTPCORE), (.*)\)$", source, re.MULTILINE)
    names = [name for _, arguments in calls for name in re.findall(r'"(\w+)"', arguments)]
    assert len(names) == 7
    for name in [*names, "HttpToolsProtocol", "STATUS_LINE", "WorkerThread.stop", "threading._register_atexit"]:
        assert f"`{name}`" in table, name


def test_the_versions_that_errors_tell_are_those_that_are_declared() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for requirement in (connection.HTTPX, connection.HTTPCORE, threads.ANYIO, uvicorn_names.UVICORN):
        assert f'"{requirement}",\n' in project


def test_the_drawn_arrows_are_those_that_the_import_linter_checks() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("Which way the arrows point")[2]
    drawn = text.split("```\n")[1].splitlines()
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = project.partition('containers = ["verity"]')[2].partition("layers = [\n")[2].partition("]\n")[0]
    assert drawn == re.findall(r'"(.+)",', layers)
    assert len(drawn) == 12


def test_every_dependency_has_a_lowest_version_and_no_pin_of_the_tests_hides_it() -> None:
    lowest = versions.lowest()
    assert len(lowest) == len(versions.declared()) > 10
    assert "httpx==0.27" in lowest
    tests = versions.test_requirements()
    assert "opentelemetry-sdk" in tests
    assert not {versions.name_of(each) for each in tests} & {versions.name_of(each) for each in lowest}


def test_every_helper_of_the_tests_is_listed() -> None:
    page = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    helpers = [each for each in (ROOT / "tests" / "helpers").rglob("*.py") if each.parent.name != "_sync"]
    assert len(helpers) > 20
    assert [each.stem for each in helpers if each.stem != "__init__" and not re.search(rf"\b{each.stem}`", page)] == []
