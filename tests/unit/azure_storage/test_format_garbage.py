"""What nobody of ours wrote: garbage, cut texts, wrong types, bombs.  One family of errors, and never another."""

import base64
import gzip
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.events import SubOrchestrationInstanceCompleted, TaskCompleted
from holdtrue.stores.azure_storage.dotnet_json import FormatError
from holdtrue.stores.azure_storage.envelopes import Envelope, Wrapped, decode, decode_blob, encode
from holdtrue.stores.azure_storage.instances_row import read_row
from holdtrue.stores.azure_storage.large import pack, unpack
from holdtrue.stores.azure_storage.row_reading import read_event
from holdtrue.stores.azure_storage.rows import event_values
from holdtrue.stores.azure_storage.service import Instant, Typed
from holdtrue.stores.errors import StoreError
from tests.unit.azure_storage.event_strategies import events, json_values
from tests.unit.azure_storage.recorded import columns, history_rows, recorded

TEXTS = [text for _, _, text in recorded()["messages"] if text.startswith("{")][::20]
ROWS = [columns(row) for _, _, row in history_rows()][::20]
COMPLETED = next(text for text in TEXTS if "TaskCompletedEvent" in text and len(text) < 2_000)

values: st.SearchStrategy[Any] = st.one_of(
    st.text(max_size=30),
    st.integers(),
    st.booleans(),
    st.none(),
    st.integers(-(2**62), 2**62).map(Instant),
    st.builds(Typed, edm=st.just("Edm.Int64"), text=st.text(max_size=10)),
    st.sampled_from(["[" * 100_000, '{"InnerFailure":' * 10_000, "null", "{}", "[]", '{"$type":1}']),
)


def read_or_refuse(text: str) -> Envelope | Wrapped | None:
    try:
        return decode(text, "here")
    except FormatError as error:
        assert isinstance(error, StoreError)
        assert str(error).startswith("here: ")
        assert len(str(error)) < 1_000
        return None


@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(st.text(), st.binary().map(lambda data: base64.b64encode(data).decode()), st.text().map("{".__add__))
)
def test_any_text(text: str) -> None:
    assert read_or_refuse(text) is None


@settings(max_examples=200, deadline=None)
@given(text=st.sampled_from(TEXTS), data=st.data())
def test_a_cut_text(text: str, data: st.DataObject) -> None:
    assert read_or_refuse(text[: data.draw(st.integers(0, len(text) - 1))]) is None


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found += _places(value[key], (*path, key))
    return found


@settings(max_examples=300, deadline=None)
@given(text=st.sampled_from(TEXTS), data=st.data())
def test_another_value_anywhere(text: str, data: st.DataObject) -> None:
    said = json.loads(text)
    path = data.draw(st.sampled_from(_places(said)))
    inner = said
    for key in path[:-1]:
        inner = inner[key]
    if data.draw(st.booleans()):
        del inner[path[-1]]
    else:
        inner[path[-1]] = data.draw(json_values)
    read = read_or_refuse(json.dumps(said))
    if isinstance(read, Envelope):
        assert read_or_refuse(encode(read)) is not None


@settings(max_examples=300, deadline=None)
@given(row=st.sampled_from(ROWS), data=st.data())
def test_another_value_in_any_column(row: dict[str, Any], data: st.DataObject) -> None:
    changed = dict(row)
    column = data.draw(st.sampled_from([*row, "HoldtrueMore"]))
    if data.draw(st.booleans()):
        changed.pop(column, None)
    else:
        changed[column] = data.draw(values)
    try:
        event, extra = read_event(changed, "i", place="row 7 of 'i'")
    except FormatError as error:
        assert str(error).startswith("row 7 of 'i'")
        assert len(str(error)) < 1_000
        return
    try:
        event_values(event, "e", extra)
    except FormatError as error:
        # Read, and yet not to be written: a time after the year 9999, half a character.
        assert "9999" in str(error) or "cannot be written" in str(error)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_columns_of_an_instance(data: st.DataObject) -> None:
    names = [
        "RuntimeStatus",
        "Name",
        "Tags",
        "Generation",
        "CreatedTime",
        "ExecutionId",
        "CustomStatus",
        "Input",
        "StartId",
    ]
    row = data.draw(st.dictionaries(st.sampled_from(names), values))
    try:
        read_row({"RuntimeStatus": "Running", **row}, place="row of 'i'")
    except FormatError as error:
        assert str(error).startswith("row of 'i'")


@settings(max_examples=300, deadline=None)
@given(event=events, data=st.data())
def test_a_row_that_misses_columns(event: Any, data: st.DataObject) -> None:
    row = event_values(event, "e")
    for column in data.draw(st.lists(st.sampled_from([*row]), unique=True)):
        del row[column]
    try:
        read_event(row, "i", place="row")
    except FormatError as error:
        assert "no column" in str(error)


@pytest.mark.parametrize("member", ["Holdtrue", "SerializableTraceContext", "Stranger"])
def test_a_text_nested_too_deep(member: str) -> None:
    deep = "[" * 200_000 + "]" * 200_000
    assert read_or_refuse(f'{COMPLETED[:-1]},"{member}":{deep}}}') is None


def test_failures_nested_too_deep() -> None:
    depth = 50_000
    inner = '{"InnerFailure":' * depth + "null" + "}" * depth
    failed = COMPLETED.replace("TaskCompletedEvent", "TaskFailedEvent").replace(
        '"EventId"', f'"FailureDetails":{inner},"EventId"'
    )
    assert read_or_refuse(failed) is None
    for depth in (100, 500, 900, 2_000):
        row = {
            "EventType": "TaskFailed",
            "TaskScheduledId": 0,
            "_Timestamp": Instant(0),
            "FailureDetails": '{"InnerFailure":' * depth + "null" + "}" * depth,
        }
        try:
            read_event(row, "i", place="row")
        except FormatError as error:
            assert "too deep" in str(error)


@pytest.mark.parametrize(
    "name",
    [
        "System.Diagnostics.Process, System",
        "DurableTask.Core.History.TaskCompletedEventX",
        "DurableTask.Core.History.TaskCompletedEvent`1",
        "",
        7,
        None,
        {"$type": "DurableTask.Core.History.TaskCompletedEvent"},
    ],
)
def test_types_of_strangers_are_refused(name: Any) -> None:
    said = json.loads(COMPLETED)
    said["TaskMessage"]["Event"]["$type"] = name
    assert read_or_refuse(json.dumps(said)) is None
    said = json.loads(COMPLETED)
    said["TaskMessage"]["$type"] = name
    assert read_or_refuse(json.dumps(said)) is None


def test_old_names_with_an_assembly_are_read() -> None:
    said = json.loads(COMPLETED)
    said["$type"] += ", DurableTask.AzureStorage, Version=1.8.0.0, Culture=neutral"
    for inner in (said["TaskMessage"], said["TaskMessage"]["Event"], said["TaskMessage"]["OrchestrationInstance"]):
        inner["$type"] += ", DurableTask.Core"
    assert decode(json.dumps(said)) == decode(COMPLETED)


def test_a_type_by_its_number_alone_is_read() -> None:
    said = json.loads(COMPLETED)
    del said["TaskMessage"]["Event"]["$type"]
    assert decode(json.dumps(said)) == decode(COMPLETED)
    said["TaskMessage"]["Event"]["EventType"] = 8
    read = decode(json.dumps(said))
    assert isinstance(read, Envelope)
    assert isinstance(read.event, SubOrchestrationInstanceCompleted)


def test_base64_is_read() -> None:
    text = base64.b64encode(COMPLETED.encode()).decode()
    read = decode(text)
    assert read == decode(COMPLETED)
    assert isinstance(read, Envelope)
    assert isinstance(read.event, TaskCompleted)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(FormatError, match="more than 1000000 bytes"):
        unpack(bomb, "blob", 1_000_000)
    with pytest.raises(FormatError, match="more than 1000000 bytes"):
        decode_blob(gzip.compress(b"0" * 999_999) + bomb, "blob", 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000


def test_blobs_of_several_members_are_read_whole() -> None:
    assert unpack(pack("a") + pack("ä"), "blob", 3) == "aä"
    with pytest.raises(FormatError):
        unpack(pack("a") + pack("ä"), "blob", 2)


@settings(max_examples=200, deadline=None)
@given(data=st.one_of(st.binary(), st.just(b""), st.integers(0, 60).map(lambda size: pack(COMPLETED)[:size])))
def test_any_blob(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^blob: "):
        decode_blob(data, "blob")


def test_a_cut_blob() -> None:
    data = pack(COMPLETED)
    assert isinstance(decode_blob(data, "blob"), Envelope)
    for size in range(len(data)):
        with pytest.raises(FormatError, match=r"^blob: "):
            decode_blob(data[:size], "blob")


@pytest.mark.parametrize("status", [8, -1, "Strange", "Strange, again"])
def test_a_status_that_there_is_not(status: Any) -> None:
    ended = {"$type": "DurableTask.Core.History.ExecutionCompletedEvent", "OrchestrationStatus": status}
    said = json.loads(COMPLETED)
    said["TaskMessage"]["Event"] = {**ended, "Timestamp": "2026-11-24T23:39:49Z"}
    assert read_or_refuse(json.dumps(said)) is None
    row = {"EventType": "ExecutionCompleted", "_Timestamp": Instant(0), "OrchestrationStatus": status}
    with pytest.raises(FormatError, match="OrchestrationStatus"):
        read_event(row, "i")
    with pytest.raises(FormatError, match="RuntimeStatus"):
        read_row({"RuntimeStatus": status})


def test_a_blob_that_names_another_is_refused() -> None:
    wrapper = next(text for _, _, text in recorded()["messages"] if '"TaskMessage":null' in text)
    with pytest.raises(FormatError, match="another blob"):
        decode_blob(pack(wrapper), "blob")


def test_an_unknown_event_type_names_its_row() -> None:
    with pytest.raises(FormatError, match=r"row 5.*EventType 'Strange'"):
        read_event({"EventType": "Strange", "_Timestamp": Instant(0)}, "i", place="row 5")


def test_columns_of_strangers_are_left_alone() -> None:
    row = ROWS[0]
    assert read_event({**row, "Foreign": 5, "ForeignBlobName": "x"}, "i") == read_event(row, "i")
