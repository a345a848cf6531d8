"""What the hub must be, kept apart from any store: built only from the calls that took effect, in their order.

Each invariant is a method with its reason.  Nothing here is taken from a store's own tables, so that a store
which loses, doubles or invents something differs from the ledger at once.
"""

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from broken import Broken
from timekeeping import Timekeeping

from holdtrue.core import events as ev
from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.messages import RESERVED_PREFIX, OutboundMessage, Start
from holdtrue.core.projection import TERMINAL, Projection, Status, initial, project, rewinding
from holdtrue.stores.protocol import (
    CommitResult,
    Committing,
    CreateOutcome,
    CreateResult,
    InstanceRecord,
    SendResult,
    TaskHubStore,
)
from holdtrue.testing.virtual_time import Part

FACE = ("execution_id", "name", "status", "output", "failure", "custom_status", "created_at", "completed_at", "input")
"""What a client sees of an instance and nothing but a commit may change."""


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
        self.held_by: Any = None
        """The code that the history did not fit, while the instance is held."""
        self.waiting: Counter[str] = Counter()
        """The payloads of events that were accepted and have not been handled."""
        self.taken = 0
        """How many messages the execution used up that has just continued as new."""
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


def is_event(event: Any) -> bool:
    """Whether somebody raised it, with a payload by which it is known: not what the engine sends to itself."""
    return type(event) is ev.EventRaised and event.input is not None and not event.name.startswith(RESERVED_PREFIX)


class Ledger:
    """`applied` is told of each call at the moment it takes effect; `moment` counts them.

    `code_of` says which version of the code a process has, `queued` which events wait for an instance in the hub,
    by their payloads (None: that cannot be seen there).
    """

    def __init__(
        self,
        look: Callable[[], TaskHubStore | None],
        times: Timekeeping,
        *,
        code_of: Callable[[Part], Any] = lambda part: None,
        queued: Callable[[str], Counter[str] | None] = lambda name: None,
    ) -> None:
        self._look = look
        self._times = times
        self._code_of = code_of
        self._queued = queued
        self._names: dict[int, str] = {}
        self._tokens: dict[int, int] = {}
        self.moment = 0
        self.entries: dict[str, Entry] = {}
        self.gone: dict[str, list[tuple[int, tuple[Any, ...] | None]]] = {}
        self.sent: Counter[str] = Counter()
        self.raised: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        """What did not come to its effect, by the reason."""
        self.letters: list[OutboundMessage] = []
        """The dead letters that were neither sent again nor dismissed."""

    # -- what happens ----------------------------------------------------------------------------------

    def applied(self, part: Part, verb: str, given: Sequence[Any], outcome: Any) -> None:
        """A call took effect."""
        self.moment += 1
        touched: list[str] = []
        if verb == "create":
            for request, made in zip(given[0], outcome, strict=True):
                self._created(request.start, request.replaceable, made)
                touched.append(made.instance_id)
                self._locked(made.taken)
        elif verb == "commit":
            for committing, one in zip(given[0], outcome, strict=True):
                if one.result is CommitResult.COMMITTED:
                    self._only_who_holds_the_lock_commits(part, committing)
                    self._committed(part, committing.commit)
                    self.letters += [letter.message for letter in one.dead]
                    for locked in one.taken:
                        self._locked(locked)
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
                self._locked(outcome.taken)
        elif verb == "send":
            for message, one in zip(given[0], outcome, strict=True):
                self._sent(message, one.result)
                touched.append(message.instance_id)
        elif verb == "purge":
            self._purged()
        elif verb in ("resend", "dismiss"):
            touched += self._letters_gone(outcome, again=verb == "resend")
        elif verb == "lock":
            for locked in outcome:
                self._locked(locked)
        elif verb == "park":
            for lease in given[0]:
                self._parked(part, lease)
        elif verb == "join":
            self._times.joined(part)
        elif verb == "leave":
            self._times.left(part)
        elif verb == "renew":
            self._times.renewed(part, outcome)
        if touched:
            self._status_is_history(touched)
            for name in touched:
                self._no_message_vanishes(name)

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
        if start.event is not None:
            self._wait(entry, start.event.event)

    def _locked(self, locked: Any) -> None:
        if locked is not None:
            self._names[locked.lease.key] = locked.record.projection.instance_id
            self._tokens[locked.lease.key] = locked.lease.token

    def _letters_gone(self, count: int, *, again: bool) -> list[str]:
        """Who got dead letters that were sent again."""
        store = self._look()
        assert store is not None
        kept = [stored.letter.message for stored in at_once(store.dead_letters(limit=10_000))]
        gone = [message for message in self.letters if message not in kept]
        if len(gone) != count:
            raise Broken(f"{count} dead letters are said to be gone, and these are: {gone}")
        self.letters = [message for message in self.letters if message in kept]
        if not again:
            return []
        for message in gone:
            self._wait(self.entries[message.instance_id], message.event)
        return [message.instance_id for message in gone]

    def _parked(self, part: Part, lease: Any) -> None:
        entry = self.entries.get(self._names.get(lease.key, ""))
        record = None if entry is None else self._records([self._names[lease.key]])[0]
        if entry is not None and record is not None and record.condition is not None:
            entry.held_by = self._code_of(part)

    @staticmethod
    def _wait(entry: Entry, event: Any) -> None:
        """An event stands in the line of an instance."""
        if is_event(event):
            entry.waiting[event.input] += 1

    @staticmethod
    def _handled(entry: Entry, events: Sequence[Any]) -> None:
        """Events of the line were handled (what was carried over stood in it only once)."""
        for event in events:
            if is_event(event) and entry.waiting[event.input]:
                entry.waiting[event.input] -= 1
        entry.waiting = +entry.waiting

    def _forget(self, name: str) -> None:
        entry = self.entries.pop(name)
        self.counts["events to one that was replaced or purged first"] += entry.waiting.total()
        self.gone[name] = [*entry.faces, (self.moment, None)]

    def _committed(self, part: Part, commit: EpisodeCommit) -> None:
        name = commit.instance_id
        entry = self.entries.get(name)
        if entry is None:
            raise Broken(f"{part.name} committed an episode of {name!r}, which is not there")
        self._a_stale_writer_changes_nothing(part, entry, commit)
        self._terminal_stays(part, entry, commit)
        self._a_held_one_does_not_grow(part, entry, commit)
        self._times.no_timer_is_early(name, commit.events)
        self._times.its_time_has_come(name, commit.events)
        entry.held_by = None
        self._handled(entry, [*commit.events, *(dropped.event for dropped in commit.dropped)])
        self.counts.update(dropped.reason for dropped in commit.dropped)
        if commit.replace:
            entry.taken = len(commit.consumed)
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
        if entry.projection.status in TERMINAL:
            self.counts["events to one that ended first"] += entry.waiting.total()
            entry.waiting.clear()
        self._one_result_each(name, entry.history)
        self._no_step_twice(name, entry.history)
        self._an_answer_has_its_child(name, entry.history, commit.events)
        if not commit.replace:
            # A history that takes another's place may hold events that were carried over.
            for event in commit.events:
                if type(event) is ev.EventRaised and event.input is not None:
                    self._an_event_comes_once(name, event.input)
        for start in commit.starts:
            child = self.entries.get(start.started.instance_id)
            if child is not None and child.projection.status not in TERMINAL:
                self.counts["children refused"] += 1
                continue
            if child is not None:
                self._forget(start.started.instance_id)
            self._enter(start)
        for message in commit.messages:
            # After the starts: some may be for what was started.
            self._rewind_asked(message)
            target = self.entries.get(message.instance_id)
            if target is not None and target.projection.status not in TERMINAL:
                self._wait(target, message.event)

    def _sent(self, message: Any, result: SendResult) -> None:
        entry = self.entries.get(message.instance_id)
        if (result is SendResult.NOT_FOUND) != (entry is None):
            raise Broken(f"a message to {message.instance_id!r} was answered {result}")
        if entry is not None and (result is SendResult.ENDED) and entry.projection.status not in TERMINAL:
            raise Broken(f"a message to {message.instance_id!r} was answered {result}, and it had not ended")
        if result is SendResult.ACCEPTED:
            self._rewind_asked(message)
            assert entry is not None
            self._wait(entry, message.event)
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

    def _only_who_holds_the_lock_commits(self, part: Part, committing: Committing) -> None:
        """Who had the lock before another got it is late, also where the other has committed nothing yet: both would
        hold the instance for their own."""
        last = self._tokens.get(committing.lease.key)
        if last is not None and last != committing.lease.token:
            raise Broken(f"{part.name} committed {committing.commit.instance_id!r} under a lock that another has since")

    def _a_stale_writer_changes_nothing(self, part: Part, entry: Entry, commit: EpisodeCommit) -> None:
        """An episode made from an older state than the committed one must not be taken: its decisions are void."""
        made_from = commit.old_length if commit.replace else commit.first
        if made_from != len(entry.history):
            raise Broken(
                f"{part.name} committed events of {commit.instance_id!r} from {made_from} on, "
                f"where {len(entry.history)} stand: a stale writer"
            )

    def _terminal_stays(self, part: Part, entry: Entry, commit: EpisodeCommit) -> None:
        """Nothing but a rewind (a start, a purge come by other ways) changes an ended instance."""
        if entry.projection.status in TERMINAL:
            rewound = any(type(event) is ev.ExecutionRewound for event in commit.events)
            changed = commit.events and not (commit.replace and rewound)
            if changed:
                raise Broken(f"{part.name} changed {commit.instance_id!r}, which had ended")

    def _a_held_one_does_not_grow(self, part: Part, entry: Entry, commit: EpisodeCommit) -> None:
        """An instance whose history the code does not fit waits for other code: each try of the same code would
        leave something in its history for ever.  (What ends it needs no code.)"""
        same = entry.held_by is not None and entry.held_by == self._code_of(part)
        if same and commit.events and commit.projection.status not in TERMINAL:
            raise Broken(
                f"{part.name} made the history of {commit.instance_id!r} grow, which is held: its code did not fit"
            )

    def _no_step_twice(self, name: str, history: Sequence[Any]) -> None:
        """No step of an execution is taken twice: it begins once, and each number is given to one task.  (A rewind
        takes steps back, and gives their numbers again.)"""
        if sum(type(event) is ev.ExecutionStarted for event in history) > 1:
            raise Broken(f"{name!r} began twice in one history")
        if any(type(event) is ev.ExecutionRewound for event in history):
            return
        numbers = Counter(event.event_id for event in history if type(event) in ev.SCHEDULING_EVENTS)
        twice = [number for number, count in numbers.items() if count > 1]
        if twice:
            raise Broken(f"{name!r} took the steps {twice} twice")

    def _no_message_vanishes(self, name: str) -> None:
        """An event that was accepted is in the line of its instance until it is in its history, or was dropped for a
        reason.  (What an execution took in the step in which it continued as new stands in no history.)"""
        entry = self.entries.get(name)
        there = self._queued(name)
        if there is None:
            return
        wanted = Counter[str]() if entry is None else entry.waiting
        if entry is not None and entry.taken:
            if there <= wanted and wanted.total() - there.total() <= entry.taken:
                entry.waiting = wanted = there
            entry.taken = 0
        if there != wanted:
            raise Broken(f"in the line of {name!r} are the events {dict(there)}, and there must be {dict(wanted)}")

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

    def _dead_letters_are_kept(self, store: TaskHubStore) -> None:
        """What nobody can take is kept until somebody sends it again or dismisses it."""
        kept = len(at_once(store.dead_letters(limit=10_000)))
        if kept != len(self.letters):
            raise Broken(f"{kept} dead letters are kept, and there are {len(self.letters)}: {self.letters}")

    def status_of(self, name: str) -> Status | None:
        """By the ledger."""
        entry = self.entries.get(name)
        return None if entry is None else entry.projection.status

    def check_all(self) -> None:
        """Every instance, its whole history as the store gives it, against the ledger."""
        store = self._look()
        assert store is not None
        self._status_is_history(list(self.entries))
        self._dead_letters_are_kept(store)
        for name, entry in self.entries.items():
            stored = at_once(_whole(store, name))
            if stored != entry.history:
                raise Broken(f"the stored history of {name!r} is not what was committed")


async def _whole(store: TaskHubStore, name: str) -> list[ev.HistoryEvent]:
    events: list[ev.HistoryEvent] = []
    async for piece in store.history(name):
        events += piece
    return events
