"""CPU-bound activities in processes: conversions, deaths, cancellation, and that none outlives its host."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from holdtrue.authoring.app import App
from holdtrue.authoring.errors import RegistrationError
from holdtrue.core.actions import ActivityOptions
from holdtrue.engine.cpu_messages import Cancel, Sign, framed, from_process, to_process
from holdtrue.frames import take_frames

from . import cpu_errors
from .bench import PATIENCE, Bench, ManualEnvironment, failure, result, with_bench
from .cpu_app import app

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def pid_in(bench: Bench, path: Path) -> int:
    await bench.until(path.exists)
    return int(path.read_text())


def wait_for(condition: Any) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.01)


def test_values_by_type_hints_and_one_process_for_many() -> None:
    async def test(bench: Bench) -> None:
        pids = set()
        for _ in range(3):
            value = json.loads(result(await bench.run("total", '{"values": [1, 2, 3]}')) or "")
            assert value["total"] == 6
            pids.add(value["pid"])
        assert len(pids) == 1 and pids != {os.getpid()}
        refused = failure(await bench.run("total", '{"values": "none"}'))
        assert refused.error_type.endswith("PayloadError") and "input of activity 'total'" in refused.message
        who = json.loads(result(await bench.run("who", details="[5]", options=ActivityOptions(attempt=3))) or "")
        assert who == ["order-1", 5, 3, 1, "x1:5", [5], "who"]

    with_bench(app, test, processes=1)


def test_a_host_with_very_many_open_files() -> None:
    """Descriptors above 1,023 are beyond `select`: the process never got its work."""

    async def test(bench: Bench) -> None:
        with ExitStack() as files:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2_048), limits[1]))
            for _ in range(1_100):
                files.enter_context(open(os.devnull, "rb"))
            assert json.loads(result(await bench.run("total", '{"values": [1, 2]}')) or "")["total"] == 3

    with_bench(app, test, processes=1)


def test_every_way_out_is_an_outcome() -> None:
    async def test(bench: Bench) -> None:
        for kind, error_type in (
            ("exit", "SystemExit"),
            ("interrupt", "KeyboardInterrupt"),
            ("unserialisable", "PayloadError"),
            ("oversize", "PayloadTooLarge"),
            ("client", "RuntimeError"),
            ("value", "ValueError"),
        ):
            failed = failure(await bench.run("go_wrong", json.dumps(kind)))
            assert failed.error_type.endswith(error_type)
        assert failed.inner_failure is not None and failed.inner_failure.error_type.endswith("KeyError")
        assert result(await bench.run("ignores_signals")) == '"still here"'
        assert bench.pool.counters.crashes == 0

    with_bench(app, test, processes=1)


@pytest.mark.parametrize("how", ["SIGKILL", "_exit", "segfault"])
def test_a_process_that_dies_does_not_lose_the_item(how: str, tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        event = await bench.run("die", json.dumps(f"{how}:{tmp_path}"))
        assert result(event) == '"alive after 2"'
        assert bench.pool.counters.crashes == 2

    with_bench(app, test, processes=1)


def test_one_that_dies_each_time_fails(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        failed = failure(await bench.run("die", json.dumps(f"always:{tmp_path}")))
        assert failed.error_type == "holdtrue.ActivityProcessCrashedError"
        assert "killed by SIGKILL" in failed.message and failed.properties == {"crashes": 3}
        assert len(os.listdir(tmp_path)) == 3
        assert json.loads(result(await bench.run("who")) or "")[0] == "order-1"

    with_bench(app, test, processes=1, crash_limit=3)


def test_one_that_breaks_the_socket_is_killed_and_fails() -> None:
    async def test(bench: Bench) -> None:
        failed = failure(await bench.run("close_everything"))
        assert failed.error_type == "holdtrue.ActivityProcessCrashedError"

    with_bench(app, test, processes=1, crash_limit=1)


def test_no_process_to_be_had() -> None:
    from holdtrue.environment import Environment

    class Poor(Environment):
        def spawn(self, arguments: Any, descriptor: int) -> Any:
            raise OSError("no more processes")

    async def test(bench: Bench) -> None:
        failed = failure(await bench.run("who"))
        assert "no more processes" in failed.message
        await bench.idle()

    with_bench(app, test, environment=Poor(), crash_limit=2)


def test_cancellation_goes_to_the_process(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        item = bench.submit("spin", json.dumps(str(tmp_path / "pid")))
        pid = await pid_in(bench, tmp_path / "pid")
        bench.pool.cancel([item.ref])
        assert bench.told == [(1, None)]
        await bench.idle()
        assert alive(pid), "it ended its run when it was asked to, and its process lives on"
        assert bench.pool.counters.crashes == 0
        assert json.loads(result(await bench.run("who")) or "")[1] == 2

    with_bench(app, test, processes=1, cancel_grace=PATIENCE)


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.submit("spin_deaf", json.dumps(str(tmp_path / "pid")))
        pid = await pid_in(bench, tmp_path / "pid")
        await bench.until(lambda: len(bench.told) == 1)
        assert failure(bench.told[0][1]).error_type == "holdtrue.ActivityTimeoutError"
        await bench.idle()
        assert not alive(pid) and len(bench.told) == 1
        assert json.loads(result(await bench.run("who")) or "")[1] == 2

    with_bench(app, test, processes=1, cancel_grace=0.1)


def test_signs_of_life_come_through() -> None:
    async def test(bench: Bench) -> None:
        assert result(await bench.run("signs")) == '"done"'
        assert 1 <= len(bench.reports) < 50

    with_bench(app, test, processes=1)


def test_heartbeats_of_a_process_keep_it_from_timing_out(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        environment = bench.environment
        assert isinstance(environment, ManualEnvironment)
        bench.submit("beats_when_told", json.dumps(str(tmp_path)))
        for number in range(4):
            (tmp_path / str(number)).touch()
            await bench.until(lambda wanted=number + 1: len(bench.reports) == wanted)  # type: ignore[misc]
            assert bench.reports[-1][2] == str(number)
            await environment.advance(9.9)
        assert bench.told == []
        await environment.advance(0.2)
        failed = failure(dict(bench.told)[1])
        assert failed.properties == {"timeout": "heartbeat", "seconds": 10.0, "holdtrue.details": "3"}
        await environment.advance(1)  # the grace of its process
        await bench.until(lambda: environment_idle(bench))

    def environment_idle(bench: Bench) -> bool:
        for timer in list(bench.environment.timers):  # type: ignore[attr-defined]
            bench.environment.timers.remove(timer)  # type: ignore[attr-defined]
            timer.off or timer.call()
        return bench.pool.running == 0

    with_bench(app, test, environment=ManualEnvironment(), processes=1)


def test_drain_gives_back_what_runs_in_a_process(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.submit("spin_for_ever", json.dumps(str(tmp_path / "pid")))
        bench.submit("who")
        pid = await pid_in(bench, tmp_path / "pid")
        back = await bench.pool.drain(0)
        assert sorted(ref.key for ref in back) == [1, 2] and bench.told == []
        await bench.until(lambda: not alive(pid))

    with_bench(app, test, processes=1, cancel_grace=0.2)


def test_a_process_inherits_no_descriptor(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w", encoding="utf-8") as file:
        os.set_inheritable(file.fileno(), True)

        async def test(bench: Bench) -> None:
            found = json.loads(result(await bench.run("open_files")) or "")
            assert len([name for name in found if name.startswith("socket:")]) == 1
            assert not [name for name in found if "lock" in name]

        with_bench(app, test, processes=1)


def test_a_function_within_a_function_says_what_to_do() -> None:
    local = App()

    @local.activity(name="hidden")
    def hidden(ctx: Any) -> None: ...

    # Registration refuses it; a hub may still hand such an item to a worker made by other means.
    import msgspec

    definition = msgspec.structs.replace(local.activities["hidden"], kind="cpu")
    local._activities["hidden"] = definition

    async def test(bench: Bench) -> None:
        assert "top level of a module" in failure(await bench.run("hidden")).message

    with_bench(local, test, processes=1)


def test_an_app_without_a_global_name() -> None:
    from . import cpu_app

    local = App()
    local.activity(cpu_app.total, name="sum up", cpu=True)

    async def test(bench: Bench) -> None:
        value = json.loads(result(await bench.run("sum up", '{"values": [4]}')) or "")
        assert value["total"] == 4

    with_bench(local, test, processes=1)


def test_errors_of_an_app_without_a_global_name_are_told_as_in_its_host() -> None:
    class Here(Exception):
        """Registered too, and nothing that a process could import."""

    def make(properties: Any) -> App:
        local = App(failure_properties=properties)
        local.error(cpu_errors.Declined, properties=["code"])
        local.error(cpu_errors.Closed, non_retriable=True)
        local.error(Here)
        local.activity(cpu_errors.pay, cpu=True)
        return local

    async def test(bench: Bench) -> None:
        declined = failure(await bench.run("pay", "7"))
        assert declined.error_type == "tests.unit.activities.cpu_errors.Declined"
        assert declined.properties == {"code": 7, "kind": "Declined"} and not declined.is_non_retriable
        again = local.task_failed("failed", declined).__cause__
        assert type(again) is cpu_errors.Declined and again.code == 7
        assert failure(await bench.run("pay", "0")).is_non_retriable

    local = make(cpu_errors.further_properties)
    with_bench(local, test, processes=1)
    with pytest.raises(RegistrationError, match=r"failure_properties of this app is .*lambda.*top level of a module"):
        Bench(make(lambda error: {}))


# -- scripts, and hosts that die -----------------------------------------------------------------------------


def script(*arguments: str) -> "subprocess.Popen[str]":
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.parametrize("how", [[str(HERE / "cpu_script.py")], ["-m", "tests.unit.activities.cpu_script"]])
def test_activities_of_a_script(how: list[str]) -> None:
    with script(*how) as process:
        out, _ = process.communicate(timeout=PATIENCE * 2)
    lines = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 0
    assert {"square": 49, "child": True} in lines
    # A class of the script's has the name that it has in the host, and its registration holds.
    assert {"failed": "__main__.Odd", "cause": "__main__.Odd", "properties": {"number": 3}} in lines
    # Its process loaded it once, under another name: what it does when run was not done again.
    assert lines.count({"loaded": "__main__"}) == 1 and lines.count({"loaded": "__holdtrue_main__"}) == 1


def test_a_program_that_begins_its_host_whenever_it_is_loaded(tmp_path: Path) -> None:
    with script(str(HERE / "cpu_unguarded.py"), str(tmp_path / "hub.db")) as process:
        out, _ = process.communicate(timeout=PATIENCE * 2)
    assert process.returncode == 0
    assert "cpu_unguarded.py: RuntimeError" in out and "no host is begun" in out
    assert "if __name__ == '__main__':" in out


def test_a_program_whose_app_is_there_only_when_it_is_run(tmp_path: Path) -> None:
    with script(str(HERE / "cpu_guarded.py"), str(tmp_path / "hub.db")) as process:
        out, _ = process.communicate(timeout=PATIENCE * 2)
    assert process.returncode == 0
    assert [json.loads(line) for line in out.splitlines()] == [2, ["__main__.Odd", True, 3]]


def test_a_program_without_a_file_is_told_at_registration() -> None:
    code = "import holdtrue\ndef f(ctx): ...\nholdtrue.App().activity(f, cpu=True)"
    with script("-c", f"try:\n exec({code!r}, globals())\nexcept Exception as error: print(error)") as process:
        out, _ = process.communicate(timeout=PATIENCE * 2)
    assert "activity 'f' is cpu=True" in out and "put it into a module of its own, in a file" in out


@pytest.mark.parametrize("how", ["told to end", "killed"])
def test_a_process_whose_own_children_live_on_is_seen_to_end(how: str, tmp_path: Path) -> None:
    """They have its end of the socket, as forked processes do; they must not keep the slot."""

    async def test(bench: Bench) -> None:
        path = tmp_path / "pid"
        try:
            if how == "killed":
                failed = failure(await bench.run("forks_and_dies", json.dumps(str(path))))
                assert failed.error_type == "holdtrue.ActivityProcessCrashedError"
            else:
                item = bench.submit("forks_and_waits", json.dumps(str(path)))
                await pid_in(bench, path)
                bench.pool.cancel([item.ref])
            await bench.idle()
            assert alive(int(path.read_text())), "the child of its own, which nobody but it can end"
            assert json.loads(result(await bench.run("who")) or "")[0] == "order-1"
        finally:
            os.kill(int(path.read_text()), signal.SIGKILL)

    with_bench(app, test, processes=1, cancel_grace=0.1, crash_limit=1)


def test_what_an_activity_has_forked_cannot_report(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        told = json.loads(result(await bench.run("forks_and_reports")) or "")
        assert told.startswith("RuntimeError: this process was forked by an activity")
        assert json.loads(result(await bench.run("who")) or "")[0] == "order-1"

    with_bench(app, test, processes=1)


def test_a_busy_process_dies_with_its_host(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with script(str(HERE / "cpu_script.py"), str(path)) as process:
        try:
            wait_for(path.exists)
            pid = int(path.read_text())
            assert alive(pid)
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
            wait_for(lambda: not alive(pid))
        finally:
            process.kill()


# -- messages ------------------------------------------------------------------------------------------------


def test_frames_come_apart_however_they_arrive() -> None:
    sent = [Sign("1", None), Sign(None, '"é\\n"'), Sign("x" * 70_000, "{}")]
    data = b"".join(framed(message) for message in sent)
    for size in (1, 3, 1_000, len(data)):
        buffer = bytearray()
        got = []
        for at in range(0, len(data), size):
            buffer += data[at : at + size]
            got += [from_process.decode(body) for body in take_frames(buffer)]
        assert got == sent and not buffer
    assert to_process.decode(framed(Cancel("why"))[4:]) == Cancel("why")


def test_asyncio_is_not_needed_in_another_thread() -> None:
    """A pool may live on a loop outside the main thread: its processes die with that thread, and not before."""
    import threading

    outcome: list[Any] = []

    def main() -> None:
        async def work() -> None:
            bench = Bench(app, processes=1)
            outcome.append(result(await bench.run("total", '{"values": [2]}')))
            await bench.pool.drain(0)

        asyncio.run(work())

    thread = threading.Thread(target=main)
    thread.start()
    thread.join(PATIENCE * 2)
    assert outcome and json.loads(outcome[0])["total"] == 2
