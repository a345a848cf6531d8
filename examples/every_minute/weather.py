"""The data set: Seattle's weather, day by day, 2012 to 2015, as the `vega-datasets` wheel ships it.

The package is never imported (that would pull in pandas); its file is found by the wheel's own record.
Every number of the file has one decimal; they are kept as whole tenths, so that sums are exact.
"""

import csv
import functools
import importlib.metadata
from decimal import Decimal
from pathlib import Path

import msgspec


class Day(msgspec.Struct, frozen=True):
    """One day: its date (`2012-01-31`), tenths of mm, °C and m/s, and the kind of weather."""

    date: str
    precipitation: int
    temp_max: int
    temp_min: int
    wind: int
    weather: str


class Figures(msgspec.Struct, frozen=True):
    """What a month's report says; the same tenths, sums over its days, extremes for the temperatures."""

    month: str
    days: int
    precipitation: int
    temp_max: int
    temp_min: int
    wind: int
    rainy_days: int


def data_file() -> Path:
    """Where the installed wheel has the file; raises FileNotFoundError with the cure where it does not."""
    for path in importlib.metadata.files("vega-datasets") or ():
        if path.name == "seattle-weather.csv":
            return Path(str(path.locate()))
    raise FileNotFoundError("vega-datasets is installed without seattle-weather.csv: run `make clean run`")


@functools.cache
def days() -> dict[str, Day]:
    """Every day by its date, in the file's order, which is that of time."""
    with data_file().open(newline="") as file:
        read = (
            Day(
                row["date"].replace("/", "-"),
                *(_tenths(row[name]) for name in ("precipitation", "temp_max", "temp_min", "wind")),
                row["weather"],
            )
            for row in csv.DictReader(file)
        )
        return {day.date: day for day in read}


@functools.cache
def months() -> dict[str, list[str]]:
    """Every month (`2012-01`) with its dates, in order of time."""
    found: dict[str, list[str]] = {}
    for date in days():
        found.setdefault(date[:7], []).append(date)
    return found


def summarize(month: str, of: list[Day]) -> Figures:
    """The figures of a month from its days."""
    return Figures(
        month=month,
        days=len(of),
        precipitation=sum(day.precipitation for day in of),
        temp_max=max(day.temp_max for day in of),
        temp_min=min(day.temp_min for day in of),
        wind=sum(day.wind for day in of),
        rainy_days=sum(day.weather == "rain" for day in of),
    )


def _tenths(text: str) -> int:
    return int(Decimal(text) * 10)
