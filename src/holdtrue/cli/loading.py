"""From `module:attribute` or `path.py[:attribute]` to an application.

The module gets the name under which other processes can import it again: activities that run in processes
of their own, and the names of error classes, depend on it.
"""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from holdtrue.cli.exits import CommandError, ExitCode, UsageProblem
from holdtrue.cli.output import shorten

if TYPE_CHECKING:
    from holdtrue.authoring.app import App

FORMS = "Give module:attribute, as in myapp.jobs:app, or a file, as in jobs.py or jobs.py:app"


@dataclass(frozen=True)
class AppName:
    """Where an application stands: the module, the folder to import it from, the attribute (None: the only one)."""

    module: str
    folder: Path
    attribute: str | None


def parse_app(text: str, here: Path | None = None) -> AppName:
    """Read APP as typed; raises UsageProblem where it names no module or file."""
    here = here or Path.cwd()
    place, colon, attribute = text.rpartition(":")
    if not colon or "/" in attribute or "\\" in attribute or attribute.endswith(".py"):
        place, attribute = text, ""
    if colon and not attribute and place != text:
        raise UsageProblem(f"APP {text!r} ends after the colon. {FORMS}.")
    path = here / place
    if not place.endswith(".py"):
        if path.is_dir() and ("/" in place or place == "."):
            raise UsageProblem(f"APP {text!r} is a directory. {FORMS}.")
        if not all(part.isidentifier() for part in place.split(".")):
            raise UsageProblem(f"APP {text!r} is neither a module nor a Python file. {FORMS}.")
        return AppName(place, here, attribute or None)
    try:
        is_file = path.is_file()
    except OSError as error:
        raise UsageProblem(f"APP {shorten(text, 100)!r}: the file cannot be looked at: {error.strerror}.") from None
    if not is_file:
        raise UsageProblem(f"APP {text!r}: there is no file {place!r}. {FORMS}; `holdtrue init` writes a first one.")
    path = path.resolve()
    names = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    if not names or not all(name.isidentifier() for name in names):
        raise UsageProblem(
            f"APP {text!r}: {'.'.join(names) or path.name!r} is not a name that Python can import; rename the file."
        )
    return AppName(".".join(names), folder, attribute or None)


def load_app(name: AppName) -> "App":
    """Import the module and take the application out of it.

    Raises CommandError (`APP_BROKEN`): it cannot be imported, is another module of that name, or holds no
    such application.  The import error stands behind it as `__cause__`.
    """
    folder = str(name.folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(name.module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # user code may raise anything, SystemExit too
        raise CommandError(_import_failure(name, error), ExitCode.APP_BROKEN) from error
    _refuse_namesake(name, module)
    return _take(name, module)


def _import_failure(name: AppName, error: BaseException) -> str:
    if (
        isinstance(error, ModuleNotFoundError)
        and error.name is not None
        and (error.name == name.module or name.module.startswith(error.name + "."))
    ):
        return f"There is no module {name.module!r} (looked in {str(name.folder)!r} and Python's own path). {FORMS}."
    where = ""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})" if error.filename else ""
        message = error.msg
    else:
        message = str(error)
        trace = error.__traceback__
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if not file.startswith("<frozen") and Path(file).is_relative_to(name.folder):
                where = f" ({file}, line {trace.tb_lineno})"
            trace = trace.tb_next
    return f"The application's module {name.module!r} cannot be imported: {type(error).__name__}: {message}{where}"


def _refuse_namesake(name: AppName, module: ModuleType) -> None:
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    wanted = name.folder.joinpath(*name.module.split("."))
    files = (wanted.with_suffix(".py"), wanted / "__init__.py")
    there = [file for file in files if file.is_file()]
    if there and origin is not None and not any(Path(origin).resolve() == file.resolve() for file in there):
        raise CommandError(
            f"The file {str(there[0])!r} has the name of another module ({name.module!r}, from {origin}), which Python "
            "imports in its place; rename the file.",
            ExitCode.APP_BROKEN,
        )


def _take(name: AppName, module: ModuleType) -> "App":
    from holdtrue.authoring.app import App

    if name.attribute is not None:
        found: object = module
        for part in name.attribute.split("."):
            if not hasattr(found, part):
                raise CommandError(
                    f"Module {name.module!r} has no {name.attribute!r}. {_apps_of(module, App)}", ExitCode.APP_BROKEN
                )
            found = getattr(found, part)
        if not isinstance(found, App):
            raise CommandError(
                f"{name.module}:{name.attribute} is a {type(found).__name__}, not a holdtrue.App. "
                f"{_apps_of(module, App)}",
                ExitCode.APP_BROKEN,
            )
        return found
    apps = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    preferred = getattr(module, "app", None)
    if isinstance(preferred, App):
        return preferred
    if len(apps) != 1:
        raise CommandError(
            f"Module {name.module!r} has {len(apps) or 'no'} applications. {_apps_of(module, App)}",
            ExitCode.APP_BROKEN,
        )
    return next(iter(apps.values()))


def _apps_of(module: ModuleType, kind: type) -> str:
    names = [key for key, value in vars(module).items() if isinstance(value, kind)]
    if not names:
        return "Make one with `app = holdtrue.App()`."
    return f"It has: {', '.join(names)}; name one as {module.__name__}:{names[0]}."
