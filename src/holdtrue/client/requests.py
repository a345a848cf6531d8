"""From what a caller asks for to what a store is asked: starts and their reuse policies, times, tags.

Values in, values out; it talks to nobody.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from holdtrue.authoring.errors import NotRegistered
from holdtrue.core import events as ev
from holdtrue.core.dialect import to_ticks
from holdtrue.core.errors import InvalidInput
from holdtrue.core.ids import check_event_name, check_instance_id, check_name, check_tags, check_text, short
from holdtrue.core.messages import OutboundMessage, Start
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.core.retry import ticks
from holdtrue.environment import Environment
from holdtrue.stores.protocol import CreateRequest, InstanceQuery

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
    """The policy by its name; raises InvalidInput for another word, and for a policy that is none."""
    if isinstance(reuse, ReusePolicy):
        if reuse.otherwise not in ("error", "ignore") or not all(isinstance(one, Status) for one in reuse.replaceable):
            raise InvalidInput(f"{reuse!r} is no reuse policy: give members of Status, and 'error' or 'ignore'")
        return reuse
    try:
        return _POLICIES[reuse]
    except (KeyError, TypeError):
        raise InvalidInput(
            f"reuse={reuse!r} is no reuse policy: use 'default', 'error', 'replace', 'ignore' or a ReusePolicy"
        ) from None


def at(moment: Moment, now: ev.Ticks, what: str) -> ev.Ticks:
    """A moment in ticks; raises InvalidInput past the year 9999.  One in the past is no error."""
    result = _ticks(moment, now, 1, what)
    if result > ev.MAX_TICKS:
        raise InvalidInput(f"{what} lies after the year 9999, which a history cannot hold: give an earlier time")
    return max(result, ev.MIN_TICKS)


def _ticks(moment: Moment, now: ev.Ticks, sign: int, what: str) -> ev.Ticks:
    if isinstance(moment, timedelta):
        return now + sign * ticks(moment)
    if isinstance(moment, datetime):
        return to_ticks(moment)
    raise InvalidInput(f"{what} is a datetime or a timedelta, not {type(moment).__name__}")


def instance_query(
    now: ev.Ticks,
    *,
    statuses: Collection[Status] | None,
    name: str | None,
    prefix: str | None,
    created_from: Moment | None,
    created_to: Moment | None,
    tags: Mapping[str, str] | None = None,
    page_size: int = 100,
    token: str | None = None,
    newest_first: bool = False,
    any_order: bool = False,
    verified: bool = True,
) -> InstanceQuery:
    """What a store is asked for; a timedelta as a bound is an age.  Raises InvalidInput for what is no condition."""
    try:
        wanted = None if statuses is None else frozenset(Status(status) for status in statuses)
    except (TypeError, ValueError):
        raise InvalidInput(f"statuses={statuses!r} are no statuses: give a list of members of Status") from None
    if not isinstance(page_size, int) or page_size < 1:
        raise InvalidInput(f"page_size={page_size} holds nothing: give at least 1")
    if name is not None:
        check_text(name, "the name")
    if token is not None:
        check_text(token, "a page's token")
    return InstanceQuery(
        statuses=wanted,
        name=name,
        prefix=check_text(prefix, "the prefix") if prefix else None,
        created_from=_bound(created_from, now, "created_from"),
        created_to=_bound(created_to, now, "created_to"),
        tags=check_tags(tags) if tags else None,
        page_size=page_size,
        token=token,
        newest_first=newest_first,
        any_order=any_order,
        verified=verified,
    )


def _bound(moment: Moment | None, now: ev.Ticks, what: str) -> ev.Ticks | None:
    return None if moment is None else min(max(_ticks(moment, now, -1, what), ev.MIN_TICKS), ev.MAX_TICKS)


def first_due(start: Start) -> ev.Ticks | None:
    """The first moment at which this start is due for something: its beginning, its deadline."""
    return min((due for due in (start.started.scheduled_start, start.deadline) if due is not None), default=None)


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
        start_id = None if spec.start_id is None else _check_start_id(spec.start_id)
        # A start that may be repeated must be for the same instance each time.
        asked = start_id if spec.instance_id is None else spec.instance_id
        instance_id = environment.new_id() if asked is None else check_instance_id(asked)
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
            version=version if spec.version is None else check_text(spec.version, "the version"),
            tags=None if not spec.tags else check_tags(spec.tags),
            scheduled_start=start_at,
        )
        event: OutboundMessage | None = None
        if spec.event is not None:
            event_name, value = _check_event(spec.event)
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
                start_id=start_id or execution_id,
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


def _check_start_id(start_id: str) -> str:
    if not isinstance(start_id, str) or not start_id or not start_id.isprintable() or len(start_id) > 500:
        raise InvalidInput(f"start_id={short(str(start_id))} must be a printable text of 1 to 500 characters")
    return start_id


def _check_event(event: tuple[str, Any]) -> tuple[str, Any]:
    if not isinstance(event, tuple) or len(event) != 2:
        raise InvalidInput(f"event={short(repr(event))} is no name with its data: give a tuple of both")
    return event


def _named(function: Any) -> str:
    return repr(getattr(function, "__qualname__", None) or function)
