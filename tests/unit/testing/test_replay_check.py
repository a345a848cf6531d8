"""`check_replay`: the verdict is that of a real host with the same code; the place where it does otherwise is told."""

import asyncio
import inspect
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import holdtrue
from holdtrue.authoring.app import App
from holdtrue.core import events as ev
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.outgoing import cancel_message
from holdtrue.core.projection import Status
from holdtrue.engine.sessions import MISMATCH_ERROR_TYPE
from holdtrue.host import Host
from holdtrue.stores.memory import MemoryHub, MemoryStore
from holdtrue.stores.protocol import InstanceCopy
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.history_files import write_histories
from holdtrue.testing.replay_check import ReplayResult, Verdict, check_histories, check_replay
from tests.unit.testing.histories import app_of, in_virtual_time, is_open, recorded, served

# -- code that changes -------------------------------------------------------------------------------------

STEPS = (
    "double",
    "halve",
    "fail",
    "pause",
    "wait",
    "both",
    "first",
    "child",
    "send",
    "status",
    "uuid",
    "raise",
    "again",
)


def scripted(script: list[str]) -> Callable[..., Any]:
    """An orchestrator that does these steps."""

    async def run(ctx: Any, n: int = 1) -> Any:
        for step in script:
            match step:
                case "double" | "halve":
                    await ctx.call_activity(step, input=n)
                case "fail":
                    try:
                        await ctx.call_activity("fail", input=n)
                    except holdtrue.TaskFailedError:
                        pass
                case "pause":
                    await ctx.create_timer(timedelta(seconds=3))
                case "wait":
                    await ctx.wait_for_external_event("go")
                case "both":
                    await holdtrue.when_all([ctx.call_activity("double", input=n), ctx.call_activity("halve", input=n)])
                case "first":
                    await holdtrue.when_any([ctx.create_timer(timedelta(days=1)), ctx.call_activity("double")])
                case "child":
                    await ctx.call_sub_orchestrator("kid", input=n)
                case "send":
                    ctx.send_event("somebody", "hello", data=n)
                case "status":
                    ctx.set_custom_status(step)
                case "uuid":
                    ctx.new_uuid()
                case "raise":
                    raise ValueError("boo")
                case "again":
                    if n < 3:
                        ctx.continue_as_new(n + 1)
                        return None
        return "done"

    return run


async def kid(ctx: Any, n: int = 1) -> Any:
    return await ctx.call_activity("double", input=n)


def script(chance: random.Random) -> list[str]:
    """Some steps, with a wait in between, so that an instance stands there."""
    steps = [step for step in chance.choices(STEPS, k=chance.randrange(1, 6)) if step != "raise"]
    steps.insert(chance.randrange(len(steps) + 1), "wait")
    return steps


def changed(steps: list[str], chance: random.Random) -> list[str]:
    """The steps after a change of the code (or none)."""
    steps, at = list(steps), chance.randrange(len(steps))
    match chance.randrange(5):
        case 0:
            del steps[at]
        case 1:
            steps[at] = chance.choice(STEPS)
        case 2:
            steps.insert(at, chance.choice(STEPS))
        case 3:
            steps[at:] = reversed(steps[at:])
    return steps


@pytest.mark.parametrize("seed", range(25))
def test_the_verdict_is_what_a_host_makes_of_it(seed: int) -> None:
    """Many changes of code: a host with the new code gets a message for every instance, and holds what was named."""
    chance = random.Random(seed)
    names = [f"job{number}" for number in range(10)]
    old = {name: script(chance) for name in names}
    new = {name: changed(steps, chance) for name, steps in old.items() if chance.randrange(10)}
    before, after = app_of(kid), app_of(kid)
    for name, steps in old.items():
        before.orchestrator(name=name)(scripted(steps))
    for name, steps in new.items():
        after.orchestrator(name=name, on_mismatch=chance.choice(("hold", "hold", "fail")))(scripted(steps))

    async def main(environment: SimulatedEnvironment) -> None:
        hub = MemoryHub()

        async def start(host: Host) -> None:
            for name in names:
                await host.client.start(name, input=1, instance_id=name)
            if seed % 2:
                await host.client.suspend(names[0])

        await served(before, hub, environment, start, 1 + seed % 3)
        copies = [copy for copy in await recorded(hub, environment) if is_open(copy)]
        verdicts = {result.instance_id: result for result in check_all(after, copies)}

        async def nudge(host: Host) -> None:
            for instance_id in verdicts:
                await host.client.raise_event(instance_id, "nobody waits for this")

        await served(after, hub, environment, nudge, 30)
        for copy in await recorded(hub, environment):
            told = verdicts.get(copy.record.projection.instance_id)
            if told is not None:
                assert outcome(copy) == told.verdict, (told, old, new)
                if told.verdict is Verdict.HELD:
                    assert copy.record.condition is not None and told.step is not None
                    assert told.step in copy.record.condition.reason and str(told.call) in copy.record.condition.reason

    in_virtual_time(main, seed)


def outcome(copy: InstanceCopy) -> Verdict:
    """What a host has made of an instance."""
    p = copy.record.projection
    if copy.record.condition is not None:
        return Verdict.HELD
    if p.failure is not None and p.failure.error_type == MISMATCH_ERROR_TYPE:
        return Verdict.FAILS
    waits = [message for message in copy.messages if message.due is None and is_open(copy)]
    return Verdict.NO_CODE if waits else Verdict.FITS


def check_all(app: App, copies: list[InstanceCopy], **options: Any) -> list[ReplayResult]:
    """The verdict on each, those that fit too."""
    report = check_histories(app, copies, **options)
    notable = {result.instance_id: result for result in report.notable}
    assert report.checked == len(copies)
    return [
        notable.get(copy.record.projection.instance_id) or check_one(app, copy)  # it fits; its result is not kept
        for copy in copies
    ]


def check_one(app: App, copy: InstanceCopy) -> ReplayResult:
    from holdtrue.testing.replay_check import judge

    return judge(app, copy)


# -- what is told ------------------------------------------------------------------------------------------


async def original(ctx: Any, n: int = 1) -> Any:
    await ctx.call_activity("double", input=n)
    await ctx.wait_for_external_event("go")
    return "done"


async def asks_for_another(ctx: Any, n: int = 1) -> Any:
    await ctx.call_activity("halve", input=n)  # here
    await ctx.wait_for_external_event("go")


async def has_fewer_steps(ctx: Any, n: int = 1) -> Any:  # here
    await ctx.call_activity("double", input=n)


async def has_more_steps(ctx: Any, n: int = 1) -> Any:
    await ctx.call_activity("double", input=n)
    await ctx.call_activity("halve", input=n)  # here
    await ctx.wait_for_external_event("go")


async def raises(ctx: Any, n: int = 1) -> Any:
    await ctx.call_activity("double", input=n)
    raise ValueError("boo")  # here


async def asks_for_nothing(ctx: Any, n: int = 1) -> Any:
    await ctx.wait_for_external_event("go")  # here


def hangs(ctx: Any, n: int = 1) -> Any:
    yield ctx.call_activity("double", input=n)
    while n:
        n += 1  # here


def standing(*apps_and_acts: Any, instances: int = 1) -> list[InstanceCopy]:
    """Instances of `original` that wait for their event."""

    async def main(environment: SimulatedEnvironment) -> list[InstanceCopy]:
        hub = MemoryHub()

        async def start(host: Host) -> None:
            for number in range(instances):
                await host.client.start("job", input=number, instance_id=f"i{number}")

        await served(app_of(original, name="job"), hub, environment, start, 5)
        return await recorded(hub, environment)

    found: list[InstanceCopy] = in_virtual_time(main)
    return found


def place_in(function: Callable[..., Any]) -> str:
    lines, first = inspect.getsourcelines(function)
    return f"{__file__}:{first + next(n for n, line in enumerate(lines) if '# here' in line)}"


@pytest.mark.parametrize(
    ("code", "event", "step", "call"),
    [
        (asks_for_another, 2, "TaskScheduled 'double' (task 0)", "asks for activity 'halve' (task 0)"),
        (has_fewer_steps, 6, "no end", "has ended"),
        (has_more_steps, 6, "no such step up to its end", "asks for activity 'halve' (task 1)"),
        (raises, 6, "no end", "has failed (builtins.ValueError: boo)"),
        (asks_for_nothing, 2, "TaskScheduled 'double' (task 0)", "does not ask for it: it waits"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_first_step_that_differs_and_its_place(code: Any, event: int, step: str, call: str) -> None:
    report = check_histories(app_of(code, name="job"), standing())
    (result,) = report.problems
    assert (result.verdict, result.event, result.place) == (Verdict.HELD, event, place_in(code))
    assert result.step == f"{step} (event {event})" and str(result.call).startswith(call)
    assert result.instance_id in str(report) and str(result.reason) in str(report)
    assert not report.ok


def test_code_that_fits_fits() -> None:
    report = check_histories(app_of(original, name="job"), standing(instances=3))
    assert (report.ok, report.checked, report.counts, report.notable) == (True, 3, {Verdict.FITS: 3}, [])


def test_an_app_without_the_code() -> None:
    (result,) = check_histories(app_of(kid), standing()).problems
    assert result.verdict is Verdict.NO_CODE and "'job'" in str(result.reason)


def test_one_that_hangs_is_named_and_the_others_are_judged() -> None:
    """Also several of them: each costs its limit, and no more."""
    copies = standing(instances=5)
    first = [copy for copy in copies if copy.record.projection.instance_id == "i0"]
    report = check_histories(app_of(hangs, name="job"), copies, limit_seconds=0.3)
    assert report.counts == {Verdict.HANGS: 4, Verdict.HELD: 1}
    for result in report.problems:
        if result.verdict is Verdict.HANGS:
            lines, begin = inspect.getsourcelines(hangs)
            assert result.place is not None and str(result.place) in str(result.reason)
            assert result.place.rpartition(":")[0] == __file__
            assert begin <= int(result.place.rpartition(":")[2]) < begin + len(lines)
    assert check_histories(app_of(hangs, name="job"), first).counts == {Verdict.HELD: 1}, "0 ends its loop at once"


def test_what_waits_for_an_instance_may_end_it_whatever_its_code_is() -> None:
    (copy,) = standing()
    copy.messages.append(OutboundMessage(instance_id="i0", event=ev.ExecutionTerminated(timestamp=1)))
    for app in (app_of(raises, name="job"), app_of(kid)):
        report = check_histories(app, [copy])
        assert report.ok and report.counts == {Verdict.ENDS: 1}


def test_what_has_not_begun_fits_every_code_that_is_there() -> None:
    (copy,) = standing()
    copy.record.projection.status = Status.PENDING
    copy.history, copy.record.length = [], 0
    assert check_histories(app_of(asks_for_another, name="job"), [copy]).counts == {Verdict.FITS: 1}
    assert check_histories(app_of(kid), [copy]).counts == {Verdict.NO_CODE: 1}
    # A terminate, or a cancel, ends it before any code runs, whoever has it.
    copy.messages.append(cancel_message("i0", "enough", 1))
    assert check_histories(app_of(kid), [copy]).counts == {Verdict.ENDS: 1}


def test_a_history_that_cannot_be_replayed_is_held() -> None:
    (copy,) = standing()
    copy.history.append(ev.TaskCompleted(timestamp=1, task_scheduled_id=77))
    (result,) = check_histories(app_of(original, name="job"), [copy]).problems
    assert result.verdict is Verdict.HELD and "cannot be replayed: InvariantBroken" in str(result.reason)


# -- from hubs and files -----------------------------------------------------------------------------------


async def ends(ctx: Any, n: int = 1) -> Any:
    return await ctx.call_activity("double", input=n)


async def ends_otherwise(ctx: Any, n: int = 1) -> Any:
    await ctx.call_activity("double", input=n)
    raise ValueError("not any more")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub in a file: three that wait, two that have ended, a host that was there."""
    path = tmp_path_factory.mktemp("hub") / "hub.db"
    app = app_of(ends)
    app.orchestrator(name="job")(original)

    async def main() -> None:
        async with Host(app, path) as host:
            for number in range(3):
                await host.client.start("job", input=number, instance_id=f"job-{number}")
            for number in range(2):
                await host.client.start("ends", input=number, instance_id=f"end-{number}")
                await host.client.wait_for_completion(f"end-{number}")
            for number in range(3):
                while (await host.client.get_status(f"job-{number}")).history_size < 7:  # type: ignore[union-attr]
                    await asyncio.sleep(0.01)

    asyncio.run(main())
    return path


def test_which_instances_are_checked(hub: Path, tmp_path: Path) -> None:
    app = app_of(ends_otherwise, name="ends")
    app.orchestrator(name="job")(raises)

    def found(**options: Any) -> dict[Verdict, int]:
        return check_replay(app, hub, **options).counts

    assert found() == {Verdict.HELD: 3}
    assert found(every=True) == {Verdict.HELD: 3, Verdict.DIFFERS: 2}
    assert found(statuses=[Status.COMPLETED]) == {Verdict.DIFFERS: 2}
    assert found(name="ends") == {}
    assert found(prefix="job-1") == {Verdict.HELD: 1}
    every = check_replay(app, hub, every=True)
    differs = next(result for result in every.problems if result.verdict is Verdict.DIFFERS)
    assert "ended as Completed" in str(differs.reason) and "not any more" in str(differs.reason)

    async def copies() -> list[InstanceCopy]:
        from holdtrue.stores.locate import open_store
        from tests.unit.testing.histories import all_of

        store = open_store(hub, read_only=True)
        await store.open()
        try:
            return await all_of(store)
        finally:
            await store.close()

    file = tmp_path / "some.jsonl.gz"
    write_histories(file, asyncio.run(copies()))
    assert check_replay(app, files=[file], every=True) == every
    assert check_replay(app, hub, files=[file], prefix="job-2").counts == {Verdict.HELD: 2}


def test_nothing_is_changed(hub: Path) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        files = (path for path in hub.parent.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = state()
    check_replay(app_of(raises, name="job"), hub, every=True)
    assert state() == before


def test_it_works_beside_a_host_at_work(tmp_path: Path) -> None:
    """The host goes on while its instances are judged, and every look finds them whole."""
    path = tmp_path / "hub.db"

    async def loops(ctx: Any, n: int = 0) -> None:
        await ctx.call_activity("double", input=n)
        ctx.continue_as_new(n + 1)

    app = app_of(loops)

    async def main() -> None:
        async with Host(app, path) as host:
            for number in range(5):
                await host.client.start("loops", instance_id=f"loop-{number}")
            done = 0
            while done < 20 or host.dispatcher.counters.episodes < 200:
                report = await asyncio.to_thread(check_replay, app, path)
                assert report.counts == {Verdict.FITS: 5}, str(report)
                done += 1

    asyncio.run(main())


def test_what_cannot_be_judged(tmp_path: Path) -> None:
    """A rewind that is under way; one that failed because its code did not fit."""

    async def main(environment: SimulatedEnvironment) -> list[InstanceCopy]:
        hub = MemoryHub()

        async def start(host: Host) -> None:
            await host.client.start("job", instance_id="rewinds")
            await host.client.start("other", instance_id="mismatch")

        async def nudge(host: Host) -> None:
            await host.client.raise_event("mismatch", "go")

        before = app_of(raises, name="job")
        before.orchestrator(name="other")(original)
        await served(before, hub, environment, start, 5)
        await served(app_of(raises, name="other", on_mismatch="fail"), hub, environment, nudge, 5)
        store = MemoryStore(hub, environment=environment)
        await store.open()
        await store.send([OutboundMessage(instance_id="rewinds", event=ev.ExecutionRewound(timestamp=1))])
        await store.close()
        return await recorded(hub, environment)

    copies = in_virtual_time(main)
    report = check_histories(app_of(kid), copies)
    assert report.ok and report.counts == {Verdict.NOT_JUDGED: 2}
    reasons = sorted(str(result.reason) for result in report.notable)
    assert reasons[0].startswith("a rewind is under way") and reasons[1].startswith("it failed because its code")


def test_an_execution_that_has_only_begun_is_run_to_its_first_wait() -> None:
    """After many continue-as-new at once its code has not run: what it asks for is no deviation."""

    async def spins(ctx: Any, n: int = 0) -> None:
        if n % 20:
            ctx.continue_as_new(n + 1)
        else:
            await ctx.wait_for_external_event("go")

    (copy,) = standing()
    started = ev.ExecutionStarted(timestamp=1, instance_id="i0", execution_id="x", name="job", input="1", generation=16)
    copy.history = [ev.OrchestratorStarted(timestamp=1), started, ev.OrchestratorCompleted(timestamp=1)]
    copy.record.started, copy.record.length, copy.wake = started, 3, True
    assert check_histories(app_of(spins, name="job"), [copy]).counts == {Verdict.FITS: 1}
    assert check_histories(app_of(asks_for_another, name="job"), [copy]).counts == {Verdict.FITS: 1}
