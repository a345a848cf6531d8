"""What Holdtrue writes for an orchestration, beside what .NET writes for the same: column by column, type by type."""

import asyncio
import json
from functools import cache
from typing import Any

from tests.dotnet import peer
from tests.dotnet.sides import Sides, on, outcome
from tests.dotnet.test_hand_over import WANTED
from tests.unit.azure_storage.recorded import columns, history_rows
from tools.azurite import Azurite

pytestmark = peer.needed

STARTS: dict[str, tuple[str, Any]] = {
    "chain": ("Chain", 3),
    "timer": ("Timer", 1),
    "event": ("Event", None),
    "race-won": ("Race", 600),
    "parent": ("Parent", 1),
    "parent-catch": ("ParentCatch", None),
    "loop": ("Loop", 2),
    "adder": ("Adder", 5),
    "failing": ("Failing", "x"),
    "handling": ("Handling", "x"),
    "throwing": ("Throwing", None),
    "large": ("Large", 100),
    "reporting": ("Reporting", {"step": 1}),
    "nothing": ("Nothing", None),
    "singleton": ("Singleton", "m"),
}
OURS = ("Holdtrue", "StartId")
"""Columns of ours begin so, and no reader of .NET's looks at them."""
BY_CHANCE = {"ExecutionId", "Timestamp", "OrchestrationInstance", "ParentInstance", "TaskHubName"}
"""Ids of each run; of those that are texts the type is compared."""
NOT_IN_THE_PEER = {"Input", "InputBlobName"}
"""Of TaskScheduled and SubOrchestrationInstanceCreated: `bin/peer` leaves it out, the recording *RawDetails* has it."""
MEANT = {
    # It grows with every execution, so that no clock is asked which of two starts is newer.
    "Instances ('loop', ''): Generation: .NET has ('Edm.Int32', 0), we have ('Edm.Int32', 2)",
    # None of Python is no result; null of .NET is the result `null`.
    "Instances ('nothing', ''): Output: .NET has ('Edm.String', 'null'), we have None",
    "History ('nothing', '0000000000000006'): Result: .NET has ('Edm.String', 'null'), we have None",
}
"""The only differences, and why they are."""
WORDS_OF_A_LANGUAGE = {"FailureDetails", "Reason", "Details"}
"""What an exception says of itself: a .NET one of the peer's is recorded by its message alone."""


def test_rows_are_as_dotnet_writes_them(azurite: Azurite) -> None:
    on(azurite, same_rows)


async def same_rows(sides: Sides) -> None:
    """Both run the same, each in a hub of its own."""
    other = Sides(sides.connection, "Other")
    try:
        theirs, ours = await asyncio.gather(_dump(sides, "dotnet"), _dump(other, "ours"))
    finally:
        await other.close()
    differences = []
    for table in ("Instances", "History"):
        rows, found = theirs[table], ours[table]
        assert sorted(rows) == sorted(found), table
        for place, wanted in rows.items():
            differences += [f"{table} {place}: {one}" for one in _differences(wanted, found[place])]
        differences += [f"{table} {place}: {one}" for place, row in found.items() for one in _not_as_recorded(row)]
    differences = [one for one in differences if one not in MEANT]
    assert not differences, "\n".join(differences)
    assert theirs["queues"] == ours["queues"]
    assert theirs["blobs"] == ours["blobs"]


async def _dump(sides: Sides, side: str) -> dict[str, Any]:
    await sides.dotnet("create-hub")
    await sides.worker(side, peer.PATIENT)
    for name, (orchestration, given) in STARTS.items():
        words = () if given is None else (json.dumps(given),)
        await sides.dotnet("start", orchestration, name, *words)
    await _waits(sides, "event", "reporting")
    for name, data in (("event", "hello"), ("race-won", 1), ("reporting", 1), ("adder", 0)):
        await sides.dotnet("raise", name, "go", json.dumps(data))
    for name in STARTS:
        how, output = await outcome(sides, name)
        if name not in ("adder", "chain", "timer", "parent", "large", "failing"):
            assert (name, (how, output)) == (name, WANTED[name])
    found = await sides.dotnet("dump")
    return {
        "Instances": _rows(found["tables"][f"{sides.hub}Instances"]),
        "History": _rows(found["tables"][f"{sides.hub}History"]),
        "queues": sorted(queue.removeprefix(sides.hub.lower()) for queue in found["queues"]),
        "blobs": _blobs(found["containers"].get(f"{sides.hub.lower()}-largemessages", [])),
    }


async def _waits(sides: Sides, *names: str) -> None:
    """Until an activity's result is in their histories: then an event finds all sides at the same place."""
    client = await sides.client()
    for name in names:
        while not any(type(event).__name__ == "TaskCompleted" for event in [one async for one in client.history(name)]):
            await asyncio.sleep(0.2)


def _rows(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, tuple[str, Any]]]:
    return {
        (row["PartitionKey"]["value"], row["RowKey"]["value"]): {
            column: (cell["type"], cell["value"]) for column, cell in row.items()
        }
        for row in rows
    }


def _differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    left_out = set()
    if wanted.get("EventType", ("", ""))[1] in ("TaskScheduled", "SubOrchestrationInstanceCreated"):
        left_out = NOT_IN_THE_PEER
    shown = []
    for column in sorted(wanted.keys() | found.keys()):
        if column.startswith(OURS) or column in left_out:
            continue
        one, other = wanted.get(column), found.get(column)
        if one is not None and other is not None and (_is_by_chance(column, one) or _ends_so(one, other)):
            one, other = one[0], other[0]
        if one != other:
            shown.append(f"{column}: .NET has {one}, we have {other}")
    return shown


@cache
def _with_details() -> dict[str, dict[str, type]]:
    """Of a worker that writes inputs into the history too: the columns of each kind of row, and their types."""
    return {
        row["EventType"]: {name: type(value) for name, value in columns(row).items()}
        for name, _, row in history_rows()
        if name == "RawDetails"
    }


def _not_as_recorded(row: dict[str, tuple[str, Any]]) -> list[str]:
    """What is not as in *RawDetails* of a row that asks for something: its columns, and the input that they hold."""
    kind = row.get("EventType", ("", ""))[1]
    if kind not in ("TaskScheduled", "SubOrchestrationInstanceCreated"):
        return []
    keys = {"PartitionKey", "RowKey", "Timestamp"}
    wanted = {name for name, of in _with_details()[kind].items() if of is not type(None)}
    found = {name for name in row if not name.startswith(OURS)} - keys - {"InputBlobName"}
    shown = [] if found == wanted else [f"the columns are {sorted(found)}, not {sorted(wanted)}"]
    type_, text = row["Input"]
    whole = json.loads(text) if text else []
    if type_ != "Edm.String" or (kind == "TaskScheduled" and not isinstance(whole, list)):
        shown.append(f"its input is {text!r} of type {type_}")
    return shown


def _is_by_chance(column: str, cell: tuple[str, Any]) -> bool:
    if column in BY_CHANCE or column in WORDS_OF_A_LANGUAGE or cell[0] == "Edm.DateTime":
        return True
    return column.endswith("BlobName") or (isinstance(cell[1], str) and cell[1].startswith("http://"))


def _ends_so(wanted: tuple[str, Any], found: tuple[str, Any]) -> bool:
    """Whether it is the message of a failure, before which ours tells where it was."""
    texts = isinstance(wanted[1], str) and isinstance(found[1], str) and wanted[1].startswith(("boom", "thrown"))
    return texts and found[1].endswith(wanted[1])


def _blobs(blobs: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Folder, kind and type of those of the histories, without what is made by chance in their names."""
    found = []
    for blob in blobs:
        folder, _, name = blob["name"].rpartition("/")
        kind = "-".join(part for part in name.split("-") if not _is_hex(part.partition(".")[0]))
        # Results of this host's own activities need no message, and so no blob of one; of inputs see above.
        if kind.startswith("history-") and kind != "history-TaskScheduled-Input.json.gz":
            found.append((folder, kind, str(blob["type"]), str(blob["encoding"])))
    return sorted(found)


def _is_hex(text: str) -> bool:
    return len(text) >= 8 and all(one in "0123456789abcdefABCDEF" for one in text)
