"""The page that tells which test holds which report is whole: its tests exist, and each test here stands in it."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
LISTED = sorted(set(re.findall(r"`([a-z_0-9/]+\.py::test_\w+)`", PAGE.read_text())))
SOURCE = re.compile(r"#\d+|class(?:es)? \d+|the family's suites")


def written_in(path: Path) -> dict[str, str]:
    """The tests of a module, with their docstrings."""
    functions = ast.walk(ast.parse(path.read_text()))
    return {
        node.name: ast.get_docstring(node) or ""
        for node in functions
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


HERE = {
    f"reports/{path.name}::{name}": said
    for path in sorted(Path(__file__).parent.glob("test_*.py"))
    if path.name != Path(__file__).name
    for name, said in written_in(path).items()
}


def test_there_is_a_list() -> None:
    assert len(LISTED) > 40 and HERE


@pytest.mark.parametrize("listed", LISTED)
def test_a_listed_test_exists(listed: str) -> None:
    module, _, name = listed.partition("::")
    path = TESTS / module
    assert path.is_file(), f"docs/reliability.md names {module}, which is not there"
    assert name in written_in(path), f"docs/reliability.md names {listed}, which is not there"


@pytest.mark.parametrize("test", HERE)
def test_a_test_of_a_report_is_listed_and_says_whose_it_is(test: str) -> None:
    assert test in LISTED, f"{test} is missing in docs/reliability.md"
    assert SOURCE.search(HERE[test]), f"{test} must say in its docstring what was reported, and where"
