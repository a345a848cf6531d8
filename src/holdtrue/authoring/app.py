"""The app: the orchestrators, activities, error classes and schedules of one program.

Authors register with it; hosts, clients and the command line read it.  It knows nothing of stores or loops.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from holdtrue.core import events as ev
from holdtrue.core.author import OrchestratorNotFound
from holdtrue.core.replay import Run
from holdtrue.core.tasks import Task, TaskFailedError
from holdtrue.stores.protocol import queue_name

from . import determinism, sdk
from .context import OrchestrationContext
from .conversion import MAX_PAYLOAD, Converter
from .definitions import (
    ActivityDefinition,
    OnMismatch,
    OrchestratorDefinition,
    define_activity,
    define_orchestrator,
)
from .errors import RegistrationError
from .failures import Failures, Properties

if TYPE_CHECKING:
    from holdtrue.schedules.specification import ScheduleSpec

F = TypeVar("F", bound=Callable[..., Any])
E = TypeVar("E", bound=type[BaseException])

CONTINUE_AS_NEW_AFTER = 10_000
"""Events of history after which `ctx.should_continue_as_new` says so, by default."""


class App:
    """Holds what a program registers.

    `max_payload` bounds each payload in bytes; `continue_as_new_after` is the history size at which
    `ctx.should_continue_as_new` turns true; `failure_properties(error)` may give JSON values to record with
    every failure.
    """

    def __init__(
        self,
        *,
        max_payload: int = MAX_PAYLOAD,
        continue_as_new_after: int = CONTINUE_AS_NEW_AFTER,
        failure_properties: Properties | None = None,
    ) -> None:
        self.converter = Converter(max_payload)
        self.continue_as_new_after = continue_as_new_after
        self.schedules: list[ScheduleSpec] = []
        self.failure_properties = failure_properties
        self._failures = Failures(failure_properties)
        self._orchestrators: dict[str, OrchestratorDefinition] = {}
        self._activities: dict[str, ActivityDefinition] = {}
        self._by_function: dict[Any, OrchestratorDefinition | ActivityDefinition] = {}
        self.orchestrators: Mapping[str, OrchestratorDefinition] = MappingProxyType(self._orchestrators)
        """The registered orchestrators, by name."""
        self.activities: Mapping[str, ActivityDefinition] = MappingProxyType(self._activities)
        """The registered activities, by name."""
        self.errors = self._failures.known
        """The registered error classes, by the name under which they are recorded."""
        self.author = AppAuthor(self)
        """What the core is lent of this app."""

    @property
    def max_payload(self) -> int:
        """The bound of one payload, in bytes of UTF-8."""
        return self.converter.max_payload

    # -- registering ---------------------------------------------------------------------------------

    @overload
    def orchestrator(self, function: F, /) -> F: ...

    @overload
    def orchestrator(
        self,
        function: None = ...,
        /,
        *,
        name: str | None = ...,
        version: str | None = ...,
        on_mismatch: OnMismatch = ...,
    ) -> Callable[[F], F]: ...

    def orchestrator(
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        version: str | None = None,
        on_mismatch: OnMismatch = "hold",
    ) -> Any:
        """Register an orchestrator: an async function, a generator, or a plain function of (ctx) or (ctx, input).

        `version` is what new instances get.  `on_mismatch` says what becomes of an instance whose history
        the code no longer fits: it is held until fitting code comes, or fails.  The function stays as it is.

        Raises RegistrationError: a name that another function has, hints that cannot be used, or what an
        orchestrator must not call (the wall clock, randomness, anything that blocks).
        """

        def register(function: F) -> F:
            definition = define_orchestrator(
                function, self.converter, name=name, version=version, on_mismatch=on_mismatch
            )
            determinism.check(function, definition.name)
            self._add(self._orchestrators, definition, "orchestrators")
            return function

        return register if function is None else register(function)

    @overload
    def activity(self, function: F, /) -> F: ...

    @overload
    def activity(
        self,
        function: None = ...,
        /,
        *,
        name: str | None = ...,
        cpu: bool = ...,
        tag: str | None = ...,
        limit: int | None = ...,
        start_to_close: float | timedelta | None = ...,
        schedule_to_start: float | timedelta | None = ...,
        heartbeat: float | timedelta | None = ...,
    ) -> Callable[[F], F]: ...

    def activity(
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        cpu: bool = False,
        tag: str | None = None,
        limit: int | None = None,
        start_to_close: float | timedelta | None = None,
        schedule_to_start: float | timedelta | None = None,
        heartbeat: float | timedelta | None = None,
    ) -> Any:
        """Register an activity: a function of (ctx) or (ctx, input).

        Async ones run on the loop, plain ones in threads, with `cpu` in processes.  `tag`: only workers
        given that tag run it.  `limit`: how many may run at once in a worker.  The rest are the time-outs
        of `ctx.call_activity`, in seconds or as timedelta.  The function stays as it is.

        Raises RegistrationError.
        """

        def register(function: F) -> F:
            definition = define_activity(
                function,
                self.converter,
                name=name,
                cpu=cpu,
                tag=tag,
                limit=limit,
                start_to_close=start_to_close,
                schedule_to_start=schedule_to_start,
                heartbeat=heartbeat,
            )
            self._add(self._activities, definition, "activities")
            return function

        return register if function is None else register(function)

    @overload
    def error(self, cls: E, /) -> E: ...

    @overload
    def error(
        self, cls: None = ..., /, *, properties: Sequence[str] = ..., non_retriable: bool = ...
    ) -> Callable[[E], E]: ...

    def error(self, cls: Any = None, /, *, properties: Sequence[str] = (), non_retriable: bool = False) -> Any:
        """Register an error class, so that orchestrators find an instance of it as a failure's `__cause__`.

        `properties` names attributes (JSON values) that travel with it; its constructor is not run again.
        `non_retriable` errors are not tried again.  Builtin exceptions need no registration.
        """

        def register(cls: E) -> E:
            self._failures.register(cls, properties, non_retriable)
            return cls

        return register if cls is None else register(cls)

    def schedule(
        self, schedule: "ScheduleSpec | str", orchestrator: Callable[..., Any] | str | None = None, **definition: Any
    ) -> None:
        """Declare a schedule that every host of this app puts into its hub when it starts.

        Give a ScheduleSpec, or its id, the orchestrator (function or name) and the other members of
        ScheduleSpec by name; `input` may be any value here.  Raises RegistrationError for an id that is
        declared twice, and what ScheduleSpec raises.
        """
        if isinstance(schedule, str):
            # Only here does authoring need to know what a schedule is; whoever declares one has the engine.
            from holdtrue.schedules.specification import ScheduleSpec

            if orchestrator is None:
                raise RegistrationError(f"schedule {schedule!r}: give the orchestrator that it starts")
            if not isinstance(orchestrator, str):
                known = self.orchestrator_of(orchestrator)
                if known is None:
                    raise RegistrationError(
                        f"schedule {schedule!r}: the orchestrator {orchestrator!r} is not registered: "
                        "put @app.orchestrator over it, or give a name"
                    )
                orchestrator = known.name
                definition.setdefault("version", known.version)
            if definition.get("input") is not None:
                definition["input"] = self.converter.encode(definition["input"])
            schedule = ScheduleSpec(schedule_id=schedule, orchestrator=orchestrator, **definition)
        elif orchestrator is not None or definition:
            raise RegistrationError("app.schedule takes a ScheduleSpec alone, or an id and its members")
        if any(other.schedule_id == schedule.schedule_id for other in self.schedules):
            raise RegistrationError(f"two schedules are named {schedule.schedule_id!r}: rename one of them")
        self.schedules.append(schedule)

    def include(self, other: "App") -> None:
        """Take in all that another app has registered.  Raises RegistrationError where both have one name."""
        for orchestrator in other._orchestrators.values():
            self._add(self._orchestrators, orchestrator, "orchestrators")
        for activity in other._activities.values():
            self._add(self._activities, activity, "activities")
        self._failures.include(other._failures)
        for schedule in other.schedules:
            self.schedule(schedule)

    def _add(self, registry: dict[str, Any], definition: Any, what: str) -> None:
        known = registry.get(definition.name)
        if known is not None and known.function is not definition.function:
            raise RegistrationError(
                f"two {what} are named {definition.name!r}: {known.place} and {definition.place}; "
                "rename one of them (name=...)"
            )
        registry[definition.name] = definition
        try:
            self._by_function[definition.function] = definition
        except TypeError:  # an unhashable callable is known by name only
            pass

    # -- reading -------------------------------------------------------------------------------------

    def orchestrator_of(self, function: Any) -> OrchestratorDefinition | None:
        """The definition of a registered orchestrator by its function (or a wrapper of it)."""
        found = self._find(function)
        return found if isinstance(found, OrchestratorDefinition) else None

    def activity_of(self, function: Any) -> ActivityDefinition | None:
        """The definition of a registered activity by its function (or a wrapper of it)."""
        found = self._find(function)
        return found if isinstance(found, ActivityDefinition) else None

    def _find(self, function: Any) -> Any:
        try:
            while function is not None:
                found = self._by_function.get(function)
                if found is not None:
                    return found
                function = getattr(function, "__wrapped__", None)
        except TypeError:
            pass
        return None

    def queues(self, tags: Collection[str] = ()) -> list[str]:
        """The activity queues that a worker with these tags serves.

        An activity with a tag of its own is served only under the worker's tags, one without also untagged.
        """
        queues = []
        for definition in self._activities.values():
            if definition.tag is None:
                queues.append(queue_name(definition.name, None))
            queues += [queue_name(definition.name, tag) for tag in tags]
        return queues

    def failure(self, error: BaseException) -> ev.FailureDetails:
        """An error as failure details: module-qualified type, message, trace, causes, properties."""
        return self._failures.details(error)

    def task_failed(self, message: str, details: ev.FailureDetails) -> TaskFailedError:
        """The error to raise for a failed task or instance; its `__cause__` is the original where it is known."""
        return self._failures.task_failed(message, details)


class AppAuthor:
    """The app as the core sees it (`core.author.Author`)."""

    def __init__(self, app: App) -> None:
        self._app = app
        # Called at every step: bound once.
        self.encode: Callable[[Any], str | None] = app.converter.encode
        self.decode: Callable[[str | None, Any], Any] = app.converter.decode
        self.failure = app.failure
        self.task_failed = app.task_failed

    def begin(self, run: Run, started: ev.ExecutionStarted) -> Any:
        """Call the orchestrator; raises OrchestratorNotFound, and PayloadError where the input does not fit."""
        app = self._app
        definition = app.orchestrators.get(started.name)
        if definition is None:
            raise OrchestratorNotFound(
                f"instance {started.instance_id!r}: this worker has no orchestrator {started.name!r}: "
                "register it, or start a worker that has it"
            )
        sdk.attached()
        context = OrchestrationContext(app, run, started)
        payload = started.input
        if not definition.takes_input or (payload is None and definition.has_default):
            return definition.function(context)
        if payload is None:
            return definition.function(context, None)
        value = app.converter.decode(payload, definition.input_type, f"the input of orchestrator {started.name!r}")
        return definition.function(context, value)

    def adopt(self, awaited: Any) -> Task[Any] | None:
        """A task for a group of the SDK's, else None."""
        return sdk.adopt(awaited)
