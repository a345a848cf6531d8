"""Hosts as processes of their own, ours and .NET's: started, killed as the system kills, and ended."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tests.faults.worker import UP, Setup

ROOT = Path(__file__).resolve().parents[2]
UP_SECONDS = 120.0
"""No machine is so slow that a process is not up by then."""


def ours(setup: Setup) -> list[str]:
    """The command of a worker of ours."""
    return [sys.executable, "-m", "tests.faults.worker", msgspec.json.encode(setup).decode()]


class HostProcess:
    """A worker that says when it is up, and ends with its standard input.  `told` hears what else it says."""

    def __init__(self, command: Sequence[str], told: Callable[[str], None] = lambda line: None) -> None:
        self._command = command
        self._told = told
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._killed = False

    async def start(self) -> None:
        """Begin it, and return when it is up.  Raises RuntimeError where it ends before, unless it was killed."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd=ROOT, env=_environment()
        )
        self._reading = asyncio.ensure_future(self._read())
        if self._killed:
            self._process.kill()
        async with asyncio.timeout(UP_SECONDS):
            await self._up

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode().rstrip():
            if line == UP and not self._up.done():
                self._up.set_result(None)
            else:
                self._told(line)
        if self._up.done():
            return
        if self._killed:
            self._up.set_result(None)
        else:
            self._up.set_exception(RuntimeError(f"it did not come up: {self._command[:3]}"))

    def kill(self) -> None:
        """SIGKILL."""
        self._killed = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def end(self) -> None:
        """Kill it where it lives, and wait until all that it said is read."""
        self.kill()
        if self._process is not None and self._reading is not None:
            await self._process.wait()
            await self._reading
            if not self._up.done():
                self._up.cancel()
            elif not self._up.cancelled():
                self._up.exception()


def _environment() -> dict[str, str]:
    """Ours, with this repository's modules."""
    path = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
