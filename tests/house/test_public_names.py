"""The public names: each is there, is documented, and ships with its types."""

import ast
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import holdtrue
import holdtrue.testing

NAMES = sorted(name for name in holdtrue.__all__ if not name.startswith("_"))


def test_all_is_what_there_is() -> None:
    assert len(set(holdtrue.__all__)) == len(holdtrue.__all__)
    for name in holdtrue.__all__:
        assert hasattr(holdtrue, name), f"__all__ names {name}, which is not there"


@pytest.mark.parametrize("module", [holdtrue, holdtrue.testing], ids=lambda module: module.__name__)
def test_type_checkers_find_every_name(module: ModuleType) -> None:
    """They read only what is written out: `__all__` as a list of texts, and imports of the same names."""
    assert module.__file__ is not None
    body = ast.parse(Path(module.__file__).read_text()).body
    (written,) = (
        ast.literal_eval(node.value) for node in body if isinstance(node, ast.Assign) and _target(node) == "__all__"
    )
    imported = [
        alias.name
        for node in body
        if isinstance(node, ast.If)
        for line in node.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    ]
    assert sorted({*written} - {"__version__"}) == sorted(imported) == sorted(module._HOMES)


def _target(node: ast.Assign) -> str:
    return node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""


def test_the_reference_names_them_all_and_no_others() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()
    program, tests = page.split("\n## To test\n")
    assert _listed(program) == NAMES
    assert _listed(tests) == sorted(holdtrue.testing.__all__)


def _listed(page: str) -> list[str]:
    """The names in the first column of the tables."""
    firsts = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    return sorted(re.findall(r"`(\w+)`", "\n".join(firsts)))


@pytest.mark.parametrize(
    ("module", "name"),
    [*((holdtrue, name) for name in NAMES), *((holdtrue.testing, name) for name in holdtrue.testing.__all__)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_public_name_has_a_docstring(module: ModuleType, name: str) -> None:
    thing = getattr(module, name)
    if not callable(thing) and not inspect.ismodule(thing):
        return
    assert inspect.getdoc(thing), f"{module.__name__}.{name} has no docstring"
    if inspect.isclass(thing) and thing.__module__.startswith("holdtrue"):
        missing = [
            attribute
            for attribute, value in vars(thing).items()
            if not attribute.startswith("_")
            and (inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod))
            and not inspect.getdoc(getattr(thing, attribute))
        ]
        assert not missing, f"{module.__name__}.{name} has members without docstrings: {', '.join(missing)}"
