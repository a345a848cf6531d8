"""A worker process of its own: the program it runs, and the handle that a scenario holds of it.

The program (`python -m bench.worker MODULE HUB`) imports MODULE's `app`, says `ready`, begins at `go`, says `begun`
once the host is up, and at `stop` leaves and says what MODULE's `summary()` gives, as one line of JSON.
"""

import asyncio
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.measure import ROOT


class WorkerProcess:
    """The handle: a worker process on `hub` with the app of `module`."""

    def __init__(self, module: str, hub: Path) -> None:
        command = [sys.executable, "-m", "bench.worker", module, str(hub)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._hear()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker process ended with {self._process.wait()}; its error stands above")
        return line

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def go(self) -> None:
        """Let it begin; does not wait."""
        self._say("go")

    def begun(self) -> None:
        """Wait until its host is up."""
        self._hear()

    def stop(self) -> Any:
        """Let it leave; its summary."""
        self._say("stop")
        summary = json.loads(self._hear())
        self._process.wait()
        return summary

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def cpu_seconds() -> float:
    """CPU seconds of this process (all its threads) and of its living descendants so far."""
    return time.process_time() + sum(_cpu_of(child) for child in _children(os.getpid()))


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _words(task / "children")]
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return path.read_text().split()


def _cpu_of(pid: int) -> float:
    """Of another process and its descendants, in steps of the system's clock tick; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_cpu_of(child) for child in _children(pid))


def resident_mb() -> float:
    """Memory of this process that is in RAM now, in MiB (its peak where the system does not tell)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return peak_mb()


def peak_mb() -> float:
    """The most memory that this process had in RAM, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


async def serve(module: Any, hub: str) -> None:
    """The program, from `go` on."""
    import holdtrue

    async with holdtrue.Host(module.app, hub):
        print("begun", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print(json.dumps(module.summary() if hasattr(module, "summary") else None), flush=True)


def main(module_name: str, hub: str) -> None:
    """The program."""
    from bench.program import run

    module = importlib.import_module(module_name)
    print("ready", flush=True)
    if sys.stdin.readline().strip() == "go":
        run(serve(module, hub))


if __name__ == "__main__":
    main(*sys.argv[1:])
