"""What the user types, made into values: JSON, times, durations, tags.  Each refusal says what is accepted."""

import json
import math
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from holdtrue.cli.exits import UsageProblem

MOMENTS = "an ISO time (2026-01-31T08:00:00Z; without a zone it is UTC), a date, `now`, or +10m / -1h from now"
DURATIONS = "a duration such as 500ms, 90, 90s, 10m, 1h30m, 2d or 1w (a bare number is seconds)"

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+|\d+(?:\.\d+)?")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw]|$)")


def parse_json(text: str, what: str = "input") -> Any:
    """The value of a JSON text, `@file` (the text in that file) or `-` (standard input).

    `null` comes as a payload that says so, since None is "no payload" to a client.
    Raises UsageProblem where it is not JSON, or not a number that JSON can hold.
    """
    source = what
    if text == "-":
        source, text = f"{what} (standard input)", sys.stdin.read()
    elif text.startswith("@"):
        path = Path(text[1:])
        source = f"{what} (file {path})"
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise UsageProblem(f"{what}: the file {str(path)!r} cannot be read: {reason}.") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise UsageProblem(f"{source}: nested too deeply to be read.") from None
    except json.JSONDecodeError as error:
        hint = ""
        if re.fullmatch(r"[\w .:/+-]+", text) and source == what:
            hint = f" A text needs its quotes too: '\"{text}\"'."
        near = text[error.pos : error.pos + 20]
        where = f"line {error.lineno}, column {error.colno}"
        at = f"{where}, at {near!r}" if near else f"{where}, where it ends"
        raise UsageProblem(f"{source}: not valid JSON: {error.msg} ({at}).{hint}") from None
    except ValueError as error:
        raise UsageProblem(f"{source}: not valid JSON: {error}.") from None
    return msgspec.Raw(b"null") if value is None else value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text} is too large")
    return number


def parse_duration(text: str, what: str = "duration") -> timedelta:
    """`90`, `1h30m`, `500ms` as a timedelta; raises UsageProblem for anything else."""
    compact = text.strip().replace(" ", "")
    if not _DURATION.fullmatch(compact):
        raise UsageProblem(f"{what}: {text!r} is not {DURATIONS}.")
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(compact)))
    except OverflowError:
        raise UsageProblem(f"{what}: {text!r} is too long.") from None


def parse_moment(text: str, what: str = "time", now: datetime | None = None) -> datetime:
    """A point in time as an aware UTC datetime; raises UsageProblem.  `now` is what `+10m` counts from."""
    text = text.strip()
    now = now or datetime.now(UTC)
    if text == "now":
        return now
    try:
        if text[:1] in ("+", "-"):
            delta = parse_duration(text[1:], what)
            return now + delta if text[0] == "+" else now - delta
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise UsageProblem(f"{what}: {text!r} lies outside the years 1 to 9999.") from None
    except ValueError:
        raise UsageProblem(f"{what}: {text!r} is not {MOMENTS}.") from None


def parse_when(text: str, what: str) -> datetime | timedelta:
    """A duration from now, or a point in time."""
    if _DURATION.fullmatch(text.strip()):
        return parse_duration(text, what)
    return parse_moment(text, what)


def parse_tags(pairs: list[str] | None, what: str = "--tag") -> dict[str, str] | None:
    """`key=value` texts as a mapping; None where there is none."""
    if not pairs:
        return None
    tags: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageProblem(f"{what}: {pair!r} is not key=value.")
        tags[key] = value
    return tags


def optional_moment(text: str | None, what: str) -> datetime | None:
    """`parse_moment`, where the option was given."""
    return None if text is None else parse_moment(text, what)


def optional_seconds(text: str | None, what: str) -> float | None:
    """`parse_duration` in seconds, where the option was given."""
    return None if text is None else parse_duration(text, what).total_seconds()
