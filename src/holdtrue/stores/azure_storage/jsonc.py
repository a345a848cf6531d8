"""JSON with comments and trailing commas, as a host.json may have it; every value with its line.

The standard library's parser takes neither and tells no lines of values.  No I/O.
"""

import json
import re
from typing import Any

import msgspec

from holdtrue.core.errors import InvalidInput

DEEPEST = 64
"""More levels than this no host.json has."""

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}


class Node(msgspec.Struct):
    """A value and its line, from 1.  An object's is a dict of nodes by key, an array's a list of nodes."""

    value: Any
    line: int


def parse_jsonc(text: str) -> Node:
    """The value of a text.  Raises InvalidInput with line and column where it is not JSON, or has a key twice.

    Keys that differ in the case of letters alone are the same key: to .NET they are.
    """
    reader = _Reader(text.removeprefix("\ufeff"))
    node = reader.value(0)
    reader.skip()
    if reader.at < len(reader.text):
        raise reader.error("something stands behind the end")
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def error(self, what: str) -> InvalidInput:
        line = self.text.count("\n", 0, self.at) + 1
        column = self.at - (self.text.rfind("\n", 0, self.at) + 1) + 1
        near = self.text[self.at : self.at + 20].split("\n")[0]
        return InvalidInput(f"line {line}, column {column}: {what}" + (f", at {near!r}" if near else ""))

    def skip(self) -> None:
        found = _SPACE.match(self.text, self.at)
        assert found is not None  # it matches nothing too
        self.at = found.end()
        if self.text.startswith("/*", self.at):
            raise self.error("a comment without an end")

    def takes(self, sign: str) -> bool:
        self.skip()
        if self.text.startswith(sign, self.at):
            self.at += len(sign)
            return True
        return False

    def value(self, depth: int) -> Node:
        self.skip()
        if depth > DEEPEST:
            raise self.error("nested too deeply")
        line = self.text.count("\n", 0, self.at) + 1
        if self.takes("{"):
            return Node(self.members(depth), line)
        if self.takes("["):
            return Node(self.items(depth), line)
        if self.text.startswith('"', self.at):
            return Node(self.string(), line)
        for word, value in _WORDS.items():
            if self.takes(word):
                return Node(value, line)
        number = _NUMBER.match(self.text, self.at)
        if number is None:
            raise self.error("a value is missing" if self.at < len(self.text) else "it ends where a value should be")
        self.at = number.end()
        return Node(json.loads(number[0]), line)

    def string(self) -> str:
        self.skip()
        found = _STRING.match(self.text, self.at)
        if found is None:
            raise self.error("a text in double quotes is missing, or has no end")
        try:
            value = json.loads(found[0])
        except json.JSONDecodeError as error:
            raise self.error(error.msg) from None
        self.at = found.end()
        assert isinstance(value, str)
        return value

    def members(self, depth: int) -> dict[str, Node]:
        members: dict[str, Node] = {}
        seen: dict[str, str] = {}
        while not self.takes("}"):
            self.skip()
            begin = self.at
            key = self.string()
            before = seen.setdefault(key.casefold(), key)
            if key in members or before != key:
                self.at = begin
                raise self.error(f"{key!r} stands there twice" + (f" ({before!r})" if before != key else ""))
            if not self.takes(":"):
                raise self.error("a colon is missing")
            members[key] = self.value(depth + 1)
            if not self.takes(","):
                if not self.takes("}"):
                    raise self.error("a comma or } is missing")
                break
        return members

    def items(self, depth: int) -> list[Node]:
        items: list[Node] = []
        while not self.takes("]"):
            items.append(self.value(depth + 1))
            if not self.takes(","):
                if not self.takes("]"):
                    raise self.error("a comma or ] is missing")
                break
        return items


def plain(node: Node) -> Any:
    """The value without its lines."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value
