"""What stands in a history that .NET wrote and means nothing there.

A message that comes twice can be written twice: .NET's replay passes over an answer that nobody waits for.  With
allowReplayingTerminalInstances a message to an ended instance is replayed behind its end, which writes a second end.
Our own commits have neither.  Pure.
"""

from collections.abc import Sequence

from holdtrue.core import events as ev

_ASKED: dict[type, type] = {
    ev.TaskCompleted: ev.TaskScheduled,
    ev.TaskFailed: ev.TaskScheduled,
    ev.SubOrchestrationInstanceCompleted: ev.SubOrchestrationInstanceCreated,
    ev.SubOrchestrationInstanceFailed: ev.SubOrchestrationInstanceCreated,
    ev.TimerFired: ev.TimerCreated,
}
"""What each answer answers."""


def without_leftovers(history: Sequence[ev.AnyEvent]) -> list[ev.AnyEvent]:
    """The events that count: none behind an end but its OrchestratorCompleted; a second answer is a GenericEvent.

    So each event keeps its ordinal.
    """
    waiting: set[tuple[type, int]] = set()
    found: list[ev.AnyEvent] = []
    ended = False
    for event in history:
        if ended and isinstance(event, ev.OrchestratorStarted):
            break
        ended = ended or isinstance(event, ev.ExecutionCompleted | ev.ExecutionFailed)
        if isinstance(event, ev.SCHEDULING_EVENTS):
            waiting.add((type(event), event.event_id))
        elif (asked := _ASKED.get(type(event))) is not None:
            task = event.timer_id if isinstance(event, ev.TimerFired) else event.task_scheduled_id  # type: ignore[union-attr]
            if (asked, task) not in waiting:
                event = ev.GenericEvent(timestamp=event.timestamp)
            waiting.discard((asked, task))
        found.append(event)
    return found
