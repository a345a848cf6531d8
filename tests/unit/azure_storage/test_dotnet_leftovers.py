"""What of a history that .NET wrote counts: no second end, no second answer, and every event at its place."""

from holdtrue.core import events as ev
from holdtrue.core.projection import Status
from holdtrue.stores.azure_storage.dotnet_leftovers import without_leftovers

START = ev.OrchestratorStarted(timestamp=1)
DONE = ev.OrchestratorCompleted(timestamp=1)
ASK = ev.TaskScheduled(timestamp=1, event_id=0, name="x")
ANSWER = ev.TaskCompleted(timestamp=1, task_scheduled_id=0)
END = ev.ExecutionCompleted(timestamp=1, event_id=1, status=int(Status.COMPLETED))
AGAIN = ev.ExecutionCompleted(timestamp=2, event_id=1, status=int(Status.TERMINATED))
NOTHING = ev.GenericEvent(timestamp=1)


def test_a_history_without_any_stays_as_it_is() -> None:
    history = [START, ASK, DONE, START, ANSWER, END, DONE]
    assert without_leftovers(history) == history


def test_what_is_behind_an_end_is_left_out() -> None:
    history = [START, ASK, DONE, START, ANSWER, END, DONE]
    assert without_leftovers([*history, START, ev.ExecutionTerminated(timestamp=2), AGAIN, DONE]) == history


def test_a_second_answer_is_nothing_and_keeps_its_place() -> None:
    assert without_leftovers([START, ASK, DONE, START, ANSWER, ANSWER, DONE]) == [
        START, ASK, DONE, START, ANSWER, NOTHING, DONE,
    ]  # fmt: skip


def test_an_answer_of_another_kind_or_to_nobody_is_none() -> None:
    fired = ev.TimerFired(timestamp=1, timer_id=0, fire_at=1)
    assert without_leftovers([START, ANSWER, ASK, fired, ANSWER]) == [START, NOTHING, ASK, NOTHING, ANSWER]


def test_what_was_asked_again_after_a_rewind_is_answered_again() -> None:
    """A rewind takes a failed task's two rows out, and the run asks again under the same number."""
    history = [START, NOTHING, NOTHING, DONE, START, ASK, DONE, START, ANSWER, DONE]
    assert without_leftovers(history) == history
