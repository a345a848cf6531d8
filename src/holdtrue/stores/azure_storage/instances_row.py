"""The instances row: its columns at each moment of an instance's life, in .NET's order, and what a row says.

A null stands for no column, and in a merge leaves what is there.  One column is ours alone: `StartId`.  Pure.
"""

from collections.abc import Mapping

import msgspec

from holdtrue.core.events import ExecutionStarted, FailureDetails, Ticks
from holdtrue.core.projection import Projection, Status

from .beyond import version_from
from .columns import FIRST_TICKS, STATUS_NAMES, STATUSES, Columns, Values, tags_of, tags_text
from .dotnet_json import FormatError
from .large import BLOB_SUFFIX, Blob, is_large, pack
from .names import OWN, own_folder
from .service import Instant, Value

NONE = "null"
"""No custom status, no tags: as .NET writes it."""


class InstancesRow(msgspec.Struct, frozen=True, kw_only=True):
    """What an instances row says.

    `input` and `output` are as they stand: payloads, or the URL of a blob (`large.blob_at`); `input_is_elsewhere`
    tells that .NET put the input into a blob that no URL names.  Empty texts and `null` stand for none where .NET
    has them so.
    """

    execution_id: str
    status: Status
    name: str = ""
    version: str | None = None
    input: str | None = None
    input_is_elsewhere: str | None = None
    output: str | None = None
    custom_status: str | None = None
    created_at: Ticks = 0
    last_updated_at: Ticks = 0
    completed_at: Ticks | None = None
    scheduled_start: Ticks | None = None
    generation: int = 0
    tags: dict[str, str] | None = None
    parent_id: str | None = None
    start_id: str | None = None

    def started(self, instance_id: str, input: str | None) -> ExecutionStarted:
        """The start that a waiting row stands for; `input` is the payload, wherever it lies."""
        return ExecutionStarted(
            timestamp=self.created_at,
            instance_id=instance_id,
            execution_id=self.execution_id,
            name=self.name,
            input=input,
            version=self.version,
            tags=self.tags,
            scheduled_start=self.scheduled_start,
            generation=self.generation,
        )


def read_row(values: Mapping[str, Value | None], *, place: str = "instances row") -> InstancesRow:
    """What a row says.  Raises FormatError, naming `place`, where a column is not what it should be."""
    columns = Columns(values, place)
    status = STATUSES.get(columns.known_text("RuntimeStatus"))
    if status is None:
        raise columns.wrong("RuntimeStatus", "status")
    custom_status = columns.text("CustomStatus")
    return InstancesRow(
        execution_id=columns.text("ExecutionId") or "",
        status=status,
        name=columns.text("Name") or "",
        version=version_from(columns.text("Version"), False),
        input=columns.text("Input"),
        input_is_elsewhere=columns.text("InputBlobName") or None,
        output=columns.text("Output"),
        custom_status=None if custom_status in ("", NONE) else custom_status,
        created_at=columns.time("CreatedTime") or 0,
        last_updated_at=columns.time("LastUpdatedTime") or 0,
        completed_at=columns.time("CompletedTime"),
        scheduled_start=columns.time("ScheduledStartTime"),
        generation=columns.number("Generation", 0),
        tags=tags_of(columns),
        parent_id=columns.text("ParentInstanceId") or None,
        start_id=columns.text("StartId"),
    )


# -- large texts ---------------------------------------------------------------------------------------


def column_blob(instance_id: str, execution_id: str, column: str, text: str | None) -> Blob | None:
    """The blob for a text that is too large for a column (None: it fits); the column gets its URL.

    For what no message's and no history row's blob holds yet.
    """
    if text is None or not is_large(text):
        return None
    name = f"{own_folder(instance_id)}/{OWN}{execution_id}-{column}{BLOB_SUFFIX}"
    return Blob(name, pack(text))


def _payload(text: str | None, url: str | None, column: str, place: str) -> str | None:
    if url is not None:
        return url
    if text is not None and is_large(text):
        raise FormatError(place, f"its {column} is too large for a column, and no blob was written for it")
    return text


def custom_status_text(custom_status: str | None) -> str:
    """The column `CustomStatus`: one that the service would refuse for its size stands on the sentinel alone."""
    return NONE if custom_status is None or is_large(custom_status) else custom_status


def failure_text(failure: FailureDetails) -> str:
    """The column `Output` of a failed instance."""
    return f"{failure.error_type}: {failure.message}" if failure.error_type else failure.message


def _instant(at: Ticks | None) -> Instant | None:
    return None if at is None else Instant(max(at, FIRST_TICKS))


# -- what is written -----------------------------------------------------------------------------------


def start_values(
    started: ExecutionStarted, *, hub: str, start_id: str, at: Ticks, input_url: str | None = None
) -> Values:
    """The row of a client's start, inserted, or put in place of an ended one.

    `at` is now.  `input_url` is that of the blob of an input too large for a column.  Raises FormatError.
    """
    place = f"instances row of {started.instance_id!r}"
    return {
        "Input": _payload(started.input, input_url, "Input", place),
        "CreatedTime": _instant(started.timestamp),
        "Name": started.name,
        "Version": started.version or "",
        "RuntimeStatus": STATUS_NAMES[Status.PENDING],
        "LastUpdatedTime": _instant(at),
        "TaskHubName": hub,
        "ScheduledStartTime": _instant(started.scheduled_start),
        "ExecutionId": started.execution_id,
        "Generation": started.generation,
        "Tags": tags_text(started.tags, place),
        "ParentInstanceId": "" if started.parent is None else started.parent.instance_id,
        "StartId": start_id,
    }


def commit_values(
    projection: Projection,
    *,
    hub: str,
    first: bool = False,
    status: bool = False,
    reason: str | None = None,
    start_id: str | None = None,
    input_url: str | None = None,
    output_url: str | None = None,
) -> Values:
    """The columns that a commit merges.

    `first` is the first one of an execution (also after a continue-as-new; `projection.input` is its input), `status`
    one that ends, suspends or resumes it; `reason` is that of a suspension or resumption.  Raises FormatError.
    """
    place = f"instances row of {projection.instance_id!r}"
    values: Values = {
        "CustomStatus": custom_status_text(projection.custom_status),
        "ExecutionId": projection.execution_id,
        "LastUpdatedTime": _instant(projection.last_updated_at),
        "TaskHubName": hub,
        "ParentInstanceId": "" if projection.parent is None else projection.parent.instance_id,
    }
    if first:
        values["Name"] = projection.name
        values["Version"] = projection.version or ""
        values["CreatedTime"] = _instant(projection.created_at)
        values["RuntimeStatus"] = STATUS_NAMES[Status.RUNNING]
        values["Tags"] = tags_text(projection.tags, place)
        child = projection.parent is not None and projection.generation == 0
        values["Generation"] = None if child else projection.generation
        if projection.scheduled_start is not None:
            values["ScheduledStartTime"] = _instant(projection.scheduled_start)
        values["Input"] = _payload(projection.input, input_url, "Input", place)
    if status:
        values["RuntimeStatus"] = STATUS_NAMES[projection.status]
        if projection.status.is_terminal:
            values["CompletedTime"] = _instant(_ended(projection))
            values["Output"] = _output(projection, output_url, place)
        elif reason is not None:
            values["Output"] = _payload(reason, output_url, "Output", place)
    if first and start_id is not None:
        values["StartId"] = start_id
    return values


def _ended(projection: Projection) -> Ticks:
    return projection.last_updated_at if projection.completed_at is None else projection.completed_at


def _output(projection: Projection, url: str | None, place: str) -> str | None:
    text = projection.output
    if text is None and projection.failure is not None:
        text = failure_text(projection.failure)
    return _payload(text, url, "Output", place)


def rewound_values(at: Ticks) -> Values:
    """The columns of a rewind; Output and CompletedTime of the failure stay."""
    return {"RuntimeStatus": STATUS_NAMES[Status.PENDING], "LastUpdatedTime": _instant(at)}
