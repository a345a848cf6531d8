"""A copy of a user's app for a test: its code is run as the test wants it, and the app itself is left as it is."""

from collections.abc import Callable
from typing import Any

import msgspec

from holdtrue.authoring.app import App, AppAuthor
from holdtrue.authoring.context import OrchestrationContext
from holdtrue.authoring.definitions import ActivityDefinition, OrchestratorDefinition
from holdtrue.core.tasks import Task


class UntaggedContext(OrchestrationContext):
    """The context of an orchestrator where one host serves all tags."""

    __slots__ = ()

    def call_activity(self, activity: Any, **given: Any) -> Task[Any]:
        given.pop("tag", None)
        return super().call_activity(activity, **given)


class AppCopy(App):
    """A copy of an app.  `original` is the user's own, which clients are given: they know functions, and these are its.

    `code` gives the function that is run for an orchestrator; `activity` gives an activity anew, with an async
    function: all of them run on the loop, without a tag.
    """

    def __init__(
        self,
        app: App,
        *,
        code: Callable[[OrchestratorDefinition], Callable[..., Any]],
        activity: Callable[[ActivityDefinition], ActivityDefinition],
    ) -> None:
        super().__init__(continue_as_new_after=app.continue_as_new_after, failure_properties=app.failure_properties)
        self.converter = app.converter
        self.original = app
        self.schedules = list(app.schedules)
        self._failures = app._failures
        self.errors = app.errors
        self._by_function.update(app._by_function)
        for name, orchestrator in app.orchestrators.items():
            self._orchestrators[name] = msgspec.structs.replace(orchestrator, function=code(orchestrator))
            self._stands_for(orchestrator, self._orchestrators[name])
        for name, definition in app.activities.items():
            self._activities[name] = msgspec.structs.replace(
                activity(definition),
                kind="async",
                tag=None,
                options=msgspec.structs.replace(definition.options, tag=None),
            )
            self._stands_for(definition, self._activities[name])
        self.author = AppAuthor(self)

    def _stands_for(self, definition: Any, copied: Any) -> None:
        for function, known in list(self._by_function.items()):
            if known is definition:
                self._by_function[function] = copied
