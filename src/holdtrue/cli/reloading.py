"""`holdtrue run --reload`: a parent that keeps one worker process and starts it anew when source files change.

It polls, which works on every file system; files are few.  The parent never imports the application.  The
worker ends with its parent: it holds the reading end of a pipe whose other end only the parent has.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

PARENT_PIPE = "HOLDTRUE_PARENT_PIPE"
"""Environment variable with the number of the pipe's reading end, for the worker under a reloader."""

POLL_SECONDS = 0.4
DRAIN_SECONDS = 20.0
"""How long a worker drains where nothing else is said."""
GRACE_SECONDS = 20.0
"""How long after its drain a worker may take to end before it is killed: what it cancels has a grace, too."""

_IGNORED = frozenset(("__pycache__", "node_modules", "site-packages"))

Stamp = dict[str, tuple[int, int]]
"""Files and their times of change (ns) and sizes."""


def source_files(folders: Iterable[Path]) -> Iterator[os.DirEntry[str]]:
    """The Python files under folders; hidden folders, caches and virtual environments are left out."""
    pending = [str(folder) for folder in folders]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue  # gone meanwhile, or not ours to read
        if any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.name.endswith(".py") and entry.is_file():
                    yield entry
                elif entry.is_dir(follow_symlinks=False) and not (entry.name.startswith(".") or entry.name in _IGNORED):
                    pending.append(entry.path)


def stamp(folders: Iterable[Path]) -> Stamp:
    """What the source files under the folders look like now."""
    seen: Stamp = {}
    for entry in source_files(folders):
        with contextlib.suppress(OSError):
            status = entry.stat()
            seen[entry.path] = (status.st_mtime_ns, status.st_size)
    return seen


def changed_files(before: Stamp, after: Stamp) -> list[str]:
    """Files that are new, gone or different, by name."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def run_reloading(
    command: Sequence[str], folders: Sequence[Path], say: Callable[[str], None], *, drain: float = DRAIN_SECONDS
) -> int:
    """Keep a worker running until SIGTERM or SIGINT; its last exit code (0 where it drained).

    A second signal kills it: 128 and the signal's number, as the worker itself answers.  A worker that ends
    by itself (an application that cannot be imported, say) is started again at the next change, not before.
    """
    stop = threading.Event()
    worker: subprocess.Popen[bytes] | None = None
    killed_by = 0

    def stopped(number: int, frame: object) -> None:
        nonlocal killed_by
        if stop.is_set() and worker is not None:
            killed_by = number
            worker.kill()
        stop.set()

    handlers = {number: signal.signal(number, stopped) for number in (signal.SIGTERM, signal.SIGINT)}
    reading, writing = os.pipe()
    environment = {**os.environ, PARENT_PIPE: str(reading)}

    def launch() -> "subprocess.Popen[bytes]":
        # A session of its own: a Ctrl-C in the terminal reaches the parent alone, which passes it on once.
        return subprocess.Popen(list(command), env=environment, pass_fds=(reading,), start_new_session=True)

    try:
        before = stamp(folders)
        worker = launch()
        told = False
        while not stop.wait(POLL_SECONDS):
            if worker.poll() is not None and not told:
                told = True
                say(f"The worker ended with code {worker.returncode}; it starts again when a file changes.")
            after = stamp(folders)
            changed = changed_files(before, after)
            if changed:
                before = after
                say(f"{_named(changed, folders)} changed; the worker starts again.")
                code = end(worker, drain)
                if stop.is_set():
                    return 128 + killed_by if killed_by else code
                worker, told = launch(), False
        code = end(worker, drain)
        return 128 + killed_by if killed_by else code
    finally:
        os.close(writing)
        os.close(reading)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def end(worker: "subprocess.Popen[bytes]", drain: float = DRAIN_SECONDS) -> int:
    """Ask the worker to drain, and kill it when it has not ended `GRACE_SECONDS` after that; its exit code."""
    if worker.poll() is None:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(drain + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
    return worker.returncode


def _named(files: Sequence[str], folders: Sequence[Path]) -> str:
    first = Path(files[0])
    for folder in folders:
        if first.is_relative_to(folder):
            first = first.relative_to(folder)
            break
    return str(first) if len(files) == 1 else f"{first} and {len(files) - 1} more"


def end_with_parent(drain: float = DRAIN_SECONDS) -> None:
    """In a worker under a reloader: drain when the parent is gone, and exit if that takes too long."""
    number = os.environ.pop(PARENT_PIPE, None)
    if number is None:
        return
    pipe = int(number)
    os.set_inheritable(pipe, False)

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(drain + GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="holdtrue-parent", daemon=True).start()


def worker_command(arguments: Sequence[str]) -> list[str]:
    """The command line of a worker with this interpreter."""
    return [sys.executable, "-m", "holdtrue.cli", *arguments]
