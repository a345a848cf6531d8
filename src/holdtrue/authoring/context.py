"""What an orchestrator is given: the durable calls, by the names of the official Durable Task Python SDK.

A thin face of `core.replay.Run`: it converts values, knows the app's functions, checks what can be checked
at the call.  What goes beyond the SDK is marked *extension*.
"""

import logging
import random
from collections.abc import Callable, Coroutine, Generator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from holdtrue.core import events as ev
from holdtrue.core.dialect import to_datetime, to_ticks
from holdtrue.core.errors import InvalidInput
from holdtrue.core.ids import check_event_name, check_instance_id, check_tags, check_text
from holdtrue.core.replay import Run, TimerTask
from holdtrue.core.retry import RetryPolicy, ticks
from holdtrue.core.tasks import CompositeTask, Task

from . import sdk
from .definitions import activity_options, name_of, return_type, seconds
from .errors import NotRegistered
from .logger import ReplaySafeLogger

if TYPE_CHECKING:
    from .app import App

T = TypeVar("T")


class OrchestrationContext:
    """One execution of an orchestrator, as its code sees it.

    Everything here is deterministic: a replay gets the same answers.  The calls return tasks to be awaited
    (`await`, or `yield` in a generator); nothing happens until this step of the orchestrator is committed.
    """

    __slots__ = ("_app", "_randoms", "_run", "_started")

    def __init__(self, app: "App", run: Run, started: ev.ExecutionStarted) -> None:
        self._app = app
        self._run = run
        self._started = started
        self._randoms = 0

    # -- who and when --------------------------------------------------------------------------------

    @property
    def instance_id(self) -> str:
        """The instance's id."""
        return self._started.instance_id

    @property
    def execution_id(self) -> str:
        """*Extension.* This execution's id: another one after each continue-as-new or restart."""
        return self._started.execution_id

    @property
    def name(self) -> str:
        """*Extension.* The name under which this orchestrator was started."""
        return self._started.name

    @property
    def parent_instance_id(self) -> str | None:
        """The id of the orchestration that started this one, None if none did."""
        parent = self._started.parent
        return None if parent is None else parent.instance_id

    @property
    def version(self) -> str | None:
        """The version that the instance was started with: branch on it when code changes."""
        return self._started.version

    @property
    def tags(self) -> Mapping[str, str]:
        """*Extension.* The tags that the instance was started with."""
        return dict(self._started.tags or {})

    @property
    def current_utc_datetime(self) -> datetime:
        """The orchestration's own time, naive UTC: the same at a replay.  It moves only between steps."""
        return to_datetime(self._run.now)

    @property
    def now(self) -> datetime:
        """*Extension.* The same as `current_utc_datetime`, aware (UTC)."""
        return to_datetime(self._run.now).replace(tzinfo=UTC)

    @property
    def is_replaying(self) -> bool:
        """True while past steps are run again; for log lines and the like, never for decisions."""
        return self._run.is_replaying

    @property
    def history_size(self) -> int:
        """*Extension.* Events in the history up to here."""
        return self._run.history_size

    @property
    def should_continue_as_new(self) -> bool:
        """*Extension.* True once the history is so long (the app's `continue_as_new_after`) that it is time to."""
        return self._run.history_size >= self._app.continue_as_new_after

    # -- calls ---------------------------------------------------------------------------------------

    @overload
    def call_activity(
        self,
        activity: Callable[..., Any] | str,
        *,
        input: Any = ...,
        retry_policy: Any = ...,
        tags: Mapping[str, str] | None = ...,
        return_type: type[T],
        tag: str | None = ...,
        start_to_close: float | timedelta | None = ...,
        schedule_to_start: float | timedelta | None = ...,
        heartbeat: float | timedelta | None = ...,
        version: str | None = ...,
    ) -> Task[T]: ...

    @overload
    def call_activity(
        self,
        activity: Callable[..., Coroutine[Any, Any, T]],
        *,
        input: Any = ...,
        retry_policy: Any = ...,
        tags: Mapping[str, str] | None = ...,
        return_type: None = ...,
        tag: str | None = ...,
        start_to_close: float | timedelta | None = ...,
        schedule_to_start: float | timedelta | None = ...,
        heartbeat: float | timedelta | None = ...,
        version: str | None = ...,
    ) -> Task[T]: ...

    @overload
    def call_activity(
        self,
        activity: Callable[..., T],
        *,
        input: Any = ...,
        retry_policy: Any = ...,
        tags: Mapping[str, str] | None = ...,
        return_type: None = ...,
        tag: str | None = ...,
        start_to_close: float | timedelta | None = ...,
        schedule_to_start: float | timedelta | None = ...,
        heartbeat: float | timedelta | None = ...,
        version: str | None = ...,
    ) -> Task[T]: ...

    @overload
    def call_activity(
        self,
        activity: str,
        *,
        input: Any = ...,
        retry_policy: Any = ...,
        tags: Mapping[str, str] | None = ...,
        return_type: None = ...,
        tag: str | None = ...,
        start_to_close: float | timedelta | None = ...,
        schedule_to_start: float | timedelta | None = ...,
        heartbeat: float | timedelta | None = ...,
        version: str | None = ...,
    ) -> Task[Any]: ...

    def call_activity(
        self,
        activity: Any,
        *,
        input: Any = None,
        retry_policy: Any = None,
        tags: Mapping[str, str] | None = None,
        return_type: Any = None,
        tag: str | None = None,
        start_to_close: float | timedelta | None = None,
        schedule_to_start: float | timedelta | None = None,
        heartbeat: float | timedelta | None = None,
        version: str | None = None,
    ) -> Task[Any]:
        """Run an activity, given by function or by name; the task gives its result or raises TaskFailedError.

        `input` is its one input (None: none).  `return_type` converts the result; it comes by itself where
        a function with a hint is given.  `retry_policy` is a RetryPolicy.
        Extensions: `tag` routes to workers that serve it; `start_to_close` (one run), `schedule_to_start`
        (waiting for a worker) and `heartbeat` (between two signs of life) are time-outs, seconds or
        timedelta; `version` is for the activity to see.  They take the place of the activity's own.

        Raises NotRegistered for a function the app does not have, PayloadError or PayloadTooLarge for the
        input, TypeError for what is no retry policy, InvalidInput for the rest.
        """
        app = self._app
        if isinstance(activity, str):
            name, definition = activity, app.activities.get(activity)
        else:
            definition = app.activity_of(activity)
            if definition is not None:
                name = definition.name
                return_type = return_type or definition.output_type
            else:
                name = self._stranger(activity, "activity", app.activities)
                return_type = return_type or _hinted_type(activity, app)
        if not name:
            raise InvalidInput("the activity's name is empty: give the function, or its name")
        check_text(name, "the activity's name")
        if version is not None:
            check_text(version, "the version")
        options = None if definition is None else definition.given_options
        if start_to_close is not None or schedule_to_start is not None or heartbeat is not None or tag is not None:
            options = _checked(activity_options, start_to_close, schedule_to_start, heartbeat, tag, options)
        converter = app.converter
        converter.check(return_type)
        return self._run.schedule_task(
            name,
            None if input is None else converter.encode(input),
            expected_type=return_type,
            retry=None if retry_policy is None else sdk.retry_policy(retry_policy),
            tags=None if tags is None else check_tags(tags),
            version=version,
            options=options,
        )

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: Callable[..., Any] | str,
        *,
        input: Any = ...,
        instance_id: str | None = ...,
        retry_policy: Any = ...,
        version: str | None = ...,
        return_type: type[T],
        tags: Mapping[str, str] | None = ...,
    ) -> Task[T]: ...

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: Callable[..., Coroutine[Any, Any, T]],
        *,
        input: Any = ...,
        instance_id: str | None = ...,
        retry_policy: Any = ...,
        version: str | None = ...,
        return_type: None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> Task[T]: ...

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: Callable[..., Generator[Any, Any, T]],
        *,
        input: Any = ...,
        instance_id: str | None = ...,
        retry_policy: Any = ...,
        version: str | None = ...,
        return_type: None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> Task[T]: ...

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: Callable[..., T],
        *,
        input: Any = ...,
        instance_id: str | None = ...,
        retry_policy: Any = ...,
        version: str | None = ...,
        return_type: None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> Task[T]: ...

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: str,
        *,
        input: Any = ...,
        instance_id: str | None = ...,
        retry_policy: Any = ...,
        version: str | None = ...,
        return_type: None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> Task[Any]: ...

    def call_sub_orchestrator(
        self,
        orchestrator: Any,
        *,
        input: Any = None,
        instance_id: str | None = None,
        retry_policy: Any = None,
        version: str | None = None,
        return_type: Any = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[Any]:
        """Start a child orchestration; the task gives its output or raises TaskFailedError.

        `instance_id` is made from this execution's where none is given.  `version` is the child's own
        default where none is given.  Extension: `tags`.  Raises as `call_activity` does.
        """
        app = self._app
        if isinstance(orchestrator, str):
            name, definition = orchestrator, app.orchestrators.get(orchestrator)
        else:
            definition = app.orchestrator_of(orchestrator)
            if definition is not None:
                name = definition.name
                return_type = return_type or definition.output_type
            else:
                name = self._stranger(orchestrator, "orchestrator", app.orchestrators)
                return_type = return_type or _hinted_type(orchestrator, app)
        if not name:
            raise InvalidInput("the orchestrator's name is empty: give the function, or its name")
        check_text(name, "the orchestrator's name")
        if version is None and definition is not None:
            version = definition.version
        if version is not None:
            check_text(version, "the version")
        converter = app.converter
        converter.check(return_type)
        return self._run.create_sub_orchestration(
            name,
            None if input is None else converter.encode(input),
            instance_id=None if instance_id is None else check_instance_id(instance_id),
            expected_type=return_type,
            retry=None if retry_policy is None else sdk.retry_policy(retry_policy),
            tags=None if tags is None else check_tags(tags),
            version=version,
        )

    def _stranger(self, function: Any, what: str, known: Mapping[str, Any]) -> str:
        """The name of a function that this app has not registered; only an app that has none lets it pass."""
        if not callable(function):
            raise InvalidInput(f"an {what} is given by its function or its name, not {type(function).__name__}")
        name = _checked(name_of, function)
        # The orchestrator that runs is registered itself, so its kind says nothing about where children live.
        if what == "activity" and not known:
            return name
        raise NotRegistered(
            f"instance {self.instance_id!r}: the {what} {name!r} is given by a function that is not registered with "
            f"this app: register it (@app.{what}), or call it by name if another worker has it"
        )

    def create_timer(self, fire_at: datetime | timedelta) -> TimerTask:
        """A task that completes at a time (naive: UTC), or after so long; a time in the past fires at once.

        Timers may be of any length.  Raises InvalidInput past the year 9999.
        """
        run = self._run
        if isinstance(fire_at, timedelta):
            return run.create_timer(run.now + ticks(fire_at))
        if isinstance(fire_at, datetime):
            return run.create_timer(to_ticks(fire_at))
        raise InvalidInput(f"create_timer takes a datetime or a timedelta, not {type(fire_at).__name__}")

    @overload
    def wait_for_external_event(
        self, name: str, *, data_type: type[T], timeout: float | timedelta | None = ...
    ) -> Task[T]: ...

    @overload
    def wait_for_external_event(
        self, name: str, *, data_type: None = ..., timeout: float | timedelta | None = ...
    ) -> Task[Any]: ...

    def wait_for_external_event(
        self, name: str, *, data_type: Any = None, timeout: float | timedelta | None = None
    ) -> Task[Any]:
        """A task that completes with the next event of that name (case-insensitive).

        An event that came before is taken at once; several that wait get them in order.
        Extension: after `timeout` (seconds or timedelta) the task raises TimeoutError; when the event comes
        first the timer is taken back.
        """
        check_event_name(name)
        self._app.converter.check(data_type)
        span = _checked(seconds, timeout, "timeout")
        event = self._run.wait_for_event(name, data_type)
        if span is None or event.is_complete:
            return event
        timer = self._run.create_timer(self._run.now + int(span * ev.TICKS_PER_SECOND))
        return _TimedWait(event, timer, f"no event {name!r} came within {span:g} seconds")

    def send_event(self, instance_id: str, event_name: str, *, data: Any = None) -> None:
        """Raise an event on another instance once this step is committed; nobody waits for its arrival."""
        check_instance_id(instance_id)
        check_event_name(event_name)
        payload = None if data is None else self._app.converter.encode(data)
        self._run.send_event(instance_id, event_name, payload)

    def continue_as_new(self, new_input: Any, *, save_events: bool = False, new_version: str | None = None) -> None:
        """End this execution and begin the instance anew with this input and an empty history.

        Return right after it.  Events that this execution has been given and not taken go over with
        `save_events`; those it has not been given yet always do.  The first call counts.
        """
        payload = None if new_input is None else self._app.converter.encode(new_input)
        if new_version is not None:
            check_text(new_version, "the new version")
        self._run.continue_as_new(payload, save_events, new_version)

    def set_custom_status(self, custom_status: Any) -> None:
        """Any JSON value that readers of the instance's status shall see; None takes it away."""
        self._run.set_custom_status(None if custom_status is None else self._app.converter.encode(custom_status))

    # -- replay-safe stand-ins -----------------------------------------------------------------------

    def new_uuid(self) -> str:
        """A UUID that is the same at a replay."""
        return self._run.new_uuid()

    def random(self) -> random.Random:
        """*Extension.* A source of randomness of its own, seeded by this execution and how often it was asked."""
        self._randoms += 1
        return random.Random(f"{self._started.execution_id}:{self._randoms}")

    def create_replay_safe_logger(self, logger: logging.Logger) -> ReplaySafeLogger:
        """A logger that is silent while past steps are run again, and in the clean-up of code that is put away."""
        run = self._run
        return ReplaySafeLogger(logger, lambda: run.is_replaying or run.discarded)

    def __await__(self) -> NoReturn:
        raise TypeError("the context is not to be awaited: await what its methods return")


class _TimedWait(CompositeTask[Any]):
    """The first of an event and a timer; the other is taken back."""

    __slots__ = ("_message",)

    def __init__(self, event: Task[Any], timer: Task[Any], message: str) -> None:
        super().__init__([event, timer])
        self._message = message
        self._on_cancel = self._take_back
        self._subscribe()

    def _take_back(self) -> None:
        for task in self._tasks:
            task.cancel()

    def child_completed(self, task: Task[Any]) -> None:
        """The first one decides."""
        if self._complete:
            return
        event, timer = self._tasks
        if task is event:
            self._finish(task._result, task._exception)
            timer.cancel()
        else:
            self._finish(None, TimeoutError(self._message))
            event.cancel()


def _hinted_type(function: Any, app: "App") -> Any:
    return return_type(function, app.converter)


def _checked(call: Callable[..., T], *arguments: Any) -> T:
    try:
        return call(*arguments)
    except (TypeError, ValueError) as error:
        raise InvalidInput(str(error)) from None


__all__ = ["OrchestrationContext", "RetryPolicy"]
