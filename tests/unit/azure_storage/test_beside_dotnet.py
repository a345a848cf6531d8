"""What the real .NET provider showed beside us: activities that it asked for, rows that differed from its own."""

from holdtrue.core.events import OrchestratorCompleted, TaskScheduled
from holdtrue.stores.azure_storage.envelopes import Envelope
from holdtrue.stores.azure_storage.formats import task_of
from holdtrue.stores.azure_storage.rows import event_values


def test_each_has_an_idempotency_key_of_its_own() -> None:
    """All activities of an execution had the same one."""
    keys = set()
    for task_id in range(3):
        event = TaskScheduled(timestamp=0, event_id=task_id, name="Square", input="[1]")
        task = task_of(Envelope(id=f"id{task_id}", instance_id="fan", event=event, execution_id="e"))
        assert task.scheduled < 0
        keys.add(task.idempotency_key)
    assert len(keys) == 3


def test_the_rows_that_carry_an_execution_on_are_played() -> None:
    """As in the recordings Loop, Adder and Carry; ours said that the first episode's end was not."""
    event = OrchestratorCompleted(timestamp=0)
    assert event_values(event, "e", continued=True)["IsPlayed"] is True
    assert event_values(event, "e")["IsPlayed"] is False
