"""An app with CPU-bound activities, as a module that processes can import."""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from holdtrue.authoring.app import App

app = App(max_payload=1_000_000)


@dataclass
class Numbers:
    values: list[int]


@app.activity(cpu=True)
def total(ctx: Any, numbers: Numbers) -> dict[str, int]:
    print("printed by the process")
    return {"total": sum(numbers.values), "pid": os.getpid()}


@app.activity(cpu=True)
def who(ctx: Any) -> list[Any]:
    return [ctx.instance_id, ctx.task_id, ctx.attempt, ctx.run, ctx.idempotency_key, ctx.details, ctx.name]


@app.activity(cpu=True)
def go_wrong(ctx: Any, kind: str) -> Any:
    if kind == "exit":
        sys.exit(4)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "value":
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error
    if kind == "unserialisable":
        return object()
    if kind == "oversize":
        return "x" * 2_000_000
    if kind == "client":
        return ctx.client
    raise AssertionError(kind)


@app.activity(cpu=True)
def die(ctx: Any, how: str) -> str:
    """Dies at its first two runs in a directory, by the given signal (or os._exit)."""
    signal_name, _, path = how.partition(":")
    tries = len(os.listdir(path))
    with open(os.path.join(path, str(tries)), "w", encoding="utf-8"):
        pass
    if tries < 2 or signal_name == "always":
        if signal_name == "_exit":
            os._exit(9)
        if signal_name == "segfault":
            ctypes.string_at(0)
        os.kill(os.getpid(), signal.SIGKILL)
    return f"alive after {tries}"


@app.activity(cpu=True)
def spin(ctx: Any, path: str) -> str:
    """Computes until it is asked to end; says in a file who it is."""
    say(path)
    while not ctx.is_cancelled:
        pass
    ctx.raise_if_cancelled()
    return "never"


@app.activity(cpu=True, start_to_close=0.3)
def spin_deaf(ctx: Any, path: str) -> None:
    say(path)
    while True:
        pass


@app.activity(cpu=True)
def spin_for_ever(ctx: Any, path: str) -> None:
    say(path)
    while True:
        pass


@app.activity(cpu=True)
def signs(ctx: Any) -> str:
    for step in range(50_000):
        ctx.progress(step)
        ctx.heartbeat({"step": step})
    return "done"


@app.activity(cpu=True, heartbeat=10.0)
def beats_when_told(ctx: Any, path: str) -> None:
    """A heartbeat for each file that appears, numbered from 0."""
    number = 0
    while True:
        while not os.path.exists(os.path.join(path, str(number))):
            time.sleep(0.005)
        ctx.heartbeat(number)
        number += 1


@app.activity(cpu=True)
def open_files(ctx: Any) -> list[str]:
    """What descriptors it has beside its output and the one socket of Holdtrue's."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if int(name) > 2 and not target.startswith(("/proc/", "anon_inode:")):
                found.append(target)
    return found


@app.activity(cpu=True)
def ignores_signals(ctx: Any) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    return "still here"


@app.activity(cpu=True)
def close_everything(ctx: Any) -> str:
    """Breaks Holdtrue's own socket."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError, ValueError):
            if int(name) > 2 and os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                socket.socket(fileno=os.dup(int(name))).shutdown(socket.SHUT_RDWR)
    time.sleep(60)
    return "unheard"


def say(path: str) -> None:
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(str(os.getpid()))
    os.replace(path + ".part", path)


@app.activity(cpu=True)
def dies_on_the_way(ctx: Any, path: str) -> list[Any]:
    """Reports, waits for the file `go`, and dies; the next run tells from where it would go on."""
    if ctx.details is not None:
        return [ctx.details, ctx.run]
    ctx.heartbeat({"step": 1})
    while not os.path.exists(os.path.join(path, "go")):
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)
    return []


@app.activity(cpu=True)
def reports_and_fails(ctx: Any) -> None:
    ctx.heartbeat("near")
    ctx.heartbeat("far")
    raise ValueError("on the way")


@app.activity(cpu=True)
def forks_and_waits(ctx: Any, path: str) -> None:
    """Has a child that outlives it, whose number it says; ignores every wish to end."""
    _sleeper(path)
    time.sleep(60)


@app.activity(cpu=True)
def forks_and_dies(ctx: Any, path: str) -> None:
    _sleeper(path)
    os.kill(os.getpid(), signal.SIGKILL)


def _sleeper(path: str) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(str(child))
    os.replace(path + ".part", path)


@app.activity(cpu=True)
def forks_and_reports(ctx: Any) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ctx.heartbeat(1)
            told = "nothing"
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    return os.read(reading, 4_096).decode()
