"""From what a caller asks for to what a store is asked: starts and their reuse policies, times, tags.

Values in, values out; it talks to nobody.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from holdtrue.authoring.errors import NotRegistered
from holdtrue.core import events as ev
from holdtrue.core.dialect import to_ticks
from holdtrue.core.errors import InvalidInput
from holdtrue.core.ids import check_event_name, check_instance_id, check_name, short
from holdtrue.core.messages import OutboundMessage, Start
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.core.retry import ticks
from holdtrue.environment import Environment
from holdtrue.stores.protocol import CreateRequest

from .local import Orchestrator, Payloads, Program

Moment = datetime | timedelta
"""A point in time (a naive one is UTC), or how long from now."""


@dataclass(frozen=True)
class ReusePolicy:
    """What a start does about an older instance of its id.

    One whose status is in `replaceable` is replaced (a running one is stopped, its parent is told);
    otherwise the start is an error, or ignored: the older one stays.
    """

    replaceable: frozenset[Status] = TERMINAL
    otherwise: Literal["error", "ignore"] = "error"


Reuse = Literal["default", "error", "replace", "ignore"] | ReusePolicy

NONE: frozenset[Status] = frozenset()
_POLICIES: dict[str, ReusePolicy] = {
    "default": ReusePolicy(),
    "error": ReusePolicy(NONE),
    "replace": ReusePolicy(frozenset(Status)),
    "ignore": ReusePolicy(NONE, "ignore"),
}


@dataclass(frozen=True, kw_only=True)
class StartSpec:
    """One of many starts: the arguments of `Client.start`."""

    orchestrator: Callable[..., Any] | str
    input: Any = None
    instance_id: str | None = None
    start_at: Moment | None = None
    tags: Mapping[str, str] | None = None
    version: str | None = None
    reuse: Reuse = "default"
    start_id: str | None = None
    deadline: Moment | None = None
    event: tuple[str, Any] | None = None


def policy_of(reuse: Reuse) -> ReusePolicy:
    """The policy by its name; raises InvalidInput for another word."""
    if isinstance(reuse, ReusePolicy):
        return reuse
    try:
        return _POLICIES[reuse]
    except (KeyError, TypeError):
        raise InvalidInput(
            f"reuse={reuse!r} is no reuse policy: use 'default', 'error', 'replace', 'ignore' or a ReusePolicy"
        ) from None


def at(moment: Moment, now: ev.Ticks, what: str) -> ev.Ticks:
    """A moment in ticks; raises InvalidInput past the year 9999.  One in the past is no error."""
    if isinstance(moment, timedelta):
        result = now + ticks(moment)
    elif isinstance(moment, datetime):
        result = to_ticks(moment)
    else:
        raise InvalidInput(f"{what} is a datetime or a timedelta, not {type(moment).__name__}")
    if result > ev.MAX_TICKS:
        raise InvalidInput(f"{what} lies after the year 9999, which a history cannot hold: give an earlier time")
    return result


class StartRequests:
    """Makes start requests, for one app or without one; knows by each function its name and version."""

    def __init__(self, payloads: Payloads, program: Program | None, environment: Environment) -> None:
        self._payloads = payloads
        self._program = program
        self._environment = environment
        self._known: dict[Any, tuple[str, str | None, Any]] = {}

    def name_of(self, orchestrator: Callable[..., Any] | str) -> str:
        """The name of an orchestrator; raises InvalidInput, NotRegistered."""
        return self._identify(orchestrator)[0]

    def make(
        self, spec: StartSpec, replaceable: frozenset[Status], *, take: Callable[[str], bool] | None
    ) -> CreateRequest:
        """The request; raises InvalidInput (PayloadError among it) and NotRegistered.

        `take` says whether the host in this process wants an orchestration of that name.
        """
        environment = self._environment
        try:
            name, version, input_type = self._known[spec.orchestrator]
        except (KeyError, TypeError):
            name, version, input_type = self._identify(spec.orchestrator)
        now = environment.now()
        execution_id = environment.new_id()
        instance_id = environment.new_id() if spec.instance_id is None else check_instance_id(spec.instance_id)
        payload: str | None = None
        if spec.input is not None:
            payload = self._payloads.encode(spec.input)
            if input_type is not None:
                self._payloads.decode(payload, input_type)
        start_at = None if spec.start_at is None else at(spec.start_at, now, "start_at")
        started = ev.ExecutionStarted(
            timestamp=now,
            instance_id=instance_id,
            execution_id=execution_id,
            name=name,
            input=payload,
            version=version if spec.version is None else spec.version,
            tags=None if not spec.tags else check_tags(spec.tags),
            scheduled_start=start_at,
        )
        event: OutboundMessage | None = None
        if spec.event is not None:
            event_name, value = spec.event
            event = OutboundMessage(
                instance_id=instance_id,
                event=ev.EventRaised(
                    timestamp=now,
                    name=check_event_name(event_name),
                    input=None if value is None else self._payloads.encode(value),
                ),
            )
        # The store makes the deadline's message (`core.episode.deadline_message`) from `Start.deadline`,
        # in the same transaction as the instance.
        return CreateRequest(
            start=Start(
                started=started,
                start_id=execution_id if spec.start_id is None else _check_start_id(spec.start_id),
                deadline=None if spec.deadline is None else at(spec.deadline, now, "deadline"),
                event=event,
            ),
            replaceable=replaceable,
            take=take is not None and start_at is None and take(name),
        )

    def again(self, started: ev.ExecutionStarted, dialect: str, instance_id: str) -> CreateRequest:
        """The same start anew: name, input, version and tags of an execution, under an id; over ended ones only."""
        execution_id = self._environment.new_id()
        return CreateRequest(
            start=Start(
                started=ev.ExecutionStarted(
                    timestamp=self._environment.now(),
                    instance_id=instance_id,
                    execution_id=execution_id,
                    name=started.name,
                    input=started.input,
                    version=started.version,
                    tags=started.tags,
                ),
                start_id=execution_id,
                dialect=dialect,
            ),
            replaceable=TERMINAL,
        )

    def _identify(self, orchestrator: Callable[..., Any] | str) -> tuple[str, str | None, Any]:
        definition: Orchestrator | None = None
        program = self._program
        if isinstance(orchestrator, str):
            name = check_name(orchestrator)
            definition = None if program is None else program.orchestrators.get(name)
        elif program is not None:
            for candidate in program.orchestrators.values():
                if candidate.function is orchestrator:
                    definition = candidate
                    break
            if definition is None:
                raise NotRegistered(
                    f"{_named(orchestrator)} is not an orchestrator of this app: register it with "
                    "@app.orchestrator, or give the name under which a worker has it"
                )
            name = definition.name
        else:
            name = check_name(getattr(orchestrator, "__name__", None) or "")
            if name == "<lambda>":
                raise InvalidInput("a lambda has no name under which a worker could know it: give the name as a str")
        known = (
            name,
            None if definition is None else definition.version,
            None if definition is None else getattr(definition, "input_type", None),
        )
        if definition is not None or program is None:
            # A name that the app does not have yet may still be registered.
            self._known[orchestrator] = known
        return known


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as a plain dict; raises InvalidInput where one is no text."""
    checked = dict(tags)
    for key, value in checked.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidInput(f"tags are texts by text: the tag {key!r} is {value!r}; give str for both")
    return checked


def _check_start_id(start_id: str) -> str:
    if not isinstance(start_id, str) or not start_id or not start_id.isprintable() or len(start_id) > 500:
        raise InvalidInput(f"start_id={short(str(start_id))} must be a printable text of 1 to 500 characters")
    return start_id


def _named(function: Any) -> str:
    return repr(getattr(function, "__qualname__", None) or function)
