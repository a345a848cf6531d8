"""The program as a whole: fast help, version, global words in any place, terminals, the drawn reference page."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from holdtrue.cli.init import FIRST_APP
from holdtrue.cli.output import printable, shorten
from holdtrue.cli.reference import render
from tests.unit.cli.support import FakeClient, documents, instance, run

REPOSITORY = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "TERM": "xterm-256color"}


def test_the_order_of_the_commands_does_not_depend_on_who_was_imported_first() -> None:
    program = "import holdtrue.cli.settling, holdtrue.cli.worker; from holdtrue.cli.reference import render; "
    program += "print(render(), end='')"
    drawn = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert drawn.stdout == render()


def test_the_reference_page_is_drawn_from_the_code() -> None:
    page = (REPOSITORY / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert page == render(), "run: python -m holdtrue.cli.reference > docs/reference/cli.md"


def test_help_loads_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys; sys.argv = ['holdtrue', '--help']\n"
        "from holdtrue.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'apsw', 'pydantic', 'rich', 'holdtrue.client.client', 'holdtrue.host'}\n"
        "print('loaded:', sorted(heavy & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "loaded: []"


def test_every_command_has_help_and_its_own_json_option() -> None:
    import typer

    from holdtrue.cli.program import app

    root = typer.main.get_command(app)
    commands = dict(root.commands)  # type: ignore[attr-defined]
    leaves = {**commands}
    for name in ("schedule", "dead-letters", "settings", "hub"):
        leaves |= {f"{name} {child}": command for child, command in leaves.pop(name).commands.items()}
    assert len(leaves) == 36
    for name, command in leaves.items():
        assert command.help, name
        assert {"--json", "--hub", "--debug"} <= {option for p in command.params for option in p.opts}, name
        for parameter in command.params:
            assert parameter.help, (name, parameter.name)


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("holdtrue")


def test_init_writes_fifteen_lines_and_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(FIRST_APP.splitlines()) == 15
    result = run("init")
    assert result.exit_code == 0
    assert "holdtrue run hello.py" in result.stdout
    compile((tmp_path / "hello.py").read_text(), "hello.py", "exec")
    (tmp_path / "hello.py").write_text("mine")
    refused = run("init")
    assert refused.exit_code == 4
    assert (tmp_path / "hello.py").read_text() == "mine"
    assert run("init", "--force").exit_code == 0
    [document] = documents(run("init", "deep/er/jobs.py", "--json").stdout)
    assert document["written"] == "deep/er/jobs.py"
    assert "holdtrue run jobs.py" in (tmp_path / "deep/er/jobs.py").read_text()


@pytest.mark.parametrize("name", ["jobs.txt", "my-job.py", "class.py", "holdtrue.py", "json.py", ".py", "1st.py"])
def test_init_writes_no_file_that_could_not_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init", name).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_what_is_printable() -> None:
    assert printable("Zoë ✓ 日本") == "Zoë ✓ 日本"
    assert printable("a\x1b[31m\u202eb\n") == "a\\x1b[31m\\u202eb\\n"
    assert printable("\ud800") == "\\ud800"
    assert shorten("abcdef", 4) == "abc…"


def on_a_terminal(*arguments: str, **env: str) -> str:
    """What a person sees who runs it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "holdtrue.cli", *arguments],
        env={**ENVIRONMENT, "COLUMNS": "100", **env},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    process.wait()
    return seen.decode()


def test_a_terminal_has_colours_unless_told_otherwise(tmp_path: Path) -> None:
    missing = str(tmp_path / "hub.db")
    assert "\x1b[" in on_a_terminal("list", "--hub", missing)
    assert "\x1b[" not in on_a_terminal("list", "--hub", missing, NO_COLOR="1")
    assert "\x1b[" in on_a_terminal("--help")
    assert "\x1b[" not in on_a_terminal("--help", NO_COLOR="1")


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "holdtrue.cli", "--help"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.wait()


@pytest.mark.parametrize("words", ["--help", "info", "info --json", "list"])
def test_output_that_cannot_be_written_is_told_without_a_traceback(tmp_path: Path, words: str) -> None:
    command = [sys.executable, "-m", "holdtrue.cli", *words.split()]
    env = {**ENVIRONMENT, "HOLDTRUE_HUB": str(tmp_path / "hub.db")}
    subprocess.run([*command[:3], "start", "hello"], env=env, stdout=subprocess.DEVNULL, check=True)
    with open("/dev/full", "w") as full:
        ran = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 1
    assert "No space left" in ran.stderr
    assert "Traceback" not in ran.stderr
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], env=env, stderr=subprocess.PIPE, text=True, check=False
    )
    assert (closed.returncode, closed.stderr) == (0, "")


def test_json_stays_json_where_letters_cannot_be_shown(tmp_path: Path) -> None:
    env = {**ENVIRONMENT, "HOLDTRUE_HUB": str(tmp_path / "hub.db"), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "holdtrue.cli", "--json"]
    ran = subprocess.run([*command, "start", "hello", "--id", "Zoë ✓ 🎉"], env=env, capture_output=True, check=True)
    assert json.loads(ran.stdout.decode("ascii"))["instance_id"] == "Zoë ✓ 🎉"
    failed = subprocess.run([*command, "show", "日本"], env=env, capture_output=True, check=False)
    assert "日本" in json.loads(failed.stderr.decode("ascii"))["error"]["message"]


def test_an_id_stays_whole_on_a_terminal(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdtrue.cli.output.is_terminal", lambda stream: True)
    client.add(instance("01a214031f7155790d680e3252886a5e"))
    assert "01a214031f7155790d680e3252886a5e" in run("list", env={"COLUMNS": "80"}).stdout
    client.add(instance("L" * 480))
    for columns in ("80", "40", "20"):
        wide = run("list", env={"COLUMNS": columns})
        assert wide.exit_code == 0
        assert wide.stdout.count("L") == 480


def test_tables_and_trees_on_a_terminal_show_the_same(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdtrue.cli.output.is_terminal", lambda stream: True)
    client.add(instance("x[red]", output='"[bold]"'))
    listed, shown = run("list").stdout, run("show", "x[red]").stdout
    assert "x[red]" in listed
    assert "[bold]" in shown


def test_globals_stand_before_or_after(client: FakeClient) -> None:
    client.add(instance("x"))
    assert json.loads(run("--json", "list").stdout) == json.loads(run("list", "--json").stdout)
