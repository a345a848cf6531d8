"""Whatever our events and messages hold comes back from the format as it was; and .NET is shown nothing odd."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core import events as ev
from holdtrue.core.actions import ActivityOptions
from holdtrue.core.projection import Projection, Status, initial
from holdtrue.stores.azure_storage.dotnet_json import FormatError, dump, from_time_text, time_text
from holdtrue.stores.azure_storage.envelopes import Envelope, Wrapped, decode, decode_blob, encode, pack_message
from holdtrue.stores.azure_storage.instances_row import (
    column_blob,
    commit_values,
    custom_status_text,
    read_row,
    start_values,
)
from holdtrue.stores.azure_storage.large import (
    MORE,
    MOST_MESSAGE_BYTES,
    blob_at,
    blobs_named,
    moved_back,
    moved_out,
    unpack,
)
from holdtrue.stores.azure_storage.owing import RowExtra
from holdtrue.stores.azure_storage.row_reading import read_event
from holdtrue.stores.azure_storage.rows import event_values
from holdtrue.stores.azure_storage.service import Instant, Value
from tests.unit.azure_storage.event_strategies import events, failures, names, numbers, options, tags, texts, ticks


def stored(values: dict[str, Value | None], instance_id: str) -> dict[str, Value]:
    """A row as it is read: written with its blobs, without the columns that are none."""
    moved, blobs = moved_out(values, instance_id, "0" * 16, "0" * 8)
    row = {name: value for name, value in moved.items() if value is not None}
    data = {blob.name: blob.data for blob in blobs}
    for value in row.values():
        if isinstance(value, str):
            assert len(value.encode("utf-16-le")) <= 60 * 1024
    back = {column: unpack(data.pop(name), name) for column, name in blobs_named(row).items()}
    assert not data
    return moved_back(row, back)


@settings(max_examples=300, deadline=None)
@given(event=events, option=st.one_of(st.none(), options), execution=st.one_of(st.none(), texts))
def test_events_come_back_from_rows(event: ev.AnyEvent, option: ActivityOptions | None, execution: str | None) -> None:
    extra = RowExtra(options=option, execution=execution)
    execution_id = event.execution_id if isinstance(event, ev.ExecutionStarted) else "e"
    for continued in (False, True):
        values = event_values(event, execution_id, extra, continued=continued)
        assert read_event(stored(values, "i"), "i") == (event, extra)


def envelopes() -> st.SearchStrategy[Envelope]:
    return st.builds(
        Envelope,
        id=st.uuids().map(str),
        instance_id=names,
        event=events,
        execution_id=st.one_of(st.none(), names),
        sequence=numbers,
        sender=texts,
        sender_execution=texts,
        episode=st.integers(0, 10_000),
        context=st.one_of(st.none(), tags),
        scheduled=st.one_of(st.none(), numbers),
        start_id=st.one_of(st.none(), texts),
        dialect=st.sampled_from(["dotnet", "python"]),
        due=st.one_of(st.none(), ticks),
        options=st.one_of(st.none(), options),
    )


@settings(max_examples=300, deadline=None)
@given(envelope=envelopes())
def test_envelopes_come_back_from_messages(envelope: Envelope) -> None:
    packed = pack_message(envelope)
    assert len(packed.text.encode()) <= MOST_MESSAGE_BYTES
    if packed.blob is None:
        assert decode(packed.text) == envelope
    else:
        wrapped = decode(packed.text)
        assert wrapped == Wrapped(packed.blob.name)
        assert decode_blob(packed.blob.data, packed.blob.name) == envelope


SHOWN = ("TaskMessage", "ActivityId", "Sender")


def _names_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_names_in, value.values()))
    return set().union(*map(_names_in, value)) if isinstance(value, list) else set()


def _types_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {str(value["$type"])} if "$type" in value else set()
        return own.union(*map(_types_in, value.values()))
    return set().union(*map(_types_in, value)) if isinstance(value, list) else set()


@settings(max_examples=300, deadline=None)
@given(envelope=envelopes())
def test_dotnet_is_shown_no_type_that_a_user_named(envelope: Envelope) -> None:
    said = json.loads(encode(envelope))
    shown = {name: said[name] for name in SHOWN}
    assert all(name.startswith(("DurableTask.", "System.Collections.Generic.Dictionary")) for name in _types_in(shown))
    assert not {name for name in _names_in(shown) if name.startswith("$")} - {"$type"}
    values = event_values(envelope.event, "e")
    for column, value in values.items():
        if isinstance(value, str) and column in ("Tags", "FailureDetails", "ParentTraceContext", "ParentInstance"):
            assert not {name for name in _names_in(json.loads(value)) if name.startswith("$")}


@settings(max_examples=200, deadline=None)
@given(at=ticks)
def test_times_come_back(at: ev.Ticks) -> None:
    text = time_text(at, "")
    assert from_time_text(text, "") == at
    assert text.endswith("Z")
    assert "." not in text or text[-2] != "0"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-24T23:39:49.5Z", "2026-11-24T23:39:49.5000000Z"),
        ("2026-11-24T23:39:49", "2026-11-24T23:39:49Z"),
        ("2026-11-25T01:39:49+02:00", "2026-11-24T23:39:49Z"),
        ("2026-11-24T18:09:49-05:30", "2026-11-24T23:39:49Z"),
        ("2026-11-24T23:39:49.123456789Z", "2026-11-24T23:39:49.1234567Z"),
        ("0001-01-01T00:00:00", "0001-01-01T00:00:00Z"),
    ],
)
def test_times_as_others_write_them(text: str, same: str) -> None:
    assert from_time_text(text, "") == from_time_text(same, "")


def test_texts_are_escaped_as_dotnet_does_it() -> None:
    assert dump("\x01\x1f\x7f\u0085\u2028\u2029ä/<'\"\\\n\ufffe", "") == (
        '"\\u0001\\u001f\x7f\\u0085\\u2028\\u2029ä/<\'\\"\\\\\\n\\ufffe"'
    )


def test_times_before_those_of_a_table_are_noted() -> None:
    event = ev.TimerCreated(timestamp=0, fire_at=ev.MIN_TICKS)
    values = event_values(event, "e")
    assert values["FireAt"] == Instant(-11_644_473_600 * 10_000_000)
    assert MORE in values
    assert read_event(values, "i")[0] == event


def test_a_message_is_large_by_its_bytes() -> None:
    def packed(text: str) -> bool:
        event = ev.EventRaised(timestamp=0, name="go", input=text)
        return pack_message(Envelope(id="g", instance_id="i", event=event)).blob is not None

    assert (packed("x" * 30_000), packed("ä" * 20_000)) == (False, False)
    assert (packed("x" * 46_080), packed("ä" * 23_040)) == (True, True)


def test_a_trace_context_is_an_object_of_its_type() -> None:
    trace = '{"TraceParent":"00-1-2-01","TraceState":null}'
    event = ev.EventRaised(timestamp=0, name="go", parent_trace_context=trace)
    said = json.loads(encode(Envelope(id="g", instance_id="i", event=event)))
    assert said["TaskMessage"]["Event"]["ParentTraceContext"] == {
        "$type": "DurableTask.Core.Tracing.DistributedTraceContext",
        "TraceParent": "00-1-2-01",
        "TraceState": None,
    }
    assert event_values(event, "e")["ParentTraceContext"] == trace


def test_what_cannot_be_written_is_said() -> None:
    late = ev.TimerCreated(timestamp=0, fire_at=ev.MAX_TICKS + 1)
    lone = ev.EventRaised(timestamp=0, name="go", input="\ud800")
    with pytest.raises(FormatError, match="9999"):
        event_values(late, "e")
    with pytest.raises(FormatError, match="9999"):
        encode(Envelope(id="g", instance_id="i", event=late))
    with pytest.raises(FormatError, match="instance 'i'"):
        encode(Envelope(id="g", instance_id="i", event=lone))
    deep = ev.FailureDetails(message="m", error_type="T")
    for _ in range(20_000):
        deep = ev.FailureDetails(message="m", error_type="T", inner_failure=deep)
    failed = ev.TaskFailed(timestamp=0, task_scheduled_id=1, failure=deep)
    with pytest.raises(FormatError, match="too deep"):
        event_values(failed, "e")
    with pytest.raises(FormatError, match="too deep"):
        encode(Envelope(id="g", instance_id="i", event=failed))


# -- the instances row ---------------------------------------------------------------------------------

MODERN = st.integers(0, ev.MAX_TICKS)


@settings(max_examples=200, deadline=None)
@given(
    name=names,
    input=st.one_of(st.none(), texts),
    version=st.one_of(st.none(), names),
    at=MODERN,
    start=st.one_of(st.none(), MODERN),
    generation=st.integers(0, 99),
    tagged=st.one_of(st.none(), st.dictionaries(names.filter(lambda name: name[0] != "$"), texts, max_size=3)),
)
def test_starts_come_back_from_instances_rows(
    name: str, input: str | None, version: str | None, at: int, start: int | None, generation: int, tagged: Any
) -> None:
    started = ev.ExecutionStarted(
        timestamp=at,
        instance_id="i",
        execution_id="e",
        name=name,
        input=input,
        version=version,
        scheduled_start=start,
        generation=generation,
        tags=tagged,
    )
    blob = column_blob("i", "e", "Input", input)
    url = None if blob is None else f"https://account.blob.core.windows.net/hub-largemessages/{blob.name}"
    values = start_values(started, hub="Hub", start_id="s", at=at, input_url=url)
    said = read_row({column: value for column, value in values.items() if value is not None})
    if blob is not None:
        assert blob_at(said.input, "hub-largemessages") == blob.name
        assert unpack(blob.data, "") == input
    else:
        assert blob_at(said.input, "hub-largemessages") is None
    assert said.started("i", input) == started
    assert (said.status, said.start_id) == (Status.PENDING, "s")


@settings(max_examples=200, deadline=None)
@given(failure=failures, status=st.sampled_from([Status.COMPLETED, Status.FAILED, Status.TERMINATED]), at=MODERN)
def test_ends_are_told(failure: ev.FailureDetails, status: Status, at: int) -> None:
    projection = Projection(instance_id="i", execution_id="e", name="n", status=status, completed_at=at)
    if status is Status.FAILED:
        projection.failure = failure
    else:
        projection.output = '"done"'
    url = "https://h/c/x.json.gz"
    said = read_row(commit_values(projection, hub="H", status=True, output_url=url))
    assert (said.status, said.completed_at, said.output) == (status, at, url)


def test_a_text_too_large_for_a_column_needs_its_blob() -> None:
    started = ev.ExecutionStarted(timestamp=0, instance_id="i", execution_id="e", name="n", input="x" * 40_000)
    with pytest.raises(FormatError, match="Input"):
        start_values(started, hub="H", start_id="s", at=0)
    projection = initial(started)
    projection.status, projection.output = Status.COMPLETED, "y" * 40_000
    with pytest.raises(FormatError, match="Output"):
        commit_values(projection, hub="H", status=True)
    assert custom_status_text("z" * 40_000) == "null"
    assert custom_status_text(None) == "null"
    assert custom_status_text("z" * 30_000) == "z" * 30_000


def test_suspension_and_resumption_write_their_reason() -> None:
    projection = Projection(instance_id="i", execution_id="e", name="n", status=Status.SUSPENDED)
    assert commit_values(projection, hub="H", status=True, reason="why")["Output"] == "why"
    assert "Output" not in commit_values(projection, hub="H", reason="why")


@pytest.mark.parametrize(
    "text", ['"http://h/c/x.json.gz"', "http://h/other/x.json.gz", "http://h/c/x", "", None, "http://[/c/x.json.gz"]
)
def test_only_the_url_of_a_blob_is_one(text: str | None) -> None:
    assert blob_at(text, "c") is None


def test_the_url_of_a_blob_is_read_whatever_the_endpoint() -> None:
    assert blob_at("http://127.0.0.1:10000/account/c/a%20b/history-x.json.gz", "c") == "a b/history-x.json.gz"
    assert blob_at("https://account.blob.core.windows.net/c/x/y.json.gz", "c") == "x/y.json.gz"
