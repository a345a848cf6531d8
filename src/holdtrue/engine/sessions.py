"""The live instances of a host: what it holds under lock, and the coroutine of each, least recently used first.

A session turns messages into episodes with the real core; it does no I/O.  Whatever goes wrong with its
commit, it is thrown away and the instance is loaded again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from holdtrue.core import dialect as dialects
from holdtrue.core import events as ev
from holdtrue.core.actions import CompleteOrchestration, Decision
from holdtrue.core.author import Author
from holdtrue.core.ending import end_from_outside
from holdtrue.core.episode import Episode, EpisodeCommit, ExecutionState
from holdtrue.core.errors import NonDeterminismError
from holdtrue.core.messages import START_LIMIT_EVENT, InboundMessage
from holdtrue.core.projection import Status
from holdtrue.core.replay import Run
from holdtrue.stores.protocol import ActivityInfo, InstanceRecord, Lease, LockedInstance, is_rewinding

from .activity_runs import waited_too_long

MISMATCH_ERROR_TYPE = "holdtrue.NonDeterminismError"


class Session:
    """One instance in hand.

    `inbox` gathers messages for its next episode, `busy` is true while a commit or a load of it is under
    way, `local` counts its activities that run in this host.
    """

    __slots__ = (
        "busy",
        "inbox",
        "lease",
        "limits",
        "local",
        "queued",
        "record",
        "run",
        "size",
        "state",
        "taken",
        "touched",
        "unfinished",
        "wake",
    )

    def __init__(self, locked: LockedInstance) -> None:
        self.lease: Lease = locked.lease
        self.record: InstanceRecord = locked.record
        self.inbox: list[InboundMessage] = locked.messages
        self.wake = not locked.messages
        self.limits = any(_is_start_limit(message) for message in locked.messages)
        self.state: ExecutionState | None = None
        self.run: Run | None = None
        self.size = locked.record.size
        self.busy = False
        self.queued = False
        self.local = 0
        self.touched = 0.0
        self.unfinished = False
        self.taken: list[InboundMessage] = []

    @property
    def instance_id(self) -> str:
        """The instance's id."""
        return self.record.projection.instance_id

    @property
    def rewinds(self) -> bool:
        """True where a failed instance is to be set back to before its failure."""
        return is_rewinding(self.record) and any(type(message.event) is ev.ExecutionRewound for message in self.inbox)

    def take(self, message: InboundMessage) -> None:
        """A message has come."""
        self.inbox.append(message)
        if _is_start_limit(message):
            self.limits = True

    def judge_limits(self, items: Sequence[ActivityInfo], now: ev.Ticks) -> None:
        """What came of activities that may have waited too long for a worker: it is the failure of those of `items`
        that nobody has begun."""
        self.limits = False
        waiting = {item.scheduled: item for item in items if not item.running and not item.run}
        self.inbox = [
            _late(message, waiting[message.scheduled], self.instance_id, now)
            if _is_start_limit(message) and message.scheduled in waiting
            else message
            for message in self.inbox
        ]

    @property
    def needs_history(self) -> bool:
        """True where the history must be read and replayed before the next episode."""
        return self.run is None and self.record.length > 0

    def state_of(self, history: list[ev.AnyEvent]) -> ExecutionState:
        """The state of the execution from its record and its history (empty: not begun)."""
        record = self.record
        state = ExecutionState(
            projection=record.projection,
            dialect=record.dialect,
            start_id=record.start_id,
            deadline=record.deadline,
            condition=record.condition,
        )
        state.extend(history, project_too=False)
        return state

    def begin(self, author: Author) -> None:
        """Ready for the first episode of an execution without history."""
        self.state = self.state_of([])
        self.run = Run(author, dialects.DIALECTS[self.record.dialect])

    def replay(self, author: Author, history: list[ev.AnyEvent]) -> None:
        """Make the live run from the history.  Raises NonDeterminismError where the code does not fit it."""
        self.state = self.state_of(history)
        run = Run(author, dialects.DIALECTS[self.record.dialect])
        try:
            self.unfinished = unfinished(history)
            run.replay(history, unfinished=self.unfinished)
        except BaseException:
            run.close()
            raise
        self.run = run

    def episode(self, author: Author, now: ev.Ticks, new_id: Callable[[], str]) -> EpisodeCommit:
        """One episode of what is in the inbox; the messages go to `taken` until the commit is known.

        Raises NonDeterminismError where the code does not fit the history.
        """
        state, run = self.state, self.run
        assert state is not None and run is not None
        self.wake = False
        if self.unfinished:
            # First the rest of an episode that was cut, by itself; the messages come after it.
            self.unfinished = False
            making = Episode(state, (), now=now, new_id=new_id)
            going = making.decide(run.step(()))
        else:
            self.taken, self.inbox = self.inbox, []
            making = Episode(state, self.taken, now=now, new_id=new_id)
            going = bool(making.feed) and making.decide(run.step(making.feed))
        while going:
            run.close()
            run = self.run = Run(author, run.dialect)
            going = making.decide(run.step(making.feed))
        commit = making.commit()
        self.state = making.state
        if commit.wake:
            self.run = None
        return commit

    def end_unrun(
        self, mismatch: NonDeterminismError | None, now: ev.Ticks, new_id: Callable[[], str]
    ) -> EpisodeCommit | None:
        """The end of an execution whose code does not fit its history, decided without the code.

        What came from outside ends it (a terminate, a deadline); else `mismatch` is the failure that it ends
        with.  None: nothing ends it, it is to be held.
        """
        messages = self.taken or self.inbox
        state = self.state
        assert state is not None
        making = Episode(state, messages, now=now, new_id=new_id)
        task_id = max(state.open, default=-1) + 1
        ends = (end_from_outside(event, task_id, cancel_too=False) for event in making.feed)
        end = next((end for end in ends if end is not None), None)
        if end is None:
            if mismatch is None:
                return None
            failure = ev.FailureDetails(message=str(mismatch), error_type=MISMATCH_ERROR_TYPE)
            end = CompleteOrchestration(id=task_id, status=Status.FAILED, failure=failure)
        self.close()
        self.taken, self.inbox = messages, []
        making.decide(Decision(actions=[end], fed=len(making.feed)))
        return making.commit()

    def committed(self, commit: EpisodeCommit) -> None:
        """The episode is durable: the live run is confirmed."""
        self.taken = []
        record = self.record
        record.projection = commit.projection
        record.condition = None
        if commit.events:
            record.length = commit.first + len(commit.events)
            if self.run is not None:
                self.run.history_size = record.length
        if commit.wake:
            self.wake = True

    def close(self) -> None:
        """Drop the code; its `finally` blocks run without effect."""
        if self.run is not None:
            self.run.close()
            self.run = None


def _is_start_limit(message: InboundMessage) -> bool:
    return type(message.event) is ev.EventRaised and message.event.name == START_LIMIT_EVENT


def _late(message: InboundMessage, item: ActivityInfo, instance_id: str, now: ev.Ticks) -> InboundMessage:
    limit = float(message.event.input)  # type: ignore[attr-defined]
    what = f"activity {item.name!r} of instance {instance_id!r}"
    failure = waited_too_long(what, limit, limit)
    return InboundMessage(
        event=ev.TaskFailed(timestamp=now, task_scheduled_id=item.task_id, failure=failure),
        key=message.key,
        execution_id=message.execution_id,
        scheduled=message.scheduled,
    )


def unfinished(history: list[ev.AnyEvent]) -> bool:
    """True where the last episode was cut: its rows do not end with OrchestratorCompleted (a rewind, a commit in
    parts), or they only begin an execution that continued as new, whose code has not been run yet."""
    if type(history[-1]) is not ev.OrchestratorCompleted:
        return True
    ends = sum(1 for event in history if type(event) is ev.OrchestratorCompleted)
    return ends == 1 and any(type(event) is ev.ExecutionStarted and event.generation > 0 for event in history)


class Sessions:
    """All sessions of a host by the store's key, least recently used first."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[int, Session] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_key.values()))

    def get(self, key: int) -> Session | None:
        """The session of that instance, if this host holds it."""
        return self._by_key.get(key)

    def add(self, session: Session) -> None:
        """Hold one more."""
        self._by_key[session.lease.key] = session
        self.bytes += session.size

    def touch(self, session: Session) -> None:
        """It was used just now."""
        self._by_key.move_to_end(session.lease.key)

    def grow(self, session: Session, size: int) -> None:
        """Its history has now this many bytes."""
        if self._by_key.get(session.lease.key) is session:
            self.bytes += size - session.size
        session.size = size

    def remove(self, session: Session) -> None:
        """Hold it no more."""
        if self._by_key.get(session.lease.key) is session:
            del self._by_key[session.lease.key]
            self.bytes -= session.size

    def surplus(self, count: int, size: int) -> list[Session]:
        """The least recently used ones beyond these bounds that rest (nothing in hand for them)."""
        excess = len(self._by_key) - count
        if excess <= 0 and self.bytes <= size:
            return []
        chosen: list[Session] = []
        over = self.bytes - size
        for session in self._by_key.values():
            if excess <= 0 and over <= 0:
                break
            if not (session.busy or session.queued or session.inbox or session.local):
                chosen.append(session)
                excess -= 1
                over -= session.size
        return chosen

    def idle_since(self, moment: float) -> list[Session]:
        """Those that rest and were last used before."""
        chosen: list[Session] = []
        for session in self._by_key.values():
            if session.touched >= moment:
                break
            if not (session.busy or session.queued or session.inbox or session.local):
                chosen.append(session)
        return chosen
