"""The real .NET provider as a program (`shared/dotnet-peer`): its worker, and its client in a shell of commands.

It lies beside the project, or where HOLDTRUE_SHARED says; in a clone without it these tests are left out.
"""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(os.environ.get("HOLDTRUE_SHARED") or Path(__file__).resolve().parents[3] / "shared")
PROGRAM = SHARED / "dotnet-peer" / "bin" / "peer"
SETTINGS = {
    "PartitionCount": "2",
    "ControlQueueVisibilityTimeout": "00:00:05",
    "WorkItemQueueVisibilityTimeout": "00:00:05",
    "LeaseInterval": "00:00:06",
    "LeaseAcquireInterval": "00:00:01",
    "LeaseRenewInterval": "00:00:01",
    "MaxQueuePollingInterval": "00:00:00.3",
}
BY_BLOBS = {"UseTablePartitionManagement": "False", "LeaseInterval": "00:00:15"}
"""Beside them where leases on blobs share out the partitions; the service gives none that is shorter."""
UP_SECONDS = 120


needed = pytest.mark.skipif(not PROGRAM.exists(), reason=f"left out: the .NET peer is not at {PROGRAM}")
"""Marks the tests that need it."""


class Lines:
    """The lines that a process prints, read by a thread, so that waiting for one can end."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def next(self, seconds: float) -> str:
        """The next one; raises AssertionError where none comes."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"{self._process.args} prints nothing for {seconds} s") from None
        assert line is not None, f"{self._process.args} has ended"
        return line


class Process:
    """A process of a worker: it is up when this returns."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(env or {})},
        )
        lines = Lines(self._process)
        while "worker up" not in lines.next(UP_SECONDS):
            pass

    def stop(self) -> None:
        """End it as a deployment does; it drains."""
        self._process.terminate()
        self._process.wait(UP_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()


PATIENT = {"ControlQueueVisibilityTimeout": "00:05:00", "WorkItemQueueVisibilityTimeout": "00:05:00"}
"""Where no message may come twice, however slow the machine is: .NET writes some of their events twice then."""


def worker(connection: str, hub: str, changed: Mapping[str, str] | None = None) -> Process:
    """A .NET worker."""
    return Process([str(PROGRAM), "worker", "--hub", hub, "--conn", connection, *options(changed)])


def options(changed: Mapping[str, str] | None = None) -> list[str]:
    """The settings as words of a command line."""
    settings = {**SETTINGS, **(changed or {})}
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


class Shell:
    """A .NET client."""

    def __init__(self, connection: str, hub: str, changed: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [str(PROGRAM), "shell", "--hub", hub, "--conn", connection, *options(changed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines = Lines(self._process)

    def ask(self, *words: str) -> Any:
        """What a command answers; raises AssertionError for an error."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._lines.next(UP_SECONDS))
        assert "ok" in answer, f"{words}: {answer}"
        return answer["ok"]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
