"""Values to JSON payloads and back, by type hints.

One `Converter` for an app.  It knows values and types; it must not know instances, contexts or stores.

What msgspec converts it converts: dataclasses, its structs, attrs, TypedDict, NamedTuple, enums, datetime,
timedelta, UUID, Decimal, bytes, unions it can tell apart.  Beyond that: classes with `to_json` and
`from_json` as the SDK has them (the hooks speak in JSON values, not texts) and pydantic models.  Without
a hint, with `Any` or `None`, a payload comes back as plain JSON.  JSON has no NaN and no infinities: they
become null.

Encoders and decoders are made once for each type: this is the hot path of every step.
"""

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from .errors import PayloadError, PayloadTooLarge

MAX_PAYLOAD = 16 * 1024 * 1024
"""The default bound of one payload, in bytes of UTF-8."""

_Decode = Callable[[str], Any]


class Converter:
    """Encodes values and decodes payloads; `max_payload` bounds the UTF-8 bytes of what is written."""

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self.max_payload = max_payload
        self._encode = msgspec.json.Encoder(enc_hook=_simplify).encode
        raw: _Decode = msgspec.json.Decoder().decode
        self._decoders: dict[Any, _Decode] = {None: raw, Any: raw, object: raw, inspect.Parameter.empty: raw}
        self._hooks_in_use = False
        self._kinds: dict[type, bool] = dict.fromkeys((str, int, float, bool, type(None), list, dict, tuple), False)

    def encode(self, value: Any) -> str:
        """A value as JSON text; None is `null`.

        Raises PayloadError for what JSON cannot hold, PayloadTooLarge over `max_payload`.
        """
        kind = type(value)
        try:
            hooked = self._kinds[kind]
        except KeyError:
            hooked = _is_native(kind) and (callable(getattr(kind, "to_json", None)) or _has_private_attrs(kind))
            self._kinds[kind] = hooked
            self._hooks_in_use |= hooked
        try:
            data = self._encode(_plain(value) if self._hooks_in_use else value)
        except (TypeError, ValueError, RecursionError, OverflowError, NotImplementedError) as error:
            raise PayloadError(
                f"a value of type {_type_name(kind)} cannot be written as JSON: {error}. Pass values that JSON can "
                "hold, dataclasses, structs, models, or give the class to_json() and from_json()."
            ) from error
        if len(data) > self.max_payload:
            raise PayloadTooLarge(
                f"a payload of {len(data)} bytes (a {_type_name(kind)}) is over max_payload ({self.max_payload} "
                "bytes): keep the data elsewhere and pass a reference, or raise App(max_payload=...)."
            )
        return data.decode()

    def decode(self, payload: str | None, expected_type: Any = None, what: str = "a payload") -> Any:
        """A payload as a value of the expected type; no payload is None.

        Raises PayloadError, which calls the payload `what`, where it does not fit.
        """
        if payload is None:
            return None
        try:
            decoder = self._decoders[expected_type]
        except (KeyError, TypeError):
            decoder = self._decoder(expected_type, what)
        try:
            return decoder(payload)
        except Exception as error:
            if not payload:
                return None
            raise PayloadError(
                f"{what} does not fit {_type_name(expected_type)}: {error}. "
                "Correct what is sent, or the type hint of who takes it."
            ) from error

    def check(self, expected_type: Any) -> None:
        """Make sure that payloads can be decoded to this type; raises PayloadError that says why not."""
        try:
            if expected_type in self._decoders:
                return
        except TypeError:
            pass
        self._decoder(expected_type, "a payload")

    def coerce(self, value: Any, expected_type: Any = None) -> Any:
        """A JSON value as a value of the expected type (what `from_json(value, converter)` hooks call)."""
        return value if value is None or expected_type is None else self.decode(self.encode(value), expected_type)

    deserialize = decode
    """The SDK's name for `decode`."""

    def serialize(self, value: Any) -> str | None:
        """The SDK's `encode`: None is no payload."""
        return None if value is None else self.encode(value)

    # -- making decoders --------------------------------------------------------------------------------

    def _decoder(self, hint: Any, what: str) -> _Decode:
        try:
            translated = self._translate(hint, set())
            reason = _unconvertible(translated)
            if reason is not None:
                raise TypeError(reason)
            decoder: _Decode = msgspec.json.Decoder(translated, dec_hook=self._rebuild).decode
        except Exception as error:
            raise PayloadError(f"{what} cannot be converted to {_type_name(hint)}: {error}") from error
        try:
            self._decoders[hint] = decoder
        except TypeError:  # an unhashable hint is made anew each time
            pass
        return decoder

    def _rebuild(self, kind: Any, value: Any) -> Any:
        """msgspec's hook for the classes it does not know."""
        hook = getattr(kind, "from_json", None)
        if hook is not None:
            return hook(value, self) if _wants_converter(hook) else hook(value)
        if hasattr(kind, "model_validate_json"):
            return _validate_model(kind, self._encode(value))
        raise NotImplementedError(f"no way to make a {_type_name(kind)} is known")

    def _translate(self, hint: Any, within: set[Any]) -> Any:
        """The hint with stand-ins for classes that msgspec would convert by itself although they have hooks."""
        if hint is object:
            return Any
        origin = typing.get_origin(hint)
        if origin is not None:
            return self._translate_generic(hint, origin, within)
        if not isinstance(hint, type) or not _is_native(hint) or hint in within:
            return hint
        hook = getattr(hint, "from_json", None)
        self._hooks_in_use |= callable(hook) or _has_private_attrs(hint)
        if callable(hook):
            return _stand_in(hint, hook)
        if not dataclasses.is_dataclass(hint):
            return hint
        hints = typing.get_type_hints(hint, include_extras=True)
        within = {*within, hint}
        if all(self._translate(h, within) is h for h in hints.values()):
            return hint
        return _stand_in(hint, self._dataclass_builder(hint, hints))

    def _translate_generic(self, hint: Any, origin: Any, within: set[Any]) -> Any:
        args = typing.get_args(hint)
        if origin is typing.Literal:
            return hint
        if origin is Annotated:
            inner = self._translate(args[0], within)
            return hint if inner is args[0] else Annotated[(inner, *args[1:])]
        new = tuple(self._translate(a, within) for a in args)
        if all(a is b for a, b in zip(new, args, strict=True)):
            return hint
        if origin is typing.Union or origin is types.UnionType:
            return typing.Union[new]  # noqa: UP007  built from a tuple
        return origin[new]

    def _dataclass_builder(self, kind: Any, hints: dict[str, Any]) -> Callable[[Any], Any]:
        names = [f.name for f in dataclasses.fields(kind) if f.init]

        def build(value: Any) -> Any:
            if not isinstance(value, dict):
                raise ValueError(f"expected an object for {kind.__qualname__}, got {type(value).__name__}")
            return kind(**{name: self.coerce(value[name], hints.get(name)) for name in names if name in value})

        return build


class _StandIn(type):
    """The class of stand-ins: to msgspec unknown, so that it asks; what it is given counts as an instance."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return True


def _stand_in(kind: type, from_json: Callable[..., Any]) -> type:
    return _StandIn(kind.__name__, (), {"from_json": staticmethod(from_json)})


def _is_native(kind: type) -> bool:
    """True for classes that msgspec takes apart by itself."""
    return (
        dataclasses.is_dataclass(kind)
        or issubclass(kind, (msgspec.Struct, enum.Enum))
        or hasattr(kind, "__attrs_attrs__")
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def _has_private_attrs(kind: type) -> bool:
    """True for attrs classes with an attribute that msgspec leaves out when it writes, but wants when it reads."""
    return any(attribute.name.startswith("_") for attribute in getattr(kind, "__attrs_attrs__", ()))


def _validate_model(kind: Any, data: bytes) -> Any:
    """A pydantic model from what `_simplify` wrote, which has the fields' own names, or from their aliases."""
    try:
        return kind.model_validate_json(data, by_alias=True, by_name=True)
    except TypeError:  # pydantic before 2.11
        return kind.model_validate_json(data)


def _simplify(value: Any) -> Any:
    """msgspec's hook for values it does not know: the same value in terms it does."""
    kind = type(value)
    hook = getattr(kind, "to_json", None)
    if callable(hook):
        return hook(value)
    dump = getattr(kind, "model_dump", None)
    if callable(dump) and hasattr(kind, "model_validate_json"):
        # What can be read again: no computed fields.
        return dump(value, mode="json", round_trip=True)
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, types.SimpleNamespace):
        return vars(value)
    raise TypeError(f"{_type_name(kind)} is not known to JSON")


def _plain(value: Any) -> Any:
    """The value with `to_json` hooks applied at any depth; used once a class that has them was seen."""
    kind = type(value)
    if kind in (str, int, float, bool) or value is None:
        return value
    hook = getattr(kind, "to_json", None)
    if callable(hook):
        return _plain(hook(value))
    if kind in (list, tuple, set, frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(kind)}
    if hasattr(kind, "__attrs_attrs__"):
        return {a.name: _plain(getattr(value, a.name)) for a in kind.__attrs_attrs__}
    return value


def _wants_converter(hook: Any) -> bool:
    """True for a `from_json(value, converter)` hook: its second parameter has exactly that name."""
    try:
        names = list(inspect.signature(hook).parameters)
    except (TypeError, ValueError):
        return False
    return len(names) >= 2 and names[1] == "converter"


def _unconvertible(hint: Any) -> str | None:
    """Why payloads cannot become values of this type, in words, or None where they can."""
    import msgspec.inspect as inspection

    try:
        todo: list[Any] = [inspection.type_info(hint)]
    except TypeError as error:
        text = str(error)
        if "union" in text.lower():
            return (
                f"{text}. Give the union's classes a tag (msgspec.Struct with tag=True), use one class with optional "
                "fields, or annotate Any and convert by hand"
            )
        return text
    seen: set[int] = set()
    while todo:
        info = todo.pop()
        if id(info) in seen:
            continue
        seen.add(id(info))
        if isinstance(info, inspection.CustomType):
            cls = info.cls
            if not (callable(getattr(cls, "from_json", None)) or hasattr(cls, "model_validate_json")):
                return (
                    f"nothing tells how to make a {_type_name(cls)} from JSON. Use a dataclass, a struct or a "
                    "pydantic model, give the class from_json() and to_json(), or annotate Any"
                )
        for name in getattr(info, "__struct_fields__", ()):
            part = getattr(info, name)
            if isinstance(part, inspection.Type):
                todo.append(part)
            elif isinstance(part, tuple):
                todo += [
                    p.type if isinstance(p, inspection.Field) else p
                    for p in part
                    if isinstance(p, (inspection.Type, inspection.Field))
                ]
    return None


def _type_name(kind: Any) -> str:
    if isinstance(kind, type) and typing.get_origin(kind) is None:
        return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return str(kind)
