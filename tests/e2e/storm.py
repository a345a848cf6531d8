"""A storm of kills over real processes: workers and senders on one hub, killed with SIGKILL at random moments.

`python -m tests.e2e.storm [--kills N] [--seed N]`.  The next kill comes when work has gone on
since the last one, not at a time; whoever is killed is started again.  At the end everything must settle, and
the hub, the senders' words and the effects must agree.
"""

import argparse
import asyncio
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import apsw

import holdtrue
from holdtrue.core import events as ev
from tests.conformance.acting import check_whole, history_of
from tests.e2e import storm_app
from tests.e2e.storm_app import OVER, SINGLE, answer, effects

WORKERS = 3
SETTLING_SECONDS = 180.0
STANDSTILL_SECONDS = 60.0


class Process:
    """A worker, or a sender, and those that come after it."""

    def __init__(self, directory: Path, kind: str, number: int, rng: random.Random) -> None:
        self._directory, self._kind, self._rng = directory, kind, rng
        self._name = f"{kind}{number}"
        self._life = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._life += 1
        command = [sys.executable, str(Path(storm_app.__file__)), self._kind, str(self._directory)]
        if self._kind == "sender":
            command += [f"{self._name}.{self._life}", str(self._rng.randrange(1 << 30))]
        with (self._directory / f"{self._name}.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def check(self) -> None:
        """A sender that has sent enough is followed by another; nobody else ends by itself."""
        if self._process is not None and (code := self._process.poll()) is not None:
            assert self._kind == "sender" and code == 0, f"{self._name} ended with {code}: {self._log()}"
            self.start()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGTERM, and its drain."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(120)
        self._process = None
        # The signal may come before it is a worker.
        assert code in (0, -signal.SIGTERM), f"{self._name} stopped with {code}: {self._log()}"

    def _log(self) -> str:
        return (self._directory / f"{self._name}.log").read_text()[-2_000:]


def lines(file: Path) -> list[str]:
    """The lines of a file, as far as there are any."""
    return file.read_text().splitlines() if file.exists() else []


class Storm:
    """One storm in a directory of its own; `run` raises AssertionError where anything is not as it must be."""

    def __init__(self, directory: Path, kills: int, seed: int) -> None:
        self.directory, self._kills = directory, kills
        self._rng = random.Random(seed)
        self._workers = [Process(directory, "worker", number, self._rng) for number in range(WORKERS)]
        self._senders = [Process(directory, "sender", 0, self._rng)]

    async def run(self) -> None:
        everybody = [*self._workers, *self._senders]
        async with holdtrue.Client(self.directory / "hub.db", app=storm_app.app) as client:
            await client.schedules.create(
                SINGLE, storm_app.single, cron="* * * * * *", instance_id=SINGLE, overlap="skip", missed="skip"
            )
            try:
                for one in everybody:
                    one.start()
                await self._attack(everybody)
                for sender in self._senders:
                    sender.kill()
                await self._settle(client)
                for worker in self._workers:
                    worker.stop()
            finally:
                for one in everybody:
                    one.kill()
            await self._check(client)

    def _done(self) -> int:
        return len(lines(self.directory / "effects")) + len(lines(self.directory / "said"))

    async def _attack(self, everybody: list[Process]) -> None:
        left = self._kills
        while left > 0:
            goal, begun = self._done() + self._rng.randrange(60), time.monotonic()
            while self._done() < goal and time.monotonic() - begun < STANDSTILL_SECONDS:
                await asyncio.sleep(self._rng.uniform(0.0, 0.02))
                for one in everybody:
                    one.check()
            # A sender is one of them: it is killed while it sends.  Now and then all are.
            victims = (
                everybody if self._rng.random() < 0.1 else self._rng.sample(everybody, self._rng.choice((1, 1, 2)))
            )
            for victim in victims[:left]:
                victim.kill()
            for victim in victims[:left]:
                victim.start()
            left -= len(victims[:left])

    async def _settle(self, client: holdtrue.Client) -> None:
        """No more is sent: tell those that collect, and wait until all have ended."""
        await client.schedules.pause(SINGLE)
        async for status in client.query(name="collect"):
            await client.raise_event(status.instance_id, "go", OVER)
        end = time.monotonic() + SETTLING_SECONDS
        while open_ := [one.instance_id async for one in client.query() if not one.runtime_status.is_terminal]:
            assert time.monotonic() < end, f"not settled after {SETTLING_SECONDS:.0f} s: {open_}"
            for worker in self._workers:
                worker.check()
            await asyncio.sleep(0.1)

    # -- what must be so at the end ---------------------------------------------------------------------

    async def _check(self, client: holdtrue.Client) -> None:
        said = [line.split() for line in lines(self.directory / "said")]
        told = {(word, name): int(n) for word, name, n in said if word in ("starts", "started")}
        found = {one.instance_id: one async for one in client.query()}
        tags = Counter(lines(self.directory / "effects"))
        for (word, name), _ in told.items():
            assert word != "started" or name in found, f"the start of {name} was acknowledged, and it is not there"
        wanted: set[str] = set()
        for name, status in found.items():
            assert status.runtime_status is holdtrue.Status.COMPLETED, (name, status.runtime_status, status.failure)
            await check_whole(client.store, name)
            await self._check_history(client, name)
            if name == SINGLE or "." in name.rpartition("-")[2]:
                continue
            program, n = name.split("-")[0], told["starts", name]
            if program == "collect":
                sent = [int(n) for word, target, n in said if (word, target) == ("sent", name)]
                tried = [int(n) for word, target, n in said if (word, target) == ("sends", name)]
                got = status.output
                assert len(set(got)) == len(got) and set(sent) <= set(got) <= set(tried), (name, sent, got, tried)
                assert got == sorted(got), f"{name} got what one sender sent in another order: {got}"
                wanted |= {f"{name}/{value}" for value in got}
            else:
                assert status.output == answer(program, n), (name, status.output)
                wanted |= effects(name, program, n)
        done = {tag for tag in tags if not tag.startswith(f"{SINGLE}/")}
        assert done == wanted, f"without effect: {wanted - done}; nobody's: {done - wanted}"
        await self._check_single(client, [tag for tag in lines(self.directory / "effects") if tag not in done])
        info = await client.info()
        assert (info.messages, info.activities, info.dead_letters) == (0, 0, 0), info
        looking = apsw.Connection(str(self.directory / "hub.db"))
        assert looking.execute("pragma integrity_check").fetchall() == [("ok",)]
        looking.close()

    async def _check_history(self, client: holdtrue.Client, name: str) -> None:
        """Each step once: one start, one end, one result for each thing scheduled."""
        history = await history_of(client.store, name)
        kinds = Counter(type(event).__name__ for event in history)
        assert kinds["ExecutionStarted"] == kinds["ExecutionCompleted"] == 1, (name, kinds)
        for asked, answered, number in (
            (ev.TaskScheduled, ev.TaskCompleted, "task_scheduled_id"),
            (ev.TimerCreated, ev.TimerFired, "timer_id"),
            (ev.SubOrchestrationInstanceCreated, ev.SubOrchestrationInstanceCompleted, "task_scheduled_id"),
        ):
            ids = sorted(event.event_id for event in history if isinstance(event, asked))
            results = sorted(getattr(event, number) for event in history if isinstance(event, answered))
            assert ids == results and len(set(ids)) == len(ids), (name, asked.__name__, ids, results)

    async def _check_single(self, client: holdtrue.Client, tags: list[str]) -> None:
        """Its runs never overlap, each was started by one tick, and each did all its work."""
        runs = [tag.split("/")[1] for tag in tags]
        order = [run for at, run in enumerate(runs) if at == 0 or runs[at - 1] != run]
        assert len(set(order)) == len(order), f"runs of the singleton overlap: {order}"
        assert set(tags) == {f"{SINGLE}/{run}/{at}" for run in order for at in range(3)}
        ticks = await client.schedules.ticks(SINGLE, limit=100_000)
        assert [tick.execution_id for tick in ticks if tick.started] == order


def play(directory: Path, kills: int, seed: int) -> None:
    """A storm, which says how to have it again."""
    print(f"storm: seed {seed}, {kills} kills, in {directory}", flush=True)
    try:
        asyncio.run(Storm(directory, kills, seed).run())
    except BaseException:
        print(f"again: python -m tests.e2e.storm --seed {seed} --kills {kills}", flush=True)
        raise


def main() -> int:
    """The command: 0 where all is as it must be."""
    parser = argparse.ArgumentParser(prog="storm", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40, help="how many processes to kill (default 40)")
    parser.add_argument("--seed", type=int, default=None, help="draw the same kills again")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    directory = Path(tempfile.mkdtemp(prefix="storm-"))
    began = time.monotonic()
    play(directory, given.kills, seed)
    print(f"storm: all is as it must be after {time.monotonic() - began:.0f} s", flush=True)
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
