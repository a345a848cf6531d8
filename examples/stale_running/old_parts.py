"""Parts 1 and 2 of the story: the failure on a hub in the old order of writes, and what the setting does about it."""

import asyncio
import json
from collections.abc import Callable
from functools import partial

from holdtrue.stores.azure_storage.host_json import read_host_json
from holdtrue.testing.storage_proxy import ANSWER_LOST

from .old_order import OldOrder
from .stage import Part, Stage, beside, ends_in
from .timeline import HEAD, Tables, Timeline, Watch, text_of

JOB = "job"
HUB = "Minutely"
BACK_OFF = 0.5
"""Of the worker after a failure, 10 s in .NET: here nobody waits so long."""
PATH = "storageProvider.allowReplayingTerminalInstances"
VARIABLE = "AzureFunctionsJobHost__extensions__durableTask__storageProvider__allowReplayingTerminalInstances"
HOST_JSON = """{
  "version": "2.0",
  "extensions": { "durableTask": { "storageProvider": { "allowReplayingTerminalInstances": %s } } }
}"""


def replays(host_json: str, environment: dict[str, str]) -> bool:
    """What host.json and environment say of the setting."""
    return bool(read_host_json(host_json, environment).value(PATH))


TITLE = "The order of writes of June 2025: an answer is lost, and the job never runs again"
STARTS = "starts the job"
REFUSES = "it says Running: not started"
DISCARDED = "Discarding"


def _noting(watch: Watch) -> Callable[[str], None]:
    return lambda line: watch.note(line.split(" - ")[0].removeprefix(f"{JOB}: "))


def _has_ended(tables: Tables, run: str, row_too: bool) -> bool:
    return tables.has_ended(run) and (not row_too or not tables.differ)


def minute(number: int) -> str:
    """The job's input."""
    return json.dumps({"minute": number})


async def setting_off(part: Part, stage: Stage, tick: float) -> Timeline:
    """The job runs every minute until an answer is lost; then never again, and nothing helps."""
    part.say(f"A timer starts the job every {tick:g} s (a minute, there) unless its status says that it runs.")
    part.say("In its third run the history's last write is done, and its answer lost.")
    part.say()
    part.say(HEAD)
    async with (
        stage.hub(HUB) as direct,
        stage.opened(spoiled=True) as spoiled,
        Watch(direct, HUB, JOB, TITLE, lambda moment: part.say(text_of(moment))) as watch,
    ):
        worker = OldOrder(
            spoiled, HUB, replay_terminal=replays(HOST_JSON % "false", {}), back_off=BACK_OFF, log=_noting(watch)
        )
        client = OldOrder(direct, HUB)
        runs: list[str | None] = []

        async def timer() -> None:
            while True:
                run = await client.start_if_not_running("Singleton", JOB, minute(len(runs) + 1))
                runs.append(run)
                watch.note(f"timer {len(runs)}: {STARTS if run else REFUSES}")
                if run is not None:  # it may take longer than a tick on a slow machine
                    await watch.until(partial(_has_ended, run=run, row_too=len(runs) < 3), "the end of a run")
                if len(runs) == 2:
                    stage.proxy.spoil(ends_in(HUB, JOB), ANSWER_LOST)
                await asyncio.sleep(tick)

        async with beside(worker.work()), beside(timer()):
            await watch.until_noted(DISCARDED)
            await watch.until_noted(REFUSES, 3)
            watch.note("terminate")
            await client.terminate(JOB, "stop")
            await watch.until_noted(DISCARDED, 2)
            terminated = await watch.looked_again()
            watch.note("raise an event")
            await client.raise_event(JOB, "wake up", "1")
            await watch.until_noted(DISCARDED, 3)
            raised = await watch.looked_again()
        stale = watch.longest_difference()
    part.say()
    stuck = ("Completed",), "Running"
    said = [moment.what for moment in watch.timeline.moments if "Split brain" in moment.what]
    part.claim("the write that was done was called a split brain", len(said) == 1, said)
    part.claim("history Completed, row Running, and so it stays", (raised.ends, raised.row) == stuck, raised)
    part.claim(
        "the job ran three times and never again",
        [run is not None for run in runs[:6]] == [True] * 3 + [False] * 3 and not any(runs[6:]),
        runs,
    )
    part.claim("terminate had no effect", (terminated.ends, terminated.row) == stuck, terminated)
    part.claim("an event had no effect", raised == terminated, raised)
    part.say(f"  (the row was wrong for {stale:.1f} s when the looking ended)")
    return watch.timeline


async def setting_on(part: Part, stage: Stage) -> Timeline:
    """allowReplayingTerminalInstances: each message brings the row to an end; not always to the right one."""
    part.say(
        "Six hubs with the same failure; the setting on, by host.json for three, by environment variable for three."
    )
    ways = ("terminate", "event", "start anew")
    sources = {
        "host.json": (HOST_JSON % "true", {}),
        "environment variable": (HOST_JSON % "false", {VARIABLE: "true"}),
    }
    made = [
        _woken(stage, f"On{number}{len(name)}", way, replays(*given), name)
        for name, given in sources.items()
        for number, way in enumerate(ways)
    ]
    found = await asyncio.gather(*made)
    part.say()
    part.say("By host.json, terminate:")
    part.say(HEAD)
    shown = found[0][1].timeline
    for moment in shown.moments:
        part.say(text_of(moment))
    part.say()
    for (name, way), (before, watch) in zip(((name, way) for name in sources for way in ways), found, strict=True):
        after = watch.tables
        if way == "terminate":
            wrong = (after.ends, after.row) == (("Completed", "Terminated"), "Terminated")
            part.claim(f"{name}: terminate ends the row, wrongly: a Completed history, a Terminated row", wrong, after)
        elif way == "event":
            ended = (after.ends, after.row) == (("Completed", "Completed"), "Completed")
            part.claim(f"{name}: an event ends the row, and writes the end a second time", ended, after)
        else:
            anew = (after.ends, after.row) == (("Completed",), "Completed") and after.execution != before
            part.claim(f"{name}: starting anew works, for whoever does it without asking for the status", anew, after)
    return shown


async def _woken(stage: Stage, hub: str, way: str, replay: bool, name: str) -> tuple[str | None, Watch]:
    """A stuck instance, and what one way out of it did."""
    stage.proxy.spoil(ends_in(hub, JOB), ANSWER_LOST)
    async with (
        stage.hub(hub) as direct,
        stage.opened(spoiled=True) as spoiled,
        Watch(direct, hub, JOB, f"The same, and allowReplayingTerminalInstances by {name}: {way}", every=0.3) as watch,
    ):
        client = OldOrder(direct, hub)
        stuck = OldOrder(spoiled, hub, back_off=BACK_OFF, log=_noting(watch))
        async with beside(stuck.work()):
            watch.note("the job is started")
            await client.start("Singleton", JOB, minute(1))
            await watch.until(lambda tables: tables.history == "Completed", "the history's end")
            await watch.until_noted(DISCARDED)
        before = watch.tables.execution
        worker = OldOrder(spoiled, hub, replay_terminal=replay, back_off=BACK_OFF, log=_noting(watch))
        async with beside(worker.work()):
            watch.note("the worker starts anew, with the setting on")
            watch.note(way)
            if way == "terminate":
                await client.terminate(JOB, "stop")
            elif way == "event":
                await client.raise_event(JOB, "wake up", "1")
            else:
                await client.start("Singleton", JOB, minute(2))
            await watch.until(
                lambda tables: (
                    tables.row in ("Completed", "Terminated")
                    and tables.row_execution == tables.execution
                    and (way != "start anew" or tables.execution != before)
                ),
                f"an end of the row by {way}",
            )
        await watch.looked_again()
    return before, watch
