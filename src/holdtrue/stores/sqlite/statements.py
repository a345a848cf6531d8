"""Reads the named statements of `statements.sql` (and the steps of `migrations.sql`).

Python never builds SQL: it only picks a statement by its name.
"""

from importlib.resources import files
from types import SimpleNamespace
from typing import Any


def read(name: str) -> dict[str, str]:
    """The statements of one file of this package by name."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in files(__package__).joinpath(name).read_text("utf-8").splitlines():
        if line.startswith("-- name: "):
            current = found.setdefault(line.removeprefix("-- name: ").strip(), [])
        elif not line.startswith("--"):
            current.append(line)
    return {key: "\n".join(lines).strip() for key, lines in found.items()}


def schema() -> str:
    """The tables of a new hub."""
    return files(__package__).joinpath("schema.sql").read_text("utf-8")


def migrations() -> dict[int, str]:
    """The step that leads to each schema version, by that version."""
    return {int(name): text for name, text in read("migrations.sql").items()}


_ALL = read("statements.sql")

sql: Any = SimpleNamespace(**{name: text for name, text in _ALL.items() if ":" not in name})
"""Every statement as an attribute of its name."""

FORMS: dict[str, tuple[str, str | None]] = {
    name: (text, _ALL.get(f"{name}:json")) for name, text in _ALL.items() if ":" not in name
}
"""Statement and second form (many rows as one JSON text) by name."""
