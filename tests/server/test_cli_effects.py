"""`verity effects` on a database and on a served ledger."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from tests.helpers.served_ledger import ServedLedger, TestClock
from tests.helpers.store_calls import Caller
from tests.helpers.verity_process import on_terminal, run_verity
from verity._store.postgres.store import PostgresStore
from verity._store.purging import Purge
from verity._store.sqlite.store import SqliteStore
from verity.cli.group import cli

HOUR_MS = 3_600_000
EVIL = "re\x1b[31m:\x9b2\u202e\n"
ALL_KEYS = ["live", "late", EVIL, "failed", "early", "done"]
IN = ("--namespace", "payments")


class Shell:
    """Runs `verity effects` on a ledger with effects in all states."""

    def __init__(self, directory: Path) -> None:
        self.url = f"sqlite:///{directory}/ledger.db"
        self.clock = TestClock(time.time_ns() // 1_000_000 - 3 * HOUR_MS)
        self.store = SqliteStore(str(directory / "ledger.db"), clock=self.clock)
        self.call = Caller(self.store)
        done = self.call("lease_effect", {"effectKey": "done", "inputJson": {"card": "4111"}, "agentId": "w-1"})
        self.call("commit_effect", {**self.call.tokens(done), "result": {"refund_id": "re_1", "note": EVIL}})
        self.call("lease_effect", {"effectKey": "early", "agentId": "w-2"})
        for key in ("failed", EVIL):
            lease = self.call("lease_effect", {"effectKey": key})
            self.call("fail_effect", {**self.call.tokens(lease), "error": {"message": "declined"}})
        self.clock.advance(HOUR_MS)
        self.call("lease_effect", {"effectKey": "late", "workflowName": "flow", "caseId": "c", "runId": "r"})
        self.clock.advance(2 * HOUR_MS)
        self.call("lease_effect", {"effectKey": "live", "leaseDurationMs": 120_000})

    def run(self, *arguments: str, stdin: bytes | None = None, **environment: str) -> Result:
        """In this process; the ledger and the environment of its data are told unless the test names them."""
        if not environment.get("VERITY_BASE_URL") and not {"--url", "--environment"} & {*arguments}:
            arguments = (*arguments, "--environment", "test")
        variables = {"VERITY_DATABASE": self.url, "VERITY_API_KEY": "", "VERITY_BASE_URL": "", **environment}
        return CliRunner().invoke(cli, ["effects", *arguments], input=stdin, env=variables)

    def rows(self, *arguments: str) -> list[Any]:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def keys(self, *arguments: str) -> list[str]:
        return [row["effectKey"] for row in self.rows("list", *arguments)]

    def effect(self, key: str) -> Any:
        return self.call("get_effect", effectKey=key)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.store.close()


def is_fit_for_a_terminal(text: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in text)


# --- finding ---


def test_list_and_its_filters(shell: Shell) -> None:
    assert shell.keys() == ALL_KEYS
    assert shell.keys("--status", "expired") == ["late", "early"]
    assert shell.keys("--status", "FAILED") == [EVIL, "failed"]
    assert shell.keys("--search", "e", "--agent", "w-2") == ["early"]
    assert shell.keys("--workflow", "flow", "--case", "c", "--run", "r") == ["late"]
    assert shell.keys("--since", "150m", *IN) == ["live", "late"]
    assert shell.keys("--until", "1h", "--since", "2000-01-01T00:00:00Z") == ALL_KEYS[1:]
    assert shell.keys("--namespace", "mail") == []
    assert shell.keys("--environment", "live") == []


def test_list_shows_no_payload_and_says_where_there_are_more(shell: Shell) -> None:
    for arguments in (["list"], ["list", "--json"], ["stuck"], ["stuck", "--json", "--failed"]):
        output = shell.run(*arguments).output
        assert not [word for word in ("4111", "re_1", "declined", "inputJson") if word in output]
    few = shell.run("list", "--limit", "2", "--json")
    assert [json.loads(line)["effectKey"] for line in few.stdout.splitlines()] == ALL_KEYS[:2]
    assert "more than these 2" in few.stderr
    assert not shell.run("list", "--limit", "6").stderr
    assert len(shell.run("list", "--all").stdout.splitlines()) == 1 + len(ALL_KEYS)


def test_in_a_pipe_it_is_plain_text(shell: Shell) -> None:
    output = shell.run("list").stdout
    header, *lines = output.splitlines()
    assert header.split("\t") == ["status", "effectKey", "namespace", "agentId", "updatedAt"]
    assert {len(line.split("\t")) for line in lines} == {5}
    assert is_fit_for_a_terminal(output)


def test_show_has_everything_and_drives_no_terminal(shell: Shell) -> None:
    output = shell.run("show", "done", *IN).stdout
    fields = dict(line.split("\t") for line in output.splitlines())
    assert (fields["status"], fields["agentId"]) == ("COMMITTED", "w-1")
    assert json.loads(fields["inputJson"]) == {"card": "4111"}
    assert json.loads(fields["result"]) == {"refund_id": "re_1", "note": EVIL}
    assert is_fit_for_a_terminal(output)
    assert is_fit_for_a_terminal(shell.run("show", EVIL, *IN).output)
    (shown,) = shell.rows("show", "done", *IN)
    assert shown == shell.effect("done")
    assert shell.rows("show", shown["effectId"]) == [shown]


def test_events(shell: Shell) -> None:
    trail = shell.rows("events", "done", *IN)
    assert [event["type"] for event in trail] == ["LEASE_GRANTED", "COMMITTED"]
    assert shell.rows("events", shell.effect("done")["effectId"]) == trail
    header, first, _second = shell.run("events", "done", *IN).stdout.splitlines()
    row = dict(zip(header.split("\t"), first.split("\t"), strict=True))
    assert (row["sequence"], row["agentId"], row["runId"]) == ("1", "w-1", "-")
    assert json.loads(row["detail"])["priorState"] == "none"


def test_stuck_lists_what_nobody_took_over_the_oldest_first(shell: Shell) -> None:
    rows = shell.rows("stuck")
    assert [row["effectKey"] for row in rows] == ["early", "late"]
    assert rows[0]["stuckSince"] == shell.effect("early")["leaseExpiresAt"]
    assert rows[0]["stuckFor"].startswith("2h ")
    assert [row["effectKey"] for row in shell.rows("stuck", "--older-than", "150m")] == ["early"]
    assert [row["effectKey"] for row in shell.rows("stuck", "--limit", "1")] == ["early"]
    assert "more than these 1" in shell.run("stuck", "--limit", "1").stderr
    assert [row["effectKey"] for row in shell.rows("stuck", "--failed", "--all")] == ["failed", EVIL, "early", "late"]
    assert shell.rows("stuck", "--namespace", "mail") == []
    shell.store.purge(Purge("test", before=shell.clock.now_ms))
    assert [row["effectKey"] for row in shell.rows("stuck", "--failed")] == ["early", "late"]


# --- putting right ---


def test_reset_lets_an_effect_be_tried_again(shell: Shell) -> None:
    done = shell.run("reset", "failed", *IN, "--mode", "retry", "--reason", "another card")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "Effect 'failed' in namespace 'payments' is FAILED (fence 1).",
        "reset: effect 'failed' in namespace 'payments'.",
    ]
    assert (shell.effect("failed")["status"], shell.effect("failed")["priorState"]) == ("IDLE", "reset")
    (again,) = shell.rows("reset", "failed", *IN, "--mode", "retry")
    assert again["status"] == "already_reset"
    done = shell.run("reset", shell.effect("early")["effectId"])
    assert done.exit_code == 0
    assert "The next call observes first" in done.stderr
    assert "--mode retry" in done.stderr
    assert (shell.effect("early")["status"], shell.effect("early")["priorState"]) == ("IDLE", "expired")
    detail = shell.rows("events", "failed", *IN)[-1]["detail"]
    assert detail["reason"] == "another card"
    assert detail["actor"].startswith("shell:")


def test_a_released_effect_is_stuck_and_can_be_reset_at_once(shell: Shell) -> None:
    for key, acted in (("may have happened", "unknown"), ("given back", "no")):
        lease = shell.call("lease_effect", {"effectKey": key, "agentId": "w-9"})
        shell.call("release_effect", {**shell.call.tokens(lease), "acted": acted, "settleMs": 600_000})
    assert [row["effectKey"] for row in shell.rows("stuck")] == ["early", "late", "may have happened"]
    assert "may have happened" in shell.keys("--status", "EXPIRED")
    assert shell.keys("--status", "IDLE") == ["given back"]
    (effect,) = shell.rows("show", "may have happened", *IN)
    assert effect["settlesAt"] > effect["leaseExpiresAt"]
    assert shell.run("reset", "may have happened", *IN, "--mode", "retry").exit_code == 0
    kinds = [event["type"] for event in shell.rows("events", "may have happened", *IN)]
    assert kinds == ["LEASE_GRANTED", "LEASE_RELEASED", "RESET"]
    assert shell.call("lease_effect", {"effectKey": "may have happened"})["priorState"] == "reset"


def test_a_live_lease_is_taken_away_only_by_force_and_after_asking(shell: Shell) -> None:
    refused = shell.run("reset", "live", *IN)
    assert refused.exit_code == 7
    assert "lease on effect 'live' is live" in refused.stderr
    unasked = shell.run("reset", "live", *IN, "--force")
    assert unasked.exit_code == 2
    assert "no terminal to ask for confirmation: add --yes" in unasked.stderr
    assert shell.effect("live")["status"] == "RUNNING"
    assert shell.run("reset", "live", *IN, "--force", "--yes").exit_code == 0
    assert (shell.effect("live")["status"], shell.effect("live")["fenceToken"]) == ("IDLE", 2)


def test_resolve_commits_what_happened(shell: Shell, tmp_path: Path) -> None:
    assert shell.run("resolve", "early", *IN, "--result", '{"refund_id": "re_7"}').exit_code == 2, "it asks"
    assert shell.effect("early")["status"] == "EXPIRED"
    done = shell.run("resolve", "early", *IN, "--result", '{"refund_id": "re_7"}', "--yes", "--reason", "found it")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "Effect 'early' in namespace 'payments' is EXPIRED (fence 1, granted last to 'w-2').",
        "resolved: effect 'early' in namespace 'payments'.",
    ]
    effect = shell.effect("early")
    assert (effect["status"], effect["source"], effect["result"]) == ("COMMITTED", "resolved", {"refund_id": "re_7"})
    (again,) = shell.rows("resolve", "early", *IN, "--result", '{"refund_id":"re_7"}', "--yes")
    assert again["status"] == "already_committed"
    assert shell.run("resolve", "early", *IN, "--result", "null", "--yes").exit_code == 7

    (tmp_path / "result.json").write_text('{\n  "amount": 12.5,\n  "größe": null\n}')
    shell.run("resolve", "late", *IN, "--result-file", str(tmp_path / "result.json"), "--yes")
    assert shell.effect("late")["result"] == {"amount": 12.5, "größe": None}
    shell.run("resolve", "failed", *IN, "--result-file", "-", "--yes", stdin=b"[1]")
    assert shell.effect("failed")["result"] == [1]


@pytest.mark.parametrize(
    "result",
    [
        b"", b"re_7", b"NaN", b"1e999", b'{"a": 1, "a": 2}', b"\xff",
        b"[" * 100_000, b'"' + b"x" * 65_536 + b'"', b" " * 1_048_577,
    ],
    ids=lambda result: repr(result[:20]),
)  # fmt: skip
def test_what_is_no_result_is_not_committed(shell: Shell, result: bytes) -> None:
    done = shell.run("resolve", "early", *IN, "--result-file", "-", "--yes", stdin=result)
    assert done.exit_code == 2, done.output
    assert "esult" in done.stderr
    assert shell.effect("early")["status"] == "EXPIRED"


# --- exit codes, and which ledger ---


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["show", "nothing", *IN], 6, "no effect 'nothing'"),
        (["events", "eff_0000000000000000"], 6, "no effect with this id"),
        (["show", "nothing"], 2, "--namespace"),
        (["show", "k", "--namespace", ".."], 2, "namespace must not be"),
        (["show", "", *IN], 2, "effect_key must not be empty"),
        (["list", "--since", "yesterday"], 2, "since must be"),
        (["list", "--since", "999999w"], 2, "since must be"),
        (["list", "--status", "lost"], 2, "'committed'"),
        (["list", "--limit", "0"], 2, "--limit"),
        (["stuck", "--older-than", "long"], 2, "such as 90d"),
        (["resolve", "early", *IN], 2, "either --result JSON or --result-file"),
        (["resolve", "early", *IN, "--result", "1", "--result-file", "-"], 2, "either --result JSON or"),
        (["resolve", "done", *IN, "--result", "1", "--yes"], 7, "COMMITTED already"),
        (["reset", "done", *IN], 7, "COMMITTED already"),
        (["list", "--database", "sqlite:///nowhere.db"], 3, "There is no ledger at"),
        (["list", "--database", "mysql://ledger"], 3, "is not a ledger's URL"),
        (["list", "--url", "http://127.0.0.1:9/v1", "--environment", "live"], 2, "goes with --database"),
        (["list", "--url", "http://127.0.0.1:9/v1", "--database", "sqlite:///l.db"], 2, "both given"),
        (["list", "--url", "ledger"], 2, "base_url must be an absolute URL"),
    ],
)  # fmt: skip
def test_what_goes_wrong_has_an_exit_code(shell: Shell, arguments: list[str], exit_code: int, said: str) -> None:
    done = shell.run(*arguments)
    assert (done.exit_code, done.stdout) == (exit_code, "")
    assert said in done.stderr
    assert not Path("nowhere.db").exists()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://v:hunter2/2@db/v",
        "postgresql://v:hunter2?2@db/v",
        "postgresql://v:hunter2#2@db/v",
        "postgresql://v:hunter2@127.0.0.1:99999/v",
        "postgresql://127.0.0.1:9/v?password=2@hunter2",
    ],
)
def test_no_password_of_a_database_is_shown(shell: Shell, url: str) -> None:
    """Also where it makes the URL unreadable: what a command says ends in a log."""
    done = shell.run("list", "--database", url)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "hunter2" not in done.stderr
    assert done.stderr.startswith("Error: ")


def test_a_purged_effect_refuses(shell: Shell) -> None:
    shell.store.purge(Purge("test", before=shell.clock.now_ms))
    assert shell.run("reset", "failed", *IN).exit_code == 7
    assert "purgedAt" in shell.run("show", "failed", *IN).stdout


def test_which_ledger_the_environment_names(shell: Shell) -> None:
    both = shell.run("list", VERITY_BASE_URL="http://127.0.0.1:9/v1")
    assert both.exit_code == 2
    assert "both set" in both.stderr
    chosen = ("--database", shell.url, "--environment", "test")
    assert shell.run("list", *chosen, VERITY_BASE_URL="http://127.0.0.1:9/v1").exit_code == 0
    neither = shell.run("list", VERITY_DATABASE="")
    assert neither.exit_code == 2
    assert "Which ledger?" in neither.stderr
    embedded = shell.run("list", "--environment", "test", VERITY_DATABASE="", VERITY_BASE_URL=shell.url)
    assert (embedded.exit_code, len(embedded.stdout.splitlines())) == (0, 1 + len(ALL_KEYS))


def test_an_api_key_of_the_environment_does_not_choose_a_databases_data(shell: Shell) -> None:
    """It is there for a served ledger."""
    for variables in ({"VERITY_DATABASE": shell.url}, {"VERITY_DATABASE": "", "VERITY_BASE_URL": shell.url}):
        listed = CliRunner().invoke(cli, ["effects", "list"], env={"VERITY_API_KEY": "vt_test_secret", **variables})
        assert (listed.exit_code, len(listed.stdout.splitlines())) == (0, 1), "the live data: none"
        assert "--environment" in listed.stderr
        assert "secret" not in listed.stderr


def test_a_database_that_is_none(tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "notes.txt").write_text("no database, but long enough to have a header of one " * 20)
    done = shell.run("list", "--database", f"sqlite:///{tmp_path}/notes.txt")
    assert done.exit_code == 3
    assert done.stderr.startswith("Error: ")


def test_a_database_of_postgresql(postgres_url: str) -> None:
    environment = {"VERITY_DATABASE": postgres_url, "VERITY_API_KEY": "", "VERITY_BASE_URL": ""}

    def run(*arguments: str) -> Result:
        arguments += ("--environment", "test") if arguments[0] == "effects" else ()
        return CliRunner().invoke(cli, arguments, env=environment)

    empty = run("effects", "list")
    assert (empty.exit_code, empty.stdout) == (3, "")
    assert "verity migrate" in empty.stderr

    made = run("keys", "create", "--environment", "test")
    assert made.exit_code == 0, made.stderr
    (key,) = [json.loads(line) for line in run("keys", "list", "--json").stdout.splitlines()]
    assert run("keys", "revoke", key["id"]).exit_code == 0
    assert run("keys", "revoke", "key_0").exit_code == 1

    store = PostgresStore(postgres_url)
    call = Caller(store)
    call.commit("done", {"refund_id": "re_1"})
    call("fail_effect", {**call.tokens(call("lease_effect", {"effectKey": "failed"})), "error": "declined"})
    listed = run("effects", "list", "--json")
    assert [json.loads(line)["effectKey"] for line in listed.stdout.splitlines()] == ["failed", "done"]
    assert run("effects", "reset", "failed", *IN).exit_code == 0
    assert call("get_effect", effectKey="failed")["status"] == "IDLE"
    assert run("effects", "show", "nothing", *IN).exit_code == 6
    store.close()


def test_a_postgresql_that_is_away() -> None:
    url = "postgresql://ledger:hunter2@127.0.0.1:9/ledger"
    for command in (["effects", "list"], ["keys", "list"]):
        done = run_verity(*command, VERITY_DATABASE=url, VERITY_BASE_URL="")
        assert (done.returncode, done.stdout) == (3, "")
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stderr


def test_a_served_ledger(shell: Shell) -> None:
    with ServedLedger(shell.url) as served:
        admin, agent = served.create_key(role="org_admin"), served.create_key()

        def run(*arguments: str, key: str = admin) -> Result:
            return shell.run(*arguments, VERITY_BASE_URL=served.base_url, VERITY_API_KEY=key, VERITY_DATABASE="")

        listed = run("list", "--json", key=agent)
        assert [json.loads(line)["effectKey"] for line in listed.stdout.splitlines()] == ALL_KEYS
        assert run("show", "done", *IN, key=agent).exit_code == 0
        refused = run("reset", "failed", *IN, key=agent)
        assert (refused.exit_code, refused.stdout) == (8, "")
        assert "role" in refused.stderr
        assert agent not in refused.stderr
        unknown = run("list", key="vt_test_nobody")
        assert (unknown.exit_code, unknown.stdout) == (8, ""), "a header alone would be an empty list"
        assert run("reset", "failed", *IN).exit_code == 0
        assert run("resolve", "early", *IN, "--result", "7", "--yes").exit_code == 0
        assert run("show", "nothing", *IN).exit_code == 6
        wrong_path = run("list", "--url", served.base_url.removesuffix("/v1"))
        assert (wrong_path.exit_code, wrong_path.stderr[:7]) == (1, "Error: ")
        base_url = served.base_url
    assert shell.effect("early")["result"] == 7
    gone = run_verity("effects", "list", VERITY_BASE_URL=base_url, VERITY_API_KEY=admin, VERITY_DATABASE="")
    assert gone.returncode == 9
    assert "unknown" in gone.stderr
    assert "Traceback" not in gone.stderr
    assert (
        run_verity("effects", "list", VERITY_BASE_URL=base_url, VERITY_API_KEY="", VERITY_DATABASE="").returncode == 2
    )


# --- on a terminal ---


def effects_on_terminal(shell: Shell, *arguments: str, answer: bytes = b"", **more: Any) -> tuple[int, str]:
    named: dict[str, Any] = {"VERITY_DATABASE": shell.url, "VERITY_API_KEY": "", "VERITY_BASE_URL": ""}
    return on_terminal("effects", *arguments, "--environment", "test", answer=answer, **named, **more)


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def test_on_a_terminal_it_is_a_table_in_colour(shell: Shell) -> None:
    code, seen = effects_on_terminal(shell, "list")
    assert code == 0
    assert "│" in seen
    assert re.search(r"\x1b\[33m[^\n]*EXPIRED", seen)
    plain = COLOUR.sub("", seen)
    assert is_fit_for_a_terminal(plain.replace("\r", "")), "colours are ours; nothing else is"
    assert "re\ufffd[31m:\ufffd2\ufffd\ufffd" in plain
    _, uncoloured = effects_on_terminal(shell, "list", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", uncoloured)
    _, shown = effects_on_terminal(shell, "show", "done", *IN)
    assert is_fit_for_a_terminal(COLOUR.sub("", shown).replace("\r", ""))
    assert '"refund_id": "re_1"' in shown


def test_a_key_that_the_locale_can_not_show_is_shown_by_its_codes(shell: Shell) -> None:
    shell.call("lease_effect", {"effectKey": "漢-1"})
    shown = run_verity("effects", "list", "--database", shell.url, "--environment", "test", PYTHONIOENCODING="latin-1")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\\u6f22-1" in shown.stdout
    code, seen = on_terminal(
        *("effects", "list", "--database", shell.url, "--environment", "test"), PYTHONIOENCODING="ascii"
    )
    assert code == 0
    assert "\\u6f22-1" in seen


def test_on_a_narrow_terminal_what_is_copied_stays_whole(shell: Shell) -> None:
    _, events = effects_on_terminal(shell, "events", "early", *IN, COLUMNS="80")
    _, listed = effects_on_terminal(shell, "list", COLUMNS="80")
    (granted,) = shell.rows("events", "early", *IN)
    assert re.search(rf"at +{granted['at']}", COLOUR.sub("", events))
    assert shell.effect("done")["updatedAt"] in listed
    assert "│" in listed
    assert "│" not in events, "there is no room for a table"
    assert max(map(len, COLOUR.sub("", events + listed).splitlines())) <= 80


@pytest.mark.parametrize(("answer", "exit_code", "status"), [(b"n\n", 1, "EXPIRED"), (b"y\n", 0, "COMMITTED")])
def test_on_a_terminal_it_asks(shell: Shell, answer: bytes, exit_code: int, status: str) -> None:
    code, seen = effects_on_terminal(shell, "resolve", "early", *IN, "--result", "7", answer=answer)
    assert "Effect 'early' in namespace 'payments' is EXPIRED (fence 1, granted last to 'w-2')." in seen
    assert "Commit this result? It can't be changed afterwards. [y/N]" in seen
    assert (code, shell.effect("early")["status"]) == (exit_code, status)


@pytest.mark.parametrize("arguments", [("reset", "--force"), ("resolve", "--result", "7")], ids=lambda given: given[0])
def test_an_effect_that_changed_while_the_person_decided_is_left_as_it_is(
    shell: Shell, arguments: tuple[str, ...]
) -> None:
    def take_over_and_die() -> None:
        shell.call("lease_effect", {"effectKey": "early", "leaseDurationMs": 5_000})
        shell.clock.advance(5_000)

    name, *options = arguments
    code, seen = effects_on_terminal(
        shell, name, "early", *IN, *options, answer=b"y\n", before_the_answer=take_over_and_die
    )
    assert code == 7
    assert "changed since it had fence 1: it has fence 2 now" in " ".join(seen.split())
    assert "Nothing was changed. Look at the effect again" in " ".join(seen.split())
    assert (shell.effect("early")["status"], shell.effect("early")["fenceToken"]) == ("EXPIRED", 2)


@pytest.mark.parametrize(("acted", "exit_code", "status"), [("no", 0, "COMMITTED"), ("unknown", 7, "EXPIRED")])
def test_a_caller_that_gives_the_effect_back_stops_the_person_only_if_it_may_have_acted(
    shell: Shell, acted: str, exit_code: int, status: str
) -> None:
    def take_it_and_give_it_back() -> None:
        granted = shell.call("lease_effect", {"effectKey": "early"})
        tokens = {name: granted[name] for name in ("fenceToken", "leaseToken")}
        shell.call("release_effect", {"effectKey": "early", "acted": acted, "settleMs": 0, **tokens})

    code, seen = effects_on_terminal(
        *(shell, "resolve", "early", *IN, "--result", "7"), answer=b"y\n", before_the_answer=take_it_and_give_it_back
    )
    assert (code, shell.effect("early")["status"]) == (exit_code, status), seen


# --- completion ---


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_scripts(name: str) -> None:
    done = CliRunner().invoke(cli, ["completion", name])
    assert done.exit_code == 0
    assert "_VERITY_COMPLETE" in done.stdout
    assert f"{name}_complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "incomplete", "completed"),
    [
        ("verity eff", "eff", {"effects"}),
        ("verity effects s", "s", {"show", "stuck"}),
        ("verity effects list --status E", "E", {"expired"}),
        ("verity effects reset --mode ", "", {"verify", "retry"}),
        ("verity keys create --role ", "", {"agent", "org_admin"}),
    ],
)
def test_words_are_completed(words: str, incomplete: str, completed: set[str]) -> None:
    position = len(words.split()) - 1 if incomplete else len(words.split())
    done = run_verity(_VERITY_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(position))
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == completed


def test_every_exit_code_is_listed_by_help() -> None:
    codes = {kind.exit_code for kind in _all_kinds(click.ClickException)}
    text = CliRunner().invoke(cli, ["--help"]).stdout
    assert codes <= {int(code) for code in re.findall(r"^ +(\d)  ", text, re.MULTILINE)}
    assert codes >= {1, 2, 3, 6, 7, 8, 9}


def _all_kinds(kind: type[click.ClickException]) -> set[type[click.ClickException]]:
    return {kind}.union(*(_all_kinds(each) for each in kind.__subclasses__()))
