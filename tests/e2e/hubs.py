"""Hosts for end-to-end tests: in this process, and in processes of their own that can be killed."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import holdtrue
from holdtrue.stores.sqlite.waiting import holder

TIMEOUT = 30.0


def run(main: Any) -> Any:
    """Run an async test with a limit, so that what hangs is told as such."""
    return asyncio.run(asyncio.wait_for(main, 120))


async def outcome(client: holdtrue.Client, instance_id: str) -> Any:
    """The output of an instance that ends Completed."""
    status = await client.wait_for_completion(instance_id, timeout=TIMEOUT)
    assert status.runtime_status is holdtrue.Status.COMPLETED, status.failure
    return status.output


async def until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Wait until it is true; `condition` may be async."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true in {TIMEOUT} s"
        await asyncio.sleep(0.02)


class Worker:
    """A worker process running `code` (which defines `app`) on a hub."""

    def __init__(self, folder: Path, code: str, hub: Path, *, settings: str = "", name: str = "worker") -> None:
        self.path = folder / f"{name}.py"
        self.path.write_text(
            "import asyncio, holdtrue, os, sys, time\nfrom pathlib import Path\n"
            + textwrap.dedent(code)
            + f"\nif __name__ == '__main__':\n    holdtrue.run(app, {str(hub)!r}"
            + (f", settings=holdtrue.HostSettings({settings})" if settings else "")
            + ")\n"
        )
        self.hub = hub
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Worker":
        self.process = subprocess.Popen([sys.executable, str(self.path)], env={**os.environ, "PYTHONUNBUFFERED": "1"})
        return self

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop_between_transactions(self) -> None:
        """Send SIGSTOP, at a moment when it does not hold the hub's write lock (where everybody would wait for it)."""
        assert self.process is not None
        while True:
            self.send(signal.SIGSTOP)
            os.waitpid(self.process.pid, os.WUNTRACED)
            if holder(str(self.hub)) is None:
                return
            self.send(signal.SIGCONT)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)

    def __enter__(self) -> "Worker":
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
