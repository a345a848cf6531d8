"""Values to payloads and back."""

import dataclasses
import enum
import json
import typing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from holdtrue.authoring.conversion import Converter
from holdtrue.authoring.errors import PayloadError, PayloadTooLarge


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Struct(msgspec.Struct):
    point: Point
    at: datetime


@attrs.define
class Attrs:
    name: str
    parts: list[Point]


@attrs.define
class PrivateAttrs:
    _secret: int = 0
    shown: int = attrs.field(default=0, alias="visible")


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    when: int = pydantic.Field(alias="When")
    written: int = pydantic.Field(default=0, serialization_alias="Written")
    parsed: pydantic.Json[Any] = pydantic.Field(default="{}", validate_default=True)

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.when


class Typed(TypedDict):
    a: int
    b: str


class Pair(NamedTuple):
    left: int
    right: str


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    name: str


class Model(pydantic.BaseModel):
    when: datetime
    tags: set[str] = set()


class Money:
    """A class with the SDK's hooks: they speak in JSON values."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def to_json(self) -> dict[str, int]:
        return {"cents": self.cents}

    @classmethod
    def from_json(cls, value: dict[str, int]) -> "Money":
        return cls(value["cents"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass
class Hooked:
    """A dataclass whose own hooks go before its fields, as in the SDK."""

    inner: Any

    def to_json(self) -> list[Any]:
        return ["hooked", self.inner]

    @classmethod
    def from_json(cls, value: list[Any], converter: Any) -> "Hooked":
        assert value[0] == "hooked"
        return cls(converter.coerce(value[1], Point))


@dataclasses.dataclass
class Holder:
    items: list[Hooked]
    money: Money | None = None
    default: int = 4


@dataclasses.dataclass
class Node:
    value: int
    children: "list[Node]" = dataclasses.field(default_factory=list)


CASES: list[tuple[Any, Any]] = [
    (5, int),
    ("text é\x00", str),
    (1.5, float),
    (True, bool),
    (None, int | None),
    (Point(1, 2), Point),
    ([Point(1), Point(2)], list[Point]),
    ({"a": Point(1)}, dict[str, Point]),
    ({1: "a"}, dict[int, str]),
    ((1, "a"), tuple[int, str]),
    ({1, 2}, set[int]),
    (Struct(Point(1), datetime(2024, 1, 2, 3, 4, 5, 6, UTC)), Struct),
    (Attrs("n", [Point(1)]), Attrs),
    ({"a": 1, "b": "x"}, Typed),
    (Pair(1, "x"), Pair),
    (Colour.RED, Colour),
    (Level.HIGH, Level),
    (datetime(2024, 1, 2), datetime),
    (timedelta(days=1, microseconds=3), timedelta),
    (UUID(int=7), UUID),
    (Decimal("1.10"), Decimal),
    (b"\x00\xff", bytes),
    (Cat("Tom"), Cat | Dog),
    ([Dog("Rex"), Cat("Tom")], list[Cat | Dog]),
    ("b", Literal["a", "b"]),
    (5, Annotated[int, msgspec.Meta(ge=0)]),
    (Model(when=datetime(2024, 1, 2, tzinfo=UTC), tags={"x"}), Model),
    ([Model(when=datetime(2024, 1, 2, tzinfo=UTC))], list[Model]),
    (PrivateAttrs(1, 2), PrivateAttrs),
    ([PrivateAttrs(1, 2)], list[PrivateAttrs]),
    (Aliased(When=1, written=2, parsed='{"a": 1}'), Aliased),
    (Money(5), Money),
    ([Money(5)], list[Money]),
    (Hooked(Point(1)), Hooked),
    ([Hooked(Point(1))], list[Hooked]),
    ({"k": Hooked(Point(1))}, dict[str, Hooked] | None),
    (Holder([Hooked(Point(1)), Hooked(Point(2))], Money(3)), Holder),
    (Node(1, [Node(2)]), Node),
    (10**30, int),
]


@pytest.mark.parametrize(("value", "kind"), CASES, ids=lambda case: str(case)[:40])
def test_round_trip(value: Any, kind: Any) -> None:
    converter = Converter()
    converter.check(kind)
    payload = converter.encode(value)
    json.loads(payload)
    again = converter.decode(payload, kind)
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_becomes_null(value: float) -> None:
    assert Converter().encode([value]) == "[null]"


def test_what_others_wrote_by_the_aliases_of_a_model_is_read() -> None:
    assert Converter().decode('{"When": 3}', Aliased).double == 6


@pytest.mark.parametrize("hint", [None, Any, object], ids=str)
def test_without_a_hint_json_stays_json(hint: Any) -> None:
    converter = Converter()
    assert converter.decode(converter.encode({"p": Point(1)}), hint) == {"p": {"x": 1, "y": 0}}


def test_none_is_null_and_no_payload_is_none() -> None:
    converter = Converter()
    assert converter.encode(None) == "null"
    assert converter.decode("null") is None
    assert converter.decode(None, int) is None
    assert converter.decode("", int) is None
    assert converter.serialize(None) is None


def test_subclasses_of_plain_types_and_namespaces() -> None:
    class Text(str):
        pass

    class Number(int):
        pass

    assert json.loads(Converter().encode([Text("a"), Number(3), SimpleNamespace(a=1)])) == ["a", 3, {"a": 1}]


@pytest.mark.parametrize(
    "value", [object(), [object()], {(1, 2): 3}, "\ud800", {1j}], ids=["object", "in a list", "key", "surrogate", "set"]
)
def test_what_json_cannot_hold(value: Any) -> None:
    with pytest.raises(PayloadError, match="cannot be written as JSON"):
        Converter().encode(value)


def test_a_value_that_holds_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(PayloadError):
        Converter().encode(loop)


@pytest.mark.parametrize(
    ("payload", "hint"),
    [
        ('"5"', int),
        ("[1]", Point),
        ("{", int),
        ("null", int),
        ("-1", Annotated[int, msgspec.Meta(ge=0)]),
        ("{}", Model),
    ],
    ids=str,
)
def test_a_payload_that_does_not_fit_names_the_type_and_the_cure(payload: str, hint: Any) -> None:
    with pytest.raises(PayloadError, match="Correct what is sent") as caught:
        Converter().decode(payload, hint, "the input of 'x'")
    assert str(caught.value).startswith("the input of 'x' does not fit")


def test_the_bound_counts_bytes() -> None:
    converter = Converter(max_payload=10)
    assert converter.encode("é" * 4) == '"éééé"'
    with pytest.raises(PayloadTooLarge, match=r"12 bytes.*max_payload"):
        converter.encode("é" * 5)


class Opaque:
    pass


@pytest.mark.parametrize(
    ("hint", "reason"),
    [
        (Opaque, "from_json"),
        (list[Opaque], "Opaque"),
        (list[int] | set[int], "tag"),
        (Point | Struct, "tag"),
        (Model | Money, "tag"),
        (typing.Iterable[int], "Iterable"),
    ],
    ids=str,
)
def test_hints_that_cannot_be_converted(hint: Any, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        Converter().check(hint)


def test_decoders_are_made_once() -> None:
    converter = Converter()
    made = []
    inner = converter._decoder
    converter._decoder = lambda *args: made.append(args) or inner(*args)  # type: ignore[method-assign,func-returns-value]
    for _ in range(3):
        assert converter.decode("[1]", list[int]) == [1]
    assert len(made) == 1
