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


def test_every_command_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
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
