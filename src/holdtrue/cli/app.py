"""The typer application: global options, how a command gets its session, and how errors end it.

A command is a function of a `Session` and its own options; `command` adds the global options to it, so that
`holdtrue --json list` and `holdtrue list --json` are one.  What commands do stands in the modules by subject.
"""

import inspect
import itertools
import logging
import os
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote

import typer
from typer.core import TyperGroup

from holdtrue.cli.exits import CommandError, ExitCode, UsageProblem, code_of
from holdtrue.cli.output import Output, is_terminal, shorten

if TYPE_CHECKING:
    from holdtrue.client.sync import SyncClient

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_HUB = "holdtrue.db"
GLOBAL_PANEL = "Global options"

_HUB_HELP = (
    f"The task hub: a file, sqlite:///file, or azure-storage:NAME.  Default: $HOLDTRUE_HUB, else {DEFAULT_HUB} here."
)
_JSON_HELP = "Answer in JSON, one document a line; errors too, on standard error."
_DEBUG_HELP = "Show the traceback of an error."

HubOption = Annotated[str | None, typer.Option("--hub", metavar="HUB", help=_HUB_HELP, rich_help_panel=GLOBAL_PANEL)]
JsonOption = Annotated[bool, typer.Option("--json", help=_JSON_HELP, rich_help_panel=GLOBAL_PANEL)]
DebugOption = Annotated[bool, typer.Option("--debug", help=_DEBUG_HELP, rich_help_panel=GLOBAL_PANEL)]


class _Program(TyperGroup):
    """The commands; with `--json` what the parser refuses is told as every other error is."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        if not standalone_mode or "--json" not in itertools.takewhile(lambda word: word != "--", words):
            return super().main(args, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.Abort:
            code = ExitCode.FAILED
        except Exception as error:
            # The parser's own errors have no public class; this is how they tell their words.
            tell = getattr(error, "format_message", None)
            if tell is None:
                raise
            code = ExitCode.USAGE
            Output(json=True).error(tell(), code, kind_of(UsageProblem("")))
        sys.exit(code)


# Frames and colours only where a person looks on; None is plain text.
_MARKUP: Any = "rich" if is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") else None

app = typer.Typer(
    name="holdtrue",
    cls=_Program,
    help="Durable task orchestration whose status never lies.",
    epilog="First steps: `holdtrue init`, then `holdtrue run hello.py`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=_MARKUP,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def group(name: str, help: str) -> typer.Typer:
    """A group of commands under one word (`holdtrue schedule ...`)."""
    commands = typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=_MARKUP)
    app.add_typer(commands, name=name)
    return commands


class _Told(logging.Handler):
    """Warnings of the client's (a hub that is locked for a while, say) as remarks of the command's."""

    def __init__(self, out: Output) -> None:
        super().__init__(logging.WARNING)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        self._out.note(record.getMessage())


@dataclass
class Session:
    """What every command gets: the hub it works on, and where its answers go."""

    hub: str
    out: Output
    debug: bool

    @contextmanager
    def client(self, *, create: bool = False) -> Iterator["SyncClient"]:
        """An open client of the hub; `create` lets it make a hub that is not there.

        Raises CommandError where there is none.
        """
        self.require_hub(create=create)
        log, told = logging.getLogger("holdtrue"), _Told(self.out)
        log.addHandler(told)
        try:
            with open_client(self.hub) as client:
                yield client
        finally:
            log.removeHandler(told)

    def hub_path(self) -> Path:
        """The file behind the hub's name; raises UsageProblem for a name of another kind."""
        return hub_path(self.hub)

    def require_hub(self, *, create: bool = False) -> None:
        """Raise CommandError unless there is a hub, or with `create` may be one."""
        if self.hub.startswith(ACCOUNT):
            if not create:
                self._require_in_account()
            return
        path = self.hub_path()
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            mode = 0
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise CommandError(
                f"The task hub {shorten(str(path), 100)!r} cannot be looked at: {reason}.", ExitCode.HUB_UNAVAILABLE
            ) from None
        if mode and not stat.S_ISREG(mode):
            raise CommandError(
                f"{str(path)!r} is {'a directory' if stat.S_ISDIR(mode) else 'no file'}; a task hub is a file. "
                "Name it with --hub or HOLDTRUE_HUB.",
                ExitCode.HUB_UNAVAILABLE,
            )
        if not mode and not create:
            raise CommandError(
                f"There is no task hub {str(path)!r}. Name another with --hub or HOLDTRUE_HUB, or make one: "
                "`holdtrue run APP` and `holdtrue start` do.",
                ExitCode.HUB_UNAVAILABLE,
            )

    def _require_in_account(self) -> None:
        import asyncio

        from holdtrue.environment import REAL
        from holdtrue.stores.azure_storage.opening import hub_exists

        if not asyncio.run(hub_exists(self.hub, REAL, os.environ)):
            raise CommandError(
                f"There is no task hub {self.hub!r} in the storage account. Name another with --hub or HOLDTRUE_HUB, "
                "or make one: `holdtrue run APP` and `holdtrue start` do.",
                ExitCode.HUB_UNAVAILABLE,
            )


ACCOUNT = "azure-storage:"
"""How the names of hubs in storage accounts begin."""


def hub_path(hub: str) -> Path:
    """The file behind a hub's name: a path, or `sqlite:///path`; raises UsageProblem for another."""
    if hub.startswith("memory:"):
        raise UsageProblem(
            "--hub: a hub in memory ends with the command, so that nothing could work on it. Give a file; one of that "
            f"name is {'./' + hub!r}."
        )
    if hub.startswith(ACCOUNT):
        raise UsageProblem(f"--hub: {hub!r} lies in a storage account; this is for hubs in a file.")
    scheme, mark, rest = hub.partition("://")
    if mark:
        if scheme != "sqlite":
            raise UsageProblem(f"--hub: there is no store for {scheme!r} hubs. Give a file, or sqlite:///file.")
        hub = unquote(rest.removeprefix("/"))
    if not hub:
        raise UsageProblem("--hub: the name of the task hub is empty.")
    return Path(hub)


def open_client(hub: str) -> "SyncClient":
    """The blocking client of a hub, not yet entered."""
    from holdtrue.client.sync import SyncClient

    return SyncClient(hub)


@contextmanager
def streamed(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """A stream of the client's that is closed when it is left early, while the client is still open."""
    try:
        yield items
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


@dataclass
class _Given:
    """The global options as they stood before the command."""

    hub: str | None = None
    json: bool = False
    debug: bool = False


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"holdtrue {version('holdtrue')}")
        except PackageNotFoundError:
            typer.echo("holdtrue (not installed)")
        raise typer.Exit


@app.callback()
def _globals(
    ctx: typer.Context,
    hub: Annotated[str | None, typer.Option("--hub", metavar="HUB", envvar="HOLDTRUE_HUB", help=_HUB_HELP)] = None,
    json: Annotated[bool, typer.Option("--json", help=_JSON_HELP)] = False,
    debug: Annotated[bool, typer.Option("--debug", help=_DEBUG_HELP)] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    ctx.obj = _Given(hub, json, debug)


def command(
    name: str, *, to: typer.Typer = app
) -> Callable[[Callable[Concatenate[Session, P], ExitCode | None]], Callable[Concatenate[Session, P], ExitCode | None]]:
    """Register a function of a session as a command; its docstring is the help, what it returns the exit code."""

    def register(
        function: Callable[Concatenate[Session, P], ExitCode | None],
    ) -> Callable[Concatenate[Session, P], ExitCode | None]:
        to.command(name, help=inspect.getdoc(function))(_with_globals(function))
        return function

    return register


def _with_globals(function: Callable[..., ExitCode | None]) -> Callable[..., None]:
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    added = [
        inspect.Parameter("_hub", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=HubOption),
        inspect.Parameter("_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption),
        inspect.Parameter("_debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=DebugOption),
    ]
    context = inspect.Parameter("_ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + added + [context]

    def invoke(**arguments: Any) -> None:
        given = arguments.pop("_ctx").find_root().obj
        session = Session(
            hub=_first(arguments.pop("_hub"), given.hub, DEFAULT_HUB),
            out=Output(json=arguments.pop("_json") or given.json),
            debug=arguments.pop("_debug") or given.debug,
        )
        with reported(session):
            _refuse_broken_texts([session.hub, arguments])
            code = function(session, **arguments)
        if code:
            raise typer.Exit(int(code))

    invoke.__name__ = getattr(function, "__name__", "command")
    invoke.__module__ = function.__module__
    invoke.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=None
    )
    invoke.__annotations__ = {p.name: p.annotation for p in parameters}
    return invoke


def _refuse_broken_texts(value: Any) -> None:
    """Raise UsageProblem for a text that the shell gave us in another encoding: no hub could hold it."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _refuse_broken_texts(one)
    elif isinstance(value, str | Path):
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise UsageProblem(f"{str(value)!r} is not UTF-8 text; give it in UTF-8, under a UTF-8 locale.") from None


def _first(*values: str | None) -> str:
    return next(value for value in values if value is not None)


@contextmanager
def reported(session: Session) -> Iterator[None]:
    """Turn an error into its message and exit code; the traceback comes only with `--debug`."""
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the end of the line: every error gets its words
        code = code_of(error)
        if session.debug:
            traceback.print_exc()
        if code is not ExitCode.INTERRUPTED:
            session.out.error(_message(error, code), code, kind_of(error))
        raise typer.Exit(int(code)) from None


def kind_of(error: BaseException) -> str:
    """What an error is called in JSON: its class, or for the command line's own the name of its exit code."""
    if isinstance(error, CommandError):
        return error.code.name.title().replace("_", "")
    return type(error).__name__


def _message(error: BaseException, code: ExitCode) -> str:
    if code is ExitCode.DEFECT:
        return (
            f"{type(error).__name__}: {error}\n"
            "This is a defect of Holdtrue: run the command again with --debug and report what it shows."
        )
    if code is ExitCode.TIMEOUT and not str(error):
        return "The time is over; what was waited for goes on."
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename is None else f"{shorten(str(error.filename), 100)!r}: "
        return f"{place}{error.strerror}."
    return str(error) or type(error).__name__
