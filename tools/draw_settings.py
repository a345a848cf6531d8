"""Draws `docs/reference/azure-storage-settings.md` from the table of settings, so that the page cannot lag behind."""

from collections.abc import Iterable
from pathlib import Path

from holdtrue.stores.azure_storage.setting import Kind, Setting
from holdtrue.stores.azure_storage.settings_needless import NEEDLESS
from holdtrue.stores.azure_storage.settings_table import USED

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "azure-storage-settings.md"

_INTRODUCTION = """\
# Settings of hubs in Azure Storage

<!-- Drawn from the code by `make docs`; change it there. -->

The settings are those of the .NET provider and of a Functions app's `host.json`, under the same names, so that an app
moves with its file. In `host.json` a setting stands below `extensions.durableTask`; comments and trailing commas are
read, and letters' case does not matter. An environment variable overrides the file:
`AzureFunctionsJobHost__extensions__durableTask__` and the path with `__` for each dot, in any case:

```sh
AzureFunctionsJobHost__extensions__durableTask__storageProvider__maxQueuePollingInterval=00:00:10
```

In Python the same are members of `AzureStorageSettings`. Times are seconds there, and time spans in `host.json`:
`00:05:00`, with days `1.00:00:00`. A bare number is refused: .NET would read it as days.

`holdtrue settings check host.json` explains a file, value by value, and finds names that nothing reads (with the
nearest right one, or the right place), values of a wrong type or out of range, values that contradict each other,
and connection strings where a name belongs. With `--running OTHER.json` it tells what the change does to the hub
that hosts with the other file serve; with `--live` it asks the hub in the account how many partitions it has and who
serves it. Its exit code is 1 where there is an error, for CI.
"""


def page() -> str:
    """The page."""
    lines = [_INTRODUCTION, "## What the store uses", ""]
    lines += _table(("Python", "host.json", ".NET", "Default", "Range", "Meaning"), map(_used, USED))
    lines += ["", "## What a change does to a running hub", ""]
    lines.append(
        "The others are taken up by each host when it is started; hosts with old and new values run side by side."
    )
    lines.append("")
    changing = [one for one in (*USED, *NEEDLESS) if one.change]
    lines += _table(("Setting", "With instances there", "What it does"), map(_change, changing))
    lines += ["", "## What is accepted and not needed", ""]
    lines += _table(("host.json", ".NET", "Default", "Range", "Meaning", "Why not needed"), map(_needless, NEEDLESS))
    lines += ["", "## Former names", ""]
    lines.append(
        "`connectionStringName` and `trackingStoreConnectionStringName` are still read. Names of version 1 are not; "
        "the check says what they are now."
    )
    lines.append("")
    former = [(f"`{name}`", f"`{one.path}`") for one in (*USED, *NEEDLESS) for name in one.former]
    lines += _table(("Then", "Now"), former)
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [_line(head), _line(["---"] * len(head))]
    return lines + [_line(row) for row in rows]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") or "·" for cell in cells) + " |"


def _code(name: str | None) -> str:
    return f"`{name}`" if name else ""


def _default(setting: Setting) -> str:
    if setting.default is None or setting.default == "":
        return setting.computed or "empty"
    return f"`{setting.show(setting.default)}`"


def _range(setting: Setting) -> str:
    return setting.range or (str(setting.kind) if setting.kind is not Kind.SPAN else "")


def _used(one: Setting) -> tuple[str, ...]:
    names = (_code(one.field), _code(one.path), _code(one.dotnet))
    return (*names, _default(one), _range(one), one.meaning)


def _change(one: Setting) -> tuple[str, ...]:
    return _code(one.path or one.dotnet), "must not be made" if one.breaks else "with care", one.change


def _needless(one: Setting) -> tuple[str, ...]:
    return _code(one.path), _code(one.dotnet), _default(one), _range(one), one.meaning, one.needless
