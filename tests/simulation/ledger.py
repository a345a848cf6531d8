"""What the hub must be, kept apart from any store: built only from the calls that took effect, in their order.

Each invariant is a method with its reason.  Nothing here is taken from a store's own tables, so that a store
which loses, doubles or invents something differs from the ledger at once.
"""

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from holdtrue.core import events as ev
from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.messages import Start
from holdtrue.core.projection import TERMINAL, Projection, Status, initial, project, rewinding
from holdtrue.stores.protocol import (
    CommitResult,
    CreateOutcome,
    CreateResult,
    InstanceRecord,
    SendResult,
    TaskHubStore,
)
from holdtrue.testing.virtual_time import Part

FACE = ("execution_id", "name", "status", "output", "failure", "custom_status", "created_at", "completed_at", "input")
"""What a client sees of an instance and nothing but a commit may change."""


class Broken(AssertionError):
    """An invariant does not hold."""


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that need not wait for anything."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the store let others run in the midst of a look")


class Entry:
    """One instance: the history of its current execution, its projection, and every face it has shown."""

    def __init__(self, start: Start, moment: int) -> None:
        self.start = start
        self.projection: Projection = initial(start.started)
        self.history: list[ev.HistoryEvent] = []
        self.faces: list[tuple[int, tuple[Any, ...] | None]] = []
        self.asked_to_rewind = False
        self.show(moment)

    def show(self, moment: int) -> None:
        """Its face from this moment on."""
        self.faces.append((moment, self.face()))

    def face(self) -> tuple[Any, ...]:
        """What a client sees now: one that is to be rewound is Pending from the request on."""
        projection = self.projection
        return face(rewinding(projection, projection.last_updated_at) if self.asked_to_rewind else projection)


def face(projection: Projection) -> tuple[Any, ...]:
    """What a client sees of it."""
    return tuple(getattr(projection, name) for name in FACE)


class Ledger:
    """`applied` is told of each call at the moment it takes effect; `moment` counts them."""

    def __init__(self, look: Callable[[], TaskHubStore | None]) -> None:
        self._look = look
        self.moment = 0
        self.entries: dict[str, Entry] = {}
        self.gone: dict[str, list[tuple[int, tuple[Any, ...] | None]]] = {}
        self.sent: Counter[str] = Counter()
        self.raised: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    # -- what happens ----------------------------------------------------------------------------------

    def applied(self, part: Part, verb: str, given: Sequence[Any], outcome: Any) -> None:
        """A call took effect."""
        self.moment += 1
        touched: list[str] = []
        if verb == "create":
            for request, made in zip(given[0], outcome, strict=True):
                self._created(request.start, request.replaceable, made)
                touched.append(made.instance_id)
        elif verb == "commit":
            for committing, one in zip(given[0], outcome, strict=True):
                if one.result is CommitResult.COMMITTED:
                    self._committed(part, committing.commit)
                    touched.append(committing.commit.instance_id)
                    touched += [start.started.instance_id for start in committing.commit.starts]
                else:
                    self.counts[str(one.result)] += 1
        elif verb == "commit_tick":
            if isinstance(outcome, CreateOutcome) and given[0].request is not None:
                request = given[0].request
                if outcome.result is not CreateResult.REFUSED:
                    self._no_overlap(outcome)
                    self._created(request.start, request.replaceable, outcome)
                touched.append(outcome.instance_id)
        elif verb == "send":
            for message, one in zip(given[0], outcome, strict=True):
                self._sent(message, one.result)
        elif verb == "purge":
            self._purged()
        if touched:
            self._status_is_history(touched)

    def _created(self, start: Start, replaceable: Any, outcome: CreateOutcome) -> None:
        name = outcome.instance_id
        entry = self.entries.get(name)
        if outcome.result is CreateResult.ALREADY:
            if entry is None or entry.start.start_id != start.start_id:
                raise Broken(f"start of {name!r} was answered ALREADY, and nobody had made it")
            return
        if outcome.result is CreateResult.REFUSED:
            if entry is None or entry.projection.status in replaceable:
                raise Broken(f"start of {name!r} was refused, and nothing stood in its way")
            return
        if entry is not None:
            if outcome.result is not CreateResult.REPLACED or entry.projection.status not in replaceable:
                raise Broken(f"start of {name!r} took the place of a {entry.projection.status.name} instance unasked")
            self._forget(name)
        self._enter(start)

    def _enter(self, start: Start) -> None:
        name = start.started.instance_id
        entry = self.entries[name] = Entry(start, self.moment)
        entry.faces = self.gone.pop(name, []) + entry.faces

    def _forget(self, name: str) -> None:
        entry = self.entries.pop(name)
        self.gone[name] = [*entry.faces, (self.moment, None)]

    def _committed(self, part: Part, commit: EpisodeCommit) -> None:
        name = commit.instance_id
        entry = self.entries.get(name)
        if entry is None:
            raise Broken(f"{part.name} committed an episode of {name!r}, which is not there")
        self._a_stale_writer_changes_nothing(part, entry, commit)
        self._terminal_stays(part, entry, commit)
        if commit.replace:
            entry.history = list(commit.events)
            before = entry.projection
            if commit.events and type(commit.events[0]) is ev.OrchestratorStarted:
                began = next((e for e in commit.events if type(e) is ev.ExecutionStarted), None)
                if began is not None and began.execution_id != before.execution_id:
                    fresh = initial(began)
                    fresh.created_at = before.created_at
                    entry.projection = fresh
            entry.projection = commit.projection.copy()
        else:
            entry.history += commit.events
            folded = project(entry.projection, commit.events)
            folded.custom_status = commit.projection.custom_status
            if face(folded) != face(commit.projection):
                raise Broken(f"{name!r}: the committed projection is not that of its history")
            entry.projection = folded
        entry.asked_to_rewind = False
        entry.show(self.moment)
        self._one_result_each(name, entry.history)
        self._an_answer_has_its_child(name, entry.history, commit.events)
        if not commit.replace:
            # A history that takes another's place may hold events that were carried over.
            for event in commit.events:
                if type(event) is ev.EventRaised and event.input is not None:
                    self._an_event_comes_once(name, event.input)
        for message in commit.messages:
            self._rewind_asked(message)
        for start in commit.starts:
            child = self.entries.get(start.started.instance_id)
            if child is not None and child.projection.status not in TERMINAL:
                self.counts["children refused"] += 1
                continue
            if child is not None:
                self._forget(start.started.instance_id)
            self._enter(start)

    def _sent(self, message: Any, result: SendResult) -> None:
        entry = self.entries.get(message.instance_id)
        if (result is SendResult.NOT_FOUND) != (entry is None):
            raise Broken(f"a message to {message.instance_id!r} was answered {result}")
        if entry is not None and (result is SendResult.ENDED) and entry.projection.status not in TERMINAL:
            raise Broken(f"a message to {message.instance_id!r} was answered {result}, and it had not ended")
        if result is SendResult.ACCEPTED:
            self._rewind_asked(message)
        if result is SendResult.ACCEPTED and type(message.event) is ev.EventRaised and message.event.input is not None:
            self.sent[message.event.input] += 1

    def _rewind_asked(self, message: Any) -> None:
        entry = self.entries.get(message.instance_id)
        if entry is None or type(message.event) is not ev.ExecutionRewound:
            return
        projection = entry.projection
        if projection.status is Status.FAILED and message.execution_id in (None, projection.execution_id):
            entry.asked_to_rewind = True
            entry.show(self.moment)

    def _purged(self) -> None:
        names = list(self.entries)
        for name, record in zip(names, self._records(names), strict=True):
            if record is None:
                if self.entries[name].projection.status not in TERMINAL:
                    raise Broken(f"{name!r} was purged, and it had not ended")
                self._forget(name)

    # -- invariants --------------------------------------------------------------------------------------

    def _a_stale_writer_changes_nothing(self, part: Part, entry: Entry, commit: EpisodeCommit) -> None:
        """An episode made from an older state than the committed one must not be taken: its decisions are void."""
        if not commit.replace and commit.first != len(entry.history):
            raise Broken(
                f"{part.name} committed events of {commit.instance_id!r} from {commit.first} on, "
                f"where {len(entry.history)} stand: a stale writer"
            )

    def _terminal_stays(self, part: Part, entry: Entry, commit: EpisodeCommit) -> None:
        """Nothing but a rewind (a start, a purge come by other ways) changes an ended instance."""
        if entry.projection.status in TERMINAL:
            rewound = any(type(event) is ev.ExecutionRewound for event in commit.events)
            changed = commit.events and not (commit.replace and rewound)
            if changed:
                raise Broken(f"{part.name} changed {commit.instance_id!r}, which had ended")

    def _one_result_each(self, name: str, history: Sequence[Any]) -> None:
        """Every schedule has one result at most, and no result comes without its schedule; no end is followed."""
        open_: dict[int, str] = {}
        ended = False
        for event in history:
            kind = type(event).__name__
            if ended and kind not in ("OrchestratorCompleted", "GenericEvent"):
                raise Broken(f"{name!r}: {kind} stands behind the end")
            if kind in ("TaskScheduled", "TimerCreated", "SubOrchestrationInstanceCreated"):
                if event.event_id in open_:
                    raise Broken(f"{name!r}: task {event.event_id} is scheduled twice")
                open_[event.event_id] = kind
            elif kind in ("TaskCompleted", "TaskFailed", "TimerFired") or kind.startswith("SubOrchestrationInstance"):
                task = event.timer_id if kind == "TimerFired" else event.task_scheduled_id
                if open_.pop(task, None) is None:
                    raise Broken(f"{name!r}: {kind} for task {task}, which is not outstanding")
            elif kind in ("ExecutionCompleted", "ExecutionFailed"):
                ended = True

    def _an_answer_has_its_child(self, name: str, history: Sequence[Any], new: Sequence[Any]) -> None:
        """A child's result in a history is that of the child which this execution has started, and that has ended."""
        for event in new:
            if type(event) is ev.SubOrchestrationInstanceCompleted:
                task = event.task_scheduled_id
                child = next(
                    one.instance_id
                    for one in reversed(history)
                    if type(one) is ev.SubOrchestrationInstanceCreated and one.event_id == task
                )
                status = self.status_of(child)
                if status is not None and status not in TERMINAL:
                    raise Broken(f"{name!r} has a result of its child {child!r}, which is {status.name}")

    def _an_event_comes_once(self, name: str, payload: str) -> None:
        """An event stands in a history as often as it was sent (each has a payload of its own), never more often."""
        self.raised[payload] += 1
        if payload in self.sent and self.raised[payload] > self.sent[payload]:
            raise Broken(f"{name!r}: the event {payload}, sent {self.sent[payload]} times, came once more")

    def _no_overlap(self, outcome: CreateOutcome) -> None:
        """A schedule that skips never starts a singleton beside one that has not ended."""
        entry = self.entries.get(outcome.instance_id)
        if entry is not None and entry.projection.status not in TERMINAL:
            raise Broken(f"the schedule started {outcome.instance_id!r} over a {entry.projection.status.name} one")

    def _records(self, names: Sequence[str]) -> list[InstanceRecord | None]:
        store = self._look()
        if store is None:
            return []
        records: list[InstanceRecord | None] = at_once(store.status(list(names)))
        return records

    def _status_is_history(self, names: Sequence[str]) -> None:
        """The status as anybody reads it is the projection of the committed history, at every moment."""
        for name, record in zip(names, self._records(names), strict=False):
            entry = self.entries.get(name)
            if (record is None) != (entry is None):
                raise Broken(f"{name!r} is {'not ' if record is None else ''}there against what was committed")
            if record is not None and entry is not None and face(record.projection) != entry.face():
                raise Broken(f"{name!r} is read as {face(record.projection)}, and its history says {entry.face()}")

    def saw(self, name: str, projection: Projection | None, since: int) -> None:
        """A client's read, begun at the moment `since` and ended now, shows a face of some moment in between."""
        seen = None if projection is None else face(projection)
        entry = self.entries.get(name)
        faces = entry.faces if entry is not None else self.gone.get(name, [])
        shown: list[tuple[Any, ...] | None] = [None] if not faces or faces[0][0] > since else []
        for index, (moment, one) in enumerate(faces):
            following = faces[index + 1][0] if index + 1 < len(faces) else self.moment + 1
            if following > since and moment <= self.moment:
                shown.append(one)
        if seen not in shown:
            raise Broken(f"a client read {name!r} as {seen} between {since} and {self.moment}; it was {shown}")

    def status_of(self, name: str) -> Status | None:
        """By the ledger."""
        entry = self.entries.get(name)
        return None if entry is None else entry.projection.status

    def check_all(self) -> None:
        """Every instance, its whole history as the store gives it, against the ledger."""
        store = self._look()
        assert store is not None
        self._status_is_history(list(self.entries))
        for name, entry in self.entries.items():
            stored = at_once(_whole(store, name))
            if stored != entry.history:
                raise Broken(f"the stored history of {name!r} is not what was committed")


async def _whole(store: TaskHubStore, name: str) -> list[ev.HistoryEvent]:
    events: list[ev.HistoryEvent] = []
    async for piece in store.history(name):
        events += piece
    return events
