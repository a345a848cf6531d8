"""Generated orchestrations, answered in any order and in any batches: live and replayed commits are the same,
fold and whole are equal, and every law of histories holds at each step (`World.step` compares)."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from world import World

from holdtrue.core.projection import TERMINAL, initial, project
from holdtrue.core.retry import RetryPolicy
from holdtrue.core.tasks import TaskFailedError, when_all, when_any

OPERATIONS = st.sampled_from(
    ["task", "fan", "race", "timer", "event", "retry", "child", "status", "cancel", "send", "uuid", "catch"]
)


async def interpret(run, argument):
    program, generation = argument
    seen = []
    for index, operation in enumerate(program):
        if operation == "task":
            seen.append(await run.schedule_task("t", str(index)))
        elif operation == "fan":
            seen.append(await when_all([run.schedule_task("f", str(n)) for n in range(3)]))
        elif operation == "race":
            timer, task = run.create_timer(run.now + 100), run.schedule_task("r", None)
            winner = await when_any([timer, task])
            seen.append(winner is timer)
            if winner is task:
                timer.cancel()
        elif operation == "timer":
            await run.create_timer(run.now + 10 * index)
        elif operation == "event":
            seen.append(await run.wait_for_event("e"))
        elif operation == "retry":
            try:
                await run.schedule_task("y", None, retry=RetryPolicy(max_number_of_attempts=2))
            except TaskFailedError as error:
                seen.append(error.details.message)
        elif operation == "child":
            seen.append(await run.create_sub_orchestration("c", "1"))
        elif operation == "status":
            run.set_custom_status(str(index))
        elif operation == "cancel":
            run.schedule_task("never", None).cancel()
            run.create_timer(run.now + 5)
        elif operation == "send":
            run.send_event("other", "hello", str(index))
        elif operation == "uuid":
            seen.append([run.new_uuid(), run.now, run.history_size])
        elif operation == "catch":
            task = run.schedule_task("bad", None)
            try:
                await task
            except TaskFailedError:
                await run.schedule_task("mend", None)
    if generation:
        run.continue_as_new(json.dumps([program, generation - 1]), bool(generation % 2), None)
        return None
    return seen


@settings(max_examples=150, deadline=None)
@given(
    program=st.lists(OPERATIONS, max_size=6),
    generation=st.integers(0, 2),
    dialect=st.sampled_from(["dotnet", "python"]),
    data=st.data(),
)
def test_any_order_and_any_batches(program, generation, dialect, data):
    world = World(interpret, [program, generation], dialect=dialect)
    world.step()
    answered: set[int] = set()
    for _ in range(80):
        if world.state.projection.status in TERMINAL:
            break
        world.now += data.draw(st.integers(0, 50))
        ready = [task for task in world.scheduled if id(task) not in answered]
        batch = []
        for _ in range(data.draw(st.integers(1, 3))):
            kind = data.draw(st.sampled_from(["answer", "fail", "timer", "event", "suspend", "resume", "double"]))
            if kind == "answer" and ready:
                task = ready.pop(data.draw(st.integers(0, len(ready) - 1)))
                answered.add(id(task))
                batch.append(world.result(task, data.draw(st.sampled_from([None, 0, "x"]))))
            elif kind == "fail" and ready and hasattr(ready[0], "task_id"):
                answered.add(id(ready[0]))
                batch.append(world.failed(ready.pop(0), "bad"))
            elif kind == "timer" and world.work:
                batch.append(world.work.pop(0))
            elif kind == "event":
                batch.append(world.event("e", 1))
            elif kind == "suspend":
                batch.append(world.suspend())
            elif kind == "resume":
                batch.append(world.resume())
            elif kind == "double" and batch:
                batch.append(batch[-1])
        world.step(*batch)
        whole = project(initial(world.history[1]), world.history)
        projection = world.state.projection
        assert (whole.status, whole.output, whole.failure) == (projection.status, projection.output, projection.failure)
        world.refolded()
