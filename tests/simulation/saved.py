"""A run as a small file of JSON: its scenario and the faults in it, to be played again anywhere.

What cannot be read is refused with its place (file:line:column); nothing runs on a guess.
"""

import json
import re
from json.decoder import scanstring
from pathlib import Path
from typing import Annotated, Any, cast

import cluster
import msgspec
from scenarios import Disturbed, Programs, fixed

from holdtrue.testing.faults import Fault, Kind
from holdtrue.testing.storage_faults import CallFault

VERSION = 1
HUBS = {"MemoryHubs": cluster.MemoryHubs, "SqliteHub": cluster.SqliteHub}
KINDS = (*HUBS, "AzureStorage", "BesideDotNet", "Slowly", "ReadLate")
"""What a seed is played on; the last four on Azure Storage: alone, beside clients of .NET's, with slow requests, with
readers that hear late."""


class BadInput(Exception):
    """A file, a line or an argument that says what cannot be played; the message begins with its place."""

    def __init__(self, name: str, text: str, offset: int, what: str) -> None:
        before = text[:offset]
        line, column = before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1
        super().__init__(f"{name}:{line}:{column}: {what}")


class Saved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A run: the random scenario of a `seed`, or the `fixed` one of that name, on that kind of `hub`; `broke` says
    what was found."""

    version: int
    seed: Annotated[int, msgspec.Meta(ge=0)] | None = None
    fixed: str | None = None
    hub: str = "MemoryHubs"
    faults: list[Fault]
    broke: str = ""

    def scenario(self) -> Programs:
        """What its clients do, anew."""
        if self.fixed is not None:
            return fixed()[self.fixed]
        assert self.seed is not None
        return Disturbed(self.seed)


class _Version(msgspec.Struct):
    version: int


def write(path: Path, saved: Saved) -> None:
    """Save it; raises OSError where that cannot be."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(saved), indent=1) + b"\n")


def fault_text(fault: Fault | CallFault) -> str:
    """A fault as JSON."""
    return msgspec.json.encode(fault).decode()


def read(path: Path) -> Saved:
    """What was saved; raises BadInput, and OSError where there is no such file."""
    return parse(str(path), path.read_text(encoding="utf-8", errors="surrogateescape"))


def parse(name: str, text: str) -> Saved:
    """The same of a text; `name` is what errors call it."""
    version = _decode(name, text, _Version).version
    if version != VERSION:
        newer = "of a newer version" if version > VERSION else "of a version that never was"
        raise BadInput(
            name, text, place(text, "$.version"), f"a saved run {newer} ({version}): this one reads {VERSION}"
        )
    saved: Saved = _decode(name, text, Saved)
    if (saved.seed is None) == (saved.fixed is None):
        raise BadInput(name, text, place(text, "$"), "a saved run has either a `seed` or a `fixed` scenario")
    if saved.fixed is not None and saved.fixed not in fixed():
        raise BadInput(
            name, text, place(text, "$.fixed"), f"there is no fixed scenario {saved.fixed!r}: {', '.join(fixed())}"
        )
    hub_of(name, text, place(text, "$.hub"), saved.hub)
    for number, fault in enumerate(saved.faults):
        _check(fault, name, text, f"$.faults[{number}]")
    return saved


def seed_of(name: str, text: str, offset: int = 0, word: str | None = None) -> int:
    """A seed; raises BadInput."""
    word = text if word is None else word
    if not word.isascii() or not word.isdecimal() or len(word) > 18:
        raise BadInput(name, text, offset, f"{word!r} is no seed: a number of up to 18 digits")
    return int(word)


def hub_of(name: str, text: str, offset: int = 0, word: str | None = None) -> str:
    """A kind of hub; raises BadInput."""
    word = text if word is None else word
    if word not in HUBS:
        raise BadInput(name, text, offset, f"there is no kind of hub {word!r}: {', '.join(HUBS)}")
    return word


def kind_of(name: str, text: str, offset: int = 0, word: str | None = None) -> str:
    """What a seed is played on; raises BadInput."""
    word = text if word is None else word
    if word not in KINDS:
        raise BadInput(name, text, offset, f"there is no kind of hub {word!r}: {', '.join(KINDS)}")
    return word


def fault_on_azure(name: str, text: str) -> CallFault | Fault:
    """A fault of a call (it has a `mishap`), or at a step, from JSON; raises BadInput."""
    if "mishap" in text:
        return cast(CallFault, _decode(name, text, CallFault))
    fault: Fault = _decode(name, text, Fault)
    _check(fault, name, text, "$")
    return fault


def with_fault(name: str, scenario: str, fault: str, hub: str) -> Saved:
    """A fixed scenario with one fault, which is given as JSON; raises BadInput."""
    _check(_decode("--fault", fault, Fault), "--fault", fault, "$")
    return parse(
        name, f'{{"version": {VERSION}, "fixed": {json.dumps(scenario)}, "hub": "{hub}", "faults": [{fault}]}}'
    )


def seeds(name: str, text: str) -> list[tuple[int, str]]:
    """The seeds of a corpus, a line each, with the kind of hub; raises BadInput."""
    found = []
    offset = 0
    for line in text.splitlines(keepends=True):
        words = list(re.finditer(r"\S+", line.partition("#")[0]))
        if words:
            if len(words) != 2:
                raise BadInput(name, text, offset, f"{line.strip()!r} is not a seed and a kind of hub")
            (first, at), (second, after) = ((word.group(), offset + word.start()) for word in words)
            found.append((seed_of(name, text, at, first), kind_of(name, text, after, second)))
        offset += len(line)
    return found


def _check(fault: Fault, name: str, text: str, where: str) -> None:
    if fault.point < 1:
        raise BadInput(name, text, place(text, f"{where}.point"), "points are counted from 1")
    if fault.seconds < 0 and fault.kind is not Kind.CLOCK_SET:
        raise BadInput(name, text, place(text, f"{where}.seconds"), "this cannot take less than no time")


def _decode(name: str, text: str, kind: Any) -> Any:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(name, text, error.pos, f"no JSON, or cut off: {error.msg}") from error
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogateescape"), type=kind)
    except msgspec.DecodeError as error:
        what, _, path = str(error).partition(" - at `")
        raise BadInput(name, text, place(text, path.rstrip("`") or "$"), what) from error


def place(text: str, path: str) -> int:
    """Where the value of a path like `$.faults[2].kind` begins in a JSON text; else that of what is around it."""
    at = _skip(text, 0)
    for key, number in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path):
        found = _member(text, at, key) if key else _element(text, at, int(number))
        if found is None:
            break
        at = found
    return at


def _member(text: str, at: int, key: str) -> int | None:
    if text[at : at + 1] != "{":
        return None
    at = _skip(text, at + 1)
    while text[at] != "}":
        name, at = scanstring(text, at + 1)
        at = _skip(text, _skip(text, at) + 1)
        if name == key:
            return at
        at = _next(text, at)
    return None


def _element(text: str, at: int, number: int) -> int | None:
    if text[at : at + 1] != "[":
        return None
    at = _skip(text, at + 1)
    while text[at] != "]":
        if number == 0:
            return at
        number -= 1
        at = _next(text, at)
    return None


def _next(text: str, at: int) -> int:
    """Behind the value here, and the comma after it."""
    at = _skip(text, json.JSONDecoder().raw_decode(text, at)[1])
    return _skip(text, at + 1) if text[at] == "," else at


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\n", "\r") and at < len(text):
        at += 1
    return at
