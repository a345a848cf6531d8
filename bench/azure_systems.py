"""The systems that work on a hub in an account: Holdtrue, in two ways, and the real .NET provider.

Each has a worker in a process of its own, and starts instances and waits for them from this one.  Whoever waits does
so on a connection of its own, which nobody counts.
"""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import holdtrue
from bench.azure_program import app
from bench.azure_worker import POLLING_SECONDS, SLOTS, store_of
from bench.measure import ROOT
from bench.worker import _cpu_of

SHARED = Path(os.environ.get("HOLDTRUE_SHARED") or ROOT.parent / "shared")
PEER = SHARED / "dotnet-peer" / "bin" / "peer"
HUB = "Bench"
PATIENCE = 600.0
"""Seconds that an instance may take."""


class Program:
    """A process that is spoken to by lines."""

    def __init__(self, words: list[str], **environment: str) -> None:
        self.process = subprocess.Popen(
            words,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def say(self, line: str) -> None:
        """A line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    async def hear(self) -> str:
        """A line of it."""
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")
        return line.strip()

    async def stop(self) -> None:
        """Have it end."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                await asyncio.to_thread(self.process.wait, 30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Holdtrue:
    """Ours: `kind` is `local` or `queue`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.title = f"Holdtrue, {kind}"
        self._rounds = itertools.count()

    async def begin(self, worker: str, starter: str, waiter: str) -> None:
        """A worker, who starts and who waits, each by a connection string of its own."""
        self._worker = Program([sys.executable, "-m", "bench.azure_worker", HUB, self.kind], HOLDTRUE_ACCOUNT=worker)
        await self._worker.hear()
        self._stores = [store_of(connection, HUB, self.kind) for connection in (starter, waiter)]
        for store in self._stores:
            await store.open()
        self._starter, self._waiter = (holdtrue.Client(store, app=app) for store in self._stores)

    async def start(self, name: str, instance: str, given: int) -> None:
        """Start an instance."""
        await self._starter.start(name, input=given, instance_id=instance)

    async def wait(self, instance: str) -> float:
        """Wait for its end; the seconds from its creation to it."""
        status = await self._waiter.wait_for_completion(instance, timeout=PATIENCE)
        if status.runtime_status is not holdtrue.Status.COMPLETED:
            raise RuntimeError(f"{instance}: {status.runtime_status}")
        assert status.completed_at is not None
        return (status.completed_at - status.created_at).total_seconds()

    async def strange(self) -> None:
        """Four instances whose orchestration no worker has, with messages."""
        for number in range(4):
            name = f"strange-{number}"
            await self._starter.start("Nobody", instance_id=name)
            await self._starter.raise_event(name, "Go", number)

    async def rate(self, name: str, count: int, given: int) -> float:
        """Instances a second, of so many started at once."""
        turn = next(self._rounds)
        instances = [f"{name}-{turn}-{number}" for number in range(count)]
        began = time.perf_counter()
        await asyncio.gather(*(self.start(name, instance, given) for instance in instances))
        await asyncio.gather(*(self.wait(instance) for instance in instances))
        return count / (time.perf_counter() - began)

    async def cpu(self) -> float:
        """CPU seconds of the worker so far."""
        self._worker.say("cpu")
        return float(await self._worker.hear())

    async def end(self) -> None:
        """Stop."""
        for store in self._stores:
            await store.close()
        await self._worker.stop()


class DotNet:
    """The real provider."""

    title = ".NET"
    kind = "dotnet"

    async def begin(self, worker: str, starter: str, waiter: str) -> None:
        """As above."""

        def peer(command: str, connection: str, *more: str) -> Program:
            return Program([str(PEER), command, "--hub", HUB, "--conn", connection, *more])

        sets = (f"MaxConcurrentTaskActivityWorkItems={SLOTS}", f"MaxQueuePollingInterval=00:00:{POLLING_SECONDS:02.0f}")
        self._worker = peer("worker", worker, *(word for one in sets for word in ("--set", one)))
        while "worker up" not in await self._worker.hear():
            pass
        self._starter, self._waiter = peer("shell", starter), peer("shell", waiter)

    async def _ask(self, shell: Program, *words: str) -> Any:
        shell.say(json.dumps(words))
        answer = json.loads(await shell.hear())
        if "error" in answer:
            raise RuntimeError(f"{words}: {answer}")
        return answer["ok"]

    async def start(self, name: str, instance: str, given: int) -> None:
        """Start an instance."""
        await self._ask(self._starter, "start", name, instance, json.dumps(given))

    async def wait(self, instance: str) -> float:
        """Wait for its end."""
        state = await self._ask(self._waiter, "wait", instance, str(int(PATIENCE)))
        if state is None:
            raise RuntimeError(f"{instance} does not end")
        created, completed = (datetime.fromisoformat(state[key][:23] + "+00:00") for key in ("created", "completed"))
        return (completed - created).total_seconds()

    async def rate(self, name: str, count: int, given: int) -> float:
        """Instances a second, of so many started at once."""
        found = await self._ask(self._waiter, "bench", name, str(count), str(count), json.dumps(given))
        return float(found["instances_per_s"])

    async def cpu(self) -> float:
        """CPU seconds of the worker so far."""
        return _cpu_of(self._worker.process.pid)

    async def end(self) -> None:
        """Stop."""
        for program in (self._starter, self._waiter, self._worker):
            await program.stop()
