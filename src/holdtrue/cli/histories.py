"""Commands on recorded histories: check them against new code, export them into files, import them from there."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.cli.app import Session, command
from holdtrue.cli.exits import CommandError, ExitCode, UsageProblem
from holdtrue.cli.instances import NameOption, PrefixOption, StatusOption, statuses_of
from holdtrue.cli.output import counted
from holdtrue.cli.values import optional_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdtrue.authoring.app import App
    from holdtrue.stores.protocol import InstanceCopy
    from holdtrue.testing.history_files import RecordedHistories
    from holdtrue.testing.recorded import Selection
    from holdtrue.testing.replay_check import ReplayReport, ReplayResult

AllOption = Annotated[bool, typer.Option("--all", help="Those that have ended, too.")]
FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILE", help="Files that `export-history` wrote.", show_default=False)
]


@command("check-replay")
def check_replay(
    session: Session,
    app: Annotated[
        str,
        typer.Argument(
            metavar="APP",
            help="The application about to be deployed: module:attribute, or file.py[:attribute].",
            show_default=False,
        ),
    ],
    store: Annotated[str | None, typer.Option("--store", metavar="HUB", help="The same as --hub.")] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Check what `export-history` wrote into this file, and no hub; may be given again.",
        ),
    ] = None,
    every: AllOption = False,
    status: StatusOption = None,
    name: NameOption = None,
    prefix: PrefixOption = None,
    step_limit: Annotated[
        str, typer.Option("--time-limit", metavar="DURATION", help="One that takes longer for its replay hangs.")
    ] = "10s",
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Other workers serve the orchestrations that APP does not have.")
    ] = False,
) -> ExitCode | None:
    """Replay recorded instances with an application's code, before it is deployed.

    Those that have not ended, unless --all or --status says otherwise. Tells of each that would be held (or would
    fail, wait, or block its worker): the first step of its history that the code does otherwise, and where. Only
    orchestrators run, and nothing is written; workers may go on meanwhile. With --json a document for each instance
    that does not simply fit, then one with the counts. Exit code 1 if any would not go on.
    """
    from holdtrue.cli.loading import load_app, parse_app
    from holdtrue.testing.replay_check import Verdict

    seconds = optional_seconds(step_limit, "--time-limit")
    if not seconds:
        raise UsageProblem("--time-limit: give a time over zero.")
    if store is not None:
        session.hub = store
    where = parse_app(app)
    selection = _selection(every, status, name, prefix)
    recorded = list(_read_files(session, files or []))
    if not files:
        session.require_hub()
    report = _report(session, load_app(where), recorded, None if files else session.hub, selection, seconds)
    if session.out.json:
        session.out.document({"checked": report.checked, **{str(key): count for key, count in report.counts.items()}})
    else:
        counts = [f"{count} {_WORDS[verdict]}" for verdict, count in report.counts.items()]
        session.out.say(f"{counted(report.checked, 'instance', 'instances')} checked: {', '.join(counts) or 'none'}.")
    problems = [one for one in report.problems if not (ignore_unknown and one.verdict is Verdict.NO_CODE)]
    return ExitCode.FAILED if problems else None


_WORDS = {
    "fits": "would go on",
    "held": "would be held",
    "fails": "would fail",
    "no code": "would wait for a worker that has the code",
    "hangs": "would hang",
    "differs": "ended, and would do otherwise now",
    "ends": "will be ended",
    "not judged": "cannot be judged",
}
"""Verdicts, for people."""


def _report(
    session: Session,
    app: "App",
    recorded: "list[InstanceCopy]",
    hub: str | None,
    selection: "Selection",
    seconds: float,
) -> "ReplayReport":
    from holdtrue.stores.locate import open_store
    from holdtrue.testing.replay_check import ReportMaker, check_hub, limited

    making = ReportMaker(lambda result: _tell(session, result))
    with limited(app, seconds) as limit:
        making.add(limit.each(copy for copy in recorded if selection.fits(copy)))
        if hub is not None:
            asyncio.run(check_hub(open_store(hub, read_only=True), selection, limit, making))
    return making.report()


def _tell(session: Session, result: "ReplayResult") -> None:
    from holdtrue.cli.views import STATUS_NAMES

    status = STATUS_NAMES[result.status]
    document = {
        "instance_id": result.instance_id,
        "name": result.name,
        "version": result.version,
        "status": status,
        "events": result.events,
        "verdict": str(result.verdict),
        "reason": result.reason,
        "step": result.step,
        "event": result.event,
        "call": result.call,
        "place": result.place,
    }
    version = f" version {result.version}" if result.version else ""
    text = f"{result.instance_id} ({result.name}{version}, {status}): {_WORDS[result.verdict]}"
    if result.reason:
        text += f": {result.reason}"
    if result.place and result.place not in (result.reason or ""):
        text += f" ({result.place})"
    session.out.say(text, document)


def _selection(every: bool, status: Any, name: str | None, prefix: str | None) -> "Selection":
    from holdtrue.testing.recorded import Selection

    statuses = statuses_of(status)
    return Selection(every=every, statuses=None if statuses is None else frozenset(statuses), name=name, prefix=prefix)


def _read(file: Path) -> "RecordedHistories":
    from holdtrue.testing.history_files import read_histories

    try:
        return read_histories(file)
    except FileNotFoundError:
        raise CommandError(f"There is no file {str(file)!r}.", ExitCode.NOT_FOUND) from None
    except OSError as error:
        raise UsageProblem(f"{str(file)!r} cannot be read: {error.strerror}.") from None


def _read_files(session: Session, files: "Sequence[Path]") -> "Iterator[InstanceCopy]":
    for file in files:
        found = _read(file)
        if found.is_redacted:
            session.out.note(f"{file} is redacted: code that decides by a value may decide otherwise here.")
        yield from found.instances


@command("export-history")
def export_history(
    session: Session,
    target: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write; packed if it ends in .gz.", show_default=False)
    ],
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Instances; without any, by the filters.")
    ] = None,
    every: AllOption = False,
    status: StatusOption = None,
    name: NameOption = None,
    prefix: PrefixOption = None,
    with_children: Annotated[
        bool, typer.Option("--with-children", help="With the sub-orchestrations of the ids, at any depth.")
    ] = False,
    redact: Annotated[
        bool, typer.Option("--redact", help="Without payloads: texts become x, numbers 0; their form stays.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Take the place of a file that is there.")] = False,
) -> ExitCode | None:
    """Write instances with their histories, messages and work items into a file.

    By id, or by the filters: those that have not ended, unless --all or --status says otherwise. The hub is not
    changed; workers may go on. `import-history` and `check-replay --file` read the file.
    """
    from holdtrue.testing.history_files import write_histories

    if ids and (every or status or name or prefix):
        raise UsageProblem("Give ids or filters, not both.")
    if with_children and not ids:
        raise UsageProblem("--with-children goes with ids; by filters sub-orchestrations are found as all others are.")
    session.require_hub()
    if target.exists() and (not force or target.is_dir()):
        raise CommandError(f"{str(target)!r} exists already. Name another file, or add --force.", ExitCode.REFUSED)
    copies = asyncio.run(_recorded(session.hub, ids or [], with_children, _selection(every, status, name, prefix)))
    with session.out.progress("Export", len(copies)) as advance:
        written = write_histories(target, copies, redact=redact, written=advance)
    session.out.say(
        f"Wrote {counted(written.instances, 'instance', 'instances')} with "
        f"{counted(written.events, 'event', 'events')} to {target}.",
        {
            "operation": "export-history",
            "file": str(target),
            "instances": written.instances,
            "events": written.events,
            "redacted": redact,
        },
    )
    return None


async def _recorded(hub: str, ids: list[str], with_children: bool, selection: "Selection") -> "list[InstanceCopy]":
    from holdtrue.stores.locate import open_store
    from holdtrue.testing.recorded import named, selected

    store = open_store(hub, read_only=True)
    await store.open()
    try:
        if not ids:
            return [copy async for copies in selected(store, selection) for copy in copies]
        found, missing = await named(store, ids, with_children=with_children)
    finally:
        await store.close()
    if missing:
        raise CommandError(f"There is no instance {', '.join(map(repr, missing))}.", ExitCode.NOT_FOUND)
    return found


@command("import-history")
def import_history(
    session: Session,
    files: FilesArgument,
    run: Annotated[
        bool, typer.Option("--run", help="Let them go on: workers of this hub run their steps and activities.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of instances of the same ids, whatever they do.")
    ] = False,
) -> ExitCode | None:
    """Put exported instances into a hub, to look at them and to replay them.

    They stand there as they were recorded. Those that have not ended are at rest (condition `imported`): no worker
    runs their steps or activities, and they can be purged; with --run they go on. All files are read before anything
    is written, and all instances are written together or none is. Makes the hub if it is not there.
    """
    session.require_hub(create=True)
    copies: dict[str, InstanceCopy] = {}
    for file in files:
        found = _read(file)
        if found.is_redacted and run:
            raise UsageProblem(f"{file} is redacted: its instances cannot go on. Import it without --run.")
        for copy in found.instances:
            instance_id = copy.record.projection.instance_id
            if instance_id in copies:
                raise UsageProblem(f"Instance {instance_id!r} stands in two of the files; import one of them.")
            copies[instance_id] = copy
    standing = asyncio.run(_put(session.hub, list(copies.values()), replace, run))
    if standing:
        some = ", ".join(map(repr, standing[:3])) + (", …" if len(standing) > 3 else "")
        raise CommandError(
            f"{counted(len(standing), 'instance stands', 'instances stand')} in {session.hub} already ({some}); "
            "nothing was imported. Import into another hub with --hub, or add --replace to lose them.",
            ExitCode.REFUSED,
        )
    rest = sum(not copy.record.projection.status.is_terminal for copy in copies.values())
    text = f"Imported {counted(len(copies), 'instance', 'instances')} into {session.hub}"
    session.out.say(
        f"{text}, {rest} of them {'going on' if run else 'at rest'}." if rest else f"{text}.",
        {"operation": "import-history", "instances": len(copies), "unfinished": rest, "run": run},
    )
    return None


async def _put(hub: str, copies: "list[InstanceCopy]", replace: bool, run: bool) -> list[str]:
    from holdtrue.stores.locate import open_store

    store = open_store(hub)
    await store.open()
    try:
        return await store.put_copies(copies, replace=replace, run=run) if copies else []
    finally:
        await store.close()
