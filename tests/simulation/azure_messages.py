"""Where the messages of a simulated hub on Azure Storage went: none vanishes, and what had no effect has a reason.

Told of every put, of every message and kept row that goes, and of what clients were told; like the watch it knows
nothing of a host.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec
from broken import Broken

from holdtrue.core import events as ev
from holdtrue.core.events import Ticks
from holdtrue.core.messages import RESERVED_PREFIX
from holdtrue.core.projection import TERMINAL, Projection, Status
from holdtrue.stores.azure_storage.dead_letters import PARTITION as LETTERS
from holdtrue.stores.azure_storage.dead_letters import number_of
from holdtrue.stores.azure_storage.dotnet_json import FormatError
from holdtrue.stores.azure_storage.envelopes import Envelope, Wrapped, decode, decode_blob
from holdtrue.stores.azure_storage.keeping import PREFIX
from holdtrue.stores.azure_storage.names import HubNames, unescape_key
from holdtrue.stores.azure_storage.owing import result_id
from holdtrue.stores.azure_storage.service import Do, Operation
from holdtrue.testing.storage_model import StorageModel

Mark = tuple[Any, ...]


def mark(event: ev.AnyEvent, execution: str | None) -> Mark:
    """By what an event is known in a history of its instance, and as a message."""
    match event:
        case ev.ExecutionStarted():
            return "start", event.execution_id
        case ev.TaskCompleted() | ev.TaskFailed():
            return "activity", execution, event.task_scheduled_id
        case ev.SubOrchestrationInstanceCompleted() | ev.SubOrchestrationInstanceFailed():
            return "child", execution, event.task_scheduled_id
        case ev.TimerFired():
            return "timer", execution, event.timer_id
        case ev.EventRaised():
            return "event", event.name, event.input
    return type(event).__name__, event.timestamp


class Seen(Protocol):
    """What of one id the watch knows."""

    projection: Projection | None
    execution: str
    history: list[ev.AnyEvent]
    stood: dict[Mark, str]
    """What has ever stood in a history of it, and under which start."""
    over_at: int
    """The last moment at which it had ended, or was not there."""
    continued_at: int
    """When an execution of it has last continued as new."""

    def statuses(self, since: int) -> set[Status | None]:
        """What its status has been since a moment (None: it was not there)."""


class Message(NamedTuple):
    """A message in a queue: its queue, what it says (None: nobody can read it), when it was put."""

    queue: str
    says: Envelope | None
    inserted: Ticks
    moment: int


class Messages:
    """Follows every message from its put to its end; `counts` tells why some had no effect.

    A message may go where its event stands in a history, it waits beside one, it is a dead letter, or a copy of it had
    its effect; and where its instance had ended, was replaced or purged first.
    """

    def __init__(
        self, model: StorageModel, names: HubNames, formats: Any, entries: Mapping[str, Seen], begun: set[str]
    ) -> None:
        self._model = model
        self._names = names
        self._formats = formats
        self._entries = entries
        self._begun = begun
        self._there: dict[str, Message] = {}
        self._kept: dict[tuple[str, str], Message] = {}
        self._came_to: dict[str, str] = {}
        """What a message came to, by its envelope's id."""
        self._put: set[str] = set()
        self._answered: set[Mark] = set()
        """Children of whose end or refusal their parents were told."""
        self._payloads: dict[tuple[str, str], set[str]] = {}
        """The envelopes of an event, by its instance and payload."""
        self._told: list[tuple[str, str]] = []
        self._started: list[tuple[str, str]] = []
        self.begin: set[str] = set()
        """The executions that messages ask for; all others are what one of them has continued as."""
        self.named: set[str] = set()
        """The starts that rows have named."""
        self.fates: dict[str, str] = {}
        """What became of starts that did not begin, by their ids."""
        self.counts: Counter[str] = Counter()

    # -- what happens ----------------------------------------------------------------------------------

    def applied(self, verb: str, given: tuple[Any, ...], outcome: Any, moment: int) -> None:
        """A request took effect, and the watch has looked at what it wrote.  Raises Broken."""
        if verb == "put":
            self._was_put(given[0], given[1], outcome[0], moment)
        elif verb == "remove":
            gone = self._there.pop(given[1], None)
            if gone is not None and gone.says is None:
                if not self._is_letter(given[1], gone.inserted):
                    raise Broken(f"a message of queue {gone.queue} that nobody can read vanishes")
            elif gone is not None:
                self._goes(gone)
        elif verb in ("write", "transact") and given[0] == self._names.history:
            for operation in given[1] if verb == "transact" else [given[1]]:
                if operation.key.startswith(PREFIX):
                    self._kept_row(operation, moment)

    def _was_put(self, queue: str, text: str, id: str, moment: int) -> None:
        try:
            says = decode(text)
            if isinstance(says, Wrapped):
                says = decode_blob(self._formats.blob_now(says.blob), says.blob)
        except FormatError:
            says = None
        self._there[id] = Message(queue, says, self._model.account.now(), moment)
        if says is None:
            return
        self._put.add(says.id)
        event = says.event
        if isinstance(event, ev.ExecutionStarted):
            self.begin.add(event.execution_id)
        if isinstance(event, ev.SubOrchestrationInstanceCompleted | ev.SubOrchestrationInstanceFailed):
            self._answered.add(mark(event, says.execution_id))
        if isinstance(event, ev.EventRaised) and event.input is not None:
            self._payloads.setdefault((says.instance_id, event.input), set()).add(says.id)

    def _kept_row(self, operation: Operation, moment: int) -> None:
        name, place = unescape_key(operation.partition), (operation.partition, operation.key)
        if operation.do is not Do.DELETE:
            one = self._formats.kept_now(operation)
            says = Envelope(id=one.id, instance_id=name, event=one.event, execution_id=one.execution_id)
            self._kept[place] = Message("", says, one.inserted, moment)
            return
        gone = self._kept.pop(place, None)
        if gone is not None:
            self._goes(gone)

    # -- invariants ------------------------------------------------------------------------------------

    def _goes(self, gone: Message) -> None:
        """No message vanishes: when it goes it has had its effect, waits elsewhere, or there is a reason."""
        says = gone.says
        assert says is not None
        reason = self._reason(gone, says)
        if reason is None:
            entry = self._entries.get(says.instance_id)
            status = None if entry is None or entry.projection is None else entry.projection.status.name
            raise Broken(
                f"a message of {says.instance_id!r} vanishes from {gone.queue or 'beside its history'}: {says.event} "
                f"for execution {says.execution_id}, and the instance is {status}"
            )
        self.counts[reason] += 1
        if reason not in (WAITS, AGAIN):
            self._came_to[says.id] = reason

    def _reason(self, gone: Message, says: Envelope) -> str | None:
        if says.id in self._came_to:
            return AGAIN
        left = [one.says.id for one in (*self._there.values(), *self._kept.values()) if one.says is not None]
        if says.id in left:
            return WAITS
        if self._is_letter(says.id, gone.inserted):
            return "it is a dead letter"
        entry = self._entries.get(says.instance_id)
        event = says.event
        if entry is not None and mark(event, says.execution_id) in entry.stood:
            return STOOD
        if isinstance(event, ev.GenericEvent):
            return "it asked for a look"
        if gone.queue == self._names.work_items:
            return self._reason_of_work(says, entry)
        if isinstance(event, ev.ExecutionStarted):
            return self._reason_of_start(event, says)
        return self._reason_of_instance(gone, says, entry)

    def _reason_of_instance(self, gone: Message, says: Envelope, entry: Seen | None) -> str | None:
        """Why a message for an instance has had no effect."""
        event, execution = says.event, says.execution_id
        if entry is None or entry.projection is None:
            if entry is not None and entry.over_at >= gone.moment and entry.stood:
                return OVER
            needs_one = execution is not None or isinstance(event, ev.ExecutionTerminated)
            return "there is no instance of its id" if needs_one else None
        projection = entry.projection
        if projection.status in TERMINAL or entry.over_at >= gone.moment:
            return OVER
        if execution not in (None, projection.execution_id):
            return "it was for an earlier execution"
        if isinstance(event, ev.EventRaised) and event.name.startswith(RESERVED_PREFIX):
            return "its time limit was kept, or is another's"
        if isinstance(event, ev.EventRaised) and entry.continued_at >= gone.moment:
            return "an execution took it that has continued as new"
        if isinstance(event, ev.ExecutionSuspended | ev.ExecutionResumed):
            suspends = isinstance(event, ev.ExecutionSuspended)
            was = {status is Status.SUSPENDED for status in entry.statuses(gone.moment)}
            # (Or it became so by another message of the same commit.)
            if suspends in was or any(made[0] == type(event).__name__ for made in entry.stood):
                return "it was so already"
        if isinstance(event, ev.ExecutionTerminated) and event.parent_execution is not None:
            parent = projection.parent
            if parent is None or parent.execution_id != event.parent_execution:
                return "it is for a child whose id this one has"
        if isinstance(event, ev.ExecutionRewound):
            return "it has not failed"
        if any(isinstance(one, ev.GenericEvent | ev.ExecutionRewound) for one in entry.history):
            return "it was rewound"
        return None

    def _reason_of_start(self, event: ev.ExecutionStarted, says: Envelope) -> str | None:
        parent = event.parent
        if parent is not None:
            entry = self._entries.get(parent.instance_id)
            if ("child", parent.execution_id, parent.task_id) in self._answered:
                return "its parent was told that its id is taken"
            if entry is None or entry.execution != parent.execution_id:
                return OVER
            own = self._entries.get(says.instance_id)
            # A child whose parent has started it again after a rewind, say.
            return "it came again" if own is not None and own.stood else None
        start_id = says.start_id or event.execution_id
        if start_id in self._begun:
            return STOOD  # if for no longer than one episode, in which it continued as new
        if says.start_id is None and start_id not in self.named:
            return "a start of .NET's whose row was never written"
        return "another start took its place" if start_id in self.fates else None

    def _reason_of_work(self, says: Envelope, entry: Seen | None) -> str | None:
        if result_id(says.id) in self._put:
            return "its result was put"
        if entry is None or entry.projection is None or entry.projection.status in TERMINAL:
            return OVER
        if entry.execution != says.execution_id:
            return OVER
        task = says.event.event_id if isinstance(says.event, ev.TaskScheduled) else -1
        if ("activity", says.execution_id, task) in entry.stood:
            return "another run of it told its result"
        scheduled = [isinstance(one, ev.TaskScheduled) and one.event_id == task for one in entry.history]
        after = entry.history[scheduled.index(True) :] if any(scheduled) else []
        lost = any(isinstance(one, ev.TimerFired) for one in after)
        return "it lost a race, and was called off" if lost else None

    def _is_letter(self, id: str, inserted: Ticks) -> bool:
        # The queue tells times to the second, what was kept as they were told.
        key = f"{number_of(inserted, id):020d}"
        return any(row.key == key for row in self._model.tables.look(self._names.own, LETTERS))

    # -- what clients were told ------------------------------------------------------------------------

    def told_raised(self, name: str, payload: str) -> None:
        """A client was told that its event was accepted."""
        self._told.append((name, msgspec.json.encode(payload).decode()))

    def told_started(self, name: str, start_id: str) -> None:
        """A client was told that its start was accepted, or that this very start had been."""
        self._started.append((name, start_id))

    def all_had_their_effect(self) -> None:
        """Every start and event that was acknowledged has its effect, unless its instance ended, was replaced or purged
        first."""
        for name, start_id in self._started:
            if start_id not in self._begun and start_id not in self.fates:
                raise Broken(f"the start {start_id!r} of {name!r} was acknowledged, and has never begun")
        for name, payload in self._told:
            envelopes = self._payloads.get((name, payload), set())
            if not any(id in self._came_to for id in envelopes):
                raise Broken(f"the event {payload} of {name!r} was acknowledged, and nothing came of it: {envelopes}")


STOOD = "it stands in a history"
OVER = "its instance ended, was replaced or purged first"
AGAIN = "a copy of it came to its end before"
WAITS = "it waits elsewhere"
