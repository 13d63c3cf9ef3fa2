"""The files in deploy/ use settings and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import yaml

from verity.cli.group import cli

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FILES = {file.name: file.read_text(encoding="utf-8") for file in DEPLOY.iterdir()}


def serve() -> click.Command:
    command = cli.get_command(click.Context(cli), "serve")
    assert command is not None
    return command


def test_every_variable_is_one_of_verity_serve() -> None:
    known = {parameter.envvar for parameter in serve().params} | {"VERITY_TLS_KEY_PASSWORD"}
    used = {name for text in FILES.values() for name in re.findall(r"VERITY_[A-Z_]+", text)}
    assert {"VERITY_DATABASE", "VERITY_HOST", "VERITY_PORT"} <= used <= known


def test_the_unit_starts_a_command_that_there_is() -> None:
    (arguments,) = re.findall(r"^ExecStart=/opt/verity/bin/verity serve(.*)$", FILES["verity.service"], re.MULTILINE)
    context = serve().make_context("serve", [*arguments.split(), "--database", "sqlite:///x.db"])
    assert context.params["log_format"] == "json"


def test_stopping_takes_longer_than_draining() -> None:
    (drain,) = [parameter.default for parameter in serve().params if parameter.name == "drain_timeout"]
    (unit,) = re.findall(r"^TimeoutStopSec=(\d+)$", FILES["verity.service"], re.MULTILINE)
    (compose,) = re.findall(r"stop_grace_period: (\d+)s", FILES["compose.yaml"])
    assert min(int(unit), int(compose)) > int(str(drain))


def test_compose_has_a_database_and_two_nodes() -> None:
    services = yaml.safe_load(FILES["compose.yaml"])["services"]
    assert sorted(services) == ["node-1", "node-2", "postgres"]
    for node in ("node-1", "node-2"):
        assert services[node]["environment"]["VERITY_DATABASE"].startswith("postgresql://verity:")
        assert (DEPLOY.parent / services[node]["build"]["dockerfile"]).exists()


def test_the_image_copies_what_there_is() -> None:
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", FILES["Dockerfile"], re.MULTILINE):
        for name in line.split():
            assert (DEPLOY.parent / name).exists(), name
