"""A tiny world for the pure core: one instance, its history, and whatever it asked for, answered in any order.

Each episode is done twice, by the live run and by a fresh replay, and both must give the same commit.
"""

import copy
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from holdtrue.core import dialect as dialects
from holdtrue.core import events as ev
from holdtrue.core.episode import Episode, EpisodeCommit, ExecutionState, state_of
from holdtrue.core.messages import InboundMessage, Start
from holdtrue.core.replay import Run
from holdtrue.core.tasks import TaskFailedError


class Author:
    """The author's side reduced to JSON."""

    def __init__(self, code: Callable[[Run, Any], Any]) -> None:
        self.code = code

    def begin(self, run: Run, started: ev.ExecutionStarted) -> Any:
        return self.code(run, self.decode(started.input, None))

    def encode(self, value: Any) -> str:
        return json.dumps(value)

    def decode(self, payload: str | None, expected_type: Any) -> Any:
        return None if payload is None else json.loads(payload)

    def failure(self, error: BaseException) -> ev.FailureDetails:
        return ev.FailureDetails(message=str(error), error_type=type(error).__qualname__)

    def task_failed(self, message: str, failure: ev.FailureDetails) -> TaskFailedError:
        return TaskFailedError(message, failure)

    def adopt(self, awaited: Any) -> None:
        return None


def plain(commit: EpisodeCommit) -> EpisodeCommit:
    """A commit as a value of its own: what comes later cannot change it."""
    return copy.deepcopy(commit)


class World:
    """One instance under `code`; `now` moves by hand, ids count up."""

    def __init__(self, code: Callable[[Run, Any], Any], payload: Any = None, dialect: str = "dotnet") -> None:
        self.author = Author(code)
        self.dialect = dialects.DIALECTS[dialect]
        self.now = 1_000 * ev.TICKS_PER_SECOND
        self.ids = itertools.count()
        self.started = ev.ExecutionStarted(
            timestamp=self.now, instance_id="i", execution_id="x", name="code", input=json.dumps(payload)
        )
        self.record = Start(started=self.started, start_id="x", dialect=dialect)
        self.state: ExecutionState = state_of(self.record)
        self.history: list[Any] = []
        self.run = Run(self.author, self.dialect)
        self.begun = False
        self.work: list[InboundMessage] = []
        self.scheduled: list[Any] = []
        self.commits: list[EpisodeCommit] = []

    def step(self, *messages: InboundMessage) -> EpisodeCommit:
        """One episode of these messages (the start first), live and by replay; the commit they agree on."""
        batch = list(messages)
        if not self.begun:
            batch.insert(0, InboundMessage(event=self.started))
            self.begun = True
        first_id = next(self.ids)
        replayed = plain(self._replayed(batch, first_id))
        live, self.run = self._episode(self.state, self.run, batch, first_id)
        self.state = self._after
        live = plain(live)
        assert live == replayed
        self.history = list(live.events) if live.replace else self.history + list(live.events)
        self.run.history_size = len(self.history)
        self.commits.append(live)
        self._note(live)
        return live

    def _replayed(self, batch: Sequence[InboundMessage], first_id: int) -> EpisodeCommit:
        state = state_of(self.record) if not self.history else self.refolded()
        run = Run(self.author, self.dialect)
        run.replay(self.history)
        commit, run = self._episode(state, run, batch, first_id)
        run.close()
        return commit

    def refolded(self) -> ExecutionState:
        """The state as a cold load makes it: from the history and what no event holds."""
        state = copy.deepcopy(self.state)
        fresh = ExecutionState(
            projection=state.projection, dialect=state.dialect, start_id=state.start_id, deadline=state.deadline
        )
        fresh.extend(self.history, project_too=False)
        return fresh

    def _episode(
        self, state: ExecutionState, run: Run, batch: Sequence[InboundMessage], first_id: int
    ) -> tuple[EpisodeCommit, Run]:
        ids = (f"id{first_id}.{n}" for n in itertools.count())
        making = Episode(state, batch, now=self.now, new_id=lambda: next(ids))
        while making.feed:
            if not making.decide(run.step(making.feed)):
                break
            run.close()
            run = Run(self.author, self.dialect)
        commit = making.commit()
        self._after = making.state
        return commit, run

    def _note(self, commit: EpisodeCommit) -> None:
        for task in commit.activities:
            self.scheduled.append(task)
        for message in commit.messages:
            if message.due is not None and message.instance_id == "i":
                self.work.append(
                    InboundMessage(event=message.event, execution_id=message.execution_id, scheduled=message.scheduled)
                )
        for start in commit.starts:
            self.scheduled.append(start)

    # -- answers ----------------------------------------------------------------------------------

    def result(self, task: Any, value: Any) -> InboundMessage:
        """The result of an activity or child."""
        if isinstance(task, Start):
            parent = task.started.parent
            return InboundMessage(
                event=ev.SubOrchestrationInstanceCompleted(
                    timestamp=self.now, task_scheduled_id=parent.task_id, result=json.dumps(value)
                ),
                execution_id=parent.execution_id,
                scheduled=parent.scheduled,
            )
        return InboundMessage(
            event=ev.TaskCompleted(timestamp=self.now, task_scheduled_id=task.task_id, result=json.dumps(value)),
            execution_id=task.execution_id,
            scheduled=task.scheduled,
        )

    def failed(self, task: Any, message: str) -> InboundMessage:
        """The failure of an activity."""
        return InboundMessage(
            event=ev.TaskFailed(
                timestamp=self.now,
                task_scheduled_id=task.task_id,
                failure=ev.FailureDetails(message=message, error_type="ValueError"),
            ),
            execution_id=task.execution_id,
            scheduled=task.scheduled,
        )

    def event(self, name: str, value: Any = None) -> InboundMessage:
        """An external event."""
        return InboundMessage(event=ev.EventRaised(timestamp=self.now, name=name, input=json.dumps(value)))

    def suspend(self) -> InboundMessage:
        return InboundMessage(event=ev.ExecutionSuspended(timestamp=self.now))

    def resume(self) -> InboundMessage:
        return InboundMessage(event=ev.ExecutionResumed(timestamp=self.now))

    def terminate(self, reason: str | None = None, *, recurse: bool = False) -> InboundMessage:
        return InboundMessage(event=ev.ExecutionTerminated(timestamp=self.now, input=reason, recurse=recurse))


def kinds(commit: EpisodeCommit) -> list[str]:
    """The names of a commit's events."""
    return [type(event).__name__ for event in commit.events]
