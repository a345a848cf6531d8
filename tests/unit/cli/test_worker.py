"""`holdtrue run` as real processes: served, steered from other processes, drained, reloaded."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdtrue.cli.init import FIRST_APP

REPOSITORY = Path(__file__).parents[3]
WAIT_SECONDS = 60

FAMILY_APP = """
import holdtrue

app = holdtrue.App()

@app.activity(cpu=True)
def square(ctx: holdtrue.ActivityContext, n: int) -> int:
    return n * n

@app.orchestrator
async def part(ctx: holdtrue.OrchestrationContext, n: int) -> int:
    return await ctx.call_activity(square, input=n)

@app.orchestrator
async def whole(ctx: holdtrue.OrchestrationContext, n: int) -> int:
    first = await ctx.call_sub_orchestrator(part, input=n, instance_id="kid")
    ctx.set_custom_status({"first": first})
    return first + await ctx.wait_for_external_event("more")
"""


class Shell:
    """Runs the command line in a folder, as a user's shell does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "PYTHONUNBUFFERED": "1"}
        self.environment.pop("HOLDTRUE_HUB", None)
        self.workers: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, code: int = 0) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "holdtrue.cli", *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False,
        )  # fmt: skip
        assert ran.returncode == code, (arguments, ran.stdout, ran.stderr)
        assert "Traceback" not in ran.stderr
        return ran.stdout

    def serve(self, *arguments: str) -> "subprocess.Popen[str]":
        worker = subprocess.Popen(
            [sys.executable, "-m", "holdtrue.cli", "run", *arguments],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.workers.append(worker)
        return worker


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty folder; its workers end with the test."""
    shell = Shell(tmp_path)
    yield shell
    for worker in shell.workers:
        if worker.poll() is None:
            worker.kill()
        worker.communicate()


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.05)


def test_the_first_five_minutes(shell: Shell) -> None:
    shell("init")
    assert (shell.folder / "hello.py").read_text() == FIRST_APP
    worker = shell.serve("hello.py")
    output = shell("start", "hello", '["Ada", "Grace"]', "--wait", "--timeout", "60s")
    assert json.loads(output) == ["Hello Ada!", "Hello Grace!"]
    assert len(json.loads(shell("info", "--json"))["workers"]) == 1
    shell("backup", "copy.db")
    shell("restore", "copy.db", "--force", code=4)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(WAIT_SECONDS) == 0
    assert "Stopped." in worker.communicate()[0]
    shell("restore", "copy.db", "--force")
    assert len(shell("list", "--json").splitlines()) == 1


def test_a_run_is_steered_and_seen_from_other_processes(shell: Shell) -> None:
    (shell.folder / "family.py").write_text(FAMILY_APP)
    shell.serve("family:app", "--worker-name", "one", "--processes", "1", "--json")
    shell("start", "whole", "4", "--id", "w")
    until(lambda: json.loads(shell("show", "w", "--json"))["custom_status"] == {"first": 16})
    shell("wait", "w", "--start")
    shell("wait", "w", "--timeout", "10ms", code=6)
    shell("suspend", "w", "--reason", "a rest")
    until(lambda: json.loads(shell("show", "w", "--json"))["status"] == "Suspended")
    shell("raise", "w", "more", "5")
    shell("resume", "w")
    assert shell("wait", "w", "--timeout", "60s") == "21\n"
    tree = shell("show", "w").splitlines()
    assert "    kid part Completed" in tree
    assert any("ExecutionSuspended a rest" in line for line in tree)
    [kid] = json.loads(shell("show", "w", "--json"))["children"]
    assert (kid["parent_instance_id"], kid["output"]) == ("w", 16)

    assert shell("restart", "w") == "w\n"
    shell("terminate", "w", "--output", '"stopped"')
    shell("wait", "w", "--timeout", "60s", code=1)
    assert json.loads(shell("show", "w", "--json"))["output"] == "stopped"
    shell("purge", "w")
    shell("show", "w", code=3)


def test_an_application_that_cannot_be_served(shell: Shell) -> None:
    (shell.folder / "broken.py").write_text("import nowhere_at_all\n")
    shell("run", "broken.py", code=7)
    shell("run", "nothing.py", code=2)
    assert not (shell.folder / "holdtrue.db").exists()


def test_reload_serves_the_new_code(shell: Shell) -> None:
    shell("init")
    file = shell.folder / "hello.py"
    file.write_text(FIRST_APP.replace("return f", "return return f"))
    reloader = shell.serve("hello.py", "--reload")
    assert reloader.stderr is not None
    until(lambda: "ended with code 7" in (reloader.stderr.readline() if reloader.stderr else ""))
    file.write_text(FIRST_APP.replace("Hello", "Good day"))
    assert json.loads(shell("start", "hello", '["Ada"]', "--wait", "--timeout", "60s")) == ["Good day Ada!"]
    reloader.send_signal(signal.SIGINT)
    assert reloader.wait(WAIT_SECONDS) == 0
    until(lambda: json.loads(shell("info", "--json"))["workers"] == [])
