"""Compares values but for what is known to differ by itself; a mask says what that is."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from .crash_watch import shortened

ANY = "*"
"""Stands in a mask for what is not compared."""


def plain(value: Any) -> Any:
    """Any value as JSON has it; what it has no form for, as its text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else repr(key): plain(part) for key, part in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(part) for part in value), key=json.dumps)
    if isinstance(value, Collection) and not isinstance(value, bytes | bytearray):
        return [plain(part) for part in value]
    try:
        return msgspec.to_builtins(value)
    except TypeError:
        return repr(value)


def in_order(value: Any) -> Any:
    """Lists sorted: in which order effects of activities come is nobody's promise."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return sorted((in_order(part) for part in value), key=lambda part: json.dumps(part, sort_keys=True))
    return value


def differing(one: Any, other: Any) -> Any:
    """A mask of what differs: None where nothing does."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        parts = {key: mask for key in one if (mask := differing(one[key], other[key])) is not None}
        return parts or None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        listed = {
            at: mask for at, pair in enumerate(zip(one, other, strict=True)) if (mask := differing(*pair)) is not None
        }
        return listed or None
    return None if one == other else ANY


def both(one: Any, other: Any) -> Any:
    """What either of two masks leaves out."""
    if one is None or other is None:
        return one if other is None else other
    if one == ANY or other == ANY:
        return ANY
    return {key: both(one.get(key), other.get(key)) for key in one.keys() | other.keys()}


def same(one: Any, other: Any, mask: Any) -> bool:
    """Whether two values are the same, but for what the mask leaves out."""
    if mask == ANY:
        return True
    if mask is None:
        return bool(one == other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], mask.get(key)) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            same(mine, its, mask.get(at)) for at, (mine, its) in enumerate(zip(one, other, strict=True))
        )
    return False


def shown(value: Any) -> str:
    """A value for people: JSON in one line, not too long."""
    text = value if isinstance(value, str) and value[:1] in '{["' else json.dumps(value)
    return shortened(text, 120)
