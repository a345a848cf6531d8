"""How errors end a command: the message, where it goes, the exit code, and no traceback unless asked for."""

import logging
from pathlib import Path

import pytest

from holdtrue.cli.exits import MEANINGS, ExitCode
from holdtrue.client.errors import InstanceAlreadyExists, InstanceEnded, InstanceNotFound, RewindRefused
from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.core.projection import Status
from holdtrue.schedules.errors import InvalidSchedule, ScheduleExists, ScheduleNotFound
from holdtrue.stores.errors import SchemaTooNew, StoreUnavailable
from tests.unit.cli.support import FakeClient, documents, run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InstanceNotFound("x"), 3),
        (ScheduleNotFound("x"), 3),
        (InstanceAlreadyExists("x", Status.RUNNING), 4),
        (InstanceEnded("x", "suspended"), 4),
        (RewindRefused("x", Status.RUNNING), 4),
        (ScheduleExists("x"), 4),
        (InvalidInput("an id is empty"), 2),
        (InvalidSchedule("no"), 2),
        (StoreUnavailable("the disk is full"), 5),
        (SchemaTooNew("newer"), 5),
        (TimeoutError("late"), 6),
        (HoldtrueError("some other"), 1),
        (PermissionError(13, "Permission denied"), 1),
        (KeyError("oops"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code(client: FakeClient, error: BaseException, code: int) -> None:
    client.error = error  # type: ignore[assignment]
    result = run("start", "hello")
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if code not in (130, 70):
        words = f"{error.strerror}." if isinstance(error, PermissionError) else str(error)
        assert result.stderr == f"Error: {words}\n"


def test_debug_shows_the_traceback(client: FakeClient) -> None:
    client.error = KeyError("oops")
    for arguments in (["--debug", "start", "hello"], ["start", "hello", "--debug"]):
        result = run(*arguments)
        assert result.exit_code == 70
        assert "Traceback" in result.stderr


def test_an_error_as_json(client: FakeClient) -> None:
    client.error = InstanceNotFound("x")
    for arguments in (["--json", "start", "hello"], ["start", "hello", "--json"]):
        [document] = documents(run(*arguments).stderr)
        assert document == {"error": {"type": "InstanceNotFound", "message": str(client.error), "exit_code": 3}}


def test_a_hub_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = (
        "list", "show x", "wait x", "raise x e", "suspend x", "resume x", "cancel x", "terminate x", "rewind x",
        "restart x", "purge x", "purge --all --yes", "info", "backup b", "schedule list",
        "schedule create s n --every 5s", "dead-letters list",
    )  # fmt: skip
    for words in commands:
        result = run(*words.split())
        assert result.exit_code == 5, words
        assert "'holdtrue.db'" in result.stderr
        assert "holdtrue run APP" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_hub_is_named_by_option_then_environment_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = {"HOLDTRUE_HUB": "of-environment.db"}
    assert "'of-environment.db'" in run("list", env=env).stderr
    assert "'before.db'" in run("--hub", "before.db", "list", env=env).stderr
    assert "'after.db'" in run("--hub", "before.db", "list", "--hub", "after.db", env=env).stderr
    assert "'a b.db'" in run("list", "--hub", "sqlite:///a%20b.db").stderr


@pytest.mark.parametrize("hub", ["postgres://x", "", "sqlite:///"])
def test_a_hub_that_cannot_be_meant(hub: str) -> None:
    assert run("list", "--hub", hub).exit_code == 2


def test_a_folder_is_no_hub(tmp_path: Path) -> None:
    result = run("list", "--hub", str(tmp_path))
    assert result.exit_code == 5
    assert "directory" in result.stderr


@pytest.mark.parametrize(
    "words", ["bogus", "list --bogus", "start", "list --limit x", "list --status never", "schedule bogus"]
)
def test_wrong_usage(hub: Path, words: str) -> None:
    result = run(*words.split())
    assert result.exit_code == 2
    assert result.stdout == ""


def test_bad_json_names_the_argument(client: FakeClient) -> None:
    result = run("start", "hello", "Ada")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: input: not valid JSON")
    assert client.calls == []


def test_every_exit_code_has_its_meaning() -> None:
    assert set(MEANINGS) == set(ExitCode)


@pytest.mark.parametrize(
    "words",
    ["nope", "--nope", "start", "list --status nope", "list --limit x", "show x --depth -1", "dead-letters show x"],
)
def test_what_the_parser_refuses_is_json_too(client: FakeClient, words: str) -> None:
    for arguments in (["--json", *words.split()], [*words.split(), "--json"]):
        result = run(*arguments)
        [document] = documents(result.stderr)
        assert (document["error"]["type"], document["error"]["exit_code"], result.exit_code) == ("Usage", 2, 2)
        assert result.stdout == ""
    plain = run(*words.split())
    assert plain.exit_code == 2
    assert plain.stderr.startswith("Usage: ")


def test_what_stands_after_two_dashes_is_no_option(client: FakeClient) -> None:
    refused = run("list", "--", "--json")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Usage: ")


@pytest.mark.parametrize(
    "words",
    [
        "list --prefix \udcff",
        "show \udcff",
        "suspend x \udcff",
        "suspend x --reason \udcff",
        "start hello --tag a=\udcff",
        "start hello --hub \udcff.db",
        "backup \udcff.db",
        "--hub \udcff.db list",
    ],
)
def test_a_text_in_another_encoding_is_refused(client: FakeClient, words: str) -> None:
    """What is no UTF-8 on the command line reaches Python as half surrogates, which no hub can hold."""
    result = run(*words.split())
    assert (result.exit_code, client.calls) == (2, [])
    assert "UTF-8" in result.stderr


@pytest.mark.parametrize("words", ["start hello", "run app.py", "list"])
def test_a_hub_that_can_be_none(client: FakeClient, hub: Path, words: str) -> None:
    """Told before anything begins, by the commands that would make a hub too."""
    (hub.parent / "folder").mkdir()
    (hub.parent / "app.py").write_text("import holdtrue\napp = holdtrue.App()\n")
    for name, code in (("memory:", 2), ("memory:mine", 2), ("folder", 5), ("/dev/null", 5), ("x" * 300, 5), ("", 2)):
        result = run(*words.split(), "--hub", name)
        assert (result.exit_code, client.calls) == (code, []), (name, result.stderr)
        assert len(result.stderr) < 400


def test_an_interrupt_before_any_command_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdtrue.cli import main

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("holdtrue.cli.program.run_program", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == ExitCode.INTERRUPTED


def test_what_the_client_warns_of_is_a_remark(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def info() -> None:
        logging.getLogger("holdtrue.stores").warning("hub %r: writing has waited", "h\x1b")
        raise StoreUnavailable("locked")

    monkeypatch.setattr(client, "info", info, raising=False)
    assert run("info").stderr == "hub 'h\\x1b': writing has waited\nError: locked\n"
    note, error = documents(run("info", "--json").stderr)
    assert note == {"note": "hub 'h\\x1b': writing has waited"}
    assert error["error"]["message"] == "locked"
