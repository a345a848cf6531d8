"""Commands for settings: what a host.json says, and whether it may be rolled out."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.cli.app import Session, command, group
from holdtrue.cli.exits import CommandError, ExitCode, UsageProblem
from holdtrue.cli.output import Cell, counted

if TYPE_CHECKING:
    from holdtrue.stores.azure_storage.host_json import Finding, HostJson
    from holdtrue.stores.azure_storage.settings_check import Change

commands = group("settings", "Settings of hubs in Azure Storage: check a host.json before it is rolled out.")

_STYLES = {"error": "red", "warning": "yellow", "note": ""}


@command("check", to=commands)
def check(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="HOST_JSON", help="The file.")] = Path("host.json"),
    running: Annotated[
        Path | None,
        typer.Option("--running", metavar="OTHER_JSON", help="The file that the running hub's hosts have."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask the hub itself too, in the account that the environment names.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Show the defaults too.")] = False,
) -> ExitCode | None:
    """Explain a host.json: each value, where it comes from, and what is wrong with it.

    Environment variables `AzureFunctionsJobHost__extensions__durableTask__...` override the file, as they do when
    the app runs.  With `--running` also what the change does to the hub; with `--live` whether the hub that stands in
    the account was made with other settings, and who serves it.  Exit code 1 if there is an error.
    """
    from holdtrue.stores.azure_storage import settings_check

    host = _read(file)
    findings = settings_check.check(host)
    if live:
        findings += _beside_hub(file, host, findings)
    changes = [] if running is None else settings_check.compare(_read(running), host)
    failed = _count("error", findings, changes) > 0
    if session.out.json:
        session.out.document(_document(file, host, findings, changes, failed))
    else:
        _tell(session, host, findings, changes, compared=running is not None, every=every)
    return ExitCode.FAILED if failed else None


def _count(weight: str, findings: "list[Finding]", changes: "list[Change]") -> int:
    return sum(one.weight == weight for one in findings) + sum(one.weight == weight for one in changes)


def _beside_hub(file: Path, host: "HostJson", findings: "list[Finding]") -> "list[Finding]":
    """Raises InvalidInput where no account is named, and StoreError where it does not answer."""
    from urllib.parse import quote

    from holdtrue.environment import REAL
    from holdtrue.stores.azure_storage.host_json import Finding, Weight, full
    from holdtrue.stores.azure_storage.opening import SCHEME, standing
    from holdtrue.stores.azure_storage.settings_check import beside_hub

    if _count("error", findings, []):
        text = "the hub was not asked: mend the errors first"
        return [Finding(weight=Weight.NOTE, name=full("hubName"), where="", text=text)]
    hub = asyncio.run(standing(f"{SCHEME}{host.hub}?settings={quote(str(file))}", REAL, os.environ))
    if hub is None:
        return beside_hub(host, None, [])
    return beside_hub(host, hub.partitions, hub.served_by)


def _read(file: Path) -> "HostJson":
    from holdtrue.core.errors import InvalidInput
    from holdtrue.stores.azure_storage.host_json import read_host_json

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageProblem(f"The file {str(file)!r} cannot be read: {reason}.") from None
    try:
        return read_host_json(text, os.environ)
    except InvalidInput as error:
        raise CommandError(f"{file}: not valid JSON: {error}.", ExitCode.FAILED) from None


def _document(
    file: Path, host: "HostJson", findings: "list[Finding]", changes: "list[Change]", failed: bool
) -> dict[str, Any]:
    from holdtrue.stores.azure_storage.host_json import full

    return {
        "file": str(file),
        "ok": not failed,
        "hub": host.hub,
        "values": [
            {
                "name": full(path),
                "value": None if one.value is None else one.text,
                "origin": one.origin,
                "where": one.where,
                "used": one.setting.field is not None or not one.setting.needless,
                "meaning": one.setting.meaning,
            }
            for path, one in host.values.items()
        ],
        "findings": [
            {"weight": one.weight, "name": one.name, "where": one.where, "text": one.text} for one in findings
        ],
        "changes": [
            {
                "weight": one.weight,
                "name": full(one.setting.path or ""),
                "before": one.before,
                "after": one.after,
                "text": one.text,
            }
            for one in changes
        ],
    }


def _tell(
    session: Session,
    host: "HostJson",
    findings: "list[Finding]",
    changes: "list[Change]",
    *,
    compared: bool,
    every: bool,
) -> None:
    out = session.out
    rows: list[tuple[Cell, ...]] = [
        (path, one.text, " ".join(filter(None, (one.origin, one.where))), one.setting.meaning)
        for path, one in host.values.items()
        if every or one.origin != "default"
    ]
    out.table(("SETTING", "VALUE", "FROM", "MEANING"), rows, empty="Nothing is set: all settings are the defaults.")
    if findings:
        out.say("")
        out.table(
            ("FOUND", "AT", "WHERE", "WHAT"),
            [((one.weight.value, _STYLES[one.weight]), one.name, one.where, one.text) for one in findings],
            empty="",
        )
    if compared:
        out.say("")
        out.table(
            ("CHANGE", "SETTING", "BEFORE", "AFTER", "WHAT IT DOES TO THE HUB"),
            [
                ((one.weight.value, _STYLES[one.weight]), one.setting.path or "", one.before, one.after, one.text)
                for one in changes
            ],
            empty="No setting differs from the running hub's.",
        )
    errors, warnings = (_count(weight, findings, changes) for weight in ("error", "warning"))
    out.say("")
    out.say(f"{counted(errors, 'error', 'errors')}, {counted(warnings, 'warning', 'warnings')}.")
