"""Part 3 of the story: the real .NET provider of today, 2.11.2, where the folder with it lies beside the project."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from holdtrue.testing.storage_proxy import ANSWER_LOST, killed

from . import recorded_hubs
from .old_parts import JOB, minute
from .stage import Part, Stage, ends_in
from .timeline import HEAD, PATIENCE, Tables, Timeline, Watch, text_of

VISIBILITY = 5
"""Seconds after which a message comes again that a dead worker had; 300 by default, and so where none dies."""
SETTINGS = ("UseAppLease=False", "WorkerId=here", "PartitionCount=4")
SHORT = (
    f"ControlQueueVisibilityTimeout=00:00:0{VISIBILITY}",
    f"WorkItemQueueVisibilityTimeout=00:00:0{VISIBILITY}",
)
UNMENDED_SECONDS = 4.0
"""So long a wrong row is watched while a worker serves its hub and no message comes."""


def provider() -> Path | None:
    """The program, None where the folder is not there: $HOLDTRUE_SHARED, or shared/ beside the repository."""
    shared = os.environ.get("HOLDTRUE_SHARED") or Path(__file__).resolve().parents[3] / "shared"
    program = Path(shared) / "dotnet-peer" / "bin" / "peer"
    return program if program.is_file() else None


class Worker:
    """A worker of .NET on a hub."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def kill(self) -> None:
        """At once, as kill -9 does."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> None:
        """And wait for its end."""
        self.kill()
        await self._process.wait()


class DotNet:
    """The provider's program on one account."""

    def __init__(self, program: Path, stage: Stage) -> None:
        self._program = program
        self._stage = stage

    @asynccontextmanager
    async def worker(self, hub: str, *settings: str) -> AsyncIterator[Worker]:
        """A worker that has begun to serve a hub, through the proxy."""
        words = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
        process = await self._begun(hub, "worker", *words, spoiled=True)
        worker = Worker(process)
        try:
            assert process.stdout is not None
            async with asyncio.timeout(PATIENCE):
                while (line := await process.stdout.readline()) != b"worker up\n":
                    if not line:
                        raise RuntimeError("the .NET worker did not come up")
            yield worker
        finally:
            await worker.stop()

    async def ask(self, hub: str, *words: str) -> None:
        """Run one command of its client.  Raises RuntimeError with what it said where it fails."""
        process = await self._begun(hub, *words, spoiled=False)
        output, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f".NET could not {' '.join(words)}: {output.decode()}")

    async def _begun(self, hub: str, *words: str, spoiled: bool) -> asyncio.subprocess.Process:
        connection = self._stage.connection_string(spoiled=spoiled)
        return await asyncio.create_subprocess_exec(
            *(str(self._program), *words, "--hub", hub, "--conn", connection),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )


def is_right(tables: Tables) -> bool:
    """An ended instance, and its row says so."""
    return bool(tables.ends) and tables.row == tables.history and not tables.differ


async def today(part: Part, stage: Stage, program: Path) -> Timeline:
    """Wrong for seconds; after a kill for the visibility time-out; and an old wrong row until a message comes."""
    part.say("The provider mends a wrong row since October 2025, when the next message for its instance comes.")
    dotnet = DotNet(program, stage)
    lost, dead, old = await asyncio.gather(
        _answer_lost(stage, dotnet), _killed(stage, dotnet), _left_behind(stage, dotnet)
    )
    for watch in (lost[0], dead[0], old[0]):
        part.say()
        part.say(f"{watch.timeline.title}:")
        part.say(HEAD)
        for moment in watch.timeline.moments:
            part.say(text_of(moment))
    part.say()
    part.claim(f"an answer lost: the row was wrong for seconds ({lost[1]:.1f} s)", lost[1] >= 1.0, lost[1])
    part.claim(
        f"killed after the last write: wrong for the visibility time-out ({dead[1]:.1f} s here, 5 minutes by default)",
        dead[1] >= 1.0,  # on a slow machine most of it has passed when the write is done
        dead[1],
    )
    unmended, mended = old[1]
    part.claim(
        f"an old wrong row stays while no message comes ({UNMENDED_SECONDS:g} s watched)", unmended.differ, unmended
    )
    part.claim("and is mended when one comes", is_right(mended), mended)
    return lost[0].timeline


async def _answer_lost(stage: Stage, dotnet: DotNet) -> tuple[Watch, float]:
    hub, title = "DotNetLost", ".NET 2.11.2: the answer to the last write is lost"
    stage.proxy.spoil(ends_in(hub, JOB), ANSWER_LOST)
    async with stage.hub(hub) as direct, dotnet.worker(hub), Watch(direct, hub, JOB, title) as watch:
        watch.note("the job is started")
        await dotnet.ask(hub, "start", "Singleton", JOB, minute(1))
        await watch.until(is_right, "the row's end")
        return watch, watch.lag


async def _killed(stage: Stage, dotnet: DotNet) -> tuple[Watch, float]:
    hub, title = "DotNetKilled", ".NET 2.11.2: killed after the last write"
    async with stage.hub(hub) as direct, dotnet.worker(hub, *SHORT) as worker, Watch(direct, hub, JOB, title) as watch:
        stage.proxy.spoil(ends_in(hub, JOB), killed(lambda _: worker.kill()))
        watch.note("the job is started")
        await dotnet.ask(hub, "start", "Singleton", JOB, minute(1))
        await watch.until(lambda tables: bool(tables.ends), "the history's end")
        watch.note("the worker is killed; another starts")
        async with dotnet.worker(hub, *SHORT):
            await watch.until(is_right, "the row's end")
        return watch, watch.lag


async def _left_behind(stage: Stage, dotnet: DotNet) -> tuple[Watch, tuple[Tables, Tables]]:
    hub, title = recorded_hubs.hub_of("StuckRunning"), ".NET 2.11.2: on a hub that was left in June 2025"
    async with stage.opened(spoiled=False) as direct:
        await recorded_hubs.put(direct, "StuckRunning")
        async with dotnet.worker(hub), Watch(direct, hub, JOB, title) as watch:
            watch.note("a worker serves the hub")
            await watch.until(lambda tables: bool(tables.ends), "the row that was left")
            await asyncio.sleep(UNMENDED_SECONDS)
            unmended = watch.tables
            watch.note("raise an event")
            await dotnet.ask(hub, "raise", JOB, "go", "1")
            mended = await watch.until(is_right, "the row's end")
            return watch, (unmended, mended)
