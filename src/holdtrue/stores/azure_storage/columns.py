"""Columns of rows: their types, the statuses' names, what of ours stands beside .NET's, and how they are asked for.

Pure.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.actions import ActivityOptions
from holdtrue.core.events import Ticks
from holdtrue.core.projection import Status

from .beyond import Beyond
from .dotnet_json import FormatError, dump, from_time_text, load, shown_tags
from .service import Instant, Typed, Value

FIRST_TICKS: Ticks = -11_644_473_600 * ev.TICKS_PER_SECOND
"""The year 1601: the service refuses earlier times in tables."""

Values = dict[str, Value | None]

STATUS_NAMES = {
    Status.RUNNING: "Running",
    Status.COMPLETED: "Completed",
    Status.CONTINUED_AS_NEW: "ContinuedAsNew",
    Status.FAILED: "Failed",
    Status.CANCELED: "Canceled",
    Status.TERMINATED: "Terminated",
    Status.PENDING: "Pending",
    Status.SUSPENDED: "Suspended",
}
"""The statuses as rows have them."""
STATUSES = {name: status for status, name in STATUS_NAMES.items()}


class More(Beyond, omit_defaults=True, kw_only=True, gc=False):
    """Our column: what is noted of the event, an activity's options, a child's execution, the start's generation."""

    options: ActivityOptions | None = None
    execution: str | None = None
    generation: int | None = None


class Columns:
    """A row's columns as they are asked for; each refusal is a FormatError that names the row and the column."""

    __slots__ = ("place", "values")

    def __init__(self, values: Mapping[str, Value | None], place: str) -> None:
        self.values = values
        self.place = place

    def wrong(self, name: str, what: str) -> FormatError:
        """A column is not what it should be."""
        value = self.values.get(name)
        if value is None:
            return FormatError(self.place, f"it has no column {name}")
        return FormatError(self.place, f"its column {name} is no {what}: {str(value)[:60]!r}")

    def text(self, name: str) -> str | None:
        """A text, None where there is none."""
        value = self.values.get(name)
        if value is None or type(value) is str:
            return value
        raise self.wrong(name, "text")

    def known_text(self, name: str) -> str:
        """A text that must be there."""
        value = self.values.get(name)
        if type(value) is str:
            return value
        raise self.wrong(name, "text")

    def number(self, name: str, missing: int | None = None) -> int:
        """A whole number; `missing` stands for an absent one, which is refused without."""
        value = self.values.get(name)
        if type(value) is int:
            return value
        if value is None and missing is not None:
            return missing
        if isinstance(value, Typed) and value.text.lstrip("-").isdecimal() and len(value.text) < 20:
            return int(value.text)
        raise self.wrong(name, "whole number")

    def time(self, name: str) -> Ticks | None:
        """A time, None where there is none."""
        value = self.values.get(name)
        if isinstance(value, Instant):
            return value.ticks
        if value is None:
            return None
        if type(value) is str:
            return from_time_text(value, self.place)
        raise self.wrong(name, "time")

    def known_time(self, name: str, noted: Ticks | None = None) -> Ticks:
        """A time that must be there, or the one that was noted."""
        found = self.time(name)
        if found is None:
            raise self.wrong(name, "time")
        return found if noted is None else noted

    def json(self, name: str, decode: Callable[[str], Any]) -> Any:
        """What a column's JSON text holds; the text `null`, an empty one and none are None."""
        text = self.text(name)
        return load(decode, text, f"{self.place}, column {name}") if text else None


def tags_text(tags: Mapping[str, str] | None, place: str) -> str:
    """The column `Tags`."""
    return "null" if tags is None else dump(shown_tags(tags), place)


_decode_tags = msgspec.json.Decoder(dict[str, str | None] | None).decode


def tags_of(columns: Columns, noted: dict[str, str] | None = None) -> dict[str, str] | None:
    """The column `Tags`."""
    found = columns.json("Tags", _decode_tags)
    if noted is not None:
        return noted
    return None if found is None else {key: value or "" for key, value in found.items() if key != "$type"}
