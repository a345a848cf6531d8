"""An app under watch: its activities and orchestrators run as they are, and what they do is written down.

The watched app is a copy of the user's; the user's own is left as it is.  Every activity runs on the loop, whatever
kind it is of, and at each of its waits and at its end the run is asked whether the process dies there.
"""

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

import msgspec

from holdtrue.authoring.activity_context import ActivityContext
from holdtrue.authoring.app import App
from holdtrue.authoring.context import OrchestrationContext
from holdtrue.authoring.definitions import ActivityDefinition, OrchestratorDefinition, place_of
from holdtrue.core import events as ev
from holdtrue.core.messages import ActivityTask
from holdtrue.core.places import calling_from, standing_at
from holdtrue.core.replay import Run
from holdtrue.core.tasks import Task

from .app_copy import AppCopy, UntaggedContext
from .crash_errors import CannotCheck
from .fakes import called_as_activity

MOST_WAITS = 10
"""So many waits of one run of an activity are points at which the process may die."""


class ActivityRun(msgspec.Struct, kw_only=True):
    """One run of an activity: `item` is the same at each run of one call, and in each run of the check.

    `number` counts the runs of the item, `call` the calls of that name.  `result` is what it gave or raised, in
    text (None: it has not ended); `keyed` says that it looked at its key.
    """

    item: str
    key: str
    name: str
    input: str | None
    call: int
    number: int
    place: str
    called_at: str | None
    result: str | None = None
    keyed: bool = False

    @property
    def what(self) -> str:
        """It as one would write the call."""
        return f"{self.name}({shortened(self.input or '')})"


class Watcher(Protocol):
    """What the code that runs under watch is tied to: one run of the check."""

    def tell(self, line: str) -> None:
        """A line of the story."""

    def waits(self, run: ActivityRun, wait: int, place: str | None) -> bool:
        """An activity waits for the `wait`th time: does its process die here?"""

    def ended(self, run: ActivityRun) -> bool:
        """An activity has ended: does its process die here?"""

    def runs_twice(self, run: ActivityRun) -> bool:
        """Is this run of an activity done a second time?"""


class Seen:
    """What was seen of the code in one run of the check."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.runs: list[ActivityRun] = []
        self.executions: dict[str, str] = {}
        """Execution id -> where it stands in the tree: the same in each run of the check."""
        self.code: list[Run] = []
        self.tasks: list[Any] = []
        """The tasks of activities, those of processes that have died among them: kept, so that none is closed."""
        self.trouble: CannotCheck | None = None
        self._labels: dict[str, str] = {}
        self._generations: Counter[str] = Counter()
        self._called: dict[tuple[str, int], str | None] = {}
        self._calls: dict[str, list[str]] = {}

    def began(self, run: Run, started: ev.ExecutionStarted) -> None:
        """The code of an execution begins, or begins again."""
        self.code.append(run)
        again = started.execution_id in self.executions
        if not again:
            parent = started.parent
            base = self._labels.get(started.instance_id)
            if base is None:
                over = "" if parent is None else self.executions.get(parent.execution_id, "?")
                base = "" if parent is None else f"{over}/{parent.scheduled}"
                self._labels[started.instance_id] = base
            self._generations[base] += 1
            self.executions[started.execution_id] = f"{base}#{self._generations[base]}"
        if run.is_replaying:
            self.watcher.tell(f"{started.name} is replayed")
        elif not again:
            self.watcher.tell(f"{started.name}({shortened(started.input or '')}) begins")

    def asked(self, execution_id: str, task_id: int, place: str | None) -> None:
        """The code asks for an activity at this line."""
        self._called.setdefault((execution_id, task_id), place)

    def item_of(self, task: ActivityTask) -> str:
        """The name of a call of an activity that is the same in each run of the check."""
        return f"{self.executions.get(task.execution_id, task.execution_id)}:{task.scheduled}"

    def runs_of(self, item: str) -> int:
        """How often that call was run."""
        return sum(run.item == item for run in self.runs)

    def begin_activity(self, definition: ActivityDefinition, task: ActivityTask) -> ActivityRun:
        """One more run of an activity."""
        item = self.item_of(task)
        calls = self._calls.setdefault(task.name, [])
        if item not in calls:
            calls.append(item)
        number = self.runs_of(item) + 1
        run = ActivityRun(
            item=item,
            key=task.idempotency_key,
            name=task.name,
            input=task.input,
            call=calls.index(item) + 1,
            number=number,
            place=definition.place or place_of(definition.function),
            called_at=self._called.get((task.execution_id, task.task_id)),
        )
        self.runs.append(run)
        self.watcher.tell(f"{run.what} runs" if number == 1 else f"{run.what} runs AGAIN")
        return run

    def close(self) -> None:
        """End the code that was left; what its clean-up asks for has no effect."""
        for run in self.code:
            run.close()


class _Context(ActivityContext):
    """The context of an activity under watch."""

    __slots__ = ("_blocking", "_seen", "_watched")

    def __init__(self, run: Any, watched: ActivityRun, seen: Seen, blocking: bool) -> None:
        super().__init__(run)
        self._watched = watched
        self._seen = seen
        self._blocking = blocking

    @property
    def idempotency_key(self) -> str:
        self._watched.keyed = True
        return super().idempotency_key

    @property
    def execution_id(self) -> str:
        # Some make a key of their own of it.
        self._watched.keyed = True
        return super().execution_id

    @property
    def client(self) -> Any:
        if self._blocking:
            self._seen.trouble = CannotCheck(
                f"activity {self._watched.name!r} ({self._watched.place}) uses a blocking ctx.client, which cannot be "
                "served in virtual time: make the activity `async def`, or give a fake for it (fakes={...})"
            )
            raise self._seen.trouble
        return super().client


class _OrchestrationContext(UntaggedContext):
    """The context of an orchestrator under watch: it notes the lines that ask for activities."""

    __slots__ = ("_seen",)

    def __init__(self, app: App, run: Run, started: ev.ExecutionStarted, seen: Seen) -> None:
        super().__init__(app, run, started)
        self._seen = seen

    def call_activity(self, activity: Any, **given: Any) -> Task[Any]:
        self._seen.asked(self._started.execution_id, self._run._next_id, calling_from(Run._advance.__code__))
        return super().call_activity(activity, **given)


class WatchedApp(AppCopy):
    """A copy of an app, with some activities replaced by fakes; `seen` is where it writes to."""

    def __init__(self, app: App, fakes: Mapping[Any, Callable[..., Any]]) -> None:
        self.seen: Seen
        self._replaced = {_name_of(app, of): fake for of, fake in fakes.items()}
        unknown = self._replaced.keys() - app.activities.keys()
        if unknown:
            raise CannotCheck(
                f"fakes are given for {', '.join(map(repr, sorted(unknown)))}, which the app does not have"
            )
        super().__init__(app, code=self._watched_code, activity=self._watched_activity)

    def _watched_code(self, orchestrator: OrchestratorDefinition) -> Callable[..., Any]:
        function = orchestrator.function

        def begin(context: OrchestrationContext, *given: Any) -> Any:
            self.seen.began(context._run, context._started)
            return function(_OrchestrationContext(self, context._run, context._started, self.seen), *given)

        return begin

    def _watched_activity(self, definition: ActivityDefinition) -> ActivityDefinition:
        real = definition
        fake = self._replaced.get(definition.name)
        if fake is not None:
            real = msgspec.structs.replace(
                definition,
                function=called_as_activity(fake),
                kind="async" if inspect.iscoroutinefunction(fake) else "sync",
                place=place_of(fake),
            )
        return msgspec.structs.replace(definition, function=self._watched(real))

    def _watched(self, definition: ActivityDefinition) -> Callable[..., Any]:
        async def run(context: ActivityContext, *given: Any) -> Any:
            seen = self.seen
            task = context._run.task
            first = seen.begin_activity(definition, task)
            result = await self._one_run(definition, context._run, first, given)
            if seen.watcher.runs_twice(first):
                second = seen.begin_activity(definition, task)
                try:
                    await self._one_run(definition, context._run, second, given)
                except Exception:  # noqa: BLE001  nobody hears of what the copy of a run came to
                    pass
            return result

        return run

    async def _one_run(
        self, definition: ActivityDefinition, run: Any, watched: ActivityRun, given: tuple[Any, ...]
    ) -> Any:
        seen = self.seen
        seen.tasks.append(asyncio.current_task())
        context = _Context(run, watched, seen, definition.kind != "async")
        try:
            result = definition.function(context, *given)
            if inspect.isawaitable(result):
                result = await _Watched(result, watched, seen.watcher)
            watched.result = _text(self.converter.encode, result)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            watched.result = f"raises {type(error).__name__}: {error}"
            if seen.watcher.ended(watched):
                await _never()
            raise
        if seen.watcher.ended(watched):
            await _never()
        return result


class _Watched:
    """An awaitable that runs another, and tells of each of its waits."""

    def __init__(self, awaited: Any, run: ActivityRun, watcher: Watcher) -> None:
        self._awaited = awaited
        self._run = run
        self._watcher = watcher

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._awaited.__await__()
        wait = 0
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited = inner.send(value) if error is None else inner.throw(error)
            except StopIteration as stop:
                return stop.value
            wait += 1
            if wait <= MOST_WAITS:
                self._watcher.waits(self._run, wait, standing_at(self._awaited))
            value, error = None, None
            try:
                value = yield waited
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as thrown:  # noqa: BLE001  it is for the code inside
                error = thrown


async def _never() -> None:
    """What a process that has died goes on with."""
    await asyncio.get_running_loop().create_future()


def _name_of(app: App, activity: Any) -> str:
    if isinstance(activity, str):
        return activity
    definition = app.activity_of(activity)
    if definition is None:
        raise CannotCheck(
            f"{activity!r} is not an activity of this app: give its name, or the function with @app.activity"
        )
    return definition.name


def _text(encode: Callable[[Any], str | None], value: Any) -> str:
    try:
        return encode(value) or "null"
    except Exception:  # noqa: BLE001  the engine will say so itself
        return repr(value)


def shortened(text: str, most: int = 32) -> str:
    """A text in one line that is not too long."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
