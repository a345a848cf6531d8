"""Rules 3 and 5: an episode as transactions, each a valid commit of its own."""

import json

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core import events as ev
from holdtrue.core.actions import (
    Action,
    ActivityOptions,
    CompleteOrchestration,
    CreateSubOrchestration,
    CreateTimer,
    Decision,
    ScheduleTask,
    SendEvent,
)
from holdtrue.core.episode import Episode, EpisodeCommit, ExecutionState
from holdtrue.core.messages import InboundMessage, Start
from holdtrue.core.projection import Status, initial, project
from holdtrue.stores.azure_storage.names import row_key
from holdtrue.stores.azure_storage.owing import RowExtra, asked_by_row, beside_rows, sending
from holdtrue.stores.azure_storage.planning import (
    MOST_BYTES,
    MOST_OPERATIONS,
    Base,
    Plan,
    Taken,
    decode_extra,
    decode_log,
    encode_log,
    log_parts,
    plan,
    size_of,
)
from holdtrue.stores.azure_storage.sentinel import State
from holdtrue.stores.azure_storage.service import Do, Operation

STARTED = ev.ExecutionStarted(
    timestamp=1,
    instance_id="i",
    execution_id="x0",
    name="code",
    parent=ev.ParentInstance(instance_id="p", execution_id="px", task_id=3, scheduled=7),
)


def encode(event: ev.AnyEvent, ordinal: int, more: RowExtra) -> dict[str, str | None]:
    return {"Event": ev.encode_events(event).decode()}


def episode(
    actions: list[Action], events: list[ev.AnyEvent], then: list[Action] | None = None
) -> tuple[EpisodeCommit, list[InboundMessage]]:
    """The first episode of an instance that got these events with its start."""
    state = ExecutionState(projection=initial(STARTED), dialect="dotnet", start_id="x0")
    numbers = iter(range(10_000))
    messages = [
        InboundMessage(event=event, key=key, execution_id=None) for key, event in enumerate([STARTED, *events], 1)
    ]
    making = Episode(state, messages, now=50, new_id=lambda: f"x{next(numbers) + 1}")
    script = actions
    while making.feed and making.decide(Decision(actions=list(script), fed=len(making.feed))):
        script = then or []
    return making.commit(), messages


def planned(commit: EpisodeCommit, messages: list[InboundMessage], kept: int = 0) -> tuple[Plan, State]:
    taken = [
        Taken(f"id{m.key}", m.event, None, f"~kept-{m.key}" if 0 < (m.key or 0) - 1 <= kept else None)
        for m in messages
        if m.key in commit.consumed
    ]
    before = State()
    base = Base(partition="i", etag=None, state=before, started=STARTED, start_id="x0", dialect="dotnet", deadline=None)
    numbers = iter(range(1_000))
    made = plan(
        commit,
        sending(commit, "1-a"),
        taken,
        base,
        episode="1-a",
        now=50,
        chance=lambda: f"r{next(numbers)}",
        encode=encode,
        encode_extra=lambda extra: {"Extra": msgspec.json.encode(extra).decode()},
        size=100,
    )
    return made, before


kinds_of = st.one_of(
    st.builds(lambda n: ("task", n), st.integers(0, 70_000)),
    st.just(("timer", 0)),
    st.just(("child", 0)),
    st.just(("send", 0)),
    st.just(("limited", 0)),
)
actions = st.one_of(st.lists(kinds_of, max_size=8), st.lists(kinds_of, min_size=80, max_size=260))


def made(kinds: list[tuple[str, int]]) -> list[Action]:
    found: list[Action] = []
    for id, (kind, size) in enumerate(kinds):
        if kind == "task":
            found.append(ScheduleTask(id=id, name="act", input=json.dumps("x" * size)))
        elif kind == "limited":
            found.append(ScheduleTask(id=id, name="act", options=ActivityOptions(schedule_to_start=5.0, tag="gpu")))
        elif kind == "timer":
            found.append(CreateTimer(id=id, fire_at=1_000 + id))
        elif kind == "child":
            found.append(CreateSubOrchestration(id=id, name="child", instance_id=f"c{id}", input="1"))
        else:
            found.append(SendEvent(id=id, instance_id=f"t{id % 3}", name="e", input=str(id)))
    return found


@settings(max_examples=60, deadline=None)
@given(actions, st.integers(0, 130), st.integers(0, 40), st.booleans())
def test_every_part_is_a_valid_commit_of_its_own(
    kinds: list[tuple[str, int]], events: int, kept: int, ends: bool
) -> None:
    acts = made(kinds)
    if ends:
        acts.append(CompleteOrchestration(id=9_999, status=Status.COMPLETED, result="1"))
    raised: list[ev.AnyEvent] = [ev.EventRaised(timestamp=2, name="e", input=str(n)) for n in range(events)]
    commit, messages = episode(acts, raised)
    result, before = planned(commit, messages, kept)
    assert result.log is None
    rows: list[Operation] = []
    consumed: set[str] = set()
    projection = initial(STARTED)
    for number, part in enumerate(result.parts):
        last = number == len(result.parts) - 1
        assert len(part.operations) + 1 <= MOST_OPERATIONS and size_of(part.operations) <= MOST_BYTES + 200_000
        assert part.complete is last and len({one.key for one in part.operations}) == len(part.operations)
        assert part.state.previous == (result.parts[number - 1].state.episode if number else "")
        new = [one for one in part.operations if one.do is Do.REPLACE and not one.key.startswith("~")]
        rows += new
        assert [one.key for one in rows] == [row_key(n) for n in range(len(rows))]
        assert part.state.rows == len(rows)
        stands = commit.events[: len(rows)]
        projection = project(initial(STARTED), stands)
        assert part.state.projection is not None
        assert part.state.projection.status is projection.status
        consumed = {used.id for used in part.state.consumed}
        gone = {one.key for p in result.parts[: number + 1] for one in p.operations if one.do is Do.DELETE}
        for message in messages:
            there = any(message.event is event for event in stands)
            named = f"id{message.key}" in consumed or f"~kept-{message.key}" in gone
            if not last:
                assert named == there, "a message is consumed where its event stands, and nowhere else"
        for owed in part.state.owed:
            assert (owed.episode, owed.first) == ("1-a", 0) and owed.end == len(rows)
    assert len(rows) == len(commit.events)
    assert before == State()


@settings(max_examples=60, deadline=None)
@given(actions, st.booleans())
def test_what_is_owed_can_be_sent_again_as_it_was(kinds: list[tuple[str, int]], ends: bool) -> None:
    acts = made([(kind, min(size, 50)) for kind, size in kinds])
    if ends:
        acts.append(CompleteOrchestration(id=9_999, status=Status.COMPLETED, result='"out"'))
    commit, messages = episode(acts, [])
    result, _ = planned(commit, messages)
    sent = sending(commit, "1-a")
    (owed,) = result.parts[-1].state.owed or [None]
    again = []
    if owed is not None:
        extras = [one for one in result.parts[-1].operations if one.key.startswith("~owed-")]
        if owed.extra:
            again += beside_rows("i", owed, decode_extra(str(extras[0].values["Extra"])))
        else:
            assert not extras
        for ordinal in range(owed.first, owed.end):
            more = sent.by_rows.get(ordinal, RowExtra())
            event = commit.events[ordinal]
            found = asked_by_row(commit.projection, "dotnet", owed, ordinal, event, more)  # type: ignore[arg-type]
            if found is not None:
                again.append(found)
    key = lambda one: one.id  # noqa: E731
    assert sorted(again, key=key) == sorted(sent.outgoing, key=key)
    assert len({one.id for one in again}) == len(again)


@settings(max_examples=30, deadline=None)
@given(actions, actions)
def test_a_continue_as_new_goes_in_one_transaction_or_through_a_log(
    first: list[tuple[str, int]], second: list[tuple[str, int]]
) -> None:
    acts = made([(kind, min(size, 50)) for kind, size in first])
    acts.append(CompleteOrchestration(id=9_999, status=Status.CONTINUED_AS_NEW, result="2"))
    commit, messages = episode(acts, [], made(second))
    assert commit.replace
    result, _ = planned(commit, messages)
    sent = sending(commit, "1-a")
    extra = [
        decode_extra(str(one.values["Extra"]))
        for part in result.parts
        for one in part.operations
        if one.key.startswith("~owed-")
    ]
    assert sum(len(one) for one in extra) == len(sent.extra)
    if result.log is None:
        (part,) = result.parts
        assert part.complete and part.execution_id == commit.projection.execution_id
        return
    (flip,) = result.parts
    assert not any(one.key == row_key(0) for one in flip.operations), "a row of the old execution is overwritten"
    log = decode_log(encode_log(result.log))
    assert [row.event for row in log] == commit.events
    assert {n: row.more for n, row in enumerate(log) if row.more != RowExtra()} == {
        n: more for n, more in sent.by_rows.items() if more != RowExtra()
    }
    named = msgspec.structs.replace(flip.state, log="blob")
    parts = log_parts("i", log, named, encode, lambda: "z")
    keys = [one.key for part in parts for one in part.operations]
    assert keys == [row_key(n) for n in range(len(log))]
    assert all(len(part.operations) < MOST_OPERATIONS for part in parts)
    assert [part.state.log is None for part in parts] == [False] * (len(parts) - 1) + [True]


def test_the_starts_payload_stands_on_no_sentinel() -> None:
    start = Start(started=STARTED, start_id="x0")
    assert start.started.input is None
    commit, messages = episode([ScheduleTask(id=0, name="act")], [])
    result, _ = planned(commit, messages)
    state = result.parts[0].state
    assert state.started is not None and state.started.input is None and state.projection is not None
    assert state.projection.input is None
