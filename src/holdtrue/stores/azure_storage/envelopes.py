"""Queue messages: what they say, to the texts of .NET and back.

A text is the JSON of .NET's `MessageData`, members in its order, or the base64 of it (older hubs); one of over 45 KB
stands in a blob, and the queue has a wrapper that names it.  What is ours stands in a member `Holdtrue` at the end,
which .NET does not look at.  Pure.
"""

import base64
import binascii
from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.actions import ActivityOptions
from holdtrue.core.events import Ticks

from .beyond import Beyond, beyond_of
from .dotnet_json import CORE, STRINGS, TYPE, FormatError, TypedInstance, dump, load, too_deep
from .large import MOST_BLOB_BYTES, MOST_MESSAGE_BYTES, Blob, pack, unpack
from .names import message_blob
from .wire_events import from_wire, tags_from, to_wire
from .wire_types import TYPE_NAMES, WIRE_EVENT

NO_ACTIVITY_ID = "00000000-0000-0000-0000-000000000000"
"""The ActivityId of a wrapper."""


class Envelope(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a queue message says.

    `id` is its ActivityId, `instance_id` and `execution_id` whom it is for (no execution: whichever is current),
    `sender` who sends it (empty: a client) in its how many-eth `episode` (0: not told), `sequence` the number that
    the sending process gave it.  `context` are the orchestration's tags, with an activity or a child that it starts.

    Ours: `scheduled` is the ordinal that it answers or asks for, `due` before when it is not to be delivered;
    `start_id` and `dialect` go with a start, `options` with an activity, and `runs`: how often it was begun before it
    was put.
    """

    id: str
    instance_id: str
    event: ev.AnyEvent
    execution_id: str | None = None
    sequence: int = 0
    sender: str = ""
    sender_execution: str = ""
    episode: int = 0
    context: dict[str, str] | None = None
    scheduled: int | None = None
    start_id: str | None = None
    dialect: str = "dotnet"
    due: Ticks | None = None
    options: ActivityOptions | None = None
    runs: int = 0


class Wrapped(msgspec.Struct, frozen=True):
    """A queue message that says no more than in which blob it stands."""

    blob: str


class _Own(Beyond, omit_defaults=True, kw_only=True, gc=False):
    """Our member of a message.  `ordinal` is the envelope's `scheduled`; `scheduled` is its event's parent's."""

    ordinal: int | None = None
    start_id: str | None = None
    dialect: str = "dotnet"
    due: Ticks | None = None
    options: ActivityOptions | None = None
    context: dict[str, str] | None = None
    runs: int = 0


_NO_OWN = _Own()


class _Context(msgspec.Struct, rename="pascal", tag_field=TYPE, tag=CORE + "OrchestrationExecutionContext", gc=False):
    orchestration_tags: dict[str, str | None] | None = None


class _TaskMessage(msgspec.Struct, rename="pascal", tag_field=TYPE, tag=CORE + "TaskMessage", gc=False):
    event: WIRE_EVENT
    sequence_number: int = 0
    orchestration_instance: TypedInstance | None = None
    orchestration_execution_context: _Context | None = None


class _Sender(msgspec.Struct, rename="pascal", gc=False):
    instance_id: str | None = None
    execution_id: str | None = None


class _MessageData(
    msgspec.Struct, rename="pascal", tag_field=TYPE, tag="DurableTask.AzureStorage.MessageData", gc=False
):
    activity_id: str = NO_ACTIVITY_ID
    task_message: _TaskMessage | None = None
    compressed_blob_name: str | None = None
    sequence_number: int = 0
    episode: int | None | msgspec.UnsetType = msgspec.UNSET
    sender: _Sender | None = None
    serializable_trace_context: Any = None
    holdtrue: _Own | None | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_MessageData).decode
_decode_any = msgspec.json.Decoder(dict[str, Any]).decode


# -- from envelopes to texts -----------------------------------------------------------------------------


def encode(envelope: Envelope) -> str:
    """The JSON text of an envelope, however long (see `pack_message`).  Raises FormatError."""
    place = f"message to instance {envelope.instance_id!r}"
    event = envelope.event
    try:
        noted = beyond_of(event)
        wire = to_wire(event, noted, place)
    except RecursionError as error:
        raise too_deep(place) from error
    if envelope.scheduled is not None:
        noted["ordinal"] = envelope.scheduled
    if envelope.start_id is not None:
        noted["start_id"] = envelope.start_id
    if envelope.dialect != "dotnet":
        noted["dialect"] = envelope.dialect
    if envelope.due is not None:
        noted["due"] = envelope.due
    if envelope.options is not None:
        noted["options"] = envelope.options
    if envelope.runs:
        noted["runs"] = envelope.runs
    context = None
    if envelope.context is not None:
        shown = {key: value for key, value in envelope.context.items() if not key.startswith("$")}
        if len(shown) != len(envelope.context):
            noted["context"] = envelope.context
        context = _Context({TYPE: STRINGS, **shown})
    instance = TypedInstance(envelope.instance_id, envelope.execution_id)
    sender = envelope.sender
    message = _MessageData(
        envelope.id,
        _TaskMessage(wire, 0, instance, context),
        None,
        envelope.sequence,
        envelope.episode or msgspec.UNSET,
        _Sender(sender, envelope.sender_execution or (None if sender else "")),
        None,
        _Own(**noted) if noted else msgspec.UNSET,
    )
    return dump(message, place)


class Packed(msgspec.Struct, frozen=True):
    """What goes into the queue, and the blob that is to be written before (None: the text says it all)."""

    text: str
    blob: Blob | None = None


def pack_message(envelope: Envelope) -> Packed:
    """An envelope as it is put: its text, or the wrapper of one that is too long for a queue.  Raises FormatError."""
    text = encode(envelope)
    if len(text) <= MOST_MESSAGE_BYTES // 4 or len(text.encode()) <= MOST_MESSAGE_BYTES:
        return Packed(text)
    name = message_blob(envelope.instance_id, envelope.id, type(envelope.event).__name__)
    wrapper = dump(_MessageData(compressed_blob_name=name), f"message to instance {envelope.instance_id!r}")
    return Packed(wrapper, Blob(name, pack(text)))


# -- from texts to envelopes -----------------------------------------------------------------------------


def decode(text: str, place: str = "queue message") -> Envelope | Wrapped:
    """What a queue message says, or where it does.  Raises FormatError, naming `place`.

    What only ours say is None for a stranger's, or -1 (the ordinal in ParentInstance).
    """
    text = _plain(text, place)
    try:
        found = _decode(text)
    except (ValueError, RecursionError):
        # Of an older version, perhaps: type names with an assembly, numbers alone.
        found = _decode_leniently(text, place)
    message = found.task_message
    if message is None:
        if not found.compressed_blob_name:
            raise FormatError(place, "it holds no message and names no blob")
        return Wrapped(found.compressed_blob_name)
    instance = message.orchestration_instance
    if instance is None or not instance.instance_id:
        raise FormatError(place, "it does not say for which instance it is")
    own = found.holdtrue or _NO_OWN
    try:
        event = from_wire(message.event, instance.instance_id, instance.execution_id, own, place)
    except RecursionError as error:
        raise too_deep(place) from error
    sender, context = found.sender, message.orchestration_execution_context
    return Envelope(
        id=found.activity_id,
        instance_id=instance.instance_id,
        event=event,
        execution_id=instance.execution_id or None,
        sequence=found.sequence_number,
        sender="" if sender is None else sender.instance_id or "",
        sender_execution="" if sender is None else sender.execution_id or "",
        episode=found.episode or 0,
        context=None if context is None else tags_from(context.orchestration_tags or {}, own.context),
        scheduled=own.ordinal,
        start_id=own.start_id,
        dialect=own.dialect,
        due=own.due,
        options=own.options,
        runs=own.runs,
    )


def decode_blob(data: bytes, place: str, limit: int = MOST_BLOB_BYTES) -> Envelope:
    """What the blob of a large message says.  Raises FormatError, also where it unpacks to more than `limit` bytes."""
    found = decode(unpack(data, place, limit), place)
    if isinstance(found, Wrapped):
        raise FormatError(place, "it names another blob")
    return found


def _plain(text: str, place: str) -> str:
    text = text.lstrip("\ufeff \t\r\n")
    if text.startswith("{"):
        return text
    try:
        return base64.b64decode(text.rstrip(), validate=True).decode().lstrip("\ufeff")
    except (binascii.Error, ValueError) as error:
        raise FormatError(place, "it is neither JSON nor the base64 of it") from error


def _decode_leniently(text: str, place: str) -> _MessageData:
    found = load(_decode_any, text, place)
    try:
        message = found.get("TaskMessage")
        if isinstance(message, dict) and isinstance(message.get("Event"), dict):
            _name_by_number(message["Event"])
        return msgspec.convert(_bare_types(found), _MessageData)
    except RecursionError as error:
        raise too_deep(place) from error
    except ValueError as error:
        raise FormatError(place, f"it is no message of a task hub ({error})") from error


def _name_by_number(event: dict[str, Any]) -> None:
    number = event.get("EventType")
    if TYPE not in event and type(number) is int and 0 <= number < len(TYPE_NAMES):
        event[TYPE] = TYPE_NAMES[number]


def _bare_types(value: Any) -> Any:
    """The same without the assembly in type names: `DurableTask.Core.TaskMessage, DurableTask.Core`."""
    if type(value) is dict:
        found = {key: _bare_types(one) for key, one in value.items()}
        name = found.get(TYPE)
        if type(name) is str and not name.startswith("System."):
            found[TYPE] = name.partition(",")[0].strip()
        return found
    if type(value) is list:
        return [_bare_types(one) for one in value]
    return value
