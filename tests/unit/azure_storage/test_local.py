"""Rule 16, the decisions: what runs without a message, which message is kept for it, what becomes of what is named."""

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.actions import Action, CreateTimer, Decision, ScheduleTask
from holdtrue.core.episode import Episode, EpisodeCommit, ExecutionState
from holdtrue.core.messages import InboundMessage
from holdtrue.core.projection import Status, initial
from holdtrue.stores.azure_storage.arrivals import Arrived
from holdtrue.stores.azure_storage.local import choose_keeper, judge, named, places, runnable, until, without
from holdtrue.stores.azure_storage.owing import RowExtra, sending
from holdtrue.stores.azure_storage.sentinel import Local

STARTED = ev.ExecutionStarted(timestamp=1, instance_id="i", execution_id="x", name="code")
LOCAL = [Local("x", "1-a", [2, 3]), Local("x", "2-b", [7])]


def committed(actions: list[Action]) -> EpisodeCommit:
    """The first episode of an instance."""
    state = ExecutionState(projection=initial(STARTED), dialect="dotnet", start_id="x")
    made = Episode(state, [InboundMessage(event=STARTED, key=1, execution_id=None)], now=50, new_id=lambda: "y")
    while made.feed and made.decide(Decision(actions=actions, fed=len(made.feed))):
        actions = []
    return made.commit()


def tasks(count: int) -> list[Action]:
    return [ScheduleTask(id=number, name="work") for number in range(count)]


def arrived(key: int, event: ev.HistoryEvent, kept: str | None = None) -> Arrived:
    return Arrived(key=key, id=f"id{key}", event=event, kept=kept)


def raised(name: str) -> ev.EventRaised:
    return ev.EventRaised(timestamp=1, name=name, input=None)


def test_places_are_taken_away_whole_or_in_part() -> None:
    assert places(LOCAL) == [("x", 2), ("x", 3), ("x", 7)]
    assert without(LOCAL, {("x", 3), ("x", 7), ("other", 2)}) == [Local("x", "1-a", [2])]
    assert without(LOCAL, ()) == LOCAL
    assert until(LOCAL, 3) == [Local("x", "1-a", [2])] and until(LOCAL, 8) == LOCAL and until(LOCAL, 2) == []


def test_no_more_run_here_than_there_is_room_for_and_none_of_an_ended_one() -> None:
    commit = committed(tasks(4))
    assert [task.scheduled for task in runnable(commit, 2)] == [task.scheduled for task in commit.activities[:2]]
    assert len(runnable(commit, 9)) == 4 and runnable(commit, 0) == []
    commit.projection.status = Status.COMPLETED
    assert commit.ended and runnable(commit, 9) == []


def test_one_whose_row_is_of_an_earlier_episode_does_not_run_here() -> None:
    commit = committed(tasks(2))
    (first, second) = commit.activities
    strange = msgspec.structs.replace(first, execution_id="before")
    assert runnable(msgspec.structs.replace(commit, activities=[strange, second]), 9) == []


def test_what_runs_here_is_not_sent_and_its_row_is_enough_to_send_it() -> None:
    commit = committed([*tasks(2), CreateTimer(id=2, fire_at=99)])
    here = commit.activities[0].scheduled
    sent = sending(commit, "1-a", {here})
    assert [type(one.what).__name__ for one in sent.outgoing] == ["ActivityTask", "OutboundMessage"]
    assert here in sent.by_rows
    rows = [(at, event, RowExtra()) for at, event in enumerate(commit.events)]
    judged = judge([Local("x", "1-a", [here])], commit.projection, "dotnet", rows)
    (one,) = judged.outstanding
    assert one.task == commit.activities[0] and one.place == ("x", here)
    # Under the id that a message of it would have had.
    (as_sent,) = [other for other in sending(commit, "1-a").outgoing if other.what == one.task]
    assert one.id == as_sent.id == named([one.task], "1-a", 0)[0].id


def test_what_has_a_result_or_was_written_over_is_not_run_again() -> None:
    commit = committed(tasks(3))
    ordinals = [task.scheduled for task in commit.activities]
    events: list[ev.AnyEvent] = [*commit.events]
    events.append(ev.TaskCompleted(timestamp=60, event_id=-1, task_scheduled_id=0, result=None))
    events[ordinals[1]] = ev.GenericEvent(timestamp=50, data="")
    rows = [(at, event, RowExtra()) for at, event in enumerate(events)]
    local = [Local("x", "1-a", ordinals), Local("before", "1-a", [ordinals[2]]), Local("x", "1-a", [1_000])]
    judged = judge(local, commit.projection, "dotnet", rows)
    assert judged.answered == [("x", ordinals[0])]
    assert [one.place for one in judged.outstanding] == [("x", ordinals[2])]
    assert judged.overwritten == [("x", ordinals[1]), ("before", ordinals[2]), ("x", 1_000)]


def test_without_a_history_all_that_is_named_was_written_over() -> None:
    judged = judge(LOCAL, None, "dotnet", [])
    assert (judged.outstanding, judged.answered, judged.overwritten) == ([], [], places(LOCAL))
    assert judge([], None, "dotnet", []).overwritten == []


def test_the_keeper_is_the_message_whose_event_stands_first() -> None:
    first, second, later = raised("first"), raised("second"), raised("later")
    taken = [arrived(1, second), arrived(2, first)]
    keeper = choose_keeper(taken, [*taken, arrived(3, later)], [first, second], lambda key: True)
    assert keeper is taken[1]


def test_what_is_in_no_queue_or_not_in_hand_keeps_nothing() -> None:
    first, second, later = raised("first"), raised("second"), raised("later")
    beside, gone = arrived(1, first, kept="~kept-1"), arrived(2, second)
    waiting = arrived(3, later)

    def in_hand(key: int) -> bool:
        return key != 2

    assert choose_keeper([beside, gone], [beside, gone, waiting], [first, second], in_hand) is waiting
    assert choose_keeper([beside, gone], [beside, gone], [first, second], in_hand) is None
