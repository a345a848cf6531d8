"""Times as tables (`2026-01-31T00:00:00.1234567Z`) and headers (`Sat, 31 Jan 2026 00:00:00 GMT`) write them.  Pure."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache

from holdtrue.core.events import TICKS_PER_SECOND, Ticks

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(4096)
def _text_of_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")


@lru_cache(4096)
def _second_of_text(text: str) -> int:
    return int((datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH).total_seconds())


def table_text(at: Ticks) -> str:
    """An Edm.DateTime, with seven decimals.  Raises OverflowError before year 1 and after year 9999."""
    second, rest = divmod(at, TICKS_PER_SECOND)
    return f"{_text_of_second(second)}.{rest:07d}Z"


def from_table_text(text: str) -> Ticks:
    """The time of an Edm.DateTime.  Raises ValueError for a text that is none."""
    whole, _, rest = text.removesuffix("Z").partition(".")
    return _second_of_text(whole) * TICKS_PER_SECOND + int(f"{rest:0<7.7}")


@lru_cache(256)
def _header_of_second(second: int) -> str:
    return format_datetime(_EPOCH + timedelta(seconds=second), usegmt=True)


def header_text(at: Ticks) -> str:
    """A date of HTTP; it has whole seconds."""
    return _header_of_second(at // TICKS_PER_SECOND)


@lru_cache(4096)
def from_header_text(text: str) -> Ticks:
    """The time of a date of HTTP.  Raises ValueError for a text that is none."""
    return int((parsedate_to_datetime(text) - _EPOCH).total_seconds()) * TICKS_PER_SECOND
