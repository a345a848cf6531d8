"""The command line on a hub in a storage account, as a stranger uses it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.opening import hub_exists, open_hub
from tests.unit.cli.support import documents, run
from tools.azurite import Azurite

HUB = "azure-storage:Shop"
ROOT = Path(__file__).resolve().parents[2]
APP = """
import holdtrue

app = holdtrue.App()


@app.activity
async def double(ctx: holdtrue.ActivityContext, number: int) -> int:
    return 2 * number


@app.activity
async def boom(ctx: holdtrue.ActivityContext) -> None:
    raise ValueError("no luck")


@app.orchestrator
async def order(ctx: holdtrue.OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(double, input=number)


@app.orchestrator
async def waits(ctx: holdtrue.OrchestrationContext) -> str:
    await ctx.call_activity(double, input=1)
    return await ctx.wait_for_external_event("go")


@app.orchestrator
async def fails(ctx: holdtrue.OrchestrationContext) -> None:
    await ctx.call_activity(boom)
"""


class Shell:
    """Commands in a directory with the app in it; workers are processes."""

    def __init__(self, directory: Path, connection: str) -> None:
        (directory / "shop.py").write_text(APP)
        self._directory = directory
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(directory))),
            "AzureWebJobsStorage": connection,
            "HOLDTRUE_HUB": HUB,
        }
        self._processes: list[subprocess.Popen[str]] = []

    def begin(self, *words: str) -> "subprocess.Popen[str]":
        """A command that goes on."""
        process = subprocess.Popen(
            [sys.executable, "-m", "holdtrue.cli", *words],
            cwd=self._directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def serve(self, app: str = "shop:app") -> "subprocess.Popen[str]":
        """A worker, at work when this returns."""
        worker = self.begin("run", app)
        assert worker.stdout is not None
        line = worker.stdout.readline()
        while line and "Serving" not in line:
            line = worker.stdout.readline()
        assert line, "the worker has ended"
        return worker

    def __call__(self, *words: str, code: int = 0) -> str:
        """What a command says, on both streams; it ends with that code."""
        ended = run(*words, env={name: self.environment[name] for name in ("AzureWebJobsStorage", "HOLDTRUE_HUB")})
        assert ended.exit_code == code, f"{words} ended with {ended.exit_code}: {ended.output}"
        return ended.stdout + ended.stderr

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture
def shell(azurite: Azurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path, azurite.connection_string(azurite.new_account()))
    yield shell
    shell.close()


def stop(worker: "subprocess.Popen[str]") -> None:
    """As a deployment does."""
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=120)
    assert worker.returncode == 0


def test_the_commands(shell: Shell) -> None:
    """All that there are for a hub, in the order of its life."""
    for words in (("list",), ("info",), ("hub", "settle"), ("show", "o1"), ("schedule", "list")):
        assert "no task hub" in shell(*words, code=5)
    assert not asyncio.run(hub_exists(HUB, REAL, shell.environment)), "looking at a hub has made it"
    worker = shell.serve()
    assert shell("start", "order", "4", "--id", "o1", "--wait").startswith("8\n")
    assert "Completed" in shell("show", "o1")
    shell("start", "waits", "--id", "w1")
    shell("suspend", "w1")
    shell("resume", "w1")
    shell("raise", "w1", "go", '"x"')
    assert shell("wait", "w1") == '"x"\n'
    shell("start", "fails", "--id", "f1")
    assert "no luck" in shell("wait", "f1", code=1)
    shell("rewind", "f1")
    assert "no luck" in shell("wait", "f1", code=1)
    shell("start", "waits", "--id", "w2")
    shell("terminate", "w2")
    shell("wait", "w2", code=1)
    shell("start", "waits", "--id", "w3")
    shell("cancel", "w3")
    shell("wait", "w3", code=1)
    shell("restart", "o1")
    shell("wait", "o1")
    listed = {one["instance_id"]: one["status"] for one in documents(shell("--json", "list"))}
    assert set(listed) == {"o1", "w1", "f1", "w2", "w3"}
    shell("schedule", "create", "nightly", "order", "1", "--cron", "0 0 0 1 1 *")
    assert "nightly" in shell("schedule", "list")
    shell("schedule", "delete", "nightly")
    assert json.loads(shell("--json", "info"))["dead_letters"] == 0
    shell("dead-letters", "list")
    shell("export-history", "all.json")
    shell("check-replay", "shop:app", "--all")
    assert "in a storage account" in shell("backup", "copy.db", code=5)
    assert "served by" in shell("hub", "delete", "--yes", code=5)
    shell("purge", "o1", "--yes")
    assert "not in this hub" in shell("show", "o1", code=3)
    stop(worker)
    assert "add --yes" in shell("hub", "delete", code=2)
    shell("hub", "delete", "--yes")
    shell("hub", "delete", "--yes")
    assert not asyncio.run(hub_exists(HUB, REAL, shell.environment))


def test_a_hub_is_settled(shell: Shell) -> None:
    """Refused beside a host; what .NET cannot go on with is named (4), left with --leave (0), and so is nothing (0)."""
    worker = shell.serve()
    shell("start", "waits", "--id", "w1")
    while json.loads(shell("--json", "show", "w1"))["status"] != "Running":
        assert worker.poll() is None
    assert "stop all hosts" in shell("hub", "settle", code=5)
    stop(worker)
    assert "can go on with 1 instances" in shell("hub", "settle")
    columns = asyncio.run(_columns(shell.environment))
    assert {"EventType", "ExecutionId", "CheckpointCompletedTimestamp"} <= columns, "the history is .NET's"
    assert not [name for name in columns if name.startswith("Holdtrue")], "and nothing of ours stands in it"
    asyncio.run(_hold("w1", shell.environment))
    told = shell("hub", "settle", code=4)
    assert "w1: " in told and "Nothing was handed over" in told
    told = json.loads(shell("--json", "hub", "settle", "--leave"))
    assert told["settled"] and [one["instance_id"] for one in told["obstacles"]] == ["w1"]


def test_settings_beside_the_hub_as_it_stands(shell: Shell, tmp_path: Path) -> None:
    """Before it is there, while a host serves it, and with another number of partitions; nothing is made by asking."""

    def told(partitions: int, code: int = 0) -> str:
        provider = {"partitionCount": partitions}
        document = {"extensions": {"durableTask": {"hubName": "Shop", "storageProvider": provider}}}
        (tmp_path / "host.json").write_text(json.dumps(document))
        found = json.loads(shell("--json", "settings", "check", "--live", code=code))["findings"]
        return " ".join(one["text"] for one in found)

    assert "there is no hub 'Shop' in the account: the first host makes it, with 2 partitions" in told(2)
    assert not asyncio.run(hub_exists(HUB, REAL, shell.environment))
    worker = shell.serve()
    while "the hub is served by holdtrue" not in told(4):
        assert worker.poll() is None
    stop(worker)
    assert "the hub 'Shop' has 4, not 2" in told(2, code=1)
    assert "the hub was not asked" in told(99, code=1)


async def _columns(variables: dict[str, str]) -> set[str]:
    """Those that stand in any row of the histories."""
    store = open_hub(HUB, REAL, variables)
    await store.open()
    try:
        rows = await store._access.query(store._access.names.history, None)
        return {name for row in rows for name in row.values}
    finally:
        await store.close()


async def _hold(name: str, variables: dict[str, str]) -> None:
    """Leave an instance held, as a host does whose code does not fit its history."""
    import holdtrue
    from holdtrue.engine.settings import HostSettings

    app = holdtrue.App()

    @app.orchestrator(name="waits")
    async def otherwise(ctx: holdtrue.OrchestrationContext) -> None:
        await ctx.wait_for_external_event("go")  # without the activity that was there

    store = open_hub(HUB, REAL, variables)
    settings = HostSettings(name="h", retention=False, schedules=False)
    async with holdtrue.Host(app, store, settings=settings) as host:
        await host.client.raise_event(name, "go", data="x")
        async with asyncio.timeout(120):
            while (await host.client.get_status(name)).condition is None:
                await asyncio.sleep(0.1)
