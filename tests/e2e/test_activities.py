"""Activities on a real hub: attempts that go on where the last one was, and processes with a client of their own."""

import contextlib
import importlib
import os
import signal
import sys
from pathlib import Path

from hubs import TIMEOUT, Worker, outcome, run, until

import holdtrue
from holdtrue import Status
from holdtrue.stores.sqlite import SqliteStore

WORK = """
from datetime import timedelta

app = holdtrue.App()
FOLDER = Path(__file__).parent
POLICY = holdtrue.RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=3)

def say(name, text):
    (FOLDER / f"{name}.part").write_text(text)
    (FOLDER / f"{name}.part").rename(FOLDER / name)

@app.activity
async def copies(ctx, how: str) -> list:
    seen = [ctx.attempt, ctx.run, ctx.details, ctx.idempotency_key]
    if ctx.details is not None:
        return [*json_seen(), seen]
    say("first", repr(seen))
    ctx.heartbeat({"row": 7})
    if how == "raises":
        raise RuntimeError("on the way")
    while True:
        await asyncio.sleep(0.05)
        if how == "lives":
            ctx.heartbeat()

def json_seen():
    import ast
    return [ast.literal_eval((FOLDER / "first").read_text())]

@app.activity(cpu=True)
def asks(ctx, how: str) -> list:
    client = ctx.client
    assert client is ctx.client
    status = client.get_status(ctx.instance_id)
    if how == "dies" and ctx.run == 1:
        os.kill(os.getpid(), 9)
    if how == "hangs":
        say("child", str(os.getpid()))
        while not (FOLDER / "go").exists():
            time.sleep(0.01)
    child = client.start("doubles", input=4)
    return [status.name, ctx.run, client.wait_for_completion(child, timeout=30).output]

@app.activity
def twice(ctx, n: int) -> int:
    return 2 * n

@app.activity
def forks(ctx) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ctx.client.get_status(ctx.instance_id)
            told = "nothing"
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    return os.read(reading, 4096).decode()

@app.orchestrator
async def doubles(ctx, n: int) -> int:
    return await ctx.call_activity(twice, input=n)

@app.orchestrator
async def copy(ctx, how: str) -> list:
    heartbeat = None if how == "raises" else 60 if how == "lives" else 0.5
    return await ctx.call_activity(copies, input=how, retry_policy=POLICY, heartbeat=heartbeat)

@app.orchestrator
async def ask(ctx, how: str) -> list:
    return await ctx.call_activity(asks, input=how)

@app.orchestrator
async def fork(ctx, _=None) -> str:
    return await ctx.call_activity(forks)
"""


def loaded(folder: Path) -> holdtrue.App:
    """The same app, for hosts in this process."""
    names: dict[str, object] = {"__file__": str(folder / "here.py"), "__name__": "here"}
    exec("import asyncio, holdtrue, os, sys, time\nfrom pathlib import Path\n" + WORK, names)
    app = names["app"]
    assert isinstance(app, holdtrue.App)
    return app


@contextlib.contextmanager
def imported(folder: Path, name: str):
    """The same app as a module's, so that processes can import it."""
    (folder / f"{name}.py").write_text("import asyncio, holdtrue, os, sys, time\nfrom pathlib import Path\n" + WORK)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(name).app
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(name, None)


async def failures_in(client: holdtrue.Client, instance_id: str) -> int:
    return len([event async for event in client.history(instance_id) if type(event).__name__ == "TaskFailed"])


def check(first: list, second: list, attempt: int, run_number: int) -> None:
    assert first[:3] == [1, 1, None]
    assert second[:3] == [attempt, run_number, {"row": 7}]
    assert second[3] == first[3], "one key for all runs and attempts"


def test_the_attempt_after_a_heartbeat_time_out_or_an_error_goes_on_where_the_last_was(tmp_path):
    async def main():
        for how in ("hangs", "raises"):
            async with holdtrue.Host(loaded(tmp_path), tmp_path / "hub.db") as host:
                first, second = await outcome(host.client, await host.client.start("copy", input=how))
                check(first, second, 2, 1)

    run(main())


def test_it_goes_on_there_also_after_a_kill_while_the_next_attempt_waits(tmp_path):
    async def main():
        async with holdtrue.Client(tmp_path / "hub.db") as client:
            instance = await client.start("copy", input="hangs")
            with Worker(tmp_path, WORK, tmp_path / "hub.db") as worker:
                await until(lambda: failures_in(client, instance), "the time-out")
                worker.kill()
            with Worker(tmp_path, WORK, tmp_path / "hub.db", name="second"):
                first, second = await outcome(client, instance)
            check(first, second, 2, 1)
            assert await failures_in(client, instance) == 1

    run(main())


def test_a_run_after_a_kill_goes_on_where_the_last_was_and_status_and_commit_stay_apart(tmp_path):
    async def main():
        async with holdtrue.Client(tmp_path / "hub.db") as client:
            instance = await client.start("copy", input="lives")

            async def heard():
                status = await client.get_status(instance, waits=True)
                return [activity for activity in status.progress if activity.heartbeat_at is not None]

            with Worker(tmp_path, WORK, tmp_path / "hub.db") as worker:
                (before,) = await until(heard, "a heartbeat")
                status = await client.get_status(instance)

                async def heard_again():
                    (now,) = await heard()
                    return now.heartbeat_at > before.heartbeat_at

                await until(heard_again, "another heartbeat")
                again = await client.get_status(instance)
                assert (again.last_updated_at, again.history_size) == (status.last_updated_at, status.history_size)
                worker.kill()
            with Worker(tmp_path, WORK, tmp_path / "hub.db", name="second"):
                first, second = await outcome(client, instance)
            check(first, second, 1, 2)
            assert await failures_in(client, instance) == 0

    run(main())


def test_a_process_has_a_client_of_its_own(tmp_path):
    hub = tmp_path / "a hub#1.db"

    async def main():
        with imported(tmp_path, "asking") as app:
            settings = holdtrue.HostSettings(activity_processes=1)
            async with holdtrue.Host(app, hub, settings=settings) as host:
                client = host.client
                assert await outcome(client, await client.start("ask", input="asks")) == ["ask", 1, 8]
                # One that dies with its hub open leaves the hub, and its host, as they were.
                assert await outcome(client, await client.start("ask", input="dies")) == ["ask", 2, 8]
                assert await outcome(client, await client.start("ask", input="asks")) == ["ask", 1, 8]
                number = host.number
                await host.store.renew()
                assert host.number == number and host.dispatcher.counters.takeovers == 0
        # Ended in order, they leave nothing behind (but the one that was killed may).
        assert len([name for name in os.listdir(f"{hub}-hosts") if name.endswith(".lock")]) <= 1

    run(main())


def test_a_process_that_has_the_hub_open_does_not_hold_its_dead_hosts_place(tmp_path):
    async def main():
        async with holdtrue.Client(tmp_path / "hub.db") as client:
            instance = await client.start("ask", input="hangs")
            with Worker(tmp_path, WORK, tmp_path / "hub.db") as worker:
                child = int((await until(lambda: _read(tmp_path / "child"), "the process")) or "0")
                os.kill(child, signal.SIGSTOP)  # it cannot even see that its host dies
                worker.kill()
            (tmp_path / "go").touch()
            with Worker(tmp_path, WORK, tmp_path / "hub.db", name="second"):
                # The lease is two minutes: only the lock can tell so soon.
                assert await outcome(client, instance) == ["ask", 2, 8]
            await until(lambda: not os.path.exists(f"/proc/{child}") or _is_gone(child), "the end of the process")

    run(main())


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _is_gone(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_client_of_a_context_is_refused_to_a_forked_child(tmp_path):
    async def main():
        async with holdtrue.Host(loaded(tmp_path), tmp_path / "hub.db") as host:
            told = await outcome(host.client, await host.client.start("fork"))
            assert told.startswith("ForkedProcess: ctx.client belongs to the process that runs the activity")

    run(main())


def test_a_hub_that_no_other_process_can_open_is_told(tmp_path):
    class Private(SqliteStore):
        @property
        def location(self):
            return None

    async def main():
        with imported(tmp_path, "private") as app:
            async with holdtrue.Host(app, Private(str(tmp_path / "hub.db"))) as host:
                instance = await host.client.start("ask", input="asks")
                status = await host.client.wait_for_completion(instance, timeout=TIMEOUT)
                assert status.runtime_status is Status.FAILED and status.failure.inner_failure is not None
                assert "no location that another process could open" in status.failure.inner_failure.message
                assert instance in status.failure.inner_failure.message

    run(main())


def test_a_blocking_client_is_refused_to_a_forked_child(tmp_path):
    reading, writing = os.pipe()
    with holdtrue.SyncClient(tmp_path / "hub.db") as client:
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # its loop's thread is its parent's: it waited for ever
            try:
                client.get_status("x")
                told = "nothing"
            except BaseException as error:
                told = type(error).__name__
            client.close()
            os.write(writing, told.encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        assert os.read(reading, 100) == b"ForkedProcess"
        assert client.get_status("x") is None
