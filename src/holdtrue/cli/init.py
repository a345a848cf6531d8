"""`holdtrue init`: a first application, small and whole."""

import keyword
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from holdtrue.cli.app import Session, command
from holdtrue.cli.exits import CommandError, ExitCode, UsageProblem

FIRST_APP = '''\
"""A first durable application.  Serve it with:  holdtrue run hello.py"""

import holdtrue

app = holdtrue.App()


@app.activity
def greet(ctx: holdtrue.ActivityContext, name: str) -> str:
    return f"Hello {name}!"


@app.orchestrator
async def hello(ctx: holdtrue.OrchestrationContext, names: list[str]) -> list[str]:
    return await holdtrue.when_all([ctx.call_activity(greet, input=name) for name in names])
'''


@command("init")
def init(
    session: Session,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="The file to write, or a directory for hello.py.")
    ] = Path("hello.py"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> ExitCode | None:
    """Write a first application: 15 lines that work."""
    if path.is_dir():
        path = path / "hello.py"
    if path.suffix != ".py" or not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        raise UsageProblem(f"{str(path)!r} is no file that Python could import; name it as in jobs.py.")
    if path.stem == "holdtrue" or path.stem in sys.stdlib_module_names:
        raise UsageProblem(f"{path.name!r} would hide the module {path.stem!r} from the application; choose another.")
    if path.exists() and not force:
        raise CommandError(f"{str(path)!r} exists already. Name another file, or add --force.", ExitCode.REFUSED)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FIRST_APP.replace("hello.py", path.name), encoding="utf-8")
    run, start = f"holdtrue run {shlex.quote(str(path))}", """holdtrue start hello '["Ada", "Grace"]' --wait"""
    session.out.say(f"Wrote {path}.", {"written": str(path), "next": [run, start]})
    if not session.out.json:
        session.out.say(f"Serve it:      {run}")
        session.out.say(f"In a second terminal:  {start}")
    return None
