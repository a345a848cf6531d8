"""The attack: two workers on one hub, killed with SIGKILL at random and started again, while the job runs.

`python -m examples.every_minute.storm [--all] [--months N] [--kills N] [--seed N]`, or `make run`.  It ends
by itself: at enough months and kills it pauses the schedule, lets the last run end, stops the workers in
order (SIGTERM) and starts `report` as a process of its own.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

import apsw
import msgspec

import holdtrue

from . import job, plan, tables, weather
from .progress import Screen, View

LOOK_SECONDS = 0.03
STARTING_SECONDS = 5.0
"""A process is a worker, which drains at SIGTERM, after this at the latest."""


class Ending:
    """Signals that ask the storm to end: it is interrupted, but not while a process begins that nobody knows yet."""

    def __init__(self) -> None:
        self._is_held = self._is_asked = False

    def listen(self) -> None:
        """From now on, also where a shell has its background jobs ignore them."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: object) -> None:
        self._is_asked = True
        if not self._is_held:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """It is told at the end of this."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._is_asked:
            raise KeyboardInterrupt


ENDING = Ending()


class Worker:
    """One worker process and its successors."""

    def __init__(self, number: int, directory: Path) -> None:
        self.number = number
        self.starts = 0
        self.back_at: float | None = None
        self._directory = directory
        self._log: IO[bytes] = (directory / f"worker-{number}.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = 0.0

    @property
    def name(self) -> str:
        """What its host is called in the hub."""
        return f"worker-{self.number}"

    @property
    def is_up(self) -> bool:
        """True while it has a process."""
        return self._process is not None

    @property
    def text(self) -> str:
        """For people."""
        state = "down" if self._process is None else f"process {self._process.pid}"
        return f"{state}, started {self.starts} times"

    def start(self) -> None:
        """Begin a process."""
        self.back_at = None
        self.starts += 1
        self._begun = time.monotonic()
        command = [sys.executable, "-m", "examples.every_minute.job", str(self._directory)]
        environment = {**os.environ, "EVERY_MINUTE_WORKER": self.name}
        with ENDING.held():
            self._process = subprocess.Popen(
                command, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL, env=environment
            )

    def check(self) -> None:
        """Raises RuntimeError if the process ended by itself: only the storm ends workers."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise RuntimeError(f"worker {self.number} ended by itself with exit code {code}: see {self._log.name}")

    def kill(self, back_at: float) -> None:
        """SIGKILL, no warning; it is to be started again at that time."""
        self.end()
        self.back_at = back_at

    def stop(self) -> int:
        """SIGTERM, and wait for its drain; the exit code, 0 too where the signal came before it was a worker."""
        if self._process is None:
            return 0
        starting = time.monotonic() - self._begun < STARTING_SECONDS
        self._process.terminate()
        try:
            code = self._process.wait(60)
            return 0 if starting and code == -signal.SIGTERM else code
        finally:
            self.end()

    def end(self) -> None:
        """Whatever happened: leave no process behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Recovery(msgspec.Struct, frozen=True):
    """How long a run stood still after a kill (seconds), and which."""

    seconds: float
    killed: str
    execution: str


def holder(hub: Path, instance_id: str) -> str | None:
    """The name of the host that holds an instance's lock, dead or alive; read from the hub's own tables."""
    connection = apsw.Connection(str(hub), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(5_000)
        rows = connection.execute(
            "select host.name from instance join host on host.number = instance.lock >> 40 where instance.id = ?",
            (instance_id,),
        ).fetchall()
    finally:
        connection.close()
    return str(rows[0][0]) if rows else None


class Watch:
    """Follows the instance's commits, and takes the time from each kill of its holder to the next of them."""

    def __init__(self) -> None:
        self.recoveries: list[Recovery] = []
        self._open: list[tuple[float, str, str]] = []
        self._last: holdtrue.InstanceStatus | None = None

    @property
    def waits(self) -> bool:
        """True while a run that lost its worker has not committed anything since."""
        return bool(self._open)

    def seen(self, status: holdtrue.InstanceStatus | None) -> None:
        """A look at the instance: its last commit closes what was open before it."""
        self._last = status
        if status is None:
            return
        commit = status.last_updated_at.timestamp()
        still = []
        for at, killed, execution in self._open:
            if commit > at:
                self.recoveries.append(Recovery(commit - at, killed, execution))
            else:
                still.append((at, killed, execution))
        self._open = still

    def killed(self, at: float, names: list[str], holder: str | None) -> bool:
        """Workers were killed at this time (seconds since 1970); true where one of them held the instance."""
        if holder not in names or self._last is None:
            return False
        self._open.append((at, " and ".join(names), self._last.execution_id))
        return True


class Storm:
    """One run of it all, in a directory of its own."""

    def __init__(self, directory: Path, months: int, kills: list[plan.Kill], limit: float) -> None:
        self.directory, self.months, self.limit = directory, months, limit
        self.workers = [Worker(number, directory) for number in range(plan.WORKERS)]
        self.watch = Watch()
        self.kills = 0
        self._plan = kills
        self._view = View()
        self._decisions: Counter[str] = Counter()
        self._last_tick: datetime | None = None

    async def run(self, screen: Screen) -> None:
        """Until there are enough months and the plan is done; raises RuntimeError if that takes too long."""
        begun = time.monotonic()
        async with holdtrue.Client(str(job.hub_file(self.directory)), app=job.app) as client:
            await client.schedules.create(
                job.SCHEDULE,
                job.load_next_month,
                cron="* * * * * *",
                instance_id=job.INSTANCE,
                overlap="skip",
                missed="skip",
            )
            try:
                for worker in self.workers:
                    worker.start()
                await self._attack(client, screen, begun)
                await client.schedules.pause(job.SCHEDULE)
                await client.wait_for_completion(job.INSTANCE, timeout=60)
                codes = [await asyncio.to_thread(worker.stop) for worker in self.workers]
                if any(codes):
                    raise RuntimeError(f"the workers did not stop in order: exit codes {codes}")
            finally:
                for worker in self.workers:
                    worker.end()

    async def _attack(self, client: holdtrue.Client, screen: Screen, begun: float) -> None:
        coming = list(self._plan)
        next_kill = time.monotonic() + (coming[0].wait if coming else 0.0)
        while coming or self._view.months < self.months or self.watch.waits or not all(w.is_up for w in self.workers):
            await asyncio.sleep(LOOK_SECONDS)
            now = time.monotonic()
            if now - begun > self.limit:
                raise RuntimeError(
                    f"stuck: {self._view.months} months after {self.limit:.0f} s; look into {self.directory}"
                )
            await self._look(client)
            for worker in self.workers:
                worker.check()
                if worker.back_at is not None and worker.back_at <= now:
                    worker.start()
            if coming and now >= next_kill and all(self.workers[n].is_up for n in coming[0].workers):
                self._strike(coming.pop(0), now, screen)
                next_kill = now + (coming[0].wait if coming else 0.0)
            screen.show(self._view)

    def _strike(self, kill: plan.Kill, now: float, screen: Screen) -> None:
        names = [self.workers[number].name for number in kill.workers]
        at = time.time()
        for number, down in zip(kill.workers, kill.down, strict=True):
            self.workers[number].kill(now + down)
        self.kills += len(kill.workers)
        held = self.watch.killed(at, names, holder(job.hub_file(self.directory), job.INSTANCE))
        which = " (which held the run)" if held else ""
        screen.event(f"SIGKILL {' and '.join(names)}{which}, {self._view.status}: {self._view.step}")

    async def _look(self, client: holdtrue.Client) -> None:
        status = await client.get_status(job.INSTANCE)
        self.watch.seen(status)
        view = self._view
        if status is not None:
            view.status = status.runtime_status.name
            custom = status.custom_status or {}
            view.step = " ".join(str(custom[name]) for name in ("month", "step") if name in custom)
        view.months = tables.count(job.table_file(self.directory))
        for tick in await client.schedules.ticks(job.SCHEDULE, after=self._last_tick):
            self._decisions[tick.decision] += tick.count
            self._last_tick = tick.due
        view.ticks = ", ".join(f"{count} {decision}" for decision, count in sorted(self._decisions.items()))
        view.kills = self.kills
        view.slowest = max((recovery.seconds for recovery in self.watch.recoveries), default=0.0)
        view.workers = [worker.text for worker in self.workers]


def _count(least: int) -> Callable[[str], int]:
    """A whole number of the command line, `least` or more."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"give {least} or more, not {value}")
        return value

    return number


def clear(directory: Path) -> None:
    """Make the directory, without what an earlier storm left there; whatever else lies in it stays."""
    directory.mkdir(parents=True, exist_ok=True)
    for pattern in ("hub.db*", "report.db*", "worker-*.log"):
        for left in directory.glob(pattern):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def main() -> int:
    """The command; however it is asked to end, it takes its workers along."""
    ENDING.listen()
    try:
        return command()
    except KeyboardInterrupt:
        print("\nInterrupted: the workers are stopped, and nothing is proven.", flush=True)
        return 130


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for (default: this process's)."""
    parser = argparse.ArgumentParser(prog="storm", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="load all months, not only enough of them")
    parser.add_argument("--months", type=_count(1), default=30, help="stop when so many are loaded (default 30)")
    parser.add_argument("--kills", type=_count(0), default=24, help="how many processes to kill (default 24)")
    parser.add_argument("--seconds", type=float, default=None, help="over how long (default: 2.6 a kill)")
    parser.add_argument("--seed", type=int, default=None, help="draw the same kills again")
    parser.add_argument("--directory", type=Path, default=Path("build/every_minute"), help="where hub and tables go")
    return parser.parse_args(words)


def command() -> int:
    """The storm and its proof; the exit code."""
    given = options()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    months = len(weather.months()) if given.all else min(given.months, len(weather.months()))
    seconds = given.seconds if given.seconds is not None else 2.6 * given.kills
    directory: Path = given.directory.resolve()
    clear(directory)
    tables.create(job.table_file(directory))

    print(
        f"seed {seed}: {given.kills} kills, {months} months wanted; hub and tables in {os.path.relpath(directory)}",
        flush=True,
    )
    kills = plan.draw(seed, given.kills, seconds)
    storm = Storm(directory, months, kills, limit=120.0 + seconds)
    began = time.monotonic()
    try:
        with Screen(months, given.kills) as screen:
            asyncio.run(storm.run(screen))
    except (RuntimeError, TimeoutError) as error:
        print(f"the storm did not come to its end (seed {seed}): {error}")
        failed = True
    else:
        failed = False
    print(f"\nThe storm is over after {time.monotonic() - began:.0f} s, {storm.kills} kills (seed {seed}).")
    slowest = max(storm.watch.recoveries, key=lambda recovery: recovery.seconds, default=None)
    if slowest is None:
        print("slowest recovery       none: no kill hit the worker that held the run")
    else:
        print(
            f"slowest recovery       {slowest.seconds:.2f} s from the kill of {slowest.killed} to the next commit "
            f"of the run that it held ({len(storm.watch.recoveries)} such kills)"
        )
    sys.stdout.flush()  # the proof is another process: what was printed here comes first
    proof = subprocess.run(
        [sys.executable, "-m", "examples.every_minute.report", str(directory), str(months)], check=False
    )
    return 1 if failed else proof.returncode


if __name__ == "__main__":
    sys.exit(main())
