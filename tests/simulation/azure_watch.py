"""What a hub on Azure Storage must be, judged from what stands in the account after every write that took effect.

The truth of an instance is the fold of its event rows, or the start that its row holds; no projection that the store
keeps is trusted.  It is kept apart from the store: reads the model's tables, and nothing of a host.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from azure_local import check_local
from azure_messages import Mark, Messages, mark
from broken import Broken
from ledger import FACE, face
from timekeeping import Timekeeping

from holdtrue.core import events as ev
from holdtrue.core.episode import ExecutionState
from holdtrue.core.errors import InvariantBroken
from holdtrue.core.messages import RESERVED_PREFIX
from holdtrue.core.projection import TERMINAL, Projection, Status, initial, project
from holdtrue.stores.azure_storage.keeping import PREFIX
from holdtrue.stores.azure_storage.large import is_large
from holdtrue.stores.azure_storage.names import HubNames, is_blob_of, unescape_key
from holdtrue.stores.azure_storage.planning import owed_key
from holdtrue.stores.azure_storage.sentinel import Sentinel, read_sentinel
from holdtrue.stores.azure_storage.service import Row
from holdtrue.stores.azure_storage.verdicts import RowView, names_newer_start
from holdtrue.testing.storage_model import StorageModel

Face = tuple[Any, ...] | None
STATUS_AT = FACE.index("status")


class Entry:
    """One id: what it shows, and the history that counts."""

    def __init__(self) -> None:
        self.projection: Projection | None = None
        self.history: list[ev.AnyEvent] = []
        self.execution = ""
        self.followed: set[str] = set()
        """Executions that others have followed."""
        self.purged: set[str] = set()
        self.episode = ""
        self.start_id = ""
        """Of its execution."""
        self.faces: list[tuple[int, Face]] = []
        self.row_since: int | None = None
        """Since which moment it has a row (None: it has none): a child has none at first, a purge takes it first."""
        self.stood: dict[Mark, str] = {}
        """What has ever stood in a history of it, and in an execution of which start."""
        self.over_at = -1
        """The last moment at which it had ended or was purged, and may have been started anew since."""
        self.continued_at = -1
        """When an execution of it has last continued as new."""
        self.waits_for = ""
        """The start that its row names, while it has not begun."""
        self.held_by: Any = None
        """The code that the history did not fit, while it is held."""
        self.going_until = 0
        """The last moment at which it had ended and had no row: its purge was under way, and was seen or not."""

    @property
    def is_going(self) -> bool:
        """Whether its purge has taken its row."""
        return self.row_since is None and self.projection is not None and self.projection.status in TERMINAL

    def always(self, wanted: frozenset[Status], since: int) -> bool:
        """Whether from the moment `since` on it had a row, and its status was one of these."""
        if self.row_since is None or self.row_since > since:
            return False
        return self.statuses(since) <= wanted

    def statuses(self, since: int) -> set[Status | None]:
        """What its status has been since a moment (None: it was not there)."""
        before = [index for index, (moment, _) in enumerate(self.faces) if moment <= since]
        shown = [one for _, one in self.faces[before[-1] :]] if before else [None, *(one for _, one in self.faces)]
        return {None if one is None else one[STATUS_AT] for one in shown}


def _is_copy(row: RowView, entry: Entry, sentinel: Sentinel | None) -> bool:
    """Whether a row is a copy of that of a start which is over."""
    if row.status is not Status.PENDING or (sentinel is not None and sentinel.execution_id == row.execution_id):
        return False
    return row.execution_id in entry.followed | entry.purged


class Watch:
    """Looks at the account after each write; `moment` counts them.  `times` judges timers, `messages` follow messages,
    `code` tells the version of the code of whoever writes."""

    def __init__(
        self,
        model: StorageModel,
        names: HubNames,
        formats: Any,
        times: Timekeeping,
        *,
        code: Callable[[], Any] = lambda: None,
    ) -> None:
        self._model = model
        self._names = names
        self._formats = formats
        self._times = times
        self._code = code
        self.moment = 0
        self.entries: dict[str, Entry] = {}
        self.begun: set[str] = set()
        """The ids of all starts that have begun."""
        self.messages = Messages(model, names, formats, self.entries, self.begun)
        self._purged: dict[str, str] = {}
        self._purge_over: dict[str, int] = {}
        self._purging: Counter[str] = Counter()
        self._half_purged: set[str] = set()
        """Of whose next execution a purge of .NET's has deleted rows, which it had listed: that is damaged."""
        self._rewound: dict[str, str] = {}
        self._dotnet: set[str] = set()
        self._started_over: set[str] = set()
        self.gaps = 0
        """How often a read met the one gap that rule 7 names: Pending, while .NET purges."""
        self.twice: set[str] = set()
        """Instances on which a client raised an event once more that they may have."""
        self._came_after: set[str] = set()
        """Blobs of messages that were put when there was nothing of their id: they stay, as in .NET's format."""

    # -- what happens ----------------------------------------------------------------------------------

    def applied(self, verb: str, given: tuple[Any, ...], outcome: Any) -> bool:
        """A request took effect; whether it wrote something of an instance."""
        if verb == "put_blob" and "/message-" in given[1]:
            gone = (name for name, entry in self.entries.items() if entry.projection is None)
            if any(is_blob_of(name, given[1]) for name in gone):
                self._came_after.add(given[1])
        looks = verb in ("write", "transact") and given[0] in (self._names.history, self._names.instances)
        if looks:
            self.moment += 1
            operations = given[1] if verb == "transact" else [given[1]]
            self._look(unescape_key(operations[0].partition))
        self.messages.applied(verb, given, outcome, self.moment)
        return looks

    # -- what .NET's clients do ------------------------------------------------------------------------

    def dotnet_starts(self, name: str) -> None:
        """It is started over whatever stands there."""
        self._started_over.add(name)

    def dotnet_purges(self, name: str) -> None:
        """Row and rows vanish from now on, in any order, whatever an owner writes meanwhile."""
        self._purged[name] = self.entries[name].execution
        self._dotnet.add(name)
        self._purging[name] += 1

    def dotnet_has_purged(self, name: str) -> None:
        """Its last request is answered."""
        self._purging[name] -= 1

    def dotnet_rewinds(self, name: str) -> None:
        """Rows are turned from now on: it has failed until the last of it, the instances row, is written."""
        self._rewound[name] = self.entries[name].execution
        self._dotnet.add(name)

    def _is_purged(self, name: str, sentinel: Sentinel | None) -> bool:
        """Whether what stands there is what a purge of .NET's has left so far."""
        if name in self._purged and sentinel is not None and sentinel.execution_id != self._purged[name]:
            del self._purged[name]
            self._purge_over[name] = self.moment
        return name in self._purged

    def _is_rewound(self, name: str, sentinel: Sentinel) -> bool:
        """Whether .NET rewinds it, or has, and no commit has come since."""
        told = sentinel.state.projection
        if name in self._rewound and (
            sentinel.execution_id != self._rewound[name] or told is None or told.status is not Status.FAILED
        ):
            del self._rewound[name]
        return name in self._rewound

    def _look(self, name: str) -> None:
        entry = self.entries.setdefault(name, Entry())
        row, sentinel, history = self._stands(name, entry)
        if entry.is_going:
            entry.going_until = self.moment
        if row is None or entry.row_since is None:
            entry.row_since = None if row is None else self.moment
        came_late = sentinel is not None and row is None and _came_late(entry, sentinel)
        if sentinel is not None and (sentinel.state.purging or came_late):
            sentinel, history = None, []
        before = entry.projection
        projection: Projection | None = None
        view = None if row is None else self._formats.row_view(row)
        if view is not None and name not in self._dotnet and _is_copy(view, entry, sentinel):
            view = None  # nothing waits
        self._note_start(entry, view)
        if history and sentinel is not None:
            projection = self._folded(name, entry, sentinel, history, view)
        if sentinel is not None:
            self.begun.add(sentinel.state.start_id)
            self._one_writer(name, entry, sentinel)
            self._nothing_begins_twice(name, entry, sentinel, view)
            self._nothing_begins_beside_what_runs(name, entry, sentinel)
            self._nothing_is_rewritten(name, entry, sentinel, history)
            self._a_held_one_does_not_grow(name, entry, sentinel, history, projection)
            self._timers_are_in_time(name, entry, sentinel, history)
            self._an_event_is_for_one_start(name, entry, sentinel, history)
            if view is None or not names_newer_start(view, sentinel):
                # (Else it came late, when what would take it over had been replaced.)
                check_local(name, self._model, self._names, sentinel, projection, history)
            entry.episode, entry.execution, entry.history = sentinel.state.episode, sentinel.execution_id, history
        else:
            if entry.execution:
                entry.purged.add(entry.execution)
            entry.episode, entry.execution, entry.history = "", "", []
        waits = view is not None and view.status in (Status.PENDING, Status.TERMINATED)
        if waits and (projection is None or (sentinel is not None and names_newer_start(view, sentinel))):
            assert row is not None
            projection = initial(self._formats.waiting_now(row))
            projection.status = view.status
            self._nothing_is_started_over_what_runs(name, before, projection)
        self._an_end_stays(name, before, projection, sentinel)
        self._a_query_misses_nothing_live(name, view, projection)
        if entry.stood and (before is None or before.status in TERMINAL):
            entry.over_at = self.moment
        entry.projection = projection
        shown = None if projection is None else face(projection)
        if not entry.faces or entry.faces[-1][1] != shown:
            entry.faces.append((self.moment, shown))

    def _note_start(self, entry: Entry, row: RowView | None) -> None:
        """Of a start whose row goes before it has begun it is known why."""
        names = "" if row is None else row.start_id or row.execution_id
        before = entry.waits_for
        if before and before != names and before not in self.begun:
            self.messages.fates[before] = "purged" if row is None else "replaced"
        entry.waits_for = names
        self.messages.named.add(names)

    def _stands(self, name: str, entry: Entry) -> tuple[Row | None, Sentinel | None, list[ev.AnyEvent]]:
        key = self._formats.partition_key(name)
        rows = self._model.tables.look(self._names.instances, key)
        row = next(iter(rows), None)
        sentinel: Sentinel | None = None
        events: dict[int, Row] = {}
        for one in self._model.tables.look(self._names.history, key):
            if one.key == "sentinel":
                sentinel = read_sentinel(one)
            elif one.key < "sentinel":
                events[int(one.key, 16)] = one
        if sentinel is None or not sentinel.has_history or sentinel.state.purging:
            return row, sentinel, []
        purged = self._is_purged(name, sentinel)
        if sentinel.state.log is not None:
            if row is None and _came_late(entry, sentinel):
                return row, sentinel, []  # it came when it had been purged, its redo log with it
            log = self._formats.log_in(self._formats.blob_now(sentinel.state.log), sentinel.state.log)
            return row, sentinel, [one.event for one in log]
        history = []
        for ordinal in range(sentinel.state.rows):
            found = events.get(ordinal)
            if found is None or found.values.get("ExecutionId") != sentinel.execution_id:
                if self._purging[name]:
                    self._purged[name] = sentinel.execution_id
                    self._half_purged.add(name)
                    return row, None, []
                if purged:
                    return row, None, []
                raise Broken(f"{name!r}: {sentinel.state.rows} rows are committed, and {ordinal} is not among them")
            history.append(self._formats.event_now(found))
        return row, sentinel, history

    # -- invariants ------------------------------------------------------------------------------------

    def _folded(
        self, name: str, entry: Entry, sentinel: Sentinel, history: list[ev.AnyEvent], row: RowView | None
    ) -> Projection:
        """The status is the fold of the history; no task is answered twice, no event stands twice in an execution."""
        started = next(event for event in history if isinstance(event, ev.ExecutionStarted))
        try:
            projection = project(initial(started), history)
            if not any(isinstance(event, ev.GenericEvent) for event in history):
                # Rows that a rewind took out would leave answers without their questions.
                ExecutionState(projection=initial(started), dialect="dotnet").extend(history, project_too=False)
        except InvariantBroken as error:
            raise Broken(f"{name!r}: its history cannot be: {error}") from error
        payloads = [
            event.input
            for event in history
            if isinstance(event, ev.EventRaised) and not event.name.startswith(RESERVED_PREFIX)
        ]
        if len(payloads) != len(set(payloads)) and name not in self.twice:
            raise Broken(f"{name!r}: an event stands twice in its history: {sorted(map(str, payloads))}")
        told = sentinel.state.projection
        if told is None:
            raise Broken(f"{name!r}: its sentinel has no projection")
        told = self._formats.whole_now(sentinel).state.projection
        projection.custom_status = told.custom_status
        # A continued execution keeps the time of the first.
        projection.created_at = told.created_at
        if self._is_rewound(name, sentinel):
            # Of the last write of a rewind, its own: the row of what had ended is Pending.
            turned = (
                row is not None
                and row.status is Status.PENDING
                and row.completed_at is not None
                and row.execution_id == sentinel.execution_id
            )
            return projection if turned or entry.projection is None else entry.projection
        if told.status is not Status.PENDING and told.status is not projection.status:
            raise Broken(f"{name!r}: the sentinel says {told.status.name}, its history {projection.status.name}")
        if told.status is Status.PENDING:
            if projection.status is not Status.FAILED:
                raise Broken(f"{name!r}: it is to be rewound, and has not failed but is {projection.status.name}")
            projection = told.copy()
            projection.input = started.input
        return projection

    def _one_writer(self, name: str, entry: Entry, sentinel: Sentinel) -> None:
        """Every write of a sentinel stands on the one before it: a stale writer changes nothing."""
        state = sentinel.state
        if state.episode != entry.episode and state.previous != entry.episode and entry.episode:
            raise Broken(
                f"{name!r}: episode {state.episode} stands on {state.previous}, and {entry.episode} was the last"
            )

    def _nothing_begins_twice(self, name: str, entry: Entry, sentinel: Sentinel, row: RowView | None) -> None:
        """An execution that another has followed, or that was purged, does not come again: a start runs once.

        A copy of the first commit of what was purged may stand where the next start waits, which takes its place.
        """
        execution = sentinel.execution_id
        if execution == entry.execution:
            return
        again = execution in entry.followed
        if execution in entry.purged:
            again = again or row is None or not (_begins(sentinel) and names_newer_start(row, sentinel))
        if again and name not in self._dotnet:
            raise Broken(f"{name!r}: execution {execution} begins a second time")
        if entry.execution:
            entry.followed.add(entry.execution)

    def _nothing_begins_beside_what_runs(self, name: str, entry: Entry, sentinel: Sentinel) -> None:
        """A singleton never overlaps: another start begins where the execution before has ended, or was purged."""
        if not entry.history or entry.execution == sentinel.execution_id or name in self._started_over | self._dotnet:
            return
        before = entry.projection
        if before is None or before.execution_id != entry.execution or before.status in TERMINAL:
            return
        if sentinel.state.start_id != entry.start_id:
            raise Broken(
                f"{name!r}: execution {sentinel.execution_id} begins, and {entry.execution} is {before.status.name}"
            )

    def _nothing_is_started_over_what_runs(self, name: str, before: Projection | None, now: Projection) -> None:
        """Nor is a start accepted while one runs (but by .NET's clients, which ask nothing)."""
        if before is None or before.status in TERMINAL or before.execution_id == now.execution_id:
            return
        if name not in self._started_over | self._dotnet:
            raise Broken(
                f"{name!r} is started as {now.execution_id}, and {before.execution_id} is {before.status.name}"
            )

    def _a_held_one_does_not_grow(
        self, name: str, entry: Entry, sentinel: Sentinel, history: list[ev.AnyEvent], now: Projection | None
    ) -> None:
        """What is held waits for other code: each try of the same would leave something in its history for ever.  (What
        ends it needs no code.)"""
        code, condition = self._code(), sentinel.state.condition
        grows = entry.execution == sentinel.execution_id and len(history) > len(entry.history)
        same = entry.held_by is not None and entry.held_by == code
        if grows and same and now is not None and now.status not in TERMINAL:
            raise Broken(f"{name!r} is held, and its history has grown to {len(history)} events")
        if grows or condition is None or condition.kind != "held":
            entry.held_by = None
        elif entry.held_by is None:
            entry.held_by = code

    def _an_event_is_for_one_start(
        self, name: str, entry: Entry, sentinel: Sentinel, history: list[ev.AnyEvent]
    ) -> None:
        """What an execution has taken no other takes, but those that it continues as: an event has its effect once."""
        start_id = sentinel.state.start_id
        if history and entry.execution != sentinel.execution_id and sentinel.execution_id not in self.messages.begin:
            entry.continued_at = self.moment
        for event in history:
            made = mark(event, sentinel.execution_id)
            before = entry.stood.setdefault(made, start_id)
            known = isinstance(event, ev.EventRaised) and event.input is not None
            if known and before != start_id and not event.name.startswith(RESERVED_PREFIX) and name not in self.twice:
                raise Broken(f"{name!r}: the event {event.input} was for start {before!r}, and {start_id!r} has it too")
        entry.start_id = start_id

    def _nothing_is_rewritten(self, name: str, entry: Entry, sentinel: Sentinel, history: list[ev.AnyEvent]) -> None:
        """Within an execution a history only grows, but for what a rewind takes out in place."""
        if entry.execution != sentinel.execution_id:
            return
        if len(history) < len(entry.history):
            raise Broken(f"{name!r}: its history had {len(entry.history)} events, and has {len(history)}")
        for ordinal, old in enumerate(entry.history):
            if name in self._dotnet and isinstance(old, ev.GenericEvent):
                continue  # a row that .NET has turned, and ours turns back
            if history[ordinal] != old and not isinstance(history[ordinal], ev.GenericEvent):
                raise Broken(f"{name!r}: event {ordinal} was {old}, and is {history[ordinal]}")

    def _timers_are_in_time(self, name: str, entry: Entry, sentinel: Sentinel, history: list[ev.AnyEvent]) -> None:
        """No timer fires before its time (rule 13), however often its message had to be put again."""
        known = len(entry.history) if entry.execution == sentinel.execution_id else 0
        self._times.no_timer_is_early(name, history[known:])
        if known == 0:
            self._times.its_time_has_come(name, history)

    def _a_query_misses_nothing_live(self, name: str, row: Any, now: Projection | None) -> None:
        """A terminal row never stands over a live execution: a query by status verifies only rows that are not."""
        if name in self._purged or name in self._rewound:
            return
        if row is not None and row.status in TERMINAL and now is not None and now.status not in TERMINAL:
            raise Broken(
                f"{name!r}: its row says {row.status.name}, and it is {now.status.name}: a query would miss it"
            )

    def _an_end_stays(
        self, name: str, before: Projection | None, now: Projection | None, sentinel: Sentinel | None
    ) -> None:
        """An ended execution changes only by a rewind that was asked for, or by another start, or a purge."""
        if before is None or before.status not in TERMINAL or now is None:
            return
        if now.execution_id == before.execution_id and now.status is not before.status:
            rewound = any(isinstance(event, ev.GenericEvent) for event in self.entries[name].history)
            if before.status is not Status.FAILED or not (now.status is Status.PENDING or rewound):
                raise Broken(f"{name!r} was {before.status.name}, and is {now.status.name}")

    # -- readers ---------------------------------------------------------------------------------------

    def saw(self, name: str, projection: Projection | None, since: int, *, missing: bool = False) -> None:
        """A client's read, begun at the moment `since` and ended now, shows what was true at some moment between.

        `missing`: it says that the history is missing, as it may while .NET purges.
        """
        seen = None if projection is None else face(projection)
        entry = self.entries.get(name)
        if name in self._half_purged:
            return
        if seen is None and entry is not None and (entry.is_going or entry.going_until >= since):
            return
        faces = [] if entry is None else entry.faces
        if name in self._purged or self._purge_over.get(name, -1) >= since:
            if seen is None or missing:
                return
            if projection is not None and projection.status is Status.PENDING:
                self.gaps += 1
                return
        elif missing:
            raise Broken(f"a client reads that the history of {name!r} is missing, and nobody has purged it")
        shown: list[Face] = [None] if not faces or faces[0][0] > since else []
        for index, (moment, one) in enumerate(faces):
            following = faces[index + 1][0] if index + 1 < len(faces) else self.moment + 1
            if following > since and moment <= self.moment:
                shown.append(one)
        if seen not in shown:
            raise Broken(f"a client read {name!r} as {seen} between {since} and {self.moment}; it was {shown}")

    def listed(self, found: Sequence[Projection], wanted: frozenset[Status], since: int) -> None:
        """A query by status, begun at the moment `since` and ended now: what it shows was true, and all that had one
        of these statuses all the time is among it."""
        shown = {one.instance_id: one for one in found}
        if len(shown) != len(found):
            raise Broken(f"a query shows an instance twice: {[one.instance_id for one in found]}")
        for name, projection in shown.items():
            self.saw(name, projection, since)
        for name, entry in self.entries.items():
            if name not in shown and entry.always(wanted, since):
                raise Broken(f"a query for {sorted(one.name for one in wanted)} misses {name!r}: {entry.faces[-1][1]}")

    def status_of(self, name: str) -> Status | None:
        """By the account."""
        entry = self.entries.get(name)
        return None if entry is None or entry.projection is None else entry.projection.status

    def open(self) -> dict[str, str]:
        """What has not ended."""
        return {
            name: f"{entry.projection.status.name} after {len(entry.history)} events"
            for name, entry in self.entries.items()
            if entry.projection is not None and entry.projection.status not in TERMINAL
        }

    # -- at rest ---------------------------------------------------------------------------------------

    def rows_are_late(self) -> list[str]:
        """Whose row does not tell what is true (yet)."""
        late = []
        for name, entry in self.entries.items():
            if name in self._purged:
                continue
            row = next(iter(self._model.tables.look(self._names.instances, self._formats.partition_key(name))), None)
            told = None if row is None else self._formats.row_view(row)
            true = entry.projection
            if told is None and name in self._dotnet and true is not None and true.parent is None:
                continue  # it reads as purged, whatever its owner has written since
            if (told is None) != (true is None):
                late.append(f"{name!r} has {'no' if told is None else 'a'} row")
            elif told is not None and true is not None:
                if (told.execution_id, told.status) != (true.execution_id, true.status):
                    late.append(f"the row of {name!r} says {told.status.name}, it is {true.status.name}")
                elif not _same_custom_status(self._formats.custom_status(row), true.custom_status):
                    late.append(f"the row of {name!r} has another custom status than {true.custom_status!r}")
        return late

    def left(self) -> list[str]:
        """What stands for nobody: rows of histories that do not count, extra rows that nothing needs any more, blobs
        that nothing names."""
        found = []
        for name, entry in self.entries.items():
            if name in self._dotnet:
                continue  # what its owner wrote while .NET purged is left
            key = self._formats.partition_key(name)
            rows = self._model.tables.look(self._names.history, key)
            if entry.projection is None and rows:
                last = next((read_sentinel(row) for row in rows if row.key == "sentinel"), None)
                if last is not None and _came_late(entry, last):
                    continue  # it came late, and is taken back when anything comes for the id
                found.append(f"{name!r} is gone, and its history has {len(rows)} rows: {[row.key for row in rows][:3]}")
                continue
            sentinel = next((read_sentinel(row) for row in rows if row.key == "sentinel"), None)
            # What was kept belongs to the id; what a dead host owes goes when it is loaded.
            owed = set() if sentinel is None else {owed_key(one.episode) for one in sentinel.state.owed}
            extra = [row.key for row in rows if row.key > "sentinel" and not row.key.startswith(PREFIX)]
            if set(extra) - owed:
                found.append(f"{name!r} has the extra rows {extra}, and its sentinel names {sorted(owed)}")
            if sentinel is not None and sentinel.state.log is not None:
                found.append(f"{name!r} has a redo log")
        gone = [name for name, entry in self.entries.items() if entry.projection is None and name not in self._dotnet]
        for blob in self._model.blobs.names(self._names.large_messages):
            for name in gone:
                if is_blob_of(name, blob) and blob not in self._came_after:
                    found.append(f"{name!r} is gone, and has the blob {blob}")
        return found


def _same_custom_status(told: str | None, true: str | None) -> bool:
    """One that is too large for a row stands on the sentinel alone."""
    return told == true or (told is None and true is not None and is_large(true))


def _came_late(entry: Entry, sentinel: Sentinel) -> bool:
    """Whether a history without a row is of a first commit that came when it was purged: a client's start has had a
    row, and of a child it is known what was."""
    return _begins(sentinel) or (sentinel.execution_id in entry.purged and not sentinel.state.previous)


def _begins(sentinel: Sentinel) -> bool:
    """Whether it is of the first commit of a client's start."""
    told = sentinel.state.projection
    return not sentinel.state.previous and told is not None and told.parent is None
