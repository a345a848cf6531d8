"""The status that a store gives is the fold of what was committed, however it was committed."""

import pytest

from holdtrue.core import events as ev
from holdtrue.core.projection import Status, initial, project
from tests.conformance.acting import (
    SECOND,
    Hub,
    act,
    again,
    begin,
    check_whole,
    child,
    create,
    end,
    fail,
    history_of,
    in_hub,
    lock_one,
    raised,
    record_of,
    send,
    start,
    suspend,
    tell,
    terminate,
    terminated,
    timer,
)


@in_hub
async def test_fold_and_whole_agree_at_every_step_of_a_life(hub: Hub) -> None:
    store = await hub.host()
    await create(store, start("a", input='"in"', version="1", tags={"k": "v"}))
    await check_whole(store, "a")
    scripts: list[tuple[object, ...]] = [
        (act(0),), (timer(1, 5),), (child(2, "c"),), (tell(3, "a", "x"),), (again(4, '"next"'),), (act(0), act(1)),
    ]  # fmt: skip
    held = await lock_one(hub, store, "a")
    for n, script in enumerate(scripts):
        hub.clock.ahead += 1
        await held.step(*script, custom=f'"{n}"')  # type: ignore[arg-type]
        await check_whole(store, "a")
        record = await record_of(store, "a")
        assert record.projection == held.state.projection
        assert record.projection.last_updated_at <= hub.now()
    for message in (suspend("a"), raised("a", "e"), terminate("a", '"why"')):
        (outcome,) = await send(store, message)
        await held.hear(outcome.delivery)
    await held.step(terminated(output='"why"'))
    await check_whole(store, "a")
    p = (await record_of(store, "a")).projection
    assert (p.status, p.output, p.generation, p.input) == (Status.TERMINATED, '"why"', 1, '"next"')
    assert p.completed_at is not None


@pytest.mark.parametrize("cut", [1, 2, 3, 7])
@in_hub
async def test_the_history_folds_alike_in_pieces_of_any_size(hub: Hub, cut: int) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), timer(1, 7))
    await held.step(tell(2, "a", "e"), custom='"c"')
    await held.step(fail())
    history = await history_of(store, "a")
    record = await record_of(store, "a")
    whole = project(initial(record.started), history)
    folded = initial(record.started)
    for at in range(0, len(history), cut):
        folded = project(folded, history[at : at + cut])
    assert folded == whole and folded.status is record.projection.status


@in_hub
async def test_the_status_is_of_the_last_commit_for_every_reader(hub: Hub) -> None:
    store = await hub.host()
    reader = await hub.open()
    held = await begin(hub, store, "a")
    for n in range(20):
        await held.step(tell(n, "nobody", "e"), custom=str(n))
        assert (await record_of(reader, "a")).projection.custom_status == str(n)
    await held.step(end(output='"o"'))
    for each in (store, reader):
        p = (await record_of(each, "a")).projection
        assert (p.status, p.output, p.custom_status) == (Status.COMPLETED, '"o"', "19")


@in_hub
async def test_a_failure_is_kept_whole(hub: Hub) -> None:
    store = await hub.host()
    details = ev.FailureDetails(
        message="größe\x00\n" + "x" * 5_000,
        error_type="shop.errors.TooLarge",
        stack_trace='File "a.py", line 1',
        inner_failure=ev.FailureDetails(
            message="inner", error_type="KeyError", inner_failure=ev.FailureDetails(message="", error_type="")
        ),
        properties={"code": 7, "nested": {"list": [1, None, "x"]}},
        is_non_retriable=True,
    )
    from holdtrue.core.actions import CompleteOrchestration

    held = await begin(hub, store, "a")
    await held.step(CompleteOrchestration(id=9, status=Status.FAILED, failure=details))
    assert (await record_of(store, "a")).projection.failure == details
    await check_whole(store, "a")


@in_hub
async def test_the_custom_status_can_be_set_to_nothing_and_stays_otherwise(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", custom='"busy"')
    await held.step(act(0))
    assert (await record_of(store, "a")).projection.custom_status == '"busy"'
    await held.step(custom=None)
    assert (await record_of(store, "a")).projection.custom_status is None
    await held.step(custom='"at the end"')
    await held.step(end())
    assert (await record_of(store, "a")).projection.custom_status == '"at the end"'


@in_hub
async def test_suspended_and_resumed(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    for event, status in (
        (ev.ExecutionSuspended(timestamp=1, reason="lunch"), Status.SUSPENDED),
        (ev.ExecutionResumed(timestamp=2), Status.RUNNING),
    ):
        from holdtrue.core.messages import OutboundMessage

        (outcome,) = await send(store, OutboundMessage(instance_id="a", event=event))
        await held.hear(outcome.delivery)
        await held.step()
        assert (await record_of(store, "a")).projection.status is status
    await check_whole(store, "a")


@in_hub
async def test_times_are_those_of_the_core(hub: Hub) -> None:
    store = await hub.host()
    await create(store, start("a", at=123_456_7))
    held = await lock_one(hub, store, "a")
    await held.commit(held.episode(act(0), now=50 * SECOND + 3))
    p = (await record_of(store, "a")).projection
    assert (p.created_at, p.last_updated_at, p.completed_at) == (1_234_567, 50 * SECOND + 3, None)
    await held.commit(held.episode(end(), now=60 * SECOND + 1))
    p = (await record_of(store, "a")).projection
    assert (p.last_updated_at, p.completed_at) == (60 * SECOND + 1, 60 * SECOND + 1)
