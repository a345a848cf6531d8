"""The public names: each is there, is documented, and ships with its types."""

import inspect
import re
from pathlib import Path

import pytest

import holdtrue

NAMES = sorted(name for name in holdtrue.__all__ if not name.startswith("_"))


def test_all_is_what_there_is() -> None:
    assert len(set(holdtrue.__all__)) == len(holdtrue.__all__)
    for name in holdtrue.__all__:
        assert hasattr(holdtrue, name), f"__all__ names {name}, which is not there"


def test_the_reference_names_them_all_and_no_others() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()
    listed = re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in page.splitlines() if row.startswith("| `")))
    assert sorted(listed) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring(name: str) -> None:
    thing = getattr(holdtrue, name)
    if not callable(thing) and not inspect.ismodule(thing):
        return
    assert inspect.getdoc(thing), f"holdtrue.{name} has no docstring"
    if inspect.isclass(thing) and thing.__module__.startswith("holdtrue"):
        missing = [
            attribute
            for attribute, value in vars(thing).items()
            if not attribute.startswith("_")
            and (inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod))
            and not inspect.getdoc(getattr(thing, attribute))
        ]
        assert not missing, f"holdtrue.{name} has members without docstrings: {', '.join(missing)}"
