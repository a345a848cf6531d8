"""What orchestrators keep in the memory of their process: module globals, closures, defaults, objects.

A restart of a process loses it; here it is set back to what it was, in place, so that everybody who holds one of
these objects sees it.  Only what the code of orchestrators names is looked at, and of that only plain containers and
objects of the user's own classes; what the test itself names (its probe of the outside world) is left alone.
"""

import ast
import dis
import functools
import itertools
import random
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from holdtrue.authoring.app import App
from holdtrue.authoring.definitions import plain_function

_MISSING = object()
_PLAIN = (int, float, complex, str, bytes, tuple, frozenset)
_MOST_OBJECTS = 20_000
"""With more objects under one name, the rest is left alone."""


class Slot(msgspec.Struct, frozen=True):
    """A place that the code names: `name` in `holder` (a module's dict, or a cell); `where` is the first `file:line`
    of the code that names it, one that sets it before all others."""

    holder: Any
    name: str
    where: str

    @property
    def key(self) -> tuple[int, str]:
        """It, to compare with others."""
        return id(self.holder), "" if isinstance(self.holder, types.CellType) else self.name

    def get(self) -> Any:
        """What is there."""
        if isinstance(self.holder, types.CellType):
            try:
                return self.holder.cell_contents
            except ValueError:
                return _MISSING
        return self.holder.get(self.name, _MISSING)

    def put(self, value: Any) -> None:
        """Set it back."""
        if isinstance(self.holder, types.CellType):
            if value is not _MISSING:
                self.holder.cell_contents = value
            elif self.get() is not _MISSING:
                del self.holder.cell_contents
        elif value is not _MISSING:
            self.holder[self.name] = value
        else:
            self.holder.pop(self.name, None)


class ProcessMemory:
    """What the orchestrators of an app keep in memory, as it is now; `apart` are functions of the test, whose names
    are the outside world's."""

    def __init__(self, app: App, apart: Iterable[Any]) -> None:
        activities = [definition.function for definition in app.activities.values()]
        codes = {_code_of(function) for function in activities}
        world = [slot for function in apart if function is not None for slot in _slots(function, set(), set())]
        world_keys = {slot.key for slot in world}
        outside = {id(slot.get()) for slot in world if _content(slot.get()) is not None}
        outside |= {id(function.__self__) for function in activities if hasattr(function, "__self__")}
        slots: dict[tuple[int, str], Slot] = {}
        seen: set[Any] = set()
        for orchestrator in app.orchestrators.values():
            for slot in _slots(orchestrator.function, codes, seen):
                value = slot.get()
                if slot.key not in world_keys and id(value) not in outside and not isinstance(value, App):
                    slots.setdefault(slot.key, slot)
        self._kept = [(slot, slot.get(), list(_contents(slot.get(), outside))) for slot in slots.values()]
        self._counts = {id(value): _count(value) for _, value, _ in self._kept if isinstance(value, itertools.count)}

    def restore(self) -> None:
        """Set all back: the process has begun anew."""
        for slot, value, contents in self._kept:
            if isinstance(value, itertools.count):
                slot.put(itertools.count(*self._counts[id(value)]))
            elif isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()
            elif not _equal(slot.get(), value):
                slot.put(value)
            for thing, content in contents:
                _refill(thing, content)

    def changed(self) -> list[tuple[str, str]]:
        """The names that are not what they were, each with the `file:line` of the code that names it."""
        return [(slot.name, slot.where) for slot, value, contents in self._kept if self._differs(slot, value, contents)]

    def _differs(self, slot: Slot, value: Any, contents: list[tuple[Any, Any]]) -> bool:
        now = slot.get()
        if isinstance(value, itertools.count) and isinstance(now, itertools.count):
            return _count(now) != self._counts[id(value)]
        return not _equal(now, value) or any(not _is_same(thing, content) for thing, content in contents)


def _count(counter: "itertools.count[Any]") -> tuple[Any, ...]:
    """Where it stands, and its step: it tells of them only in its text."""
    told = ast.literal_eval(repr(counter).removeprefix("count"))
    return told if isinstance(told, tuple) else (told,)


# -- what code names ----------------------------------------------------------------------------------------


def _slots(function: Any, stop: set[Any], seen: set[Any]) -> Iterator[Slot]:
    """The places that a function names, and the user's functions that it calls; not those of the codes in `stop`."""
    owner = getattr(function, "__self__", None)
    plain = plain_function(function)
    code = getattr(plain, "__code__", None)
    if code is None or code in seen or code in stop:
        return
    seen.add(code)
    where = f"{code.co_filename}:{code.co_firstlineno}"
    if owner is not None and _is_users(type(owner)):
        yield Slot(types.CellType(owner), "self", where)
    if plain.__dict__ or plain.__defaults__:
        yield Slot(types.CellType([plain.__dict__, *(plain.__defaults__ or ())]), code.co_name, where)
    namespace = plain.__globals__
    named: list[Slot] = []
    for name, line in _names(code):
        place = f"{code.co_filename}:{line}"
        if name in code.co_freevars:
            named.append(Slot(plain.__closure__[code.co_freevars.index(name)], name, place))
        elif name in namespace:
            value = namespace[name]
            if isinstance(value, types.ModuleType):
                if _is_users_module(value.__name__, getattr(value, "__file__", None)):
                    named += [Slot(vars(value), part, place) for part in code.co_names if part in vars(value)]
            else:
                named.append(Slot(namespace, name, place))
        elif name in code.co_names:
            named.append(Slot(namespace, name, place))
    for slot in named:
        value = slot.get()
        called = plain_function(value) if callable(value) and not isinstance(value, type) else None
        if isinstance(called, types.FunctionType):
            if _is_users_module(called.__module__, called.__code__.co_filename):
                yield from _slots(value, stop, seen)
            if isinstance(value, functools._lru_cache_wrapper):
                yield slot
        elif isinstance(value, types.ModuleType) or (isinstance(value, type) and not _is_users(value)):
            continue
        elif value is not _MISSING or _is_set_by(code, slot.name):
            yield slot


def _names(code: types.CodeType) -> list[tuple[str, int]]:
    """Names of globals and of closures in a code and in those within it, each with a line: that of its first setting,
    else that of its first use."""
    used: dict[str, int] = {}
    set_at: dict[str, int] = {}
    todo = [code]
    while todo:
        one = todo.pop()
        line = one.co_firstlineno
        for step in dis.get_instructions(one):
            line = step.starts_line if isinstance(step.starts_line, int) and step.starts_line > 1 else line
            if step.positions is not None and step.positions.lineno is not None:
                line = step.positions.lineno
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"):
                used.setdefault(step.argval, line)
            elif step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF"):
                set_at.setdefault(step.argval, line)
        todo += [const for const in one.co_consts if isinstance(const, types.CodeType)]
    return [(name, set_at.get(name, line)) for name, line in {**set_at, **used}.items()]


def _is_set_by(code: types.CodeType, name: str) -> bool:
    return any(step.opname == "STORE_GLOBAL" and step.argval == name for step in dis.get_instructions(code))


def _code_of(function: Any) -> Any:
    return getattr(plain_function(function), "__code__", None)


def _is_users_module(name: str | None, file: str | None) -> bool:
    top = (name or "").partition(".")[0]
    return top != "holdtrue" and top not in sys.stdlib_module_names and "site-packages" not in (file or "")


def _is_users(cls: type) -> bool:
    module = sys.modules.get(cls.__module__)
    return _is_users_module(cls.__module__, getattr(module, "__file__", None))


# -- what objects hold --------------------------------------------------------------------------------------


def _contents(value: Any, outside: set[int]) -> Iterator[tuple[Any, Any]]:
    """Each container and each object of the user's under a value, with what it holds now."""
    seen: set[int] = set()
    todo = [value]
    while todo and len(seen) < _MOST_OBJECTS:
        thing = todo.pop()
        if id(thing) in seen or id(thing) in outside:
            continue
        seen.add(id(thing))
        content = _content(thing)
        if content is not None:
            yield thing, content
            todo += content.values() if isinstance(content, dict) else content
        elif isinstance(thing, tuple | frozenset):
            todo += thing


def _content(thing: Any) -> Any:
    """What a thing holds, by reference; None for what is not looked into."""
    if isinstance(thing, dict):
        return dict(thing)
    if isinstance(thing, set):
        return frozenset(thing)
    if isinstance(thing, list | deque | bytearray):
        return tuple(thing)
    if isinstance(thing, random.Random):
        return thing.getstate()
    if isinstance(thing, type):
        if not _is_users(thing):
            return None
        return {name: part for name, part in vars(thing).items() if not name.startswith("__") and not callable(part)}
    if isinstance(thing, App | types.ModuleType | types.FunctionType) or not _is_users(type(thing)):
        return None
    return dict(thing.__dict__) if hasattr(thing, "__dict__") else None


def _equal(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and isinstance(one, _PLAIN) and bool(one == other))


def _is_same(thing: Any, content: Any) -> bool:
    now = _content(thing)
    if isinstance(content, frozenset) or isinstance(thing, random.Random):
        return bool(now == content)
    if isinstance(content, dict):
        return list(now) == list(content) and all(map(_equal, now.values(), content.values()))
    return len(now) == len(content) and all(map(_equal, now, content))


def _refill(thing: Any, content: Any) -> None:
    """Give a thing its content back."""
    if _is_same(thing, content):
        return
    if isinstance(thing, dict | set):
        thing.clear()
        thing.update(content)
    elif isinstance(thing, list | deque | bytearray):
        thing.clear()
        thing.extend(content)
    elif isinstance(thing, random.Random):
        thing.setstate(content)
    elif isinstance(thing, type):
        for name in list(_content(thing)):
            if name not in content:
                delattr(thing, name)
        for name, part in content.items():
            setattr(thing, name, part)
    else:
        thing.__dict__.clear()
        thing.__dict__.update(content)
