"""Which ids and names a hub takes."""

import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.core.ids import check_event_name, check_instance_id, check_name, escaped_units


@pytest.mark.parametrize(
    "good", ["a", "x" * 500, "\x00" * 250, "^/\\#?" * 50, "\U0001f680" * 250, "a@b", " ", "é" * 500]
)
def test_good_ids(good: str) -> None:
    assert check_instance_id(good) == good


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "is empty"),
        ("@counter@1", "begins with '@'"),
        ("x" * 501, "501 UTF-16 units"),
        ("/" * 251, "502 UTF-16 units"),
        ("\x9f" * 251, "502 UTF-16 units"),
        ("\U0001f680" * 251, "502 UTF-16 units"),
        ("\ud800", "surrogate"),
        (7, "not int"),
    ],
)
def test_bad_ids_are_named_with_the_cure(bad: object, why: str) -> None:
    with pytest.raises(InvalidInput, match="instance id") as found:
        check_instance_id(bad)  # type: ignore[arg-type]
    assert why in str(found.value) and len(str(found.value)) < 400


def test_what_is_escaped_counts_twice() -> None:
    assert [escaped_units(c) for c in "a^/\\#?\x00\x1f\x20\x7f\x9f\xa0"] == [1, 2, 2, 2, 2, 2, 2, 2, 1, 2, 2, 1]


@pytest.mark.parametrize("bad", ["", "holdtrue:cancel", "HoldTrue:x", "\udc00", None])
def test_bad_event_names(bad: object) -> None:
    with pytest.raises(InvalidInput, match="event name"):
        check_event_name(bad)  # type: ignore[arg-type]


def test_good_names() -> None:
    assert check_event_name("holdtrue") == "holdtrue" and check_name("a b") == "a b"
    with pytest.raises(InvalidInput):
        check_name("")
