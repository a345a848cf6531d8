"""The programs that the docs show are run, and what they print is compared with what the docs say."""

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def programs(page: Path) -> list[tuple[str, str]]:
    """The whole programs of a page with what they print: a python block that a text block follows."""
    text = page.read_text()
    return re.findall(r"```python\n(.*?)```\n(?:(?!```).)*?prints:?\n+```text\n(.*?)```", text, re.DOTALL)


SHOWN = [(page, number) for page in PAGES for number in range(len(programs(page)))]


def _run(program: Path, where: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(program)], cwd=where, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{program.name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_its_docstring_says(path: Path, tmp_path: Path) -> None:
    head = path.read_text().split('"""')[1]
    expected = textwrap.dedent(head.partition("Prints:\n")[2])
    assert expected.strip(), f"{path.name} does not say what it prints"
    assert _run(path, tmp_path).strip() == expected.strip()
    assert not list(tmp_path.iterdir()), f"{path.name} leaves something behind"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_listed(path: Path) -> None:
    lines = [line for line in path.read_text().split('"""', 2)[2].splitlines() if line.strip()]
    assert len(lines) <= 40, f"{path.name} has {len(lines)} lines of code"
    assert f"({path.name})" in (ROOT / "examples" / "README.md").read_text()


@pytest.mark.parametrize(
    ("page", "number"), SHOWN, ids=lambda value: value.name if isinstance(value, Path) else str(value)
)
def test_a_program_of_the_docs_prints_what_the_page_says(page: Path, number: int, tmp_path: Path) -> None:
    code, printed = programs(page)[number]
    program = tmp_path / "program.py"
    program.write_text(code)
    assert _run(program, tmp_path).strip() == printed.strip()


def test_the_readme_shows_a_program_of_fifteen_lines() -> None:
    (code, _), *_ = programs(ROOT / "README.md")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15


def test_the_readme_says_what_and_why_in_five_lines_and_shows_the_flow() -> None:
    text = (ROOT / "README.md").read_text()
    first = text.split("\n\n")[1]
    assert first.startswith("Holdtrue ") and len(first.splitlines()) <= 5
    block = re.search(r"## Two commands\n+```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None and [line.split()[:2] for line in block[1].splitlines()] == [
        ["make", "run"],
        ["make", "test"],
    ]
    picture = re.search(r"!\[[^\]]+\]\(([^)]+\.svg)\)", text)
    assert picture is not None and (ROOT / picture[1]).is_file()


def test_what_the_readme_says_of_the_main_job_is_so() -> None:
    """Its numbers and names, each against the place where it stands."""
    from examples.every_minute import storm, weather

    text = " ".join((ROOT / "README.md").read_text().split())
    options = storm.options([])
    assert "two dozen times" in text and options.kills == 24
    assert "Two worker processes" in text and storm.plan.WORKERS == 2
    assert f"all {len(weather.months())} months" in text and options.months >= 30
    for line in re.findall(r'ARGS="([^"]+)"', text):
        storm.options(line.split())
    pinned = re.search(r"^vega-datasets==(.+)$", (ROOT / "requirements" / "test.txt").read_text(), re.MULTILINE)
    assert pinned is not None and f"`vega-datasets` package (version {pinned[1]}, MIT licence)" in text
    job = (ROOT / "examples" / "every_minute" / "storm.py").read_text()
    assert "A schedule starts a job every second" in text and 'cron="* * * * * *"' in job


def test_the_pythons_stated_are_those_of_the_package() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [found[1] for text in project["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", text))]
    least = project["requires-python"].removeprefix(">=")
    assert listed[0] == least
    readme = (ROOT / "README.md").read_text()
    assert f"with Python {', '.join(listed[:-1])} or {listed[-1]}" in readme
    assert f"need Python {least} or newer" in readme
    systems = (ROOT / "docs" / "reference" / "supported-systems.md").read_text()
    assert all(version in systems for version in listed)


def test_every_dependency_has_its_reason() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for names in project["optional-dependencies"].values() for name in names]
    page = (ROOT / "docs" / "reference" / "dependencies.md").read_text()
    for requirement in [*project["dependencies"], *extras]:
        name = re.split(r"[<>=;\[ ]", requirement)[0]
        assert re.search(rf"^\|(?: `\w+` \|)? {re.escape(name)} \| \S", page, re.MULTILINE), f"why {name}?"


def test_contributing_names_every_part() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for place in ("src/holdtrue", "tests"):
        for folder in (ROOT / place).iterdir():
            if any(folder.glob("**/*.py")):
                assert re.search(rf"`(?:{place}/)?{folder.name}`", text), (
                    f"CONTRIBUTING.md does not tell of {place}/{folder.name}"
                )


def test_every_command_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands
    for target in commands:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"the README says `make {target}`"


def test_every_holdtrue_command_of_the_docs_exists() -> None:
    """`holdtrue NAME …` in a shell block names a command that the program has, with options that it has."""
    import typer

    from holdtrue.cli.program import app

    known = typer.main.get_command(app)
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0].endswith("holdtrue") and len(words) > 1:
                    _check(page, known, words[1:])


def _check(page: Path, command: object, words: list[str]) -> None:
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, (
            f"{page.name} says `holdtrue {' '.join(words)}`, and there is no such command"
        )
        command, words = command.commands[words[0]], words[1:]
    options = {
        name for parameter in getattr(command, "params", []) for name in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--"):
            assert name in options or name in ("--help", "--json"), f"{page.name}: no option {name} ({' '.join(words)})"
