"""From what is typed as APP to the application, and what is said where that is not possible."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdtrue.authoring.app import App
from holdtrue.cli.exits import CommandError, ExitCode, UsageProblem
from holdtrue.cli.loading import AppName, load_app, parse_app

ONE_APP = "import holdtrue\nmine = holdtrue.App()\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; what a test imports from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_what_app_names(folder: Path) -> None:
    (folder / "jobs.py").touch()
    (folder / "pack" / "deep").mkdir(parents=True)
    for part in ("pack", "pack/deep"):
        (folder / part / "__init__.py").touch()
    (folder / "pack/deep/mod.py").touch()
    assert parse_app("jobs:app") == AppName("jobs", folder, "app")
    assert parse_app("pack.deep.mod") == AppName("pack.deep.mod", folder, None)
    assert parse_app("jobs.py") == AppName("jobs", folder, None)
    assert parse_app("./jobs.py:app.inner") == AppName("jobs", folder, "app.inner")
    assert parse_app(str(folder / "pack/deep/mod.py")) == AppName("pack.deep.mod", folder, None)
    assert parse_app("pack/deep/__init__.py:a") == AppName("pack.deep", folder, "a")


@pytest.mark.parametrize("text", ["nowhere.py", "jobs:", "a b", "", "./pack", "my-job.py", "x/y", ":app"])
def test_what_cannot_be_meant(folder: Path, text: str) -> None:
    (folder / "my-job.py").touch()
    (folder / "pack").mkdir()
    with pytest.raises(UsageProblem, match="APP"):
        parse_app(text)


def test_the_application_is_found(folder: Path) -> None:
    (folder / "t_one.py").write_text(ONE_APP)
    (folder / "t_two.py").write_text("import holdtrue\napp = holdtrue.App()\nother = holdtrue.App()\n")
    assert isinstance(load_app(parse_app("t_one.py")), App)
    assert load_app(parse_app("t_two")) is sys.modules["t_two"].app
    assert load_app(parse_app("t_two:other")) is sys.modules["t_two"].other


@pytest.mark.parametrize(
    ("source", "app", "words"),
    [
        ("x = 1\n", "t_bad.py", "no applications"),
        ("x = 1\n", "t_bad.py:x", "is a int, not a holdtrue.App"),
        (ONE_APP, "t_bad.py:other", "has no 'other'. It has: mine"),
        ("import holdtrue\na = holdtrue.App()\nb = holdtrue.App()\n", "t_bad.py", "2 applications. It has: a, b"),
        ("import nowhere_at_all\n", "t_bad.py", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def f(:\n", "t_bad.py", "SyntaxError: invalid syntax (" + "{folder}/t_bad.py, line 1)"),
        ("x = 1\0\n", "t_bad.py", "SyntaxError: source code string cannot contain null bytes"),
        ("\n1 / 0\n", "t_bad.py", "line 2"),
        ("raise SystemExit(3)\n", "t_bad.py", "SystemExit: 3"),
        (
            "import holdtrue, time\napp = holdtrue.App()\n@app.orchestrator\nasync def o(ctx):\n    time.time()\n",
            "t_bad.py",
            "RegistrationError",
        ),
    ],
)
def test_an_application_that_cannot_be_served(folder: Path, source: str, app: str, words: str) -> None:
    (folder / "t_bad.py").write_text(source)
    with pytest.raises(CommandError) as raised:
        load_app(parse_app(app))
    assert raised.value.code is ExitCode.APP_BROKEN
    assert words.format(folder=folder) in str(raised.value)
    assert "None" not in str(raised.value)


def test_a_module_that_is_not_there(folder: Path) -> None:
    with pytest.raises(CommandError, match="There is no module 'nowhere_at_all'"):
        load_app(parse_app("nowhere_at_all:app"))


def test_a_file_with_the_name_of_another_module(folder: Path) -> None:
    (folder / "json.py").write_text(ONE_APP)
    with pytest.raises(CommandError, match=r"name of another module.*rename the file"):
        load_app(parse_app("json.py"))


def test_a_name_too_long_for_a_file(folder: Path) -> None:
    with pytest.raises(UsageProblem, match="cannot be looked at") as refused:
        parse_app("x" * 300 + ".py")
    assert len(str(refused.value)) < 300
