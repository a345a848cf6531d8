"""An app whose activities can be replaced by fakes while it runs, and whose calls of activities are noted."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from holdtrue.authoring.activity_context import ActivityContext
from holdtrue.authoring.app import App
from holdtrue.authoring.definitions import ActivityDefinition, OrchestratorDefinition
from holdtrue.core.errors import HoldtrueError, InvalidInput

from .app_copy import AppCopy, UntaggedContext

Fake = Callable[..., Any]


class FakeableApp(AppCopy):
    """A copy of an app.  `calls` has the inputs that each activity was called with, by its name, in order."""

    def __init__(self, app: App) -> None:
        self.calls: dict[str, list[Any]] = {}
        self._fakes: dict[str, Callable[..., Any]] = {}
        super().__init__(app, code=self._code, activity=self._activity)

    def put_fake(self, activity: Callable[..., Any] | str, fake: Fake | None) -> None:
        """Let this run in the place of an activity (None: the activity itself again).  Raises InvalidInput."""
        name = self.name_of(activity)
        if fake is None:
            self._fakes.pop(name, None)
        elif not callable(fake):
            raise InvalidInput(f"the fake of activity {name!r} is {fake!r}: give a function of its input")
        else:
            self._fakes[name] = called_as_activity(fake)

    def name_of(self, activity: Callable[..., Any] | str) -> str:
        """The name of an activity of the app.  Raises InvalidInput."""
        if isinstance(activity, str):
            if activity in self.activities:
                return activity
            near = difflib.get_close_matches(activity, self.activities, 1)
            meant = f": did you mean {near[0]!r}?" if near else ": register it with @app.activity"
            raise InvalidInput(f"the app has no activity {activity!r}{meant}")
        definition = self.original.activity_of(activity)
        if definition is None:
            raise InvalidInput(
                f"{activity!r} is not an activity of this app: give its name, or the function with @app.activity"
            )
        return definition.name

    def _code(self, orchestrator: OrchestratorDefinition) -> Callable[..., Any]:
        function = orchestrator.function

        def begin(context: Any, *given: Any) -> Any:
            return function(UntaggedContext(self, context._run, context._started), *given)

        return begin

    def _activity(self, definition: ActivityDefinition) -> ActivityDefinition:
        name = definition.name
        calls = self.calls[name] = []

        async def run(context: ActivityContext, *given: Any) -> Any:
            calls.append(given[0] if given else None)
            function = self._fakes.get(name)
            if function is None:
                function = definition.function
                if definition.kind != "async":
                    context = _BlockingContext(context._run)
            result = function(context, *given)
            return await result if inspect.isawaitable(result) else result

        return msgspec.structs.replace(definition, function=run)


def called_as_activity(fake: Fake) -> Callable[..., Any]:
    """A fake as a function of a context and, perhaps, an input.

    One whose first parameter is named `ctx` or `context`, or that needs two, is called as an activity is; any other
    gets the input alone (None where there is none), and one without parameters nothing.
    """
    try:
        parameters = list(inspect.signature(fake).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not tell
        return lambda context, given=None: fake(given)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [parameter for parameter in parameters if parameter.kind in kinds]
    needed = [parameter for parameter in positional if parameter.default is parameter.empty]
    takes_any = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    if len(needed) > 1 or (positional and positional[0].name in ("ctx", "context")):
        return fake if len(positional) > 1 or takes_any else lambda context, given=None: fake(context)
    if positional or takes_any:
        return lambda context, given=None: fake(given)
    return lambda context, given=None: fake()


class _BlockingContext(ActivityContext):
    """The context of a plain activity, which runs on the loop: it could wait for a blocking client for ever."""

    __slots__ = ()

    @property
    def client(self) -> Any:
        raise HoldtrueError(
            f"activity {self.name!r} uses a blocking ctx.client, which cannot be served in virtual time: make the "
            "activity `async def`, or give a fake for it (hub.fake)"
        )
