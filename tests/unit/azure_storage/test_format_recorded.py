"""What .NET wrote is read, and written again as it was: every message, row and blob's name of the recordings."""

import base64
import json
from typing import Any

import pytest

from holdtrue.core.events import ExecutionStarted, FailureDetails, GenericEvent, TaskFailed
from holdtrue.core.projection import Projection, Status
from holdtrue.stores.azure_storage.dotnet_json import FormatError
from holdtrue.stores.azure_storage.envelopes import Wrapped, decode, encode
from holdtrue.stores.azure_storage.instances_row import (
    InstancesRow,
    commit_values,
    read_row,
    rewound_values,
    start_values,
)
from holdtrue.stores.azure_storage.large import MOVED, blobs_named, moved_back, moved_out
from holdtrue.stores.azure_storage.names import (
    escape_key,
    is_blob_of,
    message_blob,
    partition_of,
    row_key,
    unescape_key,
)
from holdtrue.stores.azure_storage.row_reading import read_event, rewound_from
from holdtrue.stores.azure_storage.rows import event_values
from holdtrue.stores.azure_storage.service import Instant
from tests.unit.azure_storage.recorded import columns, history_rows, recorded

MESSAGES = recorded()["messages"]
OLD = ',"GenerateNewTrace":false'
"""A member that the version of June 2025 (the recordings Stuck* and SplitMiddle) does not have."""


def plain(text: str) -> str:
    return text if text.startswith("{") else base64.b64decode(text).decode()


def test_messages_come_back_byte_by_byte() -> None:
    assert len(MESSAGES) > 500
    kinds = set()
    for name, _, text in MESSAGES:
        envelope = decode(text, name)
        if isinstance(envelope, Wrapped):
            continue
        kinds.add(type(envelope.event).__name__)
        again = encode(envelope)
        if name.startswith("Stuck") or name == "SplitMiddle":
            again = again.replace(OLD, "")
        event = envelope.event
        if isinstance(event, TaskFailed) and event.failure is not None and event.failure.error_type:
            # Details repeat in another form what FailureDetails holds, and are not kept.
            again = again.replace('"Details":null', '"Details":' + _member(plain(text), "Details"))
        assert again == plain(text), name
    assert len(kinds) >= 12


def _member(text: str, name: str) -> str:
    event = json.loads(text)["TaskMessage"]["Event"]
    return json.dumps(event[name], ensure_ascii=False)


def test_wrappers_name_blobs_as_we_do() -> None:
    found = 0
    for name, _, text in MESSAGES:
        wrapped = decode(text, name)
        if isinstance(wrapped, Wrapped):
            folder, _, file = wrapped.blob.rpartition("/")
            activity, kind = file.removeprefix("message-").removesuffix(".json.gz").split("-")
            assert message_blob(folder, activity, kind) == wrapped.blob
            found += 1
    assert found >= 6


def test_messages_lie_in_the_queue_of_their_instance() -> None:
    found = 0
    for name, queue, text in MESSAGES:
        if "-control-" not in queue:
            continue
        said = decode(text, name)
        instance = said.blob.rpartition("/")[0] if isinstance(said, Wrapped) else said.instance_id
        assert partition_of(instance, recorded()["partitions"][name]) == int(queue[-2:]), (name, instance)
        found += 1
    assert found > 300


def as_written(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row, without what we have otherwise for a reason."""
    values = columns(row)
    if row["EventType"] == "TaskFailed" and values["FailureDetails"] != "null":
        values["Details"] = None
    return values


def test_history_rows_come_back_column_by_column() -> None:
    rows = [one for one in history_rows() if rewound_from(one[2]) is None]
    assert len(rows) > 1_500
    for name, _, row in rows:
        values = as_written(name, row)
        texts = {column: f'"{"x" * 31_000}"' for column in blobs_named(columns(row))}  # type: ignore[arg-type]
        instance = unescape_key(row["PartitionKey"])
        whole = moved_back(values, texts)  # type: ignore[arg-type]
        event, extra = read_event(whole, instance, place=name)
        continued = values.get("Generation", 0) is None and values["ParentInstance"] == "null"
        again = event_values(event, row["ExecutionId"], extra, played=row["IsPlayed"], continued=continued)
        chance = next((blob.split("-")[3] for blob in blobs_named(columns(row)).values()), "0" * 8)  # type: ignore[arg-type]
        again, blobs = moved_out(again, instance, row["RowKey"], chance)
        assert len(blobs) == len(texts)
        if name.startswith("Stuck") or name == "SplitMiddle":
            # The version of June 2025 has fewer columns.
            for column in ("GenerateNewTrace", "Tags"):
                if column not in values:
                    again.pop(column, None)
        assert list(again.items()) == list(values.items()), (name, row["RowKey"])


def test_is_played_follows_from_the_type() -> None:
    exceptions = {}
    for _, _, row in history_rows():
        if rewound_from(row) is not None:
            continue
        event, _ = read_event(moved_back(columns(row), {}), "i")  # type: ignore[arg-type]
        if event_values(event, "e")["IsPlayed"] != row["IsPlayed"]:
            exceptions[row["EventType"], row["RowKey"][-1]] = row["IsPlayed"]
    # What .NET makes by itself: the start of an entity, and what ends the start of a continue-as-new.
    assert exceptions == {
        ("ExecutionStarted", "1"): False,
        ("OrchestratorCompleted", "2"): True,
        ("OrchestratorCompleted", "4"): True,
    }


def test_rows_as_the_hubs_hold_them_are_read() -> None:
    kinds, rewound = set(), set()
    for name, tables in recorded()["hubs"].items():
        for table, rows in tables.items():
            for row in rows:
                if table.endswith("Instances"):
                    assert read_row(columns(row), place=name).name
                elif "EventType" in row:
                    event, _ = read_event(columns(row), unescape_key(row["PartitionKey"]), place=name)
                    kinds.add(type(event).__name__)
                    assert row_key(int(row["RowKey"], 16)) == row["RowKey"]
                    if rewound_from(row):
                        assert isinstance(event, GenericEvent)
                        rewound.add(rewound_from(row))
                else:
                    assert row["RowKey"] >= "sentinel"
                assert escape_key(unescape_key(row["PartitionKey"])) == row["PartitionKey"]
    assert rewound >= {"TaskScheduled", "TaskFailed", "ExecutionCompleted"}
    assert len(kinds) >= 15


def test_old_failures_without_details_are_failures() -> None:
    found = set()
    for name, _, row in history_rows():
        if row["EventType"] == "TaskFailed" and row["FailureDetails"] == "null":
            event, _ = read_event(columns(row), "i", place=name)
            assert isinstance(event, TaskFailed)
            assert event.failure is not None
            assert event.failure.error_type == ""
            found.add(event.failure.message)
    assert {"boom x", "flaky 0"} <= found


def test_blobs_are_their_instances() -> None:
    for name, blob in recorded()["blobs"]:
        folder = blob.rpartition("/")[0]
        assert is_blob_of(unescape_key(folder), blob), name
        assert not is_blob_of("another", blob)


# -- the instances row ---------------------------------------------------------------------------------


def made_of(row: dict[str, Any]) -> tuple[InstancesRow, Projection]:
    """What a written row says, and the projection that it would be written from."""
    said = read_row({"RuntimeStatus": "Running", **columns(row)})
    failed = said.status is Status.FAILED
    projection = Projection(
        instance_id="i",
        execution_id=said.execution_id,
        name=said.name,
        version=said.version,
        status=said.status,
        input=said.input,
        output=None if failed else said.output,
        custom_status=said.custom_status,
        created_at=said.created_at,
        last_updated_at=said.last_updated_at,
        completed_at=said.completed_at,
        scheduled_start=said.scheduled_start,
        tags=said.tags,
        generation=said.generation,
    )
    if failed:
        projection.failure = FailureDetails(message=said.output or "", error_type="")
    return said, projection


def mended(row: dict[str, Any]) -> bool:
    """Whether these are the columns with which .NET ends a row whose history has ended, or a start that waits.

    Ours at such a moment are all of a first commit that is the end.
    """
    return row.get("RuntimeStatus") != "Pending" and (
        "CustomStatus" not in row or ("Name" in row and "Input" not in row)
    )


def rebuilt(method: str, row: dict[str, Any]) -> dict[str, Any]:
    """The same columns, made by us for the moment at which they were written."""
    said, projection = made_of(row)
    hub = row.get("TaskHubName", "")
    if method in ("POST", "PUT"):
        started = said.started("i", said.input)
        values = start_values(started, hub=hub, start_id="s", at=said.last_updated_at, input_url=said.input)
        assert values.pop("StartId") == "s"
        return values
    if "CustomStatus" not in row and row["RuntimeStatus"] == "Pending":
        return rewound_values(said.last_updated_at)
    if mended(row):
        whole = commit_values(
            projection, hub=hub, first=True, status=True, input_url=said.input, output_url=said.output
        )
        return {column: whole[column] for column in row if column in whole}
    first = "Name" in row
    status = "RuntimeStatus" in row and not (first and row["RuntimeStatus"] == "Running")
    reason = said.output if not said.status.is_terminal else None
    return commit_values(
        projection,
        hub=hub,
        first=first,
        status=status,
        reason=reason,
        input_url=said.input,
        output_url=said.output if said.status.is_terminal else None,
    )


NEWER = ("TaskHubName", "ParentInstanceId", "Tags", "Generation")
"""Columns that the version of June 2025 does not write at each moment."""


def test_instances_rows_come_back_column_by_column() -> None:
    moments = set()
    for name, method, row in recorded()["instances"]:
        values = columns(row)
        again = rebuilt(method, row)
        if row.get("ParentInstanceId"):
            again["ParentInstanceId"] = row["ParentInstanceId"]
        if "Generation" in values and values["Generation"] is None:
            # Of a child, or of a continue-as-new: a merge of null leaves what is there; we write the number.
            again["Generation"] = None
        for column in NEWER:
            if (name.startswith("Stuck") or name == "SplitMiddle") and column not in values:
                again.pop(column, None)
        assert list(again.items()) == list(values.items()), (name, method)
        moments.add((method, tuple(values)))
    assert len(moments) >= 12


def test_output_of_a_failure_names_its_type() -> None:
    outputs = {
        row["Output"]
        for _, _, row in recorded()["instances"]
        if row.get("RuntimeStatus") == "Failed" and "raw boom" in row.get("Output", "")
    }
    assert "System.InvalidOperationException: raw boom" in outputs


@pytest.mark.parametrize("column", MOVED)
def test_large_columns_move_one_by_one(column: str) -> None:
    values = {"EventType": "X", column: "ä" * 30_720}
    assert moved_out(values, "i", row_key(0), "0" * 8) == (values, [])
    moved, blobs = moved_out({**values, column: "ä" * 30_721}, "a/b", row_key(10), "0A1B2C3D")
    assert moved[column] == ""
    assert moved[f"{column}BlobName"] == f"a^0b/history-000000000000000A-X-0A1B2C3D-{column}.json.gz" == blobs[0].name


def test_a_stranger_has_no_ordinals() -> None:
    for name, _, text in MESSAGES:
        said = decode(text, name)
        if isinstance(said, Wrapped):
            continue
        assert said.scheduled is None
        if isinstance(said.event, ExecutionStarted) and said.event.parent is not None:
            assert said.event.parent.scheduled == -1


def test_entities_pass_untouched() -> None:
    found = set()
    for name, _, text in MESSAGES:
        said = decode(text, name)
        if not isinstance(said, Wrapped) and said.instance_id.startswith("@"):
            found.add(getattr(said.event, "name", "").partition("@")[0])
    assert found == {"op", "release"}
    assert read_row({"RuntimeStatus": "Running", "CustomStatus": '{"entityExists":true}'}).custom_status


def test_a_time_as_the_tables_give_it() -> None:
    event, _ = read_event({"EventType": "OrchestratorStarted", "_Timestamp": Instant(5)}, "i")
    assert event.timestamp == 5
    with pytest.raises(FormatError, match="_Timestamp"):
        read_event({"EventType": "OrchestratorStarted"}, "i")
