"""The house's own rules, read from the source: who may import whom, and what stands in one place only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "holdtrue"
MODULES = sorted(SOURCE.rglob("*.py"))

LAYERS = [
    {"core"},
    {"environment", "frames"},
    {"stores"},
    {"schedules"},
    {"authoring"},
    {"client"},
    {"engine"},
    {"host"},
    {"__init__"},
    {"testing"},
    {"cli"},
]
"""From below to above: a part may import itself and what stands below it."""

ONE_DOOR = ("engine", "client", "stores", "schedules", "authoring", "core", "host.py")
FORBIDDEN_MODULES = {"time", "random", "threading", "secrets", "multiprocessing", "subprocess"}
FORBIDDEN_CALLS = {"now", "utcnow", "today", "uuid1", "uuid4", "urandom"}
ALLOWED: dict[str, set[str]] = {
    "authoring/context.py": {"random"},  # ctx.random(): a generator seeded by the execution, the same at each replay
    "authoring/determinism.py": {"random"},  # looks for its functions in users' code
}
"""Exceptions to the one door, each with its reason beside it: module -> names."""


def _name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def _layer(part: str) -> int:
    for number, parts in enumerate(LAYERS):
        if part in parts:
            return number
    raise AssertionError(f"holdtrue.{part} stands in no layer: add it to LAYERS where it belongs")


def _imports(path: Path) -> list[tuple[int, str]]:
    """Every module that a file imports, absolute, with its line; what only type checkers see is left out."""
    package = ["holdtrue", *path.relative_to(SOURCE).parent.parts]
    found: list[tuple[int, str]] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.append((node.lineno, module))
            if module in ("holdtrue", ".".join(package)):
                found.extend((node.lineno, f"{module}.{name.name}") for name in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_go_one_way(path: Path) -> None:
    part = path.relative_to(SOURCE).with_suffix("").parts[0]
    wrong = []
    for line, module in _imports(path):
        names = module.split(".")
        if names[0] != "holdtrue" or len(names) < 2 or not _is_part(names[1]):
            continue
        if _layer(names[1]) > _layer(part):
            wrong.append(f"{_name(path)}:{line} imports {module}, which stands above it")
    assert not wrong, "\n".join(wrong)


def _is_part(name: str) -> bool:
    return (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()


@pytest.mark.parametrize("path", [p for p in MODULES if _name(p).startswith("core/")], ids=_name)
def test_the_core_is_pure(path: Path) -> None:
    """The core imports nothing of ours outside itself, and nothing that does I/O or logs."""
    io = {"os", "io", "socket", "logging", "asyncio", "sqlite3", "apsw", "pathlib", "ssl", "http", "urllib", "signal"}
    for line, module in _imports(path):
        top = module.split(".")[0]
        assert top not in io | FORBIDDEN_MODULES, f"{_name(path)}:{line} imports {module}: the core does no I/O"
        assert top != "holdtrue" or module.startswith("holdtrue.core"), f"{_name(path)}:{line} imports {module}"


@pytest.mark.parametrize("path", [p for p in MODULES if _name(p).startswith(ONE_DOOR)], ids=_name)
def test_time_and_chance_come_through_one_door(path: Path) -> None:
    """Time, randomness, ids, threads and processes come from `environment`, so that all can be simulated."""
    allowed = ALLOWED.get(_name(path), set())
    wrong = [
        f"{_name(path)}:{line} imports {module}"
        for line, module in _imports(path)
        if module.split(".")[0] in FORBIDDEN_MODULES - allowed
    ]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            owner, name = function.value.id, function.attr
            if name in FORBIDDEN_CALLS - allowed and owner in ("datetime", "date", "uuid", "os", "dt"):
                wrong.append(f"{_name(path)}:{node.lineno} calls {owner}.{name}()")
            if owner == "asyncio" and name in {"to_thread", "sleep"} - allowed:
                wrong.append(f"{_name(path)}:{node.lineno} calls asyncio.{name}(): ask the environment")
        if isinstance(function, ast.Name) and function.id in {"uuid4", "Thread", "ThreadPoolExecutor"} - allowed:
            wrong.append(f"{_name(path)}:{node.lineno} calls {function.id}()")
    assert not wrong, "take it from holdtrue.environment.Environment instead:\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= 700, f"{_name(path)} has {lines} lines: split it by subject"


@pytest.mark.parametrize("path", [p for p in MODULES if p.read_text().strip()], ids=_name)
def test_a_module_says_what_it_holds(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{_name(path)} opens without a paragraph"


def test_no_pickle_no_eval() -> None:
    for path in MODULES:
        for line, module in _imports(path):
            assert module.split(".")[0] not in {"pickle", "marshal", "shelve", "dill"}, f"{_name(path)}:{line}"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, f"{_name(path)}:{node.lineno}"


def test_sql_is_built_nowhere() -> None:
    """SQL stands in files of named statements; no string in a store or above begins like one.

    (The CLI asks a backup file whether it is a hub at all, before any store would open it.)
    """
    verbs = ("SELECT ", "INSERT ", "UPDATE ", "DELETE FROM ", "CREATE TABLE")
    for path in (path for path in MODULES if not _name(path).startswith("cli/")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip().startswith(verbs):
                raise AssertionError(f"{_name(path)}:{node.lineno} holds SQL: put it into a .sql file")
