"""What must be true of activities that run on the host that scheduled them, and one that kills whoever runs it."""

from collections.abc import Sequence
from typing import Any

from broken import Broken
from scenarios import Programs

from holdtrue.core import events as ev
from holdtrue.core.projection import TERMINAL, Projection
from holdtrue.stores.azure_storage.local import places
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.sentinel import Sentinel
from holdtrue.testing.storage_model import StorageModel


def check_local(
    name: str,
    model: StorageModel,
    names: HubNames,
    sentinel: Sentinel,
    projection: Projection | None,
    history: Sequence[ev.AnyEvent],
) -> None:
    """What a sentinel names as local is asked for by its history, its execution goes on, and its keeper is there."""
    state = sentinel.state
    if not state.local and state.keeper is None:
        return
    if not state.local or projection is None or projection.status in TERMINAL:
        raise Broken(f"{name!r}: nothing runs for it any more, and its sentinel names {state.local}, {state.keeper}")
    for execution, ordinal in places(state.local):
        scheduled = history[ordinal] if ordinal < len(history) else None
        if execution != sentinel.execution_id or not isinstance(scheduled, ev.TaskScheduled):
            raise Broken(f"{name!r}: its sentinel names event {ordinal} of {execution} as local: it is {scheduled}")
    queues = [texts for queue, texts in model.queues.look().items() if queue != names.work_items]
    # As a message has it, and as the name of its blob does where it is large.
    forms = (str(state.keeper), str(state.keeper).replace("-", ""))
    if not any(form in text for texts in queues for text in texts for form in forms):
        raise Broken(f"{name!r}: the message that is kept for what runs is gone: {state.keeper}")


class Deadly(Programs):
    """An activity that kills its host, time and again: from its third run on it goes through the queue."""

    def __init__(self) -> None:
        super().__init__({"d": [["echo", "a"], ["deadly", "x", 4]]}, longest=86_400.0)

    def check(self, cluster: Any) -> None:
        super().check(cluster)
        if not any(call.verb == "queues.put" and call.target.endswith("workitems") for call in cluster.calls):
            raise Broken("an activity that kills its host was run from the control queue again and again")
