"""Finds, at registration, what an orchestrator must not call: its code is run again at every replay.

Reads the function's syntax tree, and that of the program's own functions and methods which it calls, and
resolves names through closure, globals and imports; nothing is executed and nothing in the user's process
is patched.  What it cannot resolve it lets pass: the await itself and the replay still catch much of that.
A line that says `# holdtrue: allow` is let pass too, with what it calls.
"""

import ast
import builtins
import linecache
import random
import sys
import types
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from .definitions import plain_function
from .errors import RegistrationError

ALLOW = "holdtrue: allow"
"""The comment that lets a line pass."""

_CLOCK = "the wall clock differs at a replay; use ctx.current_utc_datetime (or ctx.now)"
_SLEEP = "it is not durable (a crash forgets it); wait for ctx.create_timer(timedelta(...))"
_RANDOM = "it differs at a replay; use ctx.random(), or draw in an activity"
_UUID = "it differs at a replay; use ctx.new_uuid()"
_COMBINE = (
    "an orchestrator waits for durable tasks only; start them with ctx, combine them with holdtrue.when_all and "
    "when_any, and bound a wait with a timer in when_any or wait_for_external_event(timeout=...)"
)
_IO = "it is not replayed but done again; do it in an activity (ctx.call_activity)"
_WORKER = "it may differ where it is replayed; give it as input, or read it in an activity"
_THREAD = "a crash forgets it and a replay starts it again; fan out with ctx.call_activity and holdtrue.when_all"
_CLOCKS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")

_CALLS: dict[str, str] = {
    **dict.fromkeys(
        (
            *(f"time.{name}{unit}" for name in _CLOCKS for unit in ("", "_ns")),
            "datetime.datetime.now",
            "datetime.datetime.utcnow",
            "datetime.datetime.today",
            "datetime.date.today",
        ),
        _CLOCK,
    ),
    "time.sleep": _SLEEP,
    "asyncio.sleep": _SLEEP,
    "uuid.uuid1": _UUID,
    "uuid.uuid4": _UUID,
    "os.urandom": _RANDOM,
    **dict.fromkeys(
        (
            f"asyncio.{name}"
            for name in (
                "create_task", "gather", "wait", "wait_for", "to_thread", "run", "shield", "ensure_future",
                "as_completed", "timeout", "timeout_at", "TaskGroup", "get_event_loop", "get_running_loop",
                "run_coroutine_threadsafe", "Event", "Lock", "Condition", "Semaphore", "Queue", "Future",
            )
        ),
        _COMBINE,
    ),
    "asyncio.open_connection": _IO,
    "asyncio.create_subprocess_exec": _IO,
    "asyncio.create_subprocess_shell": _IO,
    "builtins.open": _IO,
    "builtins.input": _IO,
    **dict.fromkeys(
        (
            f"os.{name}"
            for name in (
                "system", "popen", "listdir", "scandir", "walk", "stat", "mkdir", "makedirs", "remove", "unlink",
                "rename", "replace", "rmdir",
            )
        ),
        _IO,
    ),
    **dict.fromkeys((f"genericpath.{name}" for name in ("exists", "isfile", "isdir", "getsize", "getmtime")), _IO),
    **dict.fromkeys(
        (
            f"pathlib.Path.{name}"
            for name in (
                "read_text", "read_bytes", "write_text", "write_bytes", "open", "exists", "is_file", "is_dir",
                "iterdir", "glob", "rglob", "stat", "mkdir", "touch", "unlink", "rename", "replace", "cwd", "home",
            )
        ),
        _IO,
    ),
    **dict.fromkeys(("os.getenv", "os._Environ.get", "os.getpid", "os.cpu_count", "os.getcwd"), _WORKER),
}  # fmt: skip
_CLOCK_WITHOUT_ARGUMENT = frozenset(("time.gmtime", "time.localtime", "time.ctime", "time.strftime"))
"""These read the clock when they are given no time (strftime: only a format)."""
_MODULES: dict[str, str] = {
    "random": _RANDOM,
    "secrets": _RANDOM,
    "numpy.random": _RANDOM,
    **dict.fromkeys(("requests", "httpx", "aiohttp", "urllib.request", "urllib3", "http.client", "socket"), _IO),
    **dict.fromkeys(("threading", "multiprocessing", "concurrent.futures"), _THREAD),
    **dict.fromkeys(("subprocess", "sqlite3", "shutil", "tempfile", "smtplib"), _IO),
}
_ALIASES = {
    "posix": "os",
    "nt": "os",
    "_io": "builtins",
    "io": "builtins",
    "_random": "random",
    "_socket": "socket",
    "_sqlite3": "sqlite3",
    "_thread": "threading",
}


class _Source(NamedTuple):
    """A function's syntax tree with what is around it: its file, its class (None: in none), its names."""

    tree: Any
    file: str
    lines: list[str]
    module: ast.Module
    owner: ast.ClassDef | None
    names: dict[str, Any]
    unknown: frozenset[str]


def check(function: Any, name: str) -> None:
    """Raise RegistrationError that names each line with a call an orchestrator must not make, and the durable way."""
    problems = []
    todo = [(source, "") for source in _sources(plain_function(function))]
    seen = set()
    while todo:
        source, via = todo.pop()
        if id(source.tree) in seen:
            continue
        seen.add(id(source.tree))
        scope = _Scope(source)
        for call in scope.calls():
            if any(_allowed(line) for line in source.lines[call.lineno - 1 : call.end_lineno]):
                continue
            path = scope.path(call.func)
            reason = None if path is None else _reason(path, call)
            place = f"{source.file}:{call.lineno}"
            if reason is not None:
                problems.append((via, place, f"{place}: {ast.unparse(call.func)}(): {reason}{via}"))
            else:
                called = via or f" (called at {place})"
                todo += [(found, called) for found in scope.callees(call.func)]
    if problems:
        what = "\n  ".join(text for _, _, text in sorted(problems))
        raise RegistrationError(
            f"orchestrator {name!r} calls what cannot be replayed:\n  {what}\n"
            f"If a line is right as it is, say so at its end: # {ALLOW}"
        )


def _allowed(line: str) -> bool:
    return ALLOW in line.rpartition("#")[2]


def _reason(path: str, call: ast.Call) -> str | None:
    if path in _CALLS:
        return _CALLS[path]
    if path in _CLOCK_WITHOUT_ARGUMENT:
        return _CLOCK if len(call.args) <= (path == "time.strftime") and not call.keywords else None
    if path == "random.Random":
        return None if call.args else _RANDOM  # with a seed it is the same at a replay
    parts = path.split(".")
    for count in (1, 2):
        reason = _MODULES.get(".".join(parts[:count]))
        if reason is not None:
            return reason
    return None


# -- source ----------------------------------------------------------------------------------------------


def _sources(function: Any) -> Iterator[_Source]:
    """The function's own source; nothing where there is none, or another one."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        return
    lines = linecache.getlines(code.co_filename, getattr(function, "__globals__", None))
    module = _tree("".join(lines)) if lines else None
    if module is None:
        return
    names = dict(getattr(function, "__globals__", {}))
    unknown = set()
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            unknown.add(name)
    for node, owner in _with_owners(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == code.co_name:
            first = min((d.lineno for d in node.decorator_list), default=node.lineno)
            if code.co_firstlineno not in (first, node.lineno):
                continue
        elif not (isinstance(node, ast.Lambda) and code.co_name == "<lambda>" and node.lineno == code.co_firstlineno):
            continue
        yield _Source(node, code.co_filename, lines, module, owner, names, frozenset(unknown))
        return


def _with_owners(module: ast.Module) -> Iterator[tuple[ast.AST, ast.ClassDef | None]]:
    """All nodes, each with the class that it is a direct member of."""
    for node in ast.walk(module):
        for child in ast.iter_child_nodes(node):
            yield child, node if isinstance(node, ast.ClassDef) else None


def _is_own(function: types.FunctionType) -> bool:
    """True for a function of the program's, false for one of a library."""
    root = str(function.__module__).partition(".")[0]
    return (
        root not in sys.stdlib_module_names
        and root != "holdtrue"
        and not any(folder in function.__code__.co_filename for folder in ("site-packages", "dist-packages"))
    )


@lru_cache(maxsize=8)
def _tree(source: str) -> ast.Module | None:
    """A file's syntax tree; the last ones are kept, since a file's orchestrators are registered in a row."""
    for _ in range(3):
        try:
            return ast.parse(source)
        except SystemError:
            continue  # CPython 3.11's own, where what is collected meanwhile runs code ("recursion depth mismatch")
        except (SyntaxError, ValueError, RecursionError):
            break
    return None


# -- names -----------------------------------------------------------------------------------------------


_NAMED = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.ExceptHandler,
    ast.MatchAs,
    ast.MatchStar,
)


class _Scope:
    """What names mean inside one function and the functions in it.

    A name that is bound anywhere inside is local, and unknown unless an import binds it.
    """

    def __init__(self, source: _Source) -> None:
        tree = source.tree
        self._source = source
        self._body: list[ast.AST] = list(tree.body) if isinstance(tree.body, list) else [tree.body]
        self._imports: dict[str, str] = {}
        self._locals: set[str] = set(source.unknown)
        self._free = source.names
        self._bind(tree.args)
        for statement in self._body:
            for node in ast.walk(statement):
                self._bind(node)

    def calls(self) -> Iterator[ast.Call]:
        """All calls made inside."""
        for statement in self._body:
            for node in ast.walk(statement):
                if isinstance(node, ast.Call):
                    yield node

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.arguments):
            arguments = (*node.posonlyargs, *node.args, *node.kwonlyargs, node.vararg, node.kwarg)
            self._locals.update(a.arg for a in arguments if a is not None)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            self._locals.add(node.id)
        elif isinstance(node, _NAMED):
            if node.name:
                self._locals.add(node.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                self._imports[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                self._imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def path(self, target: ast.expr) -> str | None:
        """The dotted name of what is called, as its module has it; None where it cannot be told."""
        attributes: list[str] = []
        while isinstance(target, ast.Attribute):
            attributes.insert(0, target.attr)
            target = target.value
        if isinstance(target, ast.Call):
            # What a call gives, `datetime.now(tz).isoformat()`, is looked at in that call; a path does by its methods.
            made = self.path(target.func) if len(attributes) == 1 else None
            return f"{made}.{attributes[0]}" if made == "pathlib.Path" else None
        if not isinstance(target, ast.Name):
            return None
        name = target.id
        if name in self._imports:
            return _normal(".".join((self._imports[name], *attributes)))
        if name in self._locals:
            return None
        if name in self._free:
            return _resolve(self._free[name], attributes)
        return _normal(f"builtins.{name}") if hasattr(builtins, name) and not attributes else None

    def callees(self, target: ast.expr) -> Iterator[_Source]:
        """The program's own function or method that is called, where it can be told."""
        attributes: list[str] = []
        while isinstance(target, ast.Attribute):
            attributes.insert(0, target.attr)
            target = target.value
        if not isinstance(target, ast.Name) or target.id in self._imports:
            return
        source, name = self._source, target.id
        arguments = source.tree.args.args
        if source.owner is not None and arguments and name == arguments[0].arg and len(attributes) == 1:
            yield from self._defined(source.owner.body, attributes[0], source.owner)
        elif name in self._locals:
            return
        elif name in self._free:
            value = self._free[name]
            for attribute in attributes:
                if not isinstance(value, (types.ModuleType, type)):
                    return
                value = vars(value).get(attribute)
            value = plain_function(getattr(value, "__func__", value))
            if isinstance(value, types.FunctionType) and _is_own(value):
                yield from _sources(value)
        elif not attributes:
            # Defined further down in the file, which has not been run so far.
            yield from self._defined(source.module.body, name, None)

    def _defined(self, body: list[ast.stmt], name: str, owner: ast.ClassDef | None) -> Iterator[_Source]:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
                yield self._source._replace(tree=node, owner=owner)


def _resolve(value: Any, attributes: list[str]) -> str | None:
    """Follow attributes as far as modules and classes go: nothing of the user's is called by it."""
    rest = list(attributes)
    while rest and isinstance(value, types.ModuleType):
        found = vars(value).get(rest[0])
        if found is None:
            return _normal(".".join((value.__name__, *rest)))
        value = found
        rest.pop(0)
    if isinstance(value, types.ModuleType):
        return None
    owner = getattr(value, "__self__", None) if isinstance(value, (types.BuiltinMethodType, types.MethodType)) else None
    if isinstance(value, random.Random) or isinstance(owner, random.Random):
        return "random.shared"
    if isinstance(owner, type):
        return _normal(".".join((owner.__module__, owner.__qualname__, value.__name__, *rest)))
    kind = value if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)) else type(value)
    module, name = getattr(kind, "__module__", None), getattr(kind, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    return _normal(".".join((module, name, *rest)))


def _normal(path: str) -> str:
    """One name for things that go by several: `posix.urandom`, `asyncio.tasks.sleep`, `datetime.date.today`."""
    module, _, rest = path.partition(".")
    path = f"{_ALIASES.get(module, module)}.{rest}"
    if module == "asyncio":
        return f"asyncio.{path.rpartition('.')[2]}"
    return path
