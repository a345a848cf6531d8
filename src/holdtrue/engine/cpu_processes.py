"""Processes for CPU-bound activities: spawned when needed, kept, replaced when they die, never forked.

Each is a Python of its own that gets one socket and the output streams, and no other descriptor.  It
imports the app by module name; payloads travel as JSON.  It ends with its host: at once by the kernel's
hand where it has one for that (Linux; it strikes when the thread that made the process ends, so the loop's
thread must live as long as the pool), and by the socket's end everywhere.

What a death means for the item (run again, or failed) is the pool's decision, not this module's.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import msgspec

from holdtrue.authoring.errors import RegistrationError
from holdtrue.core.events import FailureDetails
from holdtrue.environment import Environment, python_arguments
from holdtrue.frames import take_frames

from .activity_runs import Run
from .cpu_messages import (
    MAIN_NAME,
    BareApp,
    Began,
    Cancel,
    Done,
    Failed,
    KnownError,
    MainScript,
    Place,
    Program,
    Sign,
    ToProcess,
    Work,
    framed,
    from_process,
)

log = logging.getLogger("holdtrue.activities")

IDLE_SECONDS = 60.0
"""A process that had nothing to do for so long is ended: an idle worker should be small."""
REAP_SECONDS = 0.01
REAP_PATIENCE = 20
"""How often a process whose socket has ended is asked for its exit before it is killed."""


class CpuProcesses:
    """The processes of one pool.  Raises RegistrationError where the app's errors could not be told from them.

    `began(run)` is called when a run's code begins, `ended(run, result, failure)` when it has ended, and
    `crashed(run, how)` when its process died (or was killed) before that.
    """

    def __init__(
        self,
        app: Any,
        environment: Environment,
        *,
        hub: str | None,
        load_seconds: float,
        began: Callable[[Run], None],
        ended: Callable[[Run, str | None, FailureDetails | None], None],
        crashed: Callable[[Run, str], None],
    ) -> None:
        self.environment = environment
        self.load_seconds = load_seconds
        self.began = began
        self.ended = ended
        self.crashed = crashed
        self._app = app
        self._hub = hub
        if any(definition.kind == "cpu" for definition in app.activities.values()):
            check_app(app)
        self._programs: dict[str, Program] = {}
        self._idle: list[CpuProcess] = []
        self._all: set[CpuProcess] = set()

    def run(self, run: Run) -> None:
        """Run it in a free process, or a new one."""
        program = self._program(run)
        process = self._idle.pop() if self._idle else self._spawn(run)
        if process is None:
            return
        run.process = process
        process.start(
            run,
            Work(
                item=msgspec.structs.replace(run.item, details=run.details, run=run.number),
                program=program,
            ),
        )

    def cancel(self, run: Run) -> None:
        """Let the run's code see that it should end."""
        if run.process is not None and run.process.run is run:
            run.process.send(Cancel(run.cancelled or ""))

    def kill(self, run: Run) -> None:
        """End the run's process; `crashed` follows."""
        if run.process is not None and run.process.run is run:
            run.process.kill("it was killed, since it did not end when it was asked to")

    async def close(self) -> None:
        """End all processes now, and wait until the system has taken them (2 s at most)."""
        for process in list(self._all):
            process.end("the pool was closed")
        for turn in range(200):
            if all(process.has_ended() for process in self._all):
                return
            if turn == REAP_PATIENCE:
                for process in list(self._all):
                    process.kill("the pool was closed")
            await self.environment.sleep(REAP_SECONDS)

    def idle(self, process: "CpuProcess") -> None:
        """A process has ended its run."""
        self._idle.append(process)

    def gone(self, process: "CpuProcess") -> None:
        """A process has ended."""
        self._all.discard(process)
        self.retire(process)

    def retire(self, process: "CpuProcess") -> None:
        """A process is about to end: give it nothing more."""
        if process in self._idle:
            self._idle.remove(process)

    def _program(self, run: Run) -> Program:
        name = run.activity.name
        program = self._programs.get(name)
        if program is None:
            function = place_by_name(run.activity.function)
            app = place_of(self._app, first=function.module)
            bare = bare_app(self._app)
            places = [function, app, bare.failure_properties, *(error.place for error in bare.errors)]
            uses_main = any(place is not None and place.module == "__main__" for place in places)
            program = Program(function, app, bare, main_script() if uses_main else None, self._hub)
            self._programs[name] = program
        return program

    def _spawn(self, run: Run) -> "CpuProcess | None":
        try:
            process = CpuProcess(self)
        except OSError as error:
            log.warning("no process for %s: %s", run.what, error)
            how = f"the system gave it no process: {error}"
            self.environment.call_later(0.2, partial(self.crashed, run, how))
            return None
        self._all.add(process)
        return process


class CpuProcess(asyncio.Protocol):
    """One process, and the socket to it.  Raises OSError where the system gives none."""

    def __init__(self, owner: CpuProcesses) -> None:
        self.run: Run | None = None
        self._owner = owner
        self._buffer = bytearray()
        self._outbox: list[bytes] = []
        self._transport: asyncio.WriteTransport | None = None
        self._how: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asked = 0
        ours, theirs = socket.socketpair()
        try:
            arguments = child_arguments(theirs.fileno(), owner.environment.pid())
            self._process = owner.environment.spawn(arguments, theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._socket)

    # -- what the owner does -----------------------------------------------------------------------------

    def start(self, run: Run, work: Work) -> None:
        """Run this now; the process is free."""
        self._set_timer(self._owner.load_seconds, partial(self.kill, self._load_message()))
        self.run = run
        self.send(work)

    def send(self, message: ToProcess) -> None:
        """Say it, as soon as there is a connection."""
        if self._transport is None:
            self._outbox.append(framed(message))
        else:
            self._transport.write(framed(message))

    def end(self, how: str) -> None:
        """End it: one that does nothing leaves what it has open in order, any other is killed."""
        if self.run is not None or self._transport is None:
            self.kill(how)
            return
        self._how = self._how or how
        self._owner.retire(self)
        self._transport.close()  # its socket's end tells it; `_reap` sees that it goes

    def kill(self, how: str) -> None:
        """End it now, for this reason."""
        self._how = self._how or how
        self._owner.retire(self)
        self._kill()
        if self._transport is None:
            self._reap()  # no socket whose end could tell
        else:
            # Its socket's end may not tell either: what the user's code has forked may have it, too.
            self._set_timer(REAP_SECONDS, self._reap)

    def has_ended(self) -> bool:
        """True if the system has taken it."""
        return self._process.poll() is not None

    def _load_message(self) -> str:
        return f"it had not loaded the app within {self._owner.load_seconds:g} s"

    # -- what the socket tells ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ready."""
        # A cast, not a check: uvloop's transports are none of asyncio's classes.
        self._transport = writing = cast(asyncio.WriteTransport, transport)
        for data in self._outbox:
            writing.write(data)
        self._outbox.clear()

    def data_received(self, data: bytes) -> None:
        """The process says something."""
        self._buffer += data
        for body in take_frames(self._buffer):
            try:
                message = from_process.decode(body)
            except msgspec.DecodeError as error:
                self.kill(f"it wrote into Holdtrue's own socket: {error}")
                return
            run = self.run
            if run is None:
                continue
            if type(message) is Began:
                self._set_timer(None, None)
                self._owner.began(run)
            elif type(message) is Sign:
                run.alive(progress=message.progress, details=message.details)
            elif type(message) is Done:
                self._free()
                self._owner.ended(run, message.result, None)
            elif type(message) is Failed:
                self._free()
                self._owner.ended(run, None, message.failure)

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended, or has closed its socket: then it ends now."""
        self._reap()

    # -- its end -----------------------------------------------------------------------------------------

    def _free(self) -> None:
        run, self.run = self.run, None
        if run is not None:
            run.process = None
        if self._how is None:
            self._set_timer(IDLE_SECONDS, partial(self.end, "it was idle"))
            self._owner.idle(self)

    def _reap(self) -> None:
        code = self._process.poll()
        if code is None:
            self._asked += 1
            if self._asked >= REAP_PATIENCE:
                self._kill()
            self._set_timer(REAP_SECONDS, self._reap)
            return
        self._set_timer(None, None)
        if self._transport is not None:
            self._transport.close()
        self._owner.gone(self)
        run, self.run = self.run, None
        if run is not None:
            run.process = None
            self._owner.crashed(run, self._how or exit_in_words(code))

    def _kill(self) -> None:
        try:
            self._process.kill()
        except OSError:
            pass  # it has ended already

    def _set_timer(self, seconds: float | None, call: Callable[[], None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and call is not None:
            self._timer = self._owner.environment.call_later(seconds, call)


def child_arguments(descriptor: int, parent: int) -> list[str]:
    """The arguments of a Python that is an activity process."""
    return python_arguments(f"from holdtrue.engine.cpu_child import main; main({descriptor}, {parent})")


def place_by_name(target: Any) -> Place:
    """Where a function or class says that it stands."""
    return Place(target.__module__, getattr(target, "__qualname__", type(target).__qualname__))


def bare_app(app: Any) -> BareApp:
    """What an app is made from again in a process."""
    return BareApp(
        max_payload=app.max_payload,
        errors=tuple(
            KnownError(place_by_name(known.cls), known.properties, known.non_retriable) for known in app.errors.values()
        ),
        failure_properties=None if app.failure_properties is None else place_by_name(app.failure_properties),
    )


def refuse_host() -> None:
    """Raises RuntimeError in the process of an activity: a script that begins a host whenever it is loaded would
    begin one in each of its own activities' processes."""
    if MAIN_NAME in sys.modules:
        raise RuntimeError(
            "this is the process of a cpu=True activity, in which no host is begun: "
            "put what begins it under `if __name__ == '__main__':`"
        )


def check_app(app: Any) -> None:
    """Raises RegistrationError where a process would find neither the app nor its `failure_properties`."""
    provider = app.failure_properties
    if provider is None or place_of(app, first="__main__") is not None:
        return
    place = place_by_name(provider)
    found: Any = sys.modules.get(place.module)
    for part in place.name.split("."):
        found = getattr(found, part, None)
    if found is not provider:
        raise RegistrationError(
            f"failure_properties of this app is {provider!r}, which the processes of its cpu=True activities cannot "
            "find: make it a function at the top level of a module, or assign the app to a name there"
        )


def place_of(target: Any, *, first: str) -> Place | None:
    """A global name of this object, looked for in that module and then in all others; None if it has none."""
    modules = dict(sys.modules)
    for name in (first, *modules):
        module = modules.get(name)
        for key, value in list(getattr(module, "__dict__", {}).items()):
            if value is target and key.isidentifier():
                return Place(name, key)
    return None


def main_script() -> MainScript | None:
    """How another Python can load what is `__main__` here; None where it cannot (a notebook, a shell)."""
    module = sys.modules.get("__main__")
    spec = getattr(module, "__spec__", None)
    path = getattr(module, "__file__", None)
    if spec is not None and spec.name:
        return MainScript(module=spec.name, path=None)
    if path is not None and os.path.exists(path):
        return MainScript(module=None, path=os.path.abspath(path))
    return None


def exit_in_words(code: int) -> str:
    """An exit code for people: the signal's name where it was one."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (the system kills so when memory runs out)" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    return f"it ended with exit code {code}"
