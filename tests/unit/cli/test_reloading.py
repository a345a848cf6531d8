"""The reloader: what counts as a change, and that its worker is started anew and ends with it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from holdtrue.cli.reloading import DRAIN_SECONDS, changed_files, stamp

REPOSITORY = Path(__file__).parents[3]

WORKER = """
import os, signal, sys, time
from holdtrue.cli.reloading import end_with_parent
signal.signal(signal.SIGTERM, lambda *_: (open({log!r}, "a").write("drained\\n"), sys.exit(0)))
end_with_parent()
open({log!r}, "a").write(f"up {{os.getpid()}}\\n")
while True:
    time.sleep(0.05)
"""

PARENT = """
import sys
from pathlib import Path

import pytest
from holdtrue.cli import reloading
reloading.POLL_SECONDS = 0.05
say = lambda text: print(text, flush=True)
sys.exit(reloading.run_reloading([sys.executable, {worker!r}], [Path({folder!r})], say))
"""


def wait_for(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Reloader:
    """A reloader process with a small worker."""

    def __init__(self, tmp_path: Path, worker: str = WORKER) -> None:
        self.sources = tmp_path / "sources"
        self.sources.mkdir()
        (self.sources / "app.py").write_text("x = 1\n")
        self.log = tmp_path / "log"
        self.log.touch()
        program = tmp_path / "worker.py"
        program.write_text(worker.format(log=str(self.log)))
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT.format(worker=str(program), folder=str(self.sources))],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
            stdout=subprocess.PIPE,
            text=True,
        )

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def pids(self) -> list[int]:
        return [int(line.split()[1]) for line in self.lines() if line.startswith("up")]

    def finish(self) -> str:
        if self.process.poll() is None:
            self.process.kill()
        output = self.process.communicate()[0]
        for pid in self.pids():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        return output


def test_a_change_starts_the_worker_anew_and_a_stop_drains_it(tmp_path: Path) -> None:
    reloader = Reloader(tmp_path)
    try:
        wait_for(lambda: len(reloader.pids()) == 1)
        (reloader.sources / "app.py").write_text("x = 2222\n")
        wait_for(lambda: len(reloader.pids()) == 2)
        assert reloader.lines()[1] == "drained"
        reloader.process.send_signal(signal.SIGTERM)
        assert reloader.process.wait(30) == 0
        assert reloader.lines()[-1] == "drained"
    finally:
        output = reloader.finish()
    assert "app.py changed" in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_stops_at_once(tmp_path: Path, number: int, code: int) -> None:
    """The worker of this test never drains; waiting for it would take `DRAIN_SECONDS` and more."""
    stubborn = (
        "import os, signal\nlog = open({log!r}, 'a', buffering=1)\n"
        "signal.signal(signal.SIGTERM, lambda *_: log.write('asked\\n'))\n"
        "log.write(f'up {{os.getpid()}}\\n')\nwhile True: signal.pause()\n"
    )
    reloader = Reloader(tmp_path, stubborn)
    try:
        wait_for(lambda: len(reloader.pids()) == 1)
        reloader.process.send_signal(number)
        wait_for(lambda: reloader.lines()[-1] == "asked")
        reloader.process.send_signal(number)
        assert reloader.process.wait(DRAIN_SECONDS) == code
        assert not alive(reloader.pids()[0])
    finally:
        reloader.finish()


def test_a_worker_ends_when_its_reloader_is_killed(tmp_path: Path) -> None:
    reloader = Reloader(tmp_path)
    try:
        wait_for(lambda: len(reloader.pids()) == 1)
        reloader.process.kill()
        wait_for(lambda: reloader.lines()[-1] == "drained")
        wait_for(lambda: not alive(reloader.pids()[0]))
    finally:
        reloader.finish()


def test_a_worker_that_cannot_start_is_tried_again_at_the_next_change(tmp_path: Path) -> None:
    broken = 'open({log!r}, "a").write("up 0\\n")\nraise SystemExit(7)\n'
    reloader = Reloader(tmp_path, broken)
    reloader.pids = list  # type: ignore[method-assign]
    try:
        assert "ended with code 7" in (reloader.process.stdout or sys.stdin).readline()
        assert len(reloader.lines()) == 1
        (reloader.sources / "new.py").touch()
        wait_for(lambda: len(reloader.lines()) == 2)
    finally:
        reloader.finish()


def test_what_counts_as_a_source_file(tmp_path: Path) -> None:
    left_out = ("notes.txt", ".git/hook.py", "venv/pyvenv.cfg", "venv/lib.py", "__pycache__/c.py")
    for name in ("app.py", "deep/er/mod.py", *left_out):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    before = stamp([tmp_path])
    assert sorted(before) == [str(tmp_path / "app.py"), str(tmp_path / "deep/er/mod.py")]
    assert changed_files(before, stamp([tmp_path])) == []
    (tmp_path / "app.py").unlink()
    (tmp_path / "deep/er/mod.py").write_text("1")
    (tmp_path / "new.py").touch()
    (tmp_path / "notes.txt").write_text("1")
    assert changed_files(before, stamp([tmp_path])) == sorted(
        str(tmp_path / name) for name in ("app.py", "deep/er/mod.py", "new.py")
    )


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert stamp([tmp_path / "nowhere"]) == {}
